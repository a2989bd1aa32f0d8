"""The reranking transformer in Python:

reranker = rrt.Reranker.from_checkpoint("rrt_gld_ckpts/r50_gldv2.pt")
logit = reranker.score(store["all_souls_000013"], store["all_souls_000026"])
best = reranker.rerank(store["all_souls_000013"], store[shortlist]).images[:10]
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from rrt.devices import choose_device
from rrt.errors import InputError
from rrt.network.checkpoint import check_sizes, load_checkpoint
from rrt.network.encoded_store import open_encoded
from rrt.network.late import LATE
from rrt.network.late_scorer import LateScorer
from rrt.network.networks import make_scorer, open_network
from rrt.network.pairs import check_binning
from rrt.network.precision import ScoringSettings
from rrt.network.scoring import PairScorer
from rrt.network.settings import Precision
from rrt.store.memory import Image, as_store, checked_images


@dataclass(frozen=True)
class Reranked:
    """Candidates by falling logit, equal ones in the order given; all fields begin with the best.

    images: the candidates; order int64 [n]: where each stood in the list given; logits float32 [n].
    """

    images: list[Image]
    order: np.ndarray
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """sigmoid(logit), float32 [n]: how sure the network is that both images show the same object."""
        return expit(self.logits)


class Reranker:
    """Scores pairs of images, which are images of a store (``store["all_souls_000013"]``, ``store[7]``) or ImageRecords
    with descriptors of your own; of these only global and local descriptors, scales and, by LATE, keypoints are looked
    at.

    model: an ``rrt.RRT`` or ``rrt.LATE``; max_local: local descriptors used of each image, those of highest attention,
    None = all; binning: ``published`` or ``exact``, the scale index it was trained with
    (``rrt.network.pairs.scale_index``); device: None = the GPU where there is one; scoring: ``rrt.ScoringSettings``
    (precision, memory, compile). An image without local descriptors is scored from its global one. Images of one store
    are the fast case: they are read as the scorer needs them. encoded: a store of tools/encode_store.py, by which a
    LATE need not encode the gallery.
    """

    def __init__(
        self,
        model,
        max_local: int | None = 500,
        binning="published",
        device=None,
        checkpoint=None,
        scoring: ScoringSettings | None = None,
        recorded: dict | None = None,
        encoded=None,
    ):
        check_binning(binning)
        if max_local is not None and (not isinstance(max_local, int) or max_local < 0):
            raise InputError(f"max_local={max_local!r}: give a number of local descriptors, or None for all")
        self.model = model.eval()
        self.max_local = max_local
        self.binning = binning
        self.device = device or choose_device()
        self.checkpoint = checkpoint
        self.scoring = scoring
        self.recorded = recorded or {}
        self.gallery = open_encoded(encoded, model, max_local, binning) if encoded else None
        self._scorer = None

    @classmethod
    def from_checkpoint(
        cls,
        path,
        device=None,
        max_local=None,
        binning=None,
        model=None,
        precision: Precision = "float32",
        compile=False,
        memory_mb=None,
        all_local=False,
        encoded=None,
    ) -> "Reranker":
        """A reranker with the weights of a checkpoint, published or of experiment.py.

        What the checkpoint records of its training is taken from there: architecture, binning and max_local; what it
        does not record (published files) is as published. model: settings of ``rrt.RRT`` that differ, for files that
        record none. precision, compile, memory_mb: see ``rrt.ScoringSettings``; encoded: see ``Reranker``. all_local:
        use every local descriptor of an image, whatever the training used. Raises InputError for a missing, damaged or
        different file.
        """
        checkpoint = load_checkpoint(path)
        network = open_network(checkpoint, model)
        recorded = checkpoint.settings
        if max_local is None and not all_local:
            max_local = recorded.get("max_sequence_len", 500)
        binning = binning or recorded.get("scale_binning", "published")
        scoring = ScoringSettings(precision, compile, memory_mb)
        return cls(network, max_local, binning, device, checkpoint.path, scoring, recorded, encoded)

    def score(self, a: Image, b: Image) -> float:
        """The logit that query a and candidate b show the same object (not symmetric: the network tells them apart)."""
        return float(self.logits(a, [b])[0])

    def rerank(self, query: Image, candidates: Iterable[Image]) -> Reranked:
        """Candidates ordered by the logit of their pair with the query."""
        candidates = checked_images(candidates)
        logits = self.logits(query, candidates)
        order = np.argsort(-logits, kind="stable")
        return Reranked([candidates[index] for index in order], order, logits[order])

    def logits(self, query: Image, candidates: Iterable[Image]) -> np.ndarray:
        """float32 [n], in the order of the candidates."""
        (query,), candidates = checked_images([query]), checked_images(candidates)
        if candidates and isinstance(self.model, LATE):
            # The candidates' side knows nothing of the query, wherever that comes from.
            store, index = as_store(candidates, self.model.settings["num_local_features"])
            scorer = self.scorer(store)
            assert isinstance(scorer, LateScorer)
            return scorer.score_image(query, index)
        images = [query, *candidates]
        store, index = as_store(images, self.model.settings["num_local_features"])
        return self.scorer(store).score(index[:1], [index[1:]])[0]

    def scorer(self, store) -> PairScorer:
        """The ``rrt.Scorer`` behind it, for many shortlists of one store at a time:
        ``reranker.scorer(store).score(query_indices, shortlists)``."""
        if self._scorer is None or self._scorer.store is not store:
            check_sizes(store, self.model.settings, self.checkpoint)
            if self._scorer is None:
                self._scorer = make_scorer(
                    self.model, store, self.max_local, self.binning, self.device, self.scoring, self.gallery
                )
            self._scorer = self._scorer.over(store)
        return self._scorer
