"""What the methods of global descriptors share: similarities of whole rankings in blocks, and the neighbours of gallery
images among themselves, found once for a search space.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from rrt.errors import InputError
from rrt.progress import bar
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.search.exact import search

_CELLS = 2**25  # of a table held at a time: 128 MiB of float32
_ROWS = 4096  # searched at a time
# Pairs compared from which on the search by a fast first pass (on the GPU, where there is one) is worth its
# preparation.
_MANY_PAIRS = 2**33


def check_globals(space: SearchSpace) -> None:
    """InputError when the store holds no global descriptors."""
    if not space.store.global_dim:
        raise InputError(f"{space.store.path}: holds no global descriptors; import or extract them too")


def kept(space: SearchSpace, key, make):
    """make(), once for this search space and key (hashable); kept as long as the space is."""
    # As cached_property does; a space cannot be the key of a dictionary, its arrays have no hash.
    everything = vars(space).setdefault("_kept", {})
    if key not in everything:
        everything[key] = make()
    return everything[key]


def kept_rows(space: SearchSpace, method, lists: list[np.ndarray], make) -> tuple[np.ndarray, Any]:
    """(Rising gallery positions [n] with all candidates of the lists, make(space, positions)): the whole gallery where
    the ``method`` has prepared that or the candidates are most of it."""
    rows = np.unique(np.concatenate(lists))
    if is_kept(space, method) or 2 * len(rows) > len(space.gallery):
        method.prepare(space)
        return np.arange(len(space.gallery)), kept(space, method, None)
    return rows, make(space, rows)


def is_kept(space: SearchSpace, key) -> bool:
    """Whether ``kept`` has made something for this key already."""
    return key in vars(space).get("_kept", {})


def similarities(space: SearchSpace, vectors: np.ndarray, shortlists: list[Shortlist]) -> list[np.ndarray]:
    """Inner products, float32 [n] for each shortlist, of its vector (row of vectors [len(shortlists), D]) with its
    candidates."""
    gallery, found = space.gallery, []
    step = max(1, _CELLS // len(gallery))
    for start in range(0, len(shortlists), step):
        part = slice(start, start + step)
        lists = [shortlist.candidates for shortlist in shortlists[part]]
        # One product with everything is faster than gathering much of it for each query.
        if 4 * sum(map(len, lists)) > len(lists) * len(gallery):
            table = vectors[part] @ gallery.T
            found.extend(row[candidates] for row, candidates in zip(table, lists))
        else:
            found.extend(_gathered(gallery, vector, candidates) for vector, candidates in zip(vectors[part], lists))
    return found


def _gathered(gallery, vector, candidates):
    products = np.empty(len(candidates), np.float32)
    step = max(1, _CELLS // gallery.shape[1])
    for start in range(0, len(candidates), step):
        products[start : start + step] = gallery[candidates[start : start + step]] @ vector
    return products


def nearest_others(table: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of table [N, D] most similar to each of its rows ``rows`` [n], itself left out (not its duplicates).

    Returns similarities float32 [n, k'] falling and indices int64 [n, k'], k' = min(k, N - 1).
    """
    k = min(k, len(table) - 1)
    if k < 1 or not len(rows):
        return np.empty((len(rows), max(k, 0)), np.float32), np.empty((len(rows), max(k, 0)), np.int64)
    sims, inds = search(table, table[rows], k + 1)
    others = inds != rows[:, None]
    # Among more than k duplicates the row itself may be missing.
    others[others.all(axis=1), -1] = False
    return sims[others].reshape(-1, k), inds[others].reshape(-1, k)


def gallery_neighbours(space: SearchSpace, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """nearest_others() of the gallery images ``rows`` in the whole gallery; what was found before is not searched
    again.

    Returns similarities float32 [n, k'] and gallery positions int32 [n, k'].
    """
    neighbours = kept(space, "neighbours", lambda: _Neighbours(space.gallery))
    return neighbours.of(rows, k)


class _Neighbours:
    """The k nearest others of those gallery images that were asked for so far."""

    def __init__(self, gallery):
        self.gallery = gallery
        self._start(1)

    def of(self, rows, k):
        k = min(k, len(self.gallery) - 1)
        if k > self.inds.shape[1]:
            self._start(k)
        self._find(np.unique(rows[~self.known[rows]]))
        return self.sims[rows, :k], self.inds[rows, :k]

    def _start(self, k):
        shape = (len(self.gallery), min(k, len(self.gallery) - 1))
        self.sims, self.inds = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        self.known = np.zeros(len(self.gallery), bool)

    def _find(self, rows):
        k = self.inds.shape[1]
        if k and len(rows) * len(self.gallery) > _MANY_PAIRS:
            self._find_many(rows, k)
        else:
            for block in _blocks(rows, "neighbours"):
                self.sims[block], self.inds[block] = nearest_others(self.gallery, block, k)
        self.known[rows] = True

    def _find_many(self, rows, k):
        from rrt.search.self_search import SelfSearch  # loads torch

        with (
            TemporaryDirectory() as folder,
            bar(
                what="neighbours",
                total=1.0,
                passing=True,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]",
            ) as shown,
        ):
            self.inds[rows] = SelfSearch(self.gallery, k, Path(folder)).search(rows, shown.update)
        for block in _blocks(rows, "similarities"):
            for rank in range(k):
                self.sims[block, rank] = pair_similarities(self.gallery, block, self.inds[block, rank])


def pair_similarities(gallery: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Inner products float32 [n] of the gallery rows first[i] and second[i]."""
    products = np.empty(len(first), np.float32)
    step = max(1, _CELLS // (2 * gallery.shape[1]))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        products[part] = np.vecdot(gallery[first[part]], gallery[second[part]])
    return products


def sparse_rows(inds: np.ndarray, values: np.ndarray | np.floating, columns: int) -> csr_array:
    """The sparse matrix [n, columns] with values[i, j] (or one value for all) in row i and column inds[i, j]."""
    values = np.broadcast_to(values, inds.shape).flatten()
    starts = np.arange(len(inds) + 1) * inds.shape[1]
    # Copies: sparse matrices sort and drop their entries in place.
    return csr_array((values, inds.flatten(), starts), shape=(len(inds), columns))


def _blocks(rows, what):
    blocks = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    return bar(blocks, what, "block", passing=True)
