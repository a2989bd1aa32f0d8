"""Turns the scores of a reranking method into probabilities that two images show the same object, and these into groups
of results (docs/calibration.md).

A calibration is fitted on pairs with known answers (tools/calibrate.py). It holds only for the same method with the
same settings, the same descriptors, and the same kind of pairs: the first candidates of a search.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import read_json, write_json

_FORMAT = {"schema": "rrt-calibration", "version": 1}
_REMEDY = "make it with tools/calibrate.py"
GROUPS = ("same", "maybe", "similar")
# Number of best candidates of a search whose median shows how high the scores of wrong results are in it.
CANDIDATES = 100
# Settings of descriptors on which scores depend, where a store or a describer names them.
_OF_DESCRIPTORS = ("model_sha256", "image_size", "scales", "projection_sha256")


def sigmoid(x: np.ndarray | float) -> np.ndarray:
    """1 / (1 + exp(-x)) of numbers of any size; NaN stays NaN. scipy.special.expit is the same, and takes every query a
    quarter of a second to load."""
    small = np.exp(-np.abs(x))  # of a number that is not large
    return np.where(x < 0, small, 1) / (1 + small)


@dataclass(frozen=True)
class Calibration:
    """kind: ``platt`` is sigmoid(slope * score + offset); ``isotonic`` joins ``probabilities`` at the rising ``scores``
    by straight lines, and is constant outside of them.

    method: a dictionary for each member of the chain that scores, with its name as ``method`` and its settings
    (``rrt.rerankers.build.identity_of``), empty for global search, which scores by cosines; descriptors: as
    ``descriptors_of`` gives them; whitening: SHA-256 of the whitening of the global descriptors; about: what it was
    fitted on and how accurate it is, plain values.

    thresholds: the least probabilities of the groups ``same`` and ``maybe``, and ``uniformity``, above which the local
    descriptors of a query (``rrt.store.linear.uniformity``) show nothing; empty: not chosen. in_search: how thresholds
    are applied in a search (``of_search``): ``weight`` and ``level`` of ``standing``, ``slope`` and ``offset`` of a
    sigmoid of it; empty: as for single pairs. Raises ValueError for values that fit no calibration.
    """

    kind: Literal["platt", "isotonic"]
    slope: float = 1.0
    offset: float = 0.0
    scores: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    method: list[dict[str, Any]] = field(default_factory=list)
    descriptors: dict[str, Any] = field(default_factory=dict)
    whitening: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    in_search: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        knots = np.array([self.scores, self.probabilities], np.float64)
        if self.kind == "platt":
            good = np.isfinite([self.slope, self.offset]).all() and self.slope > 0
        else:
            rising = (np.diff(knots[0]) > 0).all() and (np.diff(knots[1]) >= 0).all()
            good = self.kind == "isotonic" and knots.size > 0 and rising and np.isfinite(knots).all()
            good = good and knots[1, 0] >= 0 and knots[1, -1] <= 1
        if not good:
            raise ValueError(f"a {self.kind} calibration must rise from 0 to 1 over the scores")
        if self.thresholds:
            limits = self.thresholds["maybe"], self.thresholds["same"], self.thresholds["uniformity"]
            if len(self.thresholds) > len(limits) or not (0 < limits[0] <= limits[1] <= 1 and limits[2] > 0):
                raise ValueError("thresholds must be 0 < maybe <= same <= 1, and a uniformity above 0")
        if self.in_search:
            numbers = [self.in_search[name] for name in ("weight", "level", "slope", "offset")]
            if len(self.in_search) > len(numbers) or not np.isfinite(numbers).all() or min(numbers[0], numbers[2]) <= 0:
                raise ValueError("in_search must be finite numbers, a weight and a slope above 0")

    def __call__(self, scores) -> np.ndarray:
        """Probabilities float64 of scores of any shape; NaN stays NaN."""
        scores = np.asarray(scores, np.float64)
        if self.kind == "platt":
            return sigmoid(self.slope * scores + self.offset)
        return np.interp(scores, self.scores, self.probabilities)

    def of_search(self, scores) -> np.ndarray:
        """Probabilities float64 [n] of the candidates of one search, rising with their scores [n]; NaN stays NaN."""
        if not self.in_search:
            return self(scores)
        how = self.in_search
        return sigmoid(how["slope"] * standing(scores, how["weight"], how["level"]) + how["offset"])

    def groups(self, probabilities: np.ndarray) -> list[str | None]:
        """For each probability [n] its group, one of GROUPS; None where it is NaN, and without thresholds."""
        if not self.thresholds:
            return [None] * len(probabilities)
        limits = -np.array([self.thresholds[name] for name in GROUPS[:2]])
        return [
            None if np.isnan(each) else GROUPS[at]
            for each, at in zip(probabilities, np.searchsorted(limits, -np.asarray(probabilities)))
        ]

    def difference(self, method: list[dict], descriptors: dict | None = None, whitening: str | None = None) -> str:
        """How the given method, descriptors and whitening differ from those of this calibration, in words; empty where
        they do not. descriptors None: descriptors and whitening are not known, and not compared."""
        if [each["method"] for each in self.method] != [each["method"] for each in method]:
            names = ("+".join(each["method"] for each in members) or "none" for members in (self.method, method))
            return "fitted on scores of {}, not of {}".format(*names)
        for own, other in zip(self.method, method):
            for name in own | other:
                if own.get(name) != other.get(name):
                    return f"fitted with {own['method']}.{name}={own.get(name)}, not {other.get(name)}"
        if descriptors is None:
            return ""
        for name in descriptors | self.descriptors:
            if descriptors.get(name) != self.descriptors.get(name):
                return f"fitted on descriptors of another {name}"
        return "" if self.whitening == whitening else "fitted with another whitening of the global descriptors"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as files and checkpoints keep them."""
        return _FORMAT | asdict(self)


