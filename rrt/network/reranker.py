"""The reranking transformer in Python:

reranker = rrt.Reranker.from_checkpoint("rrt_gld_ckpts/r50_gldv2.pt")
logit = reranker.score(store["all_souls_000013"], store["all_souls_000026"])
best = reranker.rerank(store["all_souls_000013"], store[shortlist]).images[:10]
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rrt.calibration import Calibration, calibration_of, fitting, sigmoid
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
from rrt.network.settings import ScoringPrecision
from rrt.store.memory import Image, as_store, checked_images


@dataclass(frozen=True)
class Reranked:
    """Candidates by falling logit, equal ones in the order given; all fields begin with the best.

    images: the candidates; order int64 [n]: where each was in the list given; logits float32 [n]; probabilities
    float [n]: that both images show the same object, calibrated where ``Reranker.calibration`` is there.
    """

    images: list[Image]
    order: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


class Reranker:
    """Scores pairs of images, which are images of a store (``store["all_souls_000013"]``, ``store[7]``) or ImageRecords
    with descriptors of your own; of these only global and local descriptors, scales and, by LATE, keypoints are looked
    at.

    model: an ``rrt.RRT`` or ``rrt.LATE``; max_local: local descriptors used of each image, those of highest attention,
    None = all; query_local, gallery_local: of the query and of a candidate, None = max_local; binning: ``published`` or
    ``exact``, the scale index it was trained with (``rrt.network.pairs.scale_index``); device: None = the GPU where
    there is one; scoring: ``rrt.ScoringSettings`` (precision, memory, compile). An image without local descriptors is
    scored from its global one. Images of one store are the fast case: they are read as the scorer needs them. encoded:
    a store of tools/encode_store.py, by which a LATE need not encode the gallery.
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
        query_local: int | None = None,
        gallery_local: int | None = None,
    ):
        check_binning(binning)
        of_images = {"max_local": max_local, "query_local": query_local, "gallery_local": gallery_local}
        for name, value in of_images.items():
            if value is not None and (not isinstance(value, int) or value < 0):
                raise InputError(f"{name}={value!r}: give a number of local descriptors, or None for all")
        self.model = model.eval()
        self.max_local = max_local
        self.query_local = max_local if query_local is None else query_local
        self.gallery_local = max_local if gallery_local is None else gallery_local
        self.binning = binning
        self.device = device or choose_device()
        self.checkpoint = checkpoint
        self.scoring = scoring
        self.recorded = recorded or {}
        self.gallery = open_encoded(encoded, model, max_local, binning) if encoded else None
        self._scorer = None

    def __getstate__(self):
        # The scorer's caches stay behind; another process makes its own.
        return vars(self) | {"_scorer": None}

    @classmethod
    def from_checkpoint(
        cls,
        path,
        device=None,
        max_local=None,
        binning=None,
        model=None,
        precision: ScoringPrecision = "float32",
        compile=False,
        memory_mb=None,
        all_local=False,
        encoded=None,
        query_local=None,
        gallery_local=None,
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
        more = encoded, query_local, gallery_local
        return cls(network, max_local, binning, device, checkpoint.path, scoring, recorded, *more)

    def scored_as(
        self, weight=0.0, temperature=1.0, query_local: int | None = None, gallery_local: int | None = None
    ) -> dict[str, Any]:
        """What its scores depend on beside the network, as calibrations compare it (``rrt.calibration``). weight,
        temperature: of the fusion (``rrt.Fusion``); the numbers of local descriptors None = its own."""
        return {
            "method": "rrt",
            "query_local": self.query_local if query_local is None else query_local,
            "gallery_local": self.gallery_local if gallery_local is None else gallery_local,
            "weight": weight,
            "temperature": temperature if weight else None,
            "scale_binning": self.binning,
        }

    @cached_property
    def calibrations(self) -> list[Calibration]:
        """Those that its checkpoint holds (tools/calibrate.py). Raises InputError for damaged ones."""
        where = self.checkpoint or "calibration"
        return [calibration_of(each, where) for each in self.recorded.get("calibrations", [])]

    @property
    def calibration(self) -> Calibration | None:
        """Of its logits, used with as many local descriptors; None: probabilities are sigmoid(logit), too sure."""
        return fitting(self.calibrations, [self.scored_as()])

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """That two images show the same object, of the logits of pairs: calibrated where it can be."""
        return (self.calibration or sigmoid)(logits)

    def score(self, a: Image, b: Image) -> float:
        """The logit that query a and candidate b show the same object (not symmetric: the network tells them apart)."""
        return float(self.logits(a, [b])[0])

    def rerank(self, query: Image, candidates: Iterable[Image]) -> Reranked:
        """Candidates ordered by the logit of their pair with the query."""
        candidates = checked_images(candidates)
        logits = self.logits(query, candidates)
        order = np.argsort(-logits, kind="stable")
        best = logits[order]
        return Reranked([candidates[index] for index in order], order, best, self.probabilities(best))

    def logits(self, query: Image, candidates: Iterable[Image]) -> np.ndarray:
        """float32 [n], in the order of the candidates."""
        (query,), candidates = checked_images([query]), checked_images(candidates)
        if candidates and isinstance(self.model, LATE):
            # The candidates' side knows nothing of the query, wherever that comes from.
            dim = self.model.settings["num_local_features"]
            check_sizes(as_store([query], dim)[0], self.model.settings, self.checkpoint)
            store, index = as_store(candidates, dim)
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
            self._scorer = self._scorer.over(store).with_local(self.query_local, self.gallery_local)
        return self._scorer
