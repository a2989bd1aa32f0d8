"""`rrt`: the reranking transformer (Tan, Yuan, Ordonez, "Instance-level Image Retrieval using Reranking Transformers",
ICCV 2021).

score(query, candidate) = z, the network's logit that both show the same object, or, blended with the global similarity
s, w s + (1 - w) sigmoid(t z) (``rrt.Fusion`` with weight w and temperature t).
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from rrt.command_line.settings import settings
from rrt.network.reranker import Reranker
from rrt.network.scoring import PairScorer
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist, bytes_of_locals, check_local_space, local_bytes
from rrt.rerankers.fusion import Fusion
from rrt.store.local_counts import check_locals

_Local = Annotated[int, Field(ge=1)] | None


@settings("rrt.")
class MemberSettings:
    """What the transformer may take of its position in a chain: local descriptors of a query and of a candidate, and
    its fusion; None = as the transformer has it."""

    query_local: _Local = None
    gallery_local: _Local = None
    weight: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True)
class Transformer(RerankMethod):
    """reranker: an ``rrt.Reranker``, as ``Reranker.from_checkpoint`` opens it; fusion: of its logits with the global
    similarities; query_local, gallery_local: local descriptors used of a query and of a candidate, those of highest
    attention, None = as the reranker does."""

    of_locals: ClassVar[bool] = True
    depth: ClassVar[int | None] = 100
    pairwise: ClassVar[bool] = True

    reranker: Reranker
    fusion: Fusion = Fusion()
    query_local: int | None = None
    gallery_local: int | None = None

    def changed(self, settings: MemberSettings) -> "Transformer":
        """The same with the settings of a member of a chain."""
        weight, temperature = settings.weight, settings.temperature
        fusion = Fusion(
            self.fusion.weight if weight is None else weight,
            self.fusion.temperature if temperature is None else temperature,
        )
        query, gallery = settings.query_local or self.query_local, settings.gallery_local or self.gallery_local
        return replace(self, fusion=fusion, query_local=query, gallery_local=gallery)

    def scorer(self, space: SearchSpace) -> PairScorer:
        """The scorer of the space's store. InputError for descriptors of other sizes."""
        return self.reranker.scorer(space.store).with_local(self.query_local, self.gallery_local)

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

    def score_settings(self):
        """Of the network's weights nothing: a calibration lies in their checkpoint."""
        local = self.query_local, self.gallery_local
        return self.reranker.scored_as(self.fusion.weight, self.fusion.temperature, *local)

    def bytes_per_image(self, space):
        """The global descriptor, and the local descriptors and scales of an image on average, or what it was encoded
        as."""
        if gallery := self.reranker.gallery:
            return super().bytes_per_image(space) + bytes_of_locals(gallery.store, gallery.store.local_counts(), 4)
        return super().bytes_per_image(space) + local_bytes(space, self.scorer(space).gallery_local, columns=4)
