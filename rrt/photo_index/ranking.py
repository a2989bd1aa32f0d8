"""How the candidates of a search are reranked: the method that the options ask for, and what its scores mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rrt.calibration import Calibration, descriptors_of, fitting, read_calibration
from rrt.errors import InputError
from rrt.photo_index.extraction import is_shipped
from rrt.photo_index.manifest import Manifest
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.build import configure, identity_of
from rrt.rerankers.chain import stages_of
from rrt.rerankers.shipped import METHOD, SETTINGS, shipped_calibrations
from rrt.search.whitening import Whitening
from rrt.store.linear import uniformity

if TYPE_CHECKING:
    from rrt.rerankers.transformer import Transformer

MAX_LOCAL = 100  # of an image, as in the measurements of rrt_scripts/; time grows with it
# Names of the scores that mean something to people, by method.
_SCORES = {"rrt": "logit", "late": "logit", "geometric": "inliers", "maxsim": "matching"}


_OPTIONS = ("method", "fusion", "num_rerank", "max_local", "calibration", "second_look")


@dataclass(frozen=True)
class Ranker:
    """A reranking method and the meaning of its scores.

    name: as it was asked for, or none; method: None = only search; last: the name of the method in the chain that gives
    the scores; depth: number of candidates that it reranks, None = its own; calibration: of its scores, or of the
    cosines where there is no method; beyond: calibration of the cosines, for results that are not reranked;
    second_look: whether images are compared again where the first answer is unsure (rrt/photo_index/second_look.py);
    note: what a user should know of the choice.
    """

    name: str
    method: RerankMethod | None = None
    last: str = ""
    depth: int | None = None
    calibration: Calibration | None = None
    beyond: Calibration | None = None
    second_look: bool = False
    note: str = ""

    @property
    def score_name(self) -> str | None:
        """What the scores are called. None: there are none, or they mean nothing to people."""
        fused = self.last == "rrt" and self.stages[-1][0].score_settings()["weight"]
        return "blend" if fused else _SCORES.get(self.last)

    def probabilities(self, scores: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """Probabilities that results [n], the best first, show the same as the query: float64 [n], never rising, NaN
        where there is no calibration. scores: [n], NaN where the method gave none; similarities: cosines [n]."""
        if self.calibration is None:
            return np.full(len(scores), np.nan)
        if self.method is None:
            return self.calibration(similarities)
        return self._falling(self.calibration(scores), scores, similarities)

    def groups(self, scores: np.ndarray, similarities: np.ndarray) -> list[str | None]:
        """The groups (``rrt.calibration.GROUPS``) of results, given as in probabilities(); None where they are not
        known."""
        if self.calibration is None:
            return [None] * len(scores)
        if self.method is None:
            return self.calibration.groups(self.calibration.of_search(similarities))
        return self.calibration.groups(self._falling(self.calibration.of_search(scores), scores, similarities))

    def _falling(self, probabilities, scores, similarities):
        if self.beyond:
            probabilities = np.where(np.isnan(scores), self.beyond(similarities), probabilities)
        return np.minimum.accumulate(probabilities)

    def shows_nothing(self, descriptors: np.ndarray) -> bool:
        """Whether the image of a query is empty: its local descriptors [n, D] hardly differ."""
        limit = self.calibration.thresholds.get("uniformity") if self.calibration else None
        return limit is not None and uniformity(descriptors) > limit

    @property
    def stages(self) -> list[tuple[RerankMethod, int | None]]:
        """(Method, number of candidates that it reorders, None = all), in the order in which they are applied."""
        if self.method is None:
            return []
        stages = stages_of(self.method)
        return [*stages[:-1], (stages[-1][0], self.depth or stages[-1][1])]

    @property
    def candidates(self) -> int | None:
        """How many candidates are reranked at most, None: all."""
        depths = [depth for _, depth in self.stages]
        return None if None in depths else max(filter(None, depths), default=0)


def ranker_of(manifest: Manifest, args, whitening: Whitening | None = None) -> Ranker:
    """The Ranker that the options of tools/search.py ask for. whitening: that of the index. Raises InputError."""
    options = {name: getattr(args, name) for name in _OPTIONS}
    return make_ranker(manifest, checkpoint=args.reranker, whitening=whitening, **options)


def make_ranker(
    manifest: Manifest,
    method: str | None = None,
    checkpoint: str | None = None,
    fusion: str | None = None,
    num_rerank: int | None = None,
    max_local: int = MAX_LOCAL,
    calibration: str | None = None,
    whitening: Whitening | None = None,
    second_look: bool = True,
) -> Ranker:
    """The Ranker of a method. Without ``method``: the transformer where a checkpoint is given, that of
    rrt.rerankers.shipped for the shipped model, else only search.

    fusion: a fusion.json of tools/tune_fusion.py; num_rerank: the depth of the Ranker; max_local: how many local
    descriptors of an image the transformer reads; calibration: a file of tools/calibrate.py, None = that of the
    checkpoint or the shipped one, if it was fitted on such scores; second_look: as in Ranker. Raises InputError for
    options that do not go together.
    """
    for option, value in (("num_rerank", num_rerank), ("max_local", max_local)):
        if value is not None and value < 1:
            search_alone = "; --method none is search alone" if option == "num_rerank" else ""
            raise InputError(f"--{option} {value}: expected 1 or more{search_alone}")
    shipped = is_shipped(manifest.extraction["flags"])
    method = method or ("rrt" if checkpoint else METHOD if shipped else None)
    descriptors = _descriptors(manifest), whitening.digest if whitening else None
    known = shipped_calibrations() if shipped else []
    if method in (None, "none"):
        _refuse("none", checkpoint=checkpoint, fusion=fusion)
        chosen = _chosen(calibration, known, [], *descriptors)
        note = "no reranker: there is no checkpoint for this model, give one by --reranker; global search alone"
        return Ranker("none", calibration=chosen, note="" if method else note)
    configured = configure(method, SETTINGS, checkpoint or "later", num_rerank)
    assert configured is not None
    if "rrt" not in configured.names:
        _refuse(method, checkpoint=checkpoint, fusion=fusion)
    elif not checkpoint:
        raise InputError(f"--method {method}: no checkpoint; train one with experiment.py and give it by --reranker")
    made = configured.method(_transformer(checkpoint, fusion, max_local) if checkpoint else None)
    if "rrt" in configured.names:
        reranker = getattr(stages_of(made)[-1][0], "reranker", None)
        known = [*(reranker.calibrations if reranker else []), *known]
    chosen = _chosen(calibration, known, identity_of(made), *descriptors)
    return Ranker(method, made, configured.names[-1], num_rerank, chosen, fitting(known, [], *descriptors), second_look)


def _chosen(file: str | None, known: list[Calibration], *scored) -> Calibration | None:
    """The calibration in ``file``, else the one of ``known`` that was fitted on such scores."""
    if not file:
        return fitting(known, *scored)
    found = read_calibration(file)
    if difference := found.difference(*scored):
        raise InputError(f"--calibration {file}: {difference}; make one with tools/calibrate.py")
    return found


def _refuse(method: str, **options: str | None) -> None:
    named = {"checkpoint": "--reranker", "fusion": "--fusion"}
    what = {"checkpoint": "a checkpoint is for methods with rrt", "fusion": "fusion is for methods with rrt"}
    for option, value in options.items():
        if value:
            raise InputError(f"{named[option]} {value}: {what[option]}, not for {method}; leave one of the two out")


def _transformer(checkpoint: str, fusion: str | None, max_local: int) -> Transformer:
    from rrt.network.reranker import Reranker
    from rrt.rerankers.fusion import read_fusion
    from rrt.rerankers.transformer import Transformer

    return Transformer(Reranker.from_checkpoint(checkpoint, max_local=max_local), read_fusion(fusion))


def _descriptors(manifest: Manifest) -> dict:
    kept = manifest.extraction
    return descriptors_of(kept.get("settings", {}) | {"model_sha256": kept["model_sha256"]})