def standing(scores, weight: float, level: float) -> np.ndarray:
    """How high the scores [n] of a search are, and how far above the median m of the best CANDIDATES: s + weight (s -
    min(m, level)), float64 [n]; NaN stays NaN. In a search without right results all scores are about the same; m above
    ``level`` means that most candidates are right."""
    scores = np.asarray(scores, np.float64)
    return scores + weight * (scores - np.fmin(middle(scores), level))


def middle(scores: np.ndarray) -> float:
    """Median of the best CANDIDATES of a search's scores [n], those that are NaN left out; NaN where there are none."""
    best = np.sort(scores[~np.isnan(scores)])[-CANDIDATES:]
    return float(np.median(best)) if len(best) else np.nan


def calibration_of(values: Any, where: str | Path) -> Calibration:
    """The Calibration of the values of ``as_dict()``. Raises InputError, which names ``where`` they are from, for
    damaged values."""
    try:
        given = dict(values)
        found = {name: given.pop(name, None) for name in _FORMAT}
        if found != _FORMAT:
            raise ValueError(f"its form is {found}, this program reads {_FORMAT}")
        calibration = Calibration(**given)
        calibration.difference(calibration.method, calibration.descriptors)  # fails where they are not dictionaries
        return calibration
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: no calibration ({error}); {_REMEDY}") from None


def read_calibration(path: str | Path) -> Calibration:
    """The Calibration in a file. Raises InputError for a file that contains none."""
    values = read_json(Path(path), _REMEDY)
    if values is None:
        raise InputError(f"{path}: no such file; {_REMEDY}")
    return calibration_of(values, path)


def write_calibration(path: str | Path, calibration: Calibration) -> Path:
    """Writes it as JSON, as a whole or not at all; returns the path."""
    return write_json(Path(path), calibration.as_dict())


def descriptors_of(identity: dict[str, Any]) -> dict[str, Any]:
    """The settings of a store (``Store.config``) or of a describer (``identity``) that calibrations compare."""
    return {name: identity[name] for name in _OF_DESCRIPTORS if name in identity}


def fitting(calibrations: list[Calibration], *scored) -> Calibration | None:
    """The first calibration that was fitted on such scores, None without one. scored: arguments of
    ``Calibration.difference``."""
    return next((each for each in calibrations if not each.difference(*scored)), None)
