"""k-reciprocal encoding: images are alike that have the same images as mutual neighbours.

Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. N(i, k) are image i
and its k nearest other gallery images; of a query, the first k candidates. With d(i, j) = |x_i - x_j|^2 = 2 - 2 x_i .
x_j:

    R(i, k)  = those j of N(i, k) with i in N(j, k)                                                      (equation 2)
    R*(i, k) = R(i, k) and every R(j, k / 2), j in R(i, k), of which R(i, k) holds two thirds or more   (equation 3)
    V_i      = exp(-d(i, j)) for every j in R*(i, k1), else 0                                             (equation 7)
    V'_i     = mean of V_j over N(i, k2), for a query that of itself and its first k2 candidates         (equation 11)
    d_J(q, x) = 1 - sum_j min(V'_qj, V'_xj) / sum_j max(V'_qj, V'_xj)                                    (equation 10)
    score(x) = -((1 - weight) d_J(q, x) + weight d(q, x))                                                (equation 12)

The paper takes k1 20, k2 6 and weight (lambda) 0.3. V runs over gallery images alone, and those are encoded without the
query, as the paper proposes for large galleries (section 3.6): once, or for the candidates of given shortlists alone.
"""

import numpy as np
from scipy.sparse import csr_array, vstack

from rrt.command_line.settings import Count, Share, settings
from rrt.rerankers.base import RerankMethod, SearchSpace
from rrt.rerankers.gallery import (
    check_globals,
    gallery_neighbours,
    is_kept,
    kept,
    kept_rows,
    pair_similarities,
    similarities,
    sparse_rows,
)

_ROWS = 4096
_SHARE = np.float32(2 / 3 - 1e-6)  # of whole numbers


@settings()
class KReciprocal(RerankMethod):
    """k1: neighbours that must be mutual; k2: neighbours whose encodings are averaged; weight: lambda, of the original
    distance."""

    k1: Count = 20
    k2: Count = 6
    weight: Share = 0.3

    def prepare(self, space):
        """V' of the whole gallery."""
        check_globals(space)
        kept(space, self, lambda: self._encode(space, np.arange(len(space.gallery))))

    def scores(self, space, shortlists):
        """Equation 12 for each candidate."""
        check_globals(space)
        lists = [shortlist.candidates for shortlist in shortlists]
        if not sum(map(len, lists)):
            return [np.empty(0) for _ in lists]
        queries = space.queries[[shortlist.query for shortlist in shortlists]]
        rows, encoded = kept_rows(space, self, lists, self._encode)
        first = np.unique(np.concatenate([candidates[: self.k2] for candidates in lists]))
        plain = self._plain(space, first)
        sums, columns = encoded.sum(axis=1), encoded.tocsc()
        found = []
        for query, candidates, cosines in zip(queries, lists, similarities(space, queries, shortlists)):
            nearest = plain[np.searchsorted(first, candidates[: self.k2])]
            own = self._encode_query(space, query, candidates, cosines, nearest)
            index = np.searchsorted(rows, candidates)
            common = columns[:, own.indices]
            smaller = np.minimum(common.data, np.repeat(own.data, np.diff(common.indptr)))
            smaller = np.bincount(common.indices, smaller, len(rows))[index]
            jaccard = 1 - smaller / np.maximum(own.sum() + sums[index] - smaller, 1e-12)
            found.append(-((1 - self.weight) * jaccard + self.weight * (2 - 2 * cosines)))
        return found

    def bytes_per_image(self, space):
        # V', where it was made, beside the k1 neighbours and how near the last is, which the query's own takes.
        """The global descriptor, and what is kept of an image's neighbours."""
        entries = kept(space, self, None).nnz / len(space.gallery) if is_kept(space, self) else 0
        return super().bytes_per_image(space) + 8.0 * entries + 4.0 * (self.k1 + 1)

    def _encode(self, space: SearchSpace, rows: np.ndarray) -> csr_array:
        """V' of the gallery images ``rows``, float32 [n, N]."""
        _, near = gallery_neighbours(space, rows, self.k2)
        near = np.hstack([rows[:, None], near])
        averaged, index = np.unique(near, return_inverse=True)
        parts = [self._plain(space, averaged[start : start + _ROWS]) for start in range(0, len(averaged), _ROWS)]
        mean = sparse_rows(index.reshape(near.shape), np.float32(1 / near.shape[1]), len(averaged))
        return csr_array(mean @ vstack(parts, format="csr")) if parts else csr_array((0, len(space.gallery)))

    def _plain(self, space, rows):
        """V of the gallery images ``rows``."""
        mutual = _mutual(space, rows, self.k1)
        members = np.unique(mutual.indices)
        halves = _mutual(space, members, self.k1 // 2)
        held = (mutual @ halves.T).multiply(mutual[:, members]).tocsr()
        held.data = (held.data >= _SHARE * halves.sum(axis=1)[held.indices]).astype(np.float32)
        encoded = (mutual + held @ halves).tocsr()
        encoded.eliminate_zeros()
        cosines = pair_similarities(space.gallery, np.repeat(rows, np.diff(encoded.indptr)), encoded.indices)
        encoded.data = np.exp(2 * cosines - 2)
        return encoded

    def _encode_query(self, space, query, candidates, cosines, nearest) -> csr_array:
        """V' of the query, [1, N]; nearest: V of its first k2 candidates, [k2, N]."""
        first = candidates[: self.k1]
        theirs, _ = gallery_neighbours(space, first, self.k1)
        # The query is among the k1 nearest of a candidate that has fewer than k1 nearer ones.
        mutual = first if theirs.shape[1] < self.k1 else first[cosines[: self.k1] >= theirs[:, -1]]
        halves = _mutual(space, mutual, self.k1 // 2)
        held = halves[:, mutual].sum(axis=1) >= _SHARE * halves.sum(axis=1)
        members = np.union1d(mutual, halves[held].indices)
        values = np.exp(2 * (space.gallery[members] @ query) - 2)
        plain = sparse_rows(members[None], values[None], len(space.gallery))
        return ((plain + csr_array(nearest.sum(axis=0)[None])) / (1 + nearest.shape[0])).tocsr()


def _mutual(space: SearchSpace, rows: np.ndarray, k: int) -> csr_array:
    """R(i, k) of the gallery images i in ``rows`` as ones, float32 [n, N]."""
    _, near = gallery_neighbours(space, rows, k)
    _, theirs = gallery_neighbours(space, near.reshape(-1), k)
    both = (theirs == np.repeat(rows, near.shape[1])[:, None]).any(axis=1).reshape(near.shape)
    ones = np.hstack([np.ones((len(rows), 1), np.float32), both])
    mutual = sparse_rows(np.hstack([rows[:, None], near]), ones.astype(np.float32), len(space.gallery))
    mutual.eliminate_zeros()
    return mutual
