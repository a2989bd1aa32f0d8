"""Files of NumPy arrays (.npy, .npz), looked at before memory is taken for what they claim to hold. Whatever is wrong
with one is a ValueError, or what zipfile and zlib raise; the caller names the file and the remedy."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

import numpy as np

# Descriptors shrink to nine tenths, positions to a third; only a file made for it grows by more than this when it is
# unpacked. Small arrays may be all zeros.
_LARGEST_EXPANSION = 100
_SMALL = 64_000_000


def load_npz(path: str | Path, wanted: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """{name: array} of an .npz file: those of ``wanted`` that it has, None = all."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        names = [name for name in (members if wanted is None else wanted) if name in members]
        claimed = packed = 0
        for name in names:
            with archive.open(members[name]) as file:
                claimed += _claimed_bytes(file, f"array {name}")
            packed += members[name].compress_size
    if claimed > max(_SMALL, _LARGEST_EXPANSION * packed):
        raise ValueError(f"its arrays claim {claimed:,} bytes, {packed:,} bytes are there")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names}


def load_npy(path: str | Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """The array of an .npy file."""
    with open(path, "rb") as file:
        claimed = _claimed_bytes(file, "the array")
        there = Path(path).stat().st_size - file.tell()
    if claimed > there:
        raise ValueError(f"the array claims {claimed:,} bytes, {there:,} bytes are there")
    return np.load(path, mmap_mode, allow_pickle=False)


def is_npz(path: str | Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _claimed_bytes(file: IO[bytes], what: str) -> int:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{what} has the form {version}, plain arrays have 1.0 or 2.0")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError(f"{what} is of Python objects; save numbers as such, and names with .astype(str)")
    return math.prod(shape) * dtype.itemsize
