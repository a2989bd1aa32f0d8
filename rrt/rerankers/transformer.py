"""`rrt`: the reranking transformer (Tan, Yuan, Ordonez, "Instance-level Image Retrieval using Reranking Transformers",
ICCV 2021).

score(query, candidate) = z, the network's logit that both show the same object, or, blended with the global similarity
s, w s + (1 - w) sigmoid(t z) (``rrt.Fusion`` with weight w and temperature t).
"""

from dataclasses import dataclass
from typing import ClassVar

from rrt.errors import InputError, check_types
from rrt.network.reranker import Reranker
from rrt.network.scorer import Scorer
from rrt.rerankers.base import RerankMethod, local_bytes
from rrt.rerankers.fusion import Fusion


@dataclass(frozen=True)
class Transformer(RerankMethod):
    """checkpoint: path, published or of experiment.py; max_local: local descriptors used of an image, None = as it was
    trained; weight, temperature: of the fusion; precision: of ``rrt.ScoringSettings``. scorer: a ``rrt.Scorer`` made
    already, instead of a checkpoint."""

    depth: ClassVar[int | None] = 100
    pairwise: ClassVar[bool] = True

    checkpoint: str | None = None
    max_local: int | None = None
    weight: float = 0.0
    temperature: float = 1.0
    precision: str = "float32"
    scorer: Scorer | None = None

    def __post_init__(self):
        check_types(self, "rrt.")
        if self.checkpoint is None and self.scorer is None:
            raise InputError(
                "reranker 'rrt' needs a checkpoint; give the path of a published one, or train one with experiment.py"
            )
        fusion = Fusion(float(self.weight), float(self.temperature))
        object.__setattr__(self, "_fusion", fusion)
        reranker = None
        if self.scorer is None:
            reranker = Reranker.from_checkpoint(self.checkpoint, max_local=self.max_local, precision=self.precision)
        object.__setattr__(self, "_reranker", reranker)

    def prepare(self, space):
        if self._reranker:
            self._reranker.scorer(space.store)  # refuses descriptors of other sizes

    def scores(self, space, shortlists):
        scorer = self.scorer or self._reranker.scorer(space.store)
        queries = space.query_index[[each.query for each in shortlists]]
        logits = scorer.score(queries, [space.gallery_index[each.candidates] for each in shortlists])
        return [self._fusion.scores(each.similarities, found) for each, found in zip(shortlists, logits)]

    def bytes_per_image(self, space):
        """The global descriptor, and the local descriptors and scales of an image on average."""
        scorer = self.scorer or self._reranker.scorer(space.store)
        return super().bytes_per_image(space) + local_bytes(space, scorer.max_local, columns=4)
