"""Descriptors of a store read and refused where they are not finite, and tables of global descriptors checked."""

import numpy as np

from rrt.errors import InputError
from rrt.progress import bar
from rrt.store.store import Store
from rrt.store.values import all_finite, as_float32

_IMAGES_PER_BLOCK = 512
# Images whose local descriptors are in memory at a time, a thousand an image.
_SAMPLED_PER_BLOCK = 64


def check_finite(store: Store, indices: np.ndarray, max_local: int | None = None) -> None:
    """InputError naming the first of the images whose global or local descriptors are not all finite numbers."""
    for start in range(0, len(indices), _IMAGES_PER_BLOCK):
        block = indices[start : start + _IMAGES_PER_BLOCK]
        read_globals(store, block)
        read_descriptors(store, block, max_local)


def read_globals(store, indices: np.ndarray) -> np.ndarray:
    """Global descriptors float32 [n, Dg] of the images; InputError for NaN or infinity in them."""
    rows = np.asarray(store.global_descriptors[indices], dtype=np.float32)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise not_finite(store, indices[np.argmax(bad)], "global descriptor")
    return rows


def read_descriptors(store, indices: np.ndarray, max_local: int | None, more: tuple[str, ...] = ()):
    """``store.read_packed`` of the local descriptors, in the type it keeps, of their scales and of the columns
    ``more``; others are None. InputError for NaN or infinity in the descriptors, and in the keypoints if read."""
    packed = store.read_packed(indices, max_local, ("descriptors", "scales", *more))
    if not all_finite(packed.descriptors):
        raise not_finite(store, _owner(packed, indices, packed.descriptors), "local descriptors")
    if packed.keypoints is not None and not np.isfinite(packed.keypoints).all():
        raise not_finite(store, _owner(packed, indices, packed.keypoints), "keypoints")
    return packed


def _owner(packed, indices, rows):
    """The image, one of the indices that were read, of the first of the rows [m, D] that is not finite."""
    row = int(np.argmin(np.isfinite(rows).all(axis=1)))
    return indices[np.searchsorted(packed.offsets, row, side="right") - 1]


def not_finite(store, index: int, what: str) -> InputError:
    """The error of an image of the store whose numbers (``what`` of them) are not finite."""
    path, name = store.path_of(int(index)), store.names[int(index)]
    return InputError(f"{path}: {what} of '{name}' hold NaN or infinity; extract the image again")


def as_rows(x, what: str) -> np.ndarray:
    """x as float32 [N, D] in one piece of memory; see check_table()."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    check_table(x.shape, what)
    return x


def check_table(shape, what: str) -> None:
    """InputError unless the shape is that of a table with at least one row; what: its name in the message."""
    if len(shape) != 2 or not shape[0]:
        raise InputError(f"{what}: descriptors of shape {shape}; expected a table [images, dimensions], not empty")


def refuse_not_finite(path, names, table):
    """InputError naming the first of `names` [n] whose row of table [n, D] holds a number that is not finite."""
    broken = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(broken):
        raise InputError(f"{path}: the global descriptor of '{names[broken[0]]}' is not finite; extract it again")


def sample_descriptors(store, count: int, images=None, seed: int = 0) -> np.ndarray:
    """float32 [min(count, all), D]: local descriptors of a store's images (None: all) in stored order, a random choice
    among all of them. Reads image after image: memory for the result and a block."""
    images = np.arange(len(store)) if images is None else np.asarray(images, np.int64)
    counts = store.local_counts()[images] if len(images) else np.empty(0, np.int64)
    total = int(counts.sum())
    if not total:
        raise InputError(f"{store.path}: holds no local descriptors; import or extract them too")
    chosen = np.arange(total)
    if count < total:
        chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    rows = np.empty((len(chosen), store.local_dim), np.float32)
    start = filled = 0
    for first in bar(range(0, len(images), _SAMPLED_PER_BLOCK), "reading descriptors", "block", passing=True):
        block = slice(first, first + _SAMPLED_PER_BLOCK)
        end = start + int(counts[block].sum())
        wanted = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)] - start
        if len(wanted):
            found = read_descriptors(store, images[block], None).descriptors
            rows[filled : filled + len(wanted)] = as_float32(found[wanted])
        start, filled = end, filled + len(wanted)
    return rows
