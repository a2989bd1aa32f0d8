"""A list's global descriptors read in blocks: more than fit in memory, from the memory-mapped column of a store.

Training sets of millions of images are searched, hashed and checked through these rows without reading them whole.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rrt.files.atomic import take_room
from rrt.progress import bar
from rrt.search.whitening import load_whitening
from rrt.store.checked import refuse_not_finite

ROWS_PER_BLOCK = 4096


class DescriptorRows:
    """Rows [N, D] of a table by slice or by array of numbers, float32 and contiguous; those of ``index`` alone when
    given. Slices of a table that is float32, contiguous and taken whole are views.

    whitening: rrt.search.whitening.Whitening applied to rows as they are read; for rows that are read once or twice.
    """

    def __init__(self, table, index=None, whitening=None):
        self._table, self._index = table, index
        if index is not None and len(index) and (np.diff(index) == 1).all():
            self._table, self._index = table[index[0] : index[0] + len(index)], None
        self._whitening = whitening
        width = whitening.projection.shape[1] if whitening else table.shape[1]
        self.shape = (len(table) if index is None else len(index), width)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        rows = self._table[key if self._index is None else self._index[key]]
        if self._whitening:
            # One row given by its number has one dimension.
            return self._whitening.apply(np.atleast_2d(rows)).reshape(*rows.shape[:-1], -1)
        return np.ascontiguousarray(rows, dtype=np.float32)

    def take(self, numbers, out):
        """The rows `numbers` at the head of out, float32 [at least n, D] -> that part of it. To use memory
        again takes a fifth of the time of new memory, which the system must find and clear first."""
        out = out[: len(numbers)]
        if self._whitening or not isinstance(self._table, np.ndarray) or self._table.dtype != np.float32:
            out[:] = self[numbers]
            return out
        # "clip" alone writes to `out` directly; no number is outside.
        numbers = numbers if self._index is None else self._index[numbers]
        return np.take(self._table, numbers, axis=0, out=out, mode="clip")

    def blocks(self, size=ROWS_PER_BLOCK):
        """Slices of at most `size` rows, in order."""
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]

    def shown_blocks(self, what):
        """blocks(), with a progress bar where they take long."""
        return bar(self.blocks(), what, "block", passing=True)


@dataclass(frozen=True)
class RowsSummary:
    """What one pass over all rows finds. sha256: of their content and order; first_equal int64 [N]: the first row with
    the very bytes of each row (itself, mostly); longest: the largest length of a row, or up to 0.1 % more."""

    sha256: str
    first_equal: np.ndarray
    longest: float


def listed_rows(store, images, whitening=None):
    """DescriptorRows of the ImageList `images` in an open store, whitened (a Whitening, or None) as they are read.

    Raises InputError when the store lacks an image, a descriptor is not finite, or the whitening does not fit.
    """
    index = store.indices(images.names, images)
    rows = DescriptorRows(store.global_descriptors, index)
    if whitening:
        whitening.apply(rows[:1])
    for block in rows.shown_blocks("checking descriptors"):
        refuse_not_finite(store.path, images.names[block], rows[block])
    return DescriptorRows(store.global_descriptors, index, whitening)


def open_rows(store, images, whitening, folder):
    """DescriptorRows of the ImageList `images` in an open store.

    whitening: path of a file of tools/learn_whitening.py, or None. Whitened rows are written once to
    folder/whitened.npy (4 N d bytes), because every row is read once a block of queries. Raises InputError when the
    store lacks an image or the whitening does not fit.
    """
    index = store.indices(images.names, images)
    rows = DescriptorRows(store.global_descriptors, index)
    if not whitening:
        return rows
    whitening = load_whitening(whitening)
    # Before anything is written: a whitening for another dimension is refused here.
    width = whitening.apply(rows[:1]).shape[1]
    folder.mkdir(parents=True, exist_ok=True)
    table = np.lib.format.open_memmap(folder / "whitened.npy", "w+", np.float32, (len(rows), width))
    take_room(folder / "whitened.npy")
    for block in rows.shown_blocks("whitening"):
        raw = rows[block]
        refuse_not_finite(store.path, images.names[block], raw)
        table[block] = whitening.apply(raw)
    return DescriptorRows(table)


def summarize_rows(rows, path="descriptors", names=None):
    """RowsSummary of all rows. Raises InputError naming `path` and the image (of `names`) whose row is not finite."""
    digests = np.empty((len(rows), 2), dtype=np.uint64)
    longest = 0.0

    def digest(first):
        for number, row in enumerate(block[first : first + 256], start + first):
            digests[number] = np.frombuffer(hashlib.sha256(row).digest(), np.uint64, 2)

    with ThreadPoolExecutor() as threads:
        for part in rows.shown_blocks("reading descriptors"):
            start, block = part.start, rows[part]
            squares = np.vecdot(block, block)
            if not np.isfinite(squares).all():
                refuse_not_finite(path, range(len(rows))[part] if names is None else names[part], block)
                squares = np.vecdot(block.astype(np.float64), block.astype(np.float64))
            # A little more than float32 sums of so many squares can err.
            longest = max(longest, float(np.sqrt(squares.max() * (1 + (rows.shape[1] + 2) * 2.0**-24))))
            list(threads.map(digest, range(0, len(block), 256)))
    _, first, index = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    whole = hashlib.sha256(f"{rows.shape[1]} ".encode())
    whole.update(digests.data)
    return RowsSummary(whole.hexdigest(), first[index.ravel()], longest)
