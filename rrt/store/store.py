"""Reading the descriptor store: an HDF5 file, or a folder of them, per dataset and descriptor version (layout:
rrt/store/schema.py; columns: rrt/store/columns.py and folder.py).
"""

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np

from rrt.errors import InputError
from rrt.files.names import same_text
from rrt.store.columns import StoreFile
from rrt.store.folder import StoreFolder
from rrt.store.records import StoredImage, limited, store_text
from rrt.store.schema import EXTRACT, LOCAL_COLUMNS, damage_named
from rrt.store.skipped import read_skipped
from rrt.store.values import Float32Rows, to_float32


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

    descriptors [m, Dl] in the type the store keeps, but float32 unit rows of a store of int8 or bits; keypoints [m, 2],
    scales [m], attention [m] float32, offsets int64. A column that was not asked for is None.
    """

    offsets: np.ndarray
    descriptors: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    scales: np.ndarray | None = None
    attention: np.ndarray | None = None


class Store:
    """A finished descriptor store, a file or a folder of parts. May be sent to other processes (it is reopened there)
    and used in a `with` block.

    store["jpg/x.jpg"], store["x"] and store[7] are its images, StoredImage; store[[7, 9]] and store[:10] lists of them.
    global_dim, local_dim: descriptor sizes. config: dict of every setting that shaped the numbers. attributes:
    desc_name, model_sha256, software. local_dtype: type of the stored local
    descriptors, one of LOCAL_DTYPES or "bits", whose codes are then a BinaryCodes, else None; global_dtype: of
    the stored global ones; compression: of the local columns, None, "gzip", "lzf" or another that h5py can read.
    Raises InputError when a file is missing, cut short, no store, or unfinished, or parts do not fit together.
    """

    def __init__(self, path):
        self._open(path)
        if not self.path.is_dir():
            _ = self.names  # read now, where a name given twice is found before the work starts

    def _open(self, path):
        self.path = Path(path)
        self._source: Any = StoreFolder(self.path) if self.path.is_dir() else StoreFile(self.path)
        header = self._source.header
        self.global_dim, self.local_dim = header.global_dim, header.local_dim
        self.global_dtype, self.local_dtype = header.global_dtype, header.local_dtype
        self.compression, self.codes = header.compression, header.codes
        self.config, self.attributes = header.config, header.attributes
        self._positions = self._stem_positions = None

    def __reduce__(self):
        return _reopened, (self.path,)

    @cached_property
    def names(self) -> list[str]:
        """Paths of the images, as in the image list they were extracted from."""
        return self._source.names()

    @cached_property
    def image_size(self) -> np.ndarray:
        """int32 [N, 2]: width, height of the image the coordinates belong to."""
        return self._source.column("image_size")[:]

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 [N+1]: image i owns rows offsets[i] to offsets[i+1] of the packed columns."""
        return self._source.column("local/offsets")[:]

    @property
    def size_on_disk(self) -> int:
        """Bytes of its files."""
        return self._source.size

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Let go of the file; a later read opens it again."""
        self._source.close()

    __repr__ = store_text

    def __len__(self):
        return len(self.offsets) - 1

    def __iter__(self):
        return (StoredImage(self, position) for position in range(len(self)))

    def __contains__(self, name):
        try:
            self.index(name)
        except InputError:
            return False
        return True

    @overload
    def __getitem__(self, key: str | SupportsIndex) -> StoredImage: ...
    @overload
    def __getitem__(self, key: slice | Iterable) -> list[StoredImage]: ...
    def __getitem__(self, key):
        """The image of a name (see index()) or index, or a list of images for a slice or several of these.

        Raises InputError for what is not there; so is -1, which searches give for "nothing found".
        """
        if isinstance(key, str):
            return StoredImage(self, self.index(key))
        if isinstance(key, slice):
            return [StoredImage(self, position) for position in range(len(self))[key]]
        try:
            position = operator.index(key)
        except TypeError:
            if not np.iterable(key):
                raise InputError(f"{self.path}: {key!r} is neither a name nor an index of the store") from None
            return [self[each] for each in key]
        if not 0 <= position < len(self):
            raise self._no_such_image(position)
        return StoredImage(self, position)

    @property
    def num_images(self) -> int:
        """N."""
        return len(self)

    @property
    def global_descriptors(self):
        """float32 [N, Dg], unit rows; read-only and mapped from the file where its layout allows, else read once. Of a
        store that keeps halves, a table that gives float32 rows (rrt.store.values.Float32Rows)."""
        return Float32Rows(self._column("global")) if self.global_dtype == "float16" else self._column("global")

    @property
    def local_descriptors(self):
        """[M, Dl] of all images end to end, in the stored type (bits: [M, B / 8]); read-only and mapped from the file
        where possible."""
        return np.asarray(self._column("local/descriptors")[:])

    def index(self, name, source=None):
        """Position of an image by its path, or by its file stem where only one image has it.

        source: the ImageList that asks for it, for the message. Raises InputError when there is no such image.
        """
        if self._positions is None:
            self._positions = {known: position for position, known in enumerate(self.names)}
        position = self._positions.get(name)
        return self._index_by_stem(name, source) if position is None else position

    def indices(self, names, source=None):
        """Positions int64 [n] of several images; see index()."""
        return np.fromiter((self.index(name, source) for name in names), dtype=np.int64, count=len(names))

    def _index_by_stem(self, name, source):
        if self._stem_positions is None:
            self._stem_positions = {}
            for position, known in enumerate(self.names):
                twin = same_text(known)  # a Mac writes letters otherwise
                for key in [_stem(known)] if known.isascii() else {_stem(twin), twin}:
                    self._stem_positions.setdefault(key, []).append(position)
        positions = self._stem_positions.get(same_text(name), [])
        if len(positions) == 1:
            return positions[0]
        asked = f"'{name}'" + (f" ({source.where(name)})" if source is not None else "")
        if positions:
            first, second = (self.names[position] for position in positions[:2])
            raise InputError(f"{self.path}: {asked} may be '{first}' or '{second}'; use the path")
        reasons = {skipped.name: skipped.reason for skipped in read_skipped(self.path)}
        if name in reasons:
            raise InputError(
                f"{self.path}: no descriptors for {asked}, it was skipped: {reasons[name]}; mend the "
                f"image and {EXTRACT}, or take it out of the list"
            )
        raise InputError(f"{self.path}: no descriptors for {asked}; {EXTRACT}")

    def local_counts(self, max_local=None):
        """int64 [N]: local descriptors per image, at most max_local."""
        return _limited(np.diff(self.offsets), max_local)

    def read(self, i, max_local=None):
        """Local descriptors of image i, the max_local of highest attention (all when None)."""
        if not 0 <= i < self.num_images:
            raise self._no_such_image(i)
        start = self.offsets[i]
        end = start + _limited(self.offsets[i + 1] - start, max_local)
        with damage_named(self.path):
            columns = {name: self._column(f"local/{name}")[start:end] for name in LOCAL_COLUMNS}
        return Local(
            self.to_float32(columns.pop("descriptors")), **{name: np.array(rows) for name, rows in columns.items()}
        )

    def path_of(self, index: int):
        """The path of the store that holds an image: its own."""
        return self.path

    def read_packed(self, indices, max_local=None, columns=LOCAL_COLUMNS):
        """Local descriptors of the images `indices` (any order, repeats allowed), at most max_local of each.

        The file is read in its own order; the result has the order asked for. columns: those to read.
        """
        indices = np.asarray(indices, dtype=np.int64)
        outside = (indices < 0) | (indices >= self.num_images)
        if outside.any():
            raise self._no_such_image(indices[outside][0])
        starts = self.offsets[indices]
        counts = _limited(self.offsets[indices + 1] - starts, max_local)
        offsets = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        runs = _copy_runs(starts, counts, offsets)
        gathered: dict[str, Any] = {name: self._gather(f"local/{name}", runs, offsets[-1]) for name in columns}
        if self.local_dtype in ("int8", "bits") and "descriptors" in gathered:
            gathered["descriptors"] = self.to_float32(gathered["descriptors"])
        return Packed(offsets, **gathered)

    def to_float32(self, stored):
        """Local descriptors as this store keeps them, rows of local_rows("descriptors", ...) -> float32 [n, Dl]."""
        return self.codes.decode(stored) if self.codes else to_float32(stored)

    def local_rows(self, name, start, end):
        """Rows start to end of a local column (a name of LOCAL_COLUMNS) as stored."""
        with damage_named(self.path):
            return self._column(f"local/{name}")[start:end]

    def _no_such_image(self, position):
        return InputError(
            f"{self.path}: there is no image {position}, the store holds {self.num_images}; were lists or "
            "neighbours made for another store?"
        )

    def _gather(self, column, runs, num_rows):
        source = self._column(column)
        gathered = np.empty((num_rows, *source.shape[1:]), dtype=source.dtype)
        with damage_named(self.path):
            for start, end, target in runs:
                gathered[target : target + end - start] = source[start:end]
        return gathered

    def _column(self, name):
        return self._source.column(name)


def _reopened(path):
    """The store in another process, without its names, which are large, until they are asked for."""
    store = Store.__new__(Store)
    store._open(path)
    return store


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
    if max_local is not None and (max_local is True or not isinstance(max_local, int | np.integer) or max_local < 0):
        raise InputError(
            f"max_local is {max_local!r}: expected 0 or more local descriptors of an image"
            " (dataset.max_sequence_len, max_train_local)"
        )
    return limited(counts, max_local)


def _stem(name):
    file_name = name.rsplit("/", 1)[-1]
    return file_name.rsplit(".", 1)[0] or file_name
