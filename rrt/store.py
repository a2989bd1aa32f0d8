"""Reading the descriptor store: one HDF5 file per dataset and descriptor version (layout: rrt/store_schema.py).

Large columns are contiguous and uncompressed in a finished store and are read through memory maps at their place in
the file, so that any number of processes share one copy in the page cache; otherwise through h5py. Nothing of HDF5
stays open between calls except, for the second way, a handle that belongs to the process that reads.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from rrt.errors import InputError
from rrt.store_records import ImageRecord, Skipped
from rrt.store_schema import EXTRACT, LOCAL_COLUMNS, damage_named, open_checked, read_names, read_text
from rrt.store_writer import PartWriter, is_complete, read_skipped, remove_store, write_store

__all__ = ["ImageRecord", "Local", "Packed", "PartWriter", "Skipped", "Store", "is_complete", "read_skipped",
           "remove_store", "write_store"]


@dataclass(frozen=True)
class Local:
    """Local descriptors of one image by falling attention: descriptors float32 [n, Dl], keypoints [n, 2] (x, y in
    pixels), scales [n], attention [n]."""

    descriptors: np.ndarray
    keypoints: np.ndarray
    scales: np.ndarray
    attention: np.ndarray


@dataclass(frozen=True)
class Packed:
    """Local descriptors of several images end to end; image i owns rows offsets[i] to offsets[i+1].

    descriptors [m, Dl] in the type the store keeps, keypoints [m, 2], scales [m], attention [m] float32, offsets int64.
    """

    descriptors: np.ndarray
    keypoints: np.ndarray
    scales: np.ndarray
    attention: np.ndarray
    offsets: np.ndarray


class Store:
    """A finished descriptor store. May be sent to other processes (it is reopened there) and used in a `with` block.

    names: list of N paths. image_size int32 [N, 2] width, height. global_dim, local_dim: descriptor sizes.
    config: dict of every setting that shaped the numbers. attributes: desc_name, model_sha256, software.
    offsets: int64 [N+1], the rows of each image in the packed columns.
    Raises InputError when the file is missing, cut short, no store, or unfinished.
    """

    def __init__(self, path):
        self.path = Path(path)
        with open_checked(self.path) as file, damage_named(self.path):
            self.names = read_names(self.path, file)
            self.image_size = file["image_size"][:]
            self.offsets = file["local/offsets"][:]
            self.global_dim = file["global"].shape[1]
            self.local_dim = file["local/descriptors"].shape[1]
            self.config = _json_dict(read_text(file, "config"))
            self.attributes = {key: read_text(file, key) for key in ("desc_name", "model_sha256", "software")}
            columns = ["global", *(f"local/{column}" for column in LOCAL_COLUMNS)]
            self._layouts = {column: _Layout.of(file[column]) for column in columns}
        self._maps = {}
        self._file, self._file_process = None, None
        self._places = self._stem_places = None

    def __reduce__(self):
        return Store, (self.path,)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Let go of the file; a later read opens it again."""
        self._maps.clear()
        if self._file is not None and self._file_process == os.getpid():
            self._file.close()
        self._file = None

    def __len__(self):
        return len(self.names)

    @property
    def num_images(self):
        return len(self.names)

    @property
    def global_descriptors(self):
        """float32 [N, Dg], unit rows; read-only and mapped from the file where its layout allows."""
        return np.asarray(self._column("global")[:])

    @property
    def local_descriptors(self):
        """[M, Dl] of all images end to end, in the stored type; read-only and mapped from the file where possible."""
        return np.asarray(self._column("local/descriptors")[:])

    def index(self, name, source=None):
        """Position of an image by its path, or by its file stem where only one image has it.

        source: the ImageList that asks for it, for the message. Raises InputError when there is no such image.
        """
        if self._places is None:
            self._places = {known: place for place, known in enumerate(self.names)}
        place = self._places.get(name)
        return self._index_by_stem(name, source) if place is None else place

    def indices(self, names, source=None):
        """Positions int64 [n] of several images; see index()."""
        return np.fromiter((self.index(name, source) for name in names), dtype=np.int64, count=len(names))

    def _index_by_stem(self, name, source):
        if self._stem_places is None:
            self._stem_places = {}
            for place, known in enumerate(self.names):
                self._stem_places.setdefault(_stem(known), []).append(place)
        places = self._stem_places.get(name, [])
        if len(places) == 1:
            return places[0]
        asked = f"'{name}'" + (f" ({source.where(name)})" if source is not None else "")
        if places:
            raise InputError(f"{self.path}: {asked} may be '{self.names[places[0]]}' or '{self.names[places[1]]}'; "
                             "use the path")
        reasons = {skipped.name: skipped.reason for skipped in read_skipped(self.path)}
        if name in reasons:
            raise InputError(f"{self.path}: no descriptors for {asked}, it was skipped: {reasons[name]}; mend the "
                             f"picture and {EXTRACT}, or take it out of the list")
        raise InputError(f"{self.path}: no descriptors for {asked}; {EXTRACT}")

    def local_counts(self, max_local=None):
        """int64 [N]: local descriptors per image, at most max_local."""
        return _limited(np.diff(self.offsets), max_local)

    def read(self, i, max_local=None):
        """Local descriptors of image i, the max_local of highest attention (all when None)."""
        packed = self.read_packed([i], max_local)
        return Local(packed.descriptors.astype(np.float32), packed.keypoints, packed.scales, packed.attention)

    def read_packed(self, indices, max_local=None):
        """Local descriptors of the images `indices` (any order, repeats allowed), at most max_local of each.

        The file is read in its own order; the result has the order asked for.
        """
        indices = np.asarray(indices, dtype=np.int64)
        outside = (indices < 0) | (indices >= self.num_images)
        if outside.any():
            raise InputError(f"{self.path}: there is no image {indices[outside][0]}, the store holds "
                             f"{self.num_images}; were lists or neighbours made for another store?")
        starts = self.offsets[indices]
        counts = _limited(self.offsets[indices + 1] - starts, max_local)
        offsets = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        runs = _copy_runs(starts, counts, offsets)
        columns = {name: self._gather(f"local/{name}", runs, offsets[-1]) for name in LOCAL_COLUMNS}
        return Packed(**columns, offsets=offsets)

    def _gather(self, column, runs, num_rows):
        source = self._column(column)
        gathered = np.empty((num_rows, *source.shape[1:]), dtype=source.dtype)
        with damage_named(self.path):
            for start, end, target in runs:
                gathered[target:target + end - start] = source[start:end]
        return gathered

    def _column(self, name):
        layout = self._layouts[name]
        if name not in self._maps and 0 in layout.shape:
            self._maps[name] = np.empty(layout.shape, layout.dtype)
        if name not in self._maps:
            if layout.offset is None:
                return self._open_file()[name]
            # A plain view on the map: np.memmap's own slicing costs more than copying a short row.
            with damage_named(self.path):
                self._maps[name] = np.asarray(np.memmap(self.path, layout.dtype, "r", layout.offset, layout.shape))
        return self._maps[name]

    def _open_file(self):
        # HDF5 state does not survive a fork: each process opens the file for itself.
        if self._file is None or self._file_process != os.getpid():
            with damage_named(self.path):
                self._file, self._file_process = h5py.File(self.path, "r", locking=False), os.getpid()
        return self._file


