"""`rrt`: the reranking transformer (Tan, Yuan, Ordonez, "Instance-level Image Retrieval using Reranking Transformers",
ICCV 2021).

score(query, candidate) = z, the network's logit that both show the same object, or, blended with the global similarity
s, w s + (1 - w) sigmoid(t z) (``rrt.Fusion`` with weight w and temperature t).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rrt.network.reranker import Reranker
from rrt.network.scoring import PairScorer
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist, check_local_space, local_bytes
from rrt.rerankers.fusion import Fusion
from rrt.store.local_counts import check_locals


@dataclass(frozen=True)
class Transformer(RerankMethod):
    """reranker: an ``rrt.Reranker``, as ``Reranker.from_checkpoint`` opens it; fusion: of its logits with the global
    similarities."""

    depth: ClassVar[int | None] = 100
    pairwise: ClassVar[bool] = True

    reranker: Reranker
    fusion: Fusion = Fusion()

    def scorer(self, space: SearchSpace) -> PairScorer:
        """The scorer of the space's store. InputError for descriptors of other sizes."""
        return self.reranker.scorer(space.store)

    def logits(self, space: SearchSpace, shortlists: list[Shortlist]) -> list[np.ndarray]:
        """z of each candidate, float32 [n] for each shortlist."""
        check_locals(space.store, space.gallery_index, "the reranker 'rrt'")
        queries = space.query_index[[each.query for each in shortlists]]
        return self.scorer(space).score(queries, [space.gallery_index[each.candidates] for each in shortlists])

    def prepare(self, space):
        """Raises InputError for a store whose descriptors have other sizes, or that has no local ones."""
        check_local_space(space, "rrt")
        self.scorer(space)

    def scores(self, space, shortlists):
        """The logits, blended with the similarities."""
        found = self.logits(space, shortlists)
        return [self.fusion.scores(each.similarities, logits) for each, logits in zip(shortlists, found)]

    def bytes_per_image(self, space):
        """The global descriptor, and the local descriptors and scales of an image on average."""
        return super().bytes_per_image(space) + local_bytes(space, self.scorer(space).max_local, columns=4)
