"""This project's weight files, looked at without TensorFlow (layout: weights.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from rrt.errors import InputError
from rrt.files.atomic import parse_json
from rrt.files.hdf5 import damage_named, find_item, open_hdf5

SCHEMA = "delg-weights"
_REMEDY = "copy or download it again"


@contextmanager
def open_weight_file(path: str | Path) -> Iterator[h5py.File]:
    """The open file, for a `with` block. Raises InputError when it is missing, damaged or another kind of file, also
    where that shows in the block."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such weight file; give the path of a .h5 file written by delg_extract/train.py")
    with damage_named(path, "not a readable HDF5 file", _REMEDY), open_hdf5(path) as file:
        if file.attrs.get("schema") != SCHEMA:
            raise InputError(
                f"{path}: not a weight file of this project (no schema {SCHEMA!r}); "
                "ImageNet files go to --imagenet_checkpoint"
            )
        yield file


def read_settings(path: str | Path) -> dict:
    """The settings stored in a weight file of this project."""
    with open_weight_file(path) as file:
        try:
            settings = parse_json(str(file.attrs["settings"]))
        except (KeyError, ValueError):
            settings = None
        if not isinstance(settings, dict):
            raise InputError(f"{path}: its settings cannot be read; {_REMEDY}")
        return settings


def local_depth(path: str | Path) -> int:
    """The size of the local descriptors that the network of a weight file gives."""
    with open_weight_file(path) as file:
        for layer, axis in (("autoenc_conv1", -1), ("attn_conv1", -2)):
            kernel = find_item(file, f"{layer}/kernel")
            if isinstance(kernel, h5py.Dataset) and kernel.ndim == 4:
                return kernel.shape[axis]
    raise InputError(f"{path}: lacks variable 'attn_conv1/kernel'; {_REMEDY}")
