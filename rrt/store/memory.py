"""Descriptors in memory that are read like those of a store: of images that lie in no file, or in several."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.store.records import ImageRecord, StoredImage, packed_columns, shaped_record
from rrt.store.store import Store


class MemoryStore(Store):
    """A store without a file, for ``rrt.Scorer`` and ``rrt.Retriever``; everything that reads a Store reads it.

    global_descriptors [N, Dg]; local_descriptors: for each image a table [n, Dl], the most important first, n may be 0,
    None = none of any image; scales: for each image [n], 1 / image scale as DELG has it, None = 1 for all. Arrays or
    tensors. names: by default ``image 0``, ``image 1``, ... local_dim: Dl in case that no image has local descriptors.
    Kept as float32, rows scaled to unit length. Raises InputError for shapes that do not fit together and for values
    that are not finite.
    """

    def __init__(self, global_descriptors: Any, local_descriptors=None, scales=None, names=None, local_dim=0):
        if not hasattr(global_descriptors, "__len__"):
            raise InputError(f"memory: {global_descriptors!r}: expected global descriptors [N, Dg]")
        count = len(global_descriptors)
        local_descriptors = [np.empty((0, local_dim))] * count if local_descriptors is None else local_descriptors
        scales = [None] * count if scales is None else scales
        names = [f"image {i}" for i in range(count)] if names is None else list(names)
        columns = {"tables of local descriptors": local_descriptors, "rows of scales": scales, "names": names}
        for what, given in columns.items():
            if len(given) != count:
                raise InputError(f"memory: {len(given)} {what} for {count} global descriptors; give one for each image")
        self._fill(map(_as_record, names, global_descriptors, local_descriptors, scales), local_dim)

    @classmethod
    def of(cls, images: Iterable[ImageRecord | StoredImage], local_dim=0) -> "MemoryStore":
        """From ImageRecords and images of stores (``store[name]``), which are read; the same may be there twice."""
        store = cls.__new__(cls)
        store._fill(images, local_dim)
        return store

    def _fill(self, records, local_dim):
        self.path = "memory"
        records = [shaped_record(self.path, record) for record in records]
        # The conversion of a store that is written, so that a reranker sees the same numbers.
        columns = packed_columns(self.path, records, "float32")
        if not columns["local/descriptors"].shape[1]:
            columns["local/descriptors"] = np.empty((0, local_dim), np.float32)
        self.names = [record.name for record in records]
        self.image_size, self.offsets = columns["image_size"], columns["local/offsets"]
        self.global_dim, self.local_dim = columns["global"].shape[1], columns["local/descriptors"].shape[1]
        self.config, self.attributes = {}, {"desc_name": "", "model_sha256": "", "software": ""}
        self.local_dtype = self.global_dtype = "float32"
        self.compression = self.codes = None
        self._source = _Columns(columns)
        self._positions = self._stem_positions = None

    def __reduce__(self):
        return _restored, (vars(self),)

    def close(self):
        """Nothing is open."""


class _Columns:
    """Columns in memory, read like those of rrt.store.columns.StoreFile."""

    size = 0

    def __init__(self, columns):
        self._columns = columns

    def column(self, name):
        return self._columns[name]


Image = StoredImage | ImageRecord


def checked_images(images: Iterable[Image]) -> list[Image]:
    """A list of images, ``store[...]`` or ImageRecords. Raises InputError for anything else."""
    if isinstance(images, Image | str) or not np.iterable(images):
        raise InputError(f"{images!r}: expected a list of candidates; for one pair there is score(a, b)")
    images = list(images)
    for image in images:
        if not isinstance(image, Image):
            kind = f"a {type(image).__name__}" if np.iterable(image) and not isinstance(image, str) else repr(image)
            raise InputError(f"{kind} is no image: give store[...] of an rrt.Store, or an rrt.ImageRecord")
    return images


def as_store(images: list[Image], local_dim=0) -> tuple[Store, np.ndarray]:
    """(A store that holds these images, index int64 [n] of each in it): their own where they are all of one."""
    stored = [image for image in images if isinstance(image, StoredImage)]
    stores = {id(image.store): image.store for image in stored}
    if len(stores) == 1 and len(stored) == len(images):
        (store,) = stores.values()
        return store, np.array([image.index for image in stored], np.int64)
    return MemoryStore.of(images, local_dim), np.arange(len(images))


def _restored(state):
    store = MemoryStore.__new__(MemoryStore)
    vars(store).update(state)
    return store


def _as_record(name, global_, descriptors, scales):
    descriptors = _as_array(descriptors)
    count = len(descriptors)
    scales = np.ones(count, np.float32) if scales is None else _as_array(scales)
    # Neither image size, keypoints nor attention are looked at; equal attention keeps the order given.
    return ImageRecord(name, (1, 1), _as_array(global_), descriptors, np.zeros((count, 2)), scales, np.zeros(count))


def _as_array(values):
    # Tensors of a GPU, of bfloat16 or with a gradient do not convert by themselves.
    return values.detach().float().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
