"""Diffusion: similarity spreads from the query over a graph of the gallery, along chains of similar images.

Iscen, Tolias, Avrithis, Furon, Chum: Efficient Diffusion on Region Manifolds, CVPR 2017, with one descriptor an image.
Gallery images i, j that are among each other's k nearest have the affinity a_ij = max(x_i . x_j, 0)**exponent, others
and i = j none. With the degrees D = diag(sum_j a_ij), the scores f of all gallery images solve

    (I - damping D^-1/2 A D^-1/2) f = y,    y_i = max(q . x_i, 0)**exponent for the first query_k candidates, else 0

by conjugate gradients (section 4; the paper takes exponent 3, damping 0.99, 20 steps and k 50; the default here is 10,
which was better on held-out landmarks with fewer images of an object).
Of a gallery of more than ``truncation`` images, the graph of the first so many candidates alone is taken, with degrees
of its own (section 5); candidates outside follow behind in the order they had.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import cg

from rrt.command_line.settings import Count, NotNegative, settings
from rrt.progress import bar
from rrt.rerankers.base import RerankMethod, SearchSpace
from rrt.rerankers.gallery import check_globals, gallery_neighbours, is_kept, kept, sparse_rows

_RESIDUAL = 1e-6  # of y: where conjugate gradients stop before their last step


@settings()
class Diffusion(RerankMethod):
    """k: neighbours of a gallery image; query_k: candidates where the query enters; exponent, damping: as above;
    truncation: images diffused over at most, None = all; iterations: steps of conjugate gradients at most."""

    k: Count = 10
    query_k: Count = 10
    exponent: NotNegative = 3.0
    damping: Annotated[float, Field(ge=0, le=0.9999)] = 0.99  # at 1 the system is singular
    truncation: Count | None = 10_000
    iterations: Count = 20

    def prepare(self, space):
        """The graph of the whole gallery."""
        check_globals(space)
        kept(space, self, lambda: self._affinities(space, np.arange(len(space.gallery))))

    def scores(self, space, shortlists):
        """What diffuses to each candidate."""
        check_globals(space)
        whole = len(space.gallery) <= (self.truncation or len(space.gallery))
        if whole:
            self.prepare(space)
            system = kept(space, (self, "system"), lambda: self._system(kept(space, self, None)))
        elif shortlists and not is_kept(space, self):
            # For all queries in one search of the gallery.
            heads = np.concatenate([shortlist.candidates[: self.truncation] for shortlist in shortlists])
            gallery_neighbours(space, np.unique(heads), self.k)
        found = []
        for shortlist in bar(shortlists, "diffusion", "query", passing=True):
            candidates = shortlist.candidates
            if not len(candidates):
                found.append(np.empty(0))
                continue
            rows = np.arange(len(space.gallery)) if whole else np.sort(candidates[: self.truncation])
            own = system if whole else self._system(self._part(space, rows))
            first = candidates[: min(self.query_k, len(rows))]
            start = np.zeros(len(rows))
            cosines = space.gallery[first] @ space.queries[shortlist.query]
            start[np.searchsorted(rows, first)] = np.maximum(cosines, 0, dtype=np.float64) ** self.exponent
            spread, _ = cg(own, start, rtol=_RESIDUAL, maxiter=self.iterations)
            everywhere = np.full(len(space.gallery), min(spread.min(initial=0), 0) - 1)
            everywhere[rows] = spread
            found.append(everywhere[candidates])
        return found

    def bytes_per_image(self, space):
        # An edge of the graph is a number and a weight; where it was not made, as many as there can be.
        """The global descriptor, and the edges of an image in the graph."""
        edges = kept(space, self, None).nnz / len(space.gallery) if is_kept(space, self) else self.k
        return super().bytes_per_image(space) + 8.0 * edges

    def _part(self, space, rows):
        """The affinities among the gallery images ``rows``, rising."""
        if is_kept(space, self):
            return kept(space, self, None)[rows][:, rows]
        return self._affinities(space, rows)

    def _affinities(self, space: SearchSpace, rows: np.ndarray) -> csr_array:
        """A among the gallery images ``rows`` (rising), neighbours being those in the whole gallery, float32 [n, n]."""
        sims, inds = gallery_neighbours(space, rows, self.k)
        near = sparse_rows(inds, np.maximum(sims, 0) ** np.float32(self.exponent), len(space.gallery))
        if len(rows) < len(space.gallery):
            near = near[:, rows]
        affinities = near.minimum(near.T).tocsr()  # nothing where one of the two is missing
        affinities.eliminate_zeros()
        return affinities

    def _system(self, affinities: csr_array) -> csr_array:
        """I - damping D^-1/2 A D^-1/2, float64; images without neighbours keep what they have of y."""
        degrees = affinities.sum(axis=1, dtype=np.float64)
        roots = diags_array(1 / np.sqrt(np.where(degrees > 0, degrees, 1)))
        return (eye_array(len(degrees)) - self.damping * (roots @ affinities @ roots)).tocsr()
