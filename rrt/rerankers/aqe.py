"""Query expansion: the query's descriptor is replaced by a mean of itself and of what was found first.

Average query expansion (Chum, Philbin, Sivic, Isard, Zisserman: Total Recall, ICCV 2007, section 4), with the first k
candidates x_1..x_k of the shortlist, whatever put them there, and unit descriptors q, x:

    q' = (q + x_1 + ... + x_k) / |...|        score(x) = q' . x

alpha query expansion (Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, PAMI 2018,
section 3.5) weights them by similarity, x_i by max(q . x_i, 0)**alpha. The paper takes alpha 3 and k 50.
"""

import numpy as np

from rrt.command_line.settings import Count, NotNegative, settings
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist
from rrt.rerankers.gallery import check_globals, similarities
from rrt.search.exact import expand


def expanded_queries(space: SearchSpace, shortlists: list[Shortlist], k: int, alpha: float, rows_of=None) -> np.ndarray:
    """Each shortlist's query expanded by its first k candidates, float32 [len(shortlists), D] of unit length.

    rows_of: descriptors [n, D] of gallery positions [n], None = those of the gallery.
    """
    rows_of = rows_of or space.gallery.__getitem__
    expanded = np.empty((len(shortlists), space.gallery.shape[1]), np.float32)
    for number, shortlist in enumerate(shortlists):
        query = space.queries[shortlist.query]
        rows = rows_of(shortlist.candidates[:k])
        expanded[number] = expand(query[None], rows[None], (rows @ query)[None], alpha)[0]
    return expanded


@settings()
class AverageQueryExpansion(RerankMethod):
    """k: candidates that join the query."""

    k: Count = 10

    def scores(self, space, shortlists):
        """Cosines with the expanded query."""
        check_globals(space)
        return similarities(space, expanded_queries(space, shortlists, self.k, 0), shortlists)


@settings()
class AlphaQueryExpansion(RerankMethod):
    """k: candidates that join the query; alpha: exponent of their weights."""

    k: Count = 50
    alpha: NotNegative = 3.0

    def scores(self, space, shortlists):
        """Cosines with the expanded query."""
        check_globals(space)
        return similarities(space, expanded_queries(space, shortlists, self.k, self.alpha), shortlists)
