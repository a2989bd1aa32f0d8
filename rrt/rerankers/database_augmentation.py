"""Database augmentation: every gallery descriptor is replaced by a weighted mean of itself and its neighbours.

Turcot, Lowe: Better matching with fewer features, ICCV workshops 2009; Arandjelovic, Zisserman: Three things everyone
should know to improve object retrieval, CVPR 2012 (all weights 1); Gordo, Almazan, Revaud, Larlus: End-to-end learning
of deep visual representations for image retrieval, IJCV 2017 (weights by rank). With x_(1)..x_(k) the nearest other
images of a gallery image x = x_(0):

    x' = sum_r w_r x_(r) / |...|      w_r = (k + 1 - r) / (k + 1)  (rank),  max(x . x_(r), 0)**alpha  (similarity)
    score(x) = q' . x'                q' = (q + sum_i max(q . x'_i, 0)**query_alpha x'_i) / |...|

where q' is the query expanded by the augmented descriptors of the first query_k candidates (0: q' = q). As a product of
sparse weights W, [N, N] with k + 1 entries in a row, and descriptors X, X' = W X, so that the scores of all images are
W (X q') and no second table of descriptors is needed.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array, vstack

from rrt.command_line.settings import Count, NotNegative, settings
from rrt.rerankers.aqe import expanded_queries
from rrt.rerankers.base import RerankMethod, SearchSpace
from rrt.rerankers.gallery import check_globals, gallery_neighbours, kept, kept_rows, sparse_rows

_ROWS = 4096
_CELLS = 2**25


@settings()
class DatabaseAugmentation(RerankMethod):
    """k: neighbours that join a gallery image; weights: rank | similarity, alpha: exponent of the latter (0: all
    alike); query_k: candidates that join the query, 0 = none; query_alpha: exponent of their weights."""

    k: Count = 15
    weights: Literal["rank", "similarity"] = "similarity"
    alpha: NotNegative = 1.0
    query_k: Annotated[int, Field(ge=0)] = 15
    query_alpha: NotNegative = 0.0

    def prepare(self, space):
        """W of the whole gallery."""
        check_globals(space)
        kept(space, self, lambda: self._weights(space, np.arange(len(space.gallery))))

    def scores(self, space, shortlists):
        """Inner products of the (expanded) query with the augmented candidates."""
        check_globals(space)
        lists = [shortlist.candidates for shortlist in shortlists]
        if not sum(map(len, lists)):
            return [np.empty(0, np.float32) for _ in lists]
        rows, weights = kept_rows(space, self, lists, self._weights)
        vectors = space.queries[[shortlist.query for shortlist in shortlists]]
        if self.query_k:

            def augmented(positions):
                return weights[np.searchsorted(rows, positions)] @ space.gallery

            vectors = expanded_queries(space, shortlists, self.query_k, self.query_alpha, augmented)
        found, step = [], max(1, _CELLS // len(space.gallery))
        for start in range(0, len(shortlists), step):
            table = (weights @ (space.gallery @ vectors[start : start + step].T)).T
            for row, shortlist in zip(table, shortlists[start : start + step]):
                found.append(row[np.searchsorted(rows, shortlist.candidates)])
        return found

    def bytes_per_image(self, space):
        """The global descriptor, and k + 1 positions and weights."""
        return super().bytes_per_image(space) + 8.0 * (self.k + 1)

    def _weights(self, space: SearchSpace, rows: np.ndarray) -> csr_array:
        """The rows ``rows`` of W, float32 [n, N], scaled so that W X has rows of unit length."""
        parts = []
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            sims, inds = gallery_neighbours(space, part, self.k)
            if self.weights == "similarity":
                own = np.maximum(sims, 0) ** np.float32(self.alpha)
            else:
                own = np.broadcast_to(1 - np.arange(1, sims.shape[1] + 1, dtype=np.float32) / (self.k + 1), sims.shape)
            own = np.hstack([np.ones((len(part), 1), np.float32), own])
            inds = np.hstack([part[:, None], inds])
            lengths = np.linalg.norm(sparse_rows(inds, own, len(space.gallery)) @ space.gallery, axis=1, keepdims=True)
            parts.append(sparse_rows(inds, own / np.maximum(lengths, 1e-12), len(space.gallery)))
        return csr_array(vstack(parts, format="csr"))
