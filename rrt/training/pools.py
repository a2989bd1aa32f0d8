"""The candidates that a teacher scores (rrt/training/teachers.py): for each query of an image list near ones by global
similarity, random ones, itself, and, in a list of made views, the other views of its photograph."""

from dataclasses import dataclass

import numpy as np

from rrt.rerankers.base import SearchSpace
from rrt.search.exact import search

# Kinds of candidates: the columns of a pool.
NEAR, RANDOM, VIEW, ITSELF = range(4)


@dataclass(frozen=True)
class Pool:
    """Candidates of the queries of a list, all as rows of it: queries int64 [Q]; candidates int32 [Q, P], -1 where
    there is none; kinds int8 [P] of the columns; nearest int32 [Q, k] by falling global similarity."""

    queries: np.ndarray
    candidates: np.ndarray
    kinds: np.ndarray
    nearest: np.ndarray


@dataclass(frozen=True)
class Lesson:
    """A pool and what its teacher wants: targets float32 [Q, P], standardised; NaN where there is no candidate.
    made_from: a digest of the descriptors, the list and the teacher."""

    pool: Pool
    targets: np.ndarray
    made_from: str


def make_pool(space: SearchSpace, views: np.ndarray | None, settings, table: np.ndarray | None = None) -> Pool:
    """The candidates of ``settings.queries`` images of a list. views: of each image the photograph it is a view of,
    None: every image is one of its own. table [N, k]: neighbours by global similarity where they are known.

    The same for the same list and settings: what differs between runs is drawn from it by each of them.
    """
    count = len(space.gallery_index)
    rng = np.random.default_rng(count)
    queries = np.arange(count)
    if settings.queries is not None and settings.queries < count:
        queries = np.sort(rng.choice(count, settings.queries, replace=False))
    owner = np.arange(count) if views is None else views
    siblings = _siblings(owner, queries)
    wanted = settings.nearest + siblings.shape[1]
    if table is None:
        table = search(space.gallery, space.gallery[queries], wanted + 1)[1]
    else:
        table = table[queries]
    nearest = _others(table, owner, queries, settings.nearest)
    near = settings.pool - settings.pool // 2
    columns = np.argsort(rng.random(nearest.shape) + 2 * (nearest < 0), axis=1, kind="stable")[:, :near]
    near = np.take_along_axis(nearest, columns, axis=1)
    others = rng.integers(0, count, (len(queries), settings.pool // 2))
    for _ in range(100):
        wrong = owner[others] == owner[queries, None]
        if not wrong.any():
            break
        others[wrong] = rng.integers(0, count, int(wrong.sum()))
    others[owner[others] == owner[queries, None]] = -1
    kinds = np.repeat([NEAR, RANDOM, VIEW, ITSELF], [near.shape[1], others.shape[1], siblings.shape[1], 1])
    candidates = np.concatenate([near, others, siblings, queries[:, None]], axis=1)
    return Pool(queries, candidates.astype(np.int32), kinds.astype(np.int8), nearest.astype(np.int32))


def _siblings(owner, queries):
    """Other images of each query's photograph [Q, most of them], -1 where there are no more."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], owner[queries])
    counts = np.searchsorted(owner[order], owner[queries], side="right") - starts
    columns = np.arange(counts.max(initial=1))
    found = order[np.minimum(starts[:, None] + columns, len(owner) - 1)]
    found = np.where((columns < counts[:, None]) & (found != queries[:, None]), found, -1)
    # The query itself leaves a gap.
    return np.take_along_axis(found, np.argsort(found < 0, axis=1, kind="stable"), axis=1)[:, :-1]


def _others(table, owner, queries, number):
    """The first ``number`` of each row of neighbours that are of another photograph, -1 where there are no more."""
    order = np.argsort(owner[table] == owner[queries, None], axis=1, kind="stable")[:, :number]
    found = np.take_along_axis(table, order, axis=1)
    return np.where(owner[found] == owner[queries, None], -1, found)