@dataclass(frozen=True)
class _Layout:
    """Where a column lies in the file; offset is None when it cannot be mapped."""

    offset: int | None
    dtype: np.dtype
    shape: tuple

    @classmethod
    def of(cls, dataset):
        offset = dataset.id.get_offset()
        if offset is not None and (offset % dataset.dtype.itemsize or not dataset.dtype.isnative):
            offset = None
        return cls(offset, dataset.dtype, dataset.shape)


def _copy_runs(starts, counts, offsets):
    """Row ranges to copy as (start, end, target), in file order; images that follow each other make one range."""
    if len(starts) == 0:
        return []
    ends = starts + counts
    heads = np.flatnonzero(np.concatenate([[True], starts[1:] != ends[:-1]]))
    lasts = np.append(heads[1:], len(starts)) - 1
    order = np.argsort(starts[heads], kind="stable")
    return list(zip(starts[heads][order].tolist(), ends[lasts][order].tolist(), offsets[heads][order].tolist()))


def _limited(counts, max_local):
    if max_local is not None and max_local < 0:
        raise ValueError(f"max_local is {max_local}, expected 0 or more")
    return counts if max_local is None else np.minimum(counts, max_local)


def _stem(name):
    file_name = name.rsplit("/", 1)[-1]
    return file_name.rsplit(".", 1)[0] or file_name


def _json_dict(text):
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
