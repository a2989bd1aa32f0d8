"""A gallery enlarged by the images of a second store, which are right for no query (as R1M in the Revisited protocol).

The distractors are compared with the queries in the space in which the gallery was ranked, a block of their table at a
time, and merged into the rankings by similarity. What lies behind a query's last graded image changes no measure
(nothing right comes after it) and is cut off, so that a million distractors cost memory for those alone that matter.
"""

from dataclasses import replace

import numpy as np

from rrt.datasets.sets import TestSet, check_same_network
from rrt.errors import InputError
from rrt.formats.ground_truth import grades_of
from rrt.progress import bar
from rrt.search.exact import Nearest
from rrt.store.checked import check_finite, not_finite
from rrt.store.joined import JoinedStore
from rrt.store.store import Store

_BLOCK_BYTES = 64 * 2**20
# Similarities computed again differ from those of the search by rounding; query expansion or whitening move more.
_ROUNDING = 1e-4


def add_distractors(
    test: TestSet, path, num_rerank: int = 0, whitening=None, max_local: int | None = None, block: int | None = None
) -> TestSet:
    """The test set whose gallery has every image of the store at ``path`` behind its own G images.

    Distractor i has gallery position G + i. num_rerank: the shortlists that rankings must be long enough for;
    whitening: the ``rrt.search.whitening.Whitening`` the neighbours were made with, None = none; max_local: of the
    local descriptors that are checked; block: distractors compared at a time, None = 64 MiB of them.
    The result's ranks, int32 [Q, R], are cut behind the last graded image of a query, or later where the shortlists
    need it, and filled up with -1. Memory: about 16 bytes for each distractor that stays in a ranking.
    Raises InputError when sizes, names or networks do not fit together, for NaN, and for neighbours that are not
    ordered by the similarities of the test set's own descriptors (by query expansion, or by another whitening): these
    can be compared with no similarity of a distractor.
    """
    store = Store(path)
    joined = JoinedStore(test.store, store)
    listed = set(test.images.query.names).union(test.images.gallery.names).intersection(store.names)
    if listed:
        raise InputError(
            f"{store.path}: the distractor '{min(listed)}' is an image of the test set {test.folder}; take it out"
        )
    check_same_network(store, test.store)
    block = block or max(1, _BLOCK_BYTES // (4 * store.global_dim))
    prepare = whitening.apply if whitening is not None else np.asarray
    queries = prepare(test.store.global_descriptors[test.query_index])
    similarities = _listed_similarities(test, queries, prepare, block)
    graded = [np.concatenate([entry[grade] for grade in grades_of(entry)]) for entry in test.gnd]
    last = [_last_rank(row, positions) for row, positions in zip(test.ranks, graded)]
    # What a protocol ignores goes behind the shortlist, so that the shortlist reaches so much further.
    depth = max(1, num_rerank + max(map(len, graded), default=0))
    floors = np.array([row[rank] if rank >= 0 else np.inf for row, rank in zip(similarities, last)])
    near, top_similarities, top = _similar_distractors(store, queries, prepare, floors, min(depth, len(store)), block)
    check_finite(store, np.unique(top), max_local)
    num_gallery, rows = len(test.gallery_index), []
    for row in range(len(queries)):
        far = top_similarities[row] <= floors[row]
        values = np.concatenate([similarities[row], near[row][0], top_similarities[row][far]])
        positions = np.concatenate([test.ranks[row], num_gallery + near[row][1], num_gallery + top[row][far]])
        # Stable: of equal similarities the gallery comes first, then the distractors in their store's order.
        order = np.argsort(-values, kind="stable")
        end = int(np.flatnonzero(order == last[row])[0]) + 1 if last[row] >= 0 else 0
        rows.append(positions[order[: max(end, depth)]].astype(np.int32))
        near[row] = ()  # its memory
    ranks = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for row, positions in enumerate(rows):
        ranks[row, : len(positions)] = positions
    gallery_index = np.concatenate([test.gallery_index, len(test.store) + np.arange(len(store))])
    return replace(test, store=joined, gallery_index=gallery_index, ranks=ranks)


def _listed_similarities(test, queries, prepare, block):
    """float32 [Q, R]: of each query with the gallery images its ranking lists, falling. InputError where they rise."""
    table = np.empty((len(queries), len(test.gallery_index)), np.float32)
    for start in range(0, table.shape[1], block):
        rows = test.gallery_index[start : start + block]
        table[:, start : start + block] = queries @ prepare(test.store.global_descriptors[rows]).T
    listed = np.take_along_axis(table, test.ranks, axis=1)
    falling = np.minimum.accumulate(listed, axis=1)
    if np.any(listed - falling > _ROUNDING):
        query = test.images.query.names[int(np.argmax((listed - falling).max(axis=1)))]
        raise InputError(
            f"{test.folder}: the neighbours of '{query}' are not ordered by the similarities of {test.store.path}, so"
            " that distractors have no place among them; give the whitening= they were made with, or make them again"
            " with tools/prepare_topk_revisited.py, without query expansion"
        )
    return falling


def _last_rank(ranked, positions):
    """Rank of the last of the positions in the ranking, -1 when none is listed."""
    ranks = np.flatnonzero(np.isin(ranked, positions))
    return int(ranks[-1]) if len(ranks) else -1


def _similar_distractors(store, queries, prepare, floors, count, block):
    """For each query (similarities float32, images of the store) of all distractors above its floor; and similarities
    and images [Q, count] of its ``count`` most similar ones, falling."""
    above = [[] for _ in queries]
    top = Nearest(len(queries), count)
    for start in bar(range(0, len(store), block), "distractors", "block"):
        descriptors = np.asarray(store.global_descriptors[start : start + block], dtype=np.float32)
        finite = np.isfinite(descriptors).all(axis=1)
        if not finite.all():
            raise not_finite(store, start + int(np.argmin(finite)), "global descriptor")
        similarities = (queries @ prepare(descriptors).T).astype(np.float32, copy=False)
        for row, found in enumerate(similarities > floors[:, None]):
            columns = np.flatnonzero(found)
            above[row].append((similarities[row, columns], (start + columns).astype(np.int32)))
        top.add(similarities, start)
    return [tuple(map(np.concatenate, zip(*pieces))) for pieces in above], top.similarities, top.inds
