"""The columns of one store file: mapped where their layout allows, else read through h5py.

Large columns are contiguous and uncompressed in a finished store and are read through memory maps at their offset in
the file, so that any number of processes share one copy in the page cache; compressed ones through h5py. Nothing of
HDF5 stays open between calls except, for the second way, a handle that belongs to the process that reads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrt.files.hdf5 import open_hdf5
from rrt.store.binary_codes import BinaryCodes
from rrt.store.schema import (
    COLUMNS,
    SCHEMA,
    damage_named,
    dataset,
    open_checked,
    read_codes,
    read_config,
    read_names,
    read_text,
)


@dataclass(frozen=True)
class Header:
    """What is known of a store before any of its rows is read; see rrt.store.store.Store."""

    global_dim: int
    local_dim: int
    global_dtype: str
    local_dtype: str
    compression: str | None
    codes: BinaryCodes | None
    config: dict
    attributes: dict[str, str]


@dataclass(frozen=True)
class Layout:
    """Where a column lies in its file; offset is None when it cannot be mapped."""

    offset: int | None
    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, found) -> Layout:
        """The layout of an open h5py dataset."""
        offset = found.id.get_offset()
        if offset is not None and (offset % found.dtype.alignment or not found.dtype.isnative or found.dtype.hasobject):
            offset = None
        return cls(offset, found.dtype, found.shape)


def read_header(path: Path, file) -> tuple[Header, dict[str, Layout]]:
    """(what an open and checked file says of its store, the layout of each column)."""
    descriptors, codes = dataset(file, "local/descriptors"), read_codes(path, file)
    header = Header(
        dataset(file, "global").shape[1],
        codes.dim if codes else descriptors.shape[1],
        dataset(file, "global").dtype.name,
        "bits" if codes else descriptors.dtype.name,
        descriptors.compression,
        codes,
        read_config(file),
        {key: read_text(file, key) for key in ("desc_name", "model_sha256", "software")},
    )
    return header, {column: Layout.of(dataset(file, column)) for column in COLUMNS}


class StoreFile:
    """A store file; ``layouts``: those that an earlier opening found, so that HDF5 need not look at it again. Raises
    InputError naming the file."""

    def __init__(self, path: Path, layouts: dict[str, Layout] | None = None):
        self.path = path
        self._maps: dict[str, Any] = {}
        self._file, self._file_process, self._datasets = None, None, {}
        if layouts is None:
            with open_checked(path, SCHEMA) as file, damage_named(path):
                self.header, layouts = read_header(path, file)
                for name in ("image_size", "local/offsets"):
                    self._maps[name] = dataset(file, name)[:]
        self.layouts = layouts

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size

    def names(self) -> list[str]:
        """Paths of the images; InputError when one is there twice."""
        with open_hdf5(self.path) as file:
            return read_names(self.path, file)

    def close(self) -> None:
        """Let go of the file; a later read opens it again."""
        self._maps.clear()
        self._datasets.clear()
        if self._file is not None and self._file_process == os.getpid():
            self._file.close()
        self._file = None

    def column(self, name: str) -> Any:
        """The column as an array mapped from the file, or the h5py dataset where it cannot be mapped."""
        column = self._maps.get(name)
        return self._open_column(name) if column is None else column

    def _open_column(self, name):
        layout = self.layouts[name]
        if 0 in layout.shape:
            column = np.empty(layout.shape, layout.dtype)
        elif layout.offset is not None:
            # A plain view on the map: np.memmap's own slicing costs more than copying a short row.
            with damage_named(self.path):
                column = np.asarray(np.memmap(self.path, layout.dtype, "r", layout.offset, layout.shape))
        elif name == "global":
            # Asked for row by row by some and as a whole by others: h5py would be slow for the one, wasteful for all.
            with damage_named(self.path):
                column = self._dataset(name)[:]
            column.flags.writeable = False
        else:
            return self._dataset(name)
        self._maps[name] = column
        return column

    def _dataset(self, name):
        # HDF5 state does not survive a fork: each process opens the file for itself. Datasets stay open, because their
        # cache of unpacked chunks goes with them.
        with damage_named(self.path):
            if self._file is None or self._file_process != os.getpid():
                self._file, self._file_process = open_hdf5(self.path), os.getpid()
                self._datasets = {}
            if name not in self._datasets:
                self._datasets[name] = dataset(self._file, name)
            return self._datasets[name]
