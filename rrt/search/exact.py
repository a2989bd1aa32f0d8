"""Exact nearest neighbours by inner product, query expansion and PCA whitening of global descriptors.

Descriptors are float32 rows of unit length, so that the inner product is the cosine similarity.
"""

import numpy as np

from rrt.errors import LARGEST_COUNT, InputError, check_number
from rrt.progress import bar
from rrt.search.whitening import load_whitening
from rrt.store.checked import as_rows, check_table, refuse_not_finite
from rrt.store.linear import l2_normalize
from rrt.store.store import Store

_BLOCK_BYTES = 64 * 2**20
# Queries compared at a time, so that what they are compared with stays in long blocks.
_QUERIES = 1024


def _count(k):
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= LARGEST_COUNT:
        raise InputError(f"k={k!r} neighbours: expected an integer of at least 1")
    return int(k)


def load_globals(store_path, *lists, whitening=None):
    """Global descriptors of the images of each list, from one store -> list of float32 [len(list), D] of unit length.

    lists: ImageList, or None for all images of the store. whitening: path of a file made by tools/learn_whitening.py,
    applied to all. Raises InputError when the store lacks an image (naming the list's line) or a value is not finite.
    """
    whitening = load_whitening(whitening) if whitening else None
    tables = []
    with Store(store_path) as store:
        if not store.global_dim:
            raise InputError(f"{store_path}: holds no global descriptors; import or extract them too")
        for images in lists:
            rows = slice(None) if images is None else store.indices(images.names, images)
            table = np.array(store.global_descriptors[rows], dtype=np.float32)
            refuse_not_finite(store_path, (store if images is None else images).names, table)
            tables.append(whitening.apply(table) if whitening else table)
    return tables


class Nearest:
    """The k largest similarities of each query to gallery rows that come a block at a time.

    similarities float32 [Q, n] falling and inds int64 [Q, n], n = min(k, rows so far); of equal similarities the row of
    the smaller index comes first.
    """

    def __init__(self, num_queries, k):
        self.k = k
        self.similarities = np.empty((num_queries, 0), np.float32)
        self.inds = np.empty((num_queries, 0), np.int64)

    def add(self, similarities, start):
        """Take those, float32 [Q, B] and finite, of the gallery rows start to start + B, which follow on the last
        ones."""
        held, size = self.inds.shape[1], similarities.shape[1]
        if held == self.k:
            # An equal one comes later in the gallery than those that are held.
            wanted = similarities > self.similarities[:, -1:]
        elif size > self.k:
            wanted = similarities >= np.partition(similarities, -self.k, axis=1)[:, -self.k, None]
        else:
            wanted = np.ones(similarities.shape, bool)
        count = min(self.k, held + size)
        grow = ((0, 0), (0, count - held))
        old_similarities, old_inds = self.similarities, self.inds
        self.similarities, self.inds = np.pad(old_similarities, grow), np.pad(old_inds, grow)
        for row in np.flatnonzero(wanted.any(axis=1)):
            indices = np.flatnonzero(wanted[row])
            values = np.concatenate([old_similarities[row], similarities[row, indices]])
            order = np.argsort(-values, kind="stable")[:count]
            self.similarities[row] = values[order]
            self.inds[row] = np.concatenate([old_inds[row], start + indices])[order]


def search(gallery, queries, k=None):
    """The k gallery rows of the largest inner product with each query; k None or too large: all of them, ranked.

    gallery [N, D]: an array of any float type, also one mapped from a file, or rrt.search.rows.DescriptorRows; it is
    read in blocks of 64 MiB and never held whole. queries [Q, D] -> (sims float32 [Q, k] falling, inds int64 [Q, k]).
    Products are float32; equal ones are ordered by index. Memory: three blocks, and 16 bytes for each of Q k results;
    when more than half of the gallery is asked for, N similarities a query. Neighbours of one large table among
    itself, exact in float64: rrt.search.self_search. Raises InputError for sizes that do not fit and rows that are not
    finite.
    """
    queries = as_rows(queries, "queries")
    gallery = gallery if hasattr(gallery, "shape") else np.asarray(gallery, dtype=np.float32)
    check_table(gallery.shape, "gallery")
    if gallery.shape[1] != queries.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} dimensions and the gallery {gallery.shape[1]}; extract both"
            " with the same model"
        )
    refuse_not_finite("queries", range(len(queries)), queries)
    k = len(gallery) if k is None else min(_count(k), len(gallery))
    parts = [_search_block(gallery, queries[start : start + _QUERIES], k) for start in range(0, len(queries), _QUERIES)]
    return tuple(map(np.concatenate, zip(*parts)))


def _search_block(gallery, queries, k):
    count, width = gallery.shape
    step = max(1, _BLOCK_BYTES // (4 * max(width, len(queries))))
    # Keeping the best of every block would cost more than sorting once when most are asked for.
    whole = np.empty((len(queries), count), np.float32) if 2 * k > count else None
    best = Nearest(len(queries), k)
    buffer = None
    for start in bar(range(0, count, step), "searching", "block", passing=True):
        rows = gallery[start : start + step]
        if rows.dtype != np.float32:
            # The same memory again: the system takes longer to find new memory than the numbers to convert.
            buffer = np.empty((min(step, count), width), np.float32) if buffer is None else buffer
            rows = _converted(rows, buffer[: len(rows)])
        similarities = queries @ rows.T
        if not np.isfinite(similarities).all():
            refuse_not_finite("gallery", range(start, start + len(rows)), rows)
        if whole is None:
            best.add(similarities, start)
        else:
            whole[:, start : start + step] = similarities
    if whole is None:
        return best.similarities, best.inds
    inds = np.argsort(-whole, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(whole, inds, axis=1), inds


def _converted(rows, out):
    np.copyto(out, rows, casting="same_kind")
    return out


def query_expansion(queries, gallery, k=2, alpha=0.3):
    """alpha query expansion (aQE, docs/protocol.md 4): queries [Q, D] -> expanded queries [Q, D] of unit length.

    The mean of the query and of its k nearest gallery rows, each weighted by similarity**alpha (the query's own
    similarity is 1; negative similarities count as 0). Search again with the result.
    """
    check_number("aqe_params.alpha", alpha)
    queries = as_rows(queries, "queries")
    gallery = gallery if hasattr(gallery, "shape") else np.asarray(gallery, dtype=np.float32)
    sims, inds = search(gallery, queries, k)
    rows = np.asarray(gallery[inds.ravel()], dtype=np.float32).reshape(*inds.shape, -1)
    return expand(queries, rows, sims, alpha)


def expand(queries, rows, sims, alpha):
    """Unit length of query + sum of max(similarity, 0)**alpha row: queries [Q, D], rows [Q, k, D], sims [Q, k] -> [Q,
    D].

    alpha 0 weights all rows alike.
    """
    weights = np.maximum(sims, 0) ** np.float32(alpha)
    return l2_normalize(queries + np.einsum("qk,qkd->qd", weights, rows))
