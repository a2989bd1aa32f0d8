"""SuperGlobal reranking: descriptors of query and candidates refined by each other, without training.

Shao, Chen, Karpur, Cui, Araujo, Cao: Global Features are All You Need for Image Retrieval and Reranking, ICCV 2023,
the reranking alone (its changes of pooling are the extractor's). Of the first M candidates g_d, each is refined by its
K nearest others among the M, and the query g_q by the maximum in every dimension over itself and the first K:

    g_dr = (g_d + beta sum_i s_i g_i) / |...|,  s_i = max(g_d . g_i, 0)        g_qe = max(g_q, g_1, ..., g_K) / |...|
    score = (g_q . g_dr + g_qe . g_d) / 2

The paper takes M 400 (the depth of the shortlist), K 9 and beta 0.15.
"""

from typing import ClassVar

import numpy as np

from rrt.command_line.settings import Count, NotNegative, settings
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.gallery import check_globals
from rrt.store.linear import l2_normalize

_CELLS = 2**22  # similarities of candidates held at a time: 16 MiB


@settings()
class SuperGlobal(RerankMethod):
    """k: K, neighbours of a candidate and candidates of the query; beta: weight of a candidate's neighbours."""

    depth: ClassVar[int | None] = 400

    k: Count = 9
    beta: NotNegative = 0.15

    def scores(self, space, shortlists):
        """The mean of both refined similarities of each candidate."""
        check_globals(space)
        return [self._scores(space.queries[each.query], space.gallery[each.candidates]) for each in shortlists]

    def _scores(self, query, rows):
        if not len(rows):
            return np.empty(0, np.float32)
        pooled = l2_normalize(np.vstack([query, rows[: self.k]]).max(axis=0, keepdims=True))[0]
        scores, step = rows @ pooled, max(1, _CELLS // len(rows))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            scores[part] += self._refined(rows, part) @ query
        return scores / 2

    def _refined(self, rows, part):
        """g_dr of the candidates rows[part]."""
        sims = rows[part] @ rows.T
        np.fill_diagonal(sims[:, part], -np.inf)
        count = min(self.k, len(rows) - 1)
        nearest = np.argpartition(-sims, count - 1, axis=1)[:, :count]
        weights = np.zeros_like(sims)
        nearest_sims = np.take_along_axis(sims, nearest, axis=1)
        np.put_along_axis(weights, nearest, np.float32(self.beta) * np.maximum(nearest_sims, 0), axis=1)
        return l2_normalize(rows[part] + weights @ rows)
