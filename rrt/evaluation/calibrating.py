"""Calibrations fitted on a search's pairs of known answer, and how well they hold (docs/calibration.md).

Platt: J. Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods",
1999, section 2.2. Isotonic: Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability
Estimates", KDD 2002. Expected calibration error: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression, minimize

from rrt.calibration import Calibration, descriptors_of, sigmoid
from rrt.errors import InputError
from rrt.formats.ground_truth import POSITIVE_GRADES, chosen_protocol, ignored_positions, protocols_of
from rrt.formats.revisited import RevisitedSet
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist
from rrt.rerankers.build import identity_of
from rrt.rerankers.chain import reorder, stages_of
from rrt.search.exact import search
from rrt.search.whitening import Whitening
from rrt.store.store import Store
from rrt.viz.style import LINE_STYLES, MARKERS, save_figure

BINS = 15
FOLDS = 5
KINDS = ("platt", "isotonic")
LEAST = 10  # pairs of each answer
GLOBAL = 100  # candidates of global search


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of a search. scores float64 [P]; right bool [P]; query int64 [P]: row of the query; landmark int64 [P]: the
    query's label, which no part of a calibration shares with the pairs it is judged on."""

    scores: np.ndarray
    right: np.ndarray
    query: np.ndarray
    landmark: np.ndarray

    def part(self, keep: np.ndarray) -> ScoredPairs:
        """The pairs of a bool [P]."""
        return ScoredPairs(*(column[keep] for column in vars(self).values()))


def score_pairs(
    images: RevisitedSet,
    store: Store,
    method: RerankMethod | None,
    num: int | None = None,
    whitening: Whitening | None = None,
    unknown: bool = False,
) -> ScoredPairs:
    """Every query with the candidates that global search and all but the last member of a chain put first.

    method: None = global search, whose scores are the cosines; num: candidates, None = the method's own number, of
    global search GLOBAL. Right is what Medium counts as right (classic: good and ok); what it ignores, and the query
    itself, makes no pair. unknown: what is right makes none, either, as if the gallery did not have it. Raises
    InputError for a method whose score of a pair depends on the other candidates.
    """
    stages = stages_of(method) if method else []
    last, own = stages.pop() if stages else (None, GLOBAL)
    if method and last and not last.pairwise:
        name = identity_of(method)[-1]["method"]
        raise InputError(f"reranker '{name}': its scores depend on all candidates, so that a pair has no probability")
    query_index = store.indices(images.query.names, images.query)
    gallery_index = store.indices(images.gallery.names, images.gallery)
    space = SearchSpace(store, query_index, gallery_index, whitening)
    if method:
        method.prepare(space)
    depths = [most for _, most in stages] + [own if num is None else num]
    protocol = chosen_protocol(protocols_of(images.truth.gnd))
    positive = [np.concatenate([entry[g] for g in POSITIVE_GRADES[protocol]]) for entry in images.truth.gnd]
    ignored = [ignored_positions(entry, protocol) for entry in images.truth.gnd]
    if unknown:
        ignored = [np.concatenate(both) for both in zip(ignored, positive)]
    # What makes no pair does not count as one: what is ignored, and the query itself.
    most = None if None in depths else max(filter(None, depths)) + max(map(len, ignored)) + 1
    similarities, found = search(space.gallery, space.queries, most or len(gallery_index))
    lists = []
    for row, left_out in enumerate(ignored):
        keep = ~np.isin(found[row], left_out)
        keep &= gallery_index[found[row]] != query_index[row]
        lists.append(Shortlist(row, found[row], similarities[row])[keep])
    for stage, most in stages:
        lists = reorder(space, stage, lists, most)
    heads = [each[: depths[-1]] for each in lists]
    scores = last.checked_scores(space, heads) if last else [each.similarities for each in heads]
    right = [np.isin(each.candidates, positive[each.query]) for each in heads]
    query = np.repeat(np.arange(len(heads)), [len(each.candidates) for each in heads])
    labels = np.asarray(images.query.labels)
    return ScoredPairs(np.concatenate(scores).astype(np.float64), np.concatenate(right), query, labels[query])


def joined(parts: list[ScoredPairs]) -> ScoredPairs:
    """The pairs of several searches; queries are numbered through, equal labels are taken for one landmark."""
    columns = [np.concatenate(column) for column in zip(*(vars(part).values() for part in parts))]
    ends = np.cumsum([part.query.max(initial=-1) + 1 for part in parts])
    starts = np.repeat(np.append(0, ends[:-1]), [len(part.query) for part in parts])
    return ScoredPairs(columns[0], columns[1], columns[2] + starts, columns[3])


def fit(pairs: ScoredPairs, kind: str) -> Calibration:
    """The calibration of a kind. Raises InputError for too few pairs of an answer, or scores that say nothing."""
    for what, count in (("right", pairs.right.sum()), ("wrong", (~pairs.right).sum())):
        if count < LEAST:
            raise InputError(f"calibration: {count} {what} pairs, at least {LEAST} are needed; give more queries")
    calibration = (_platt if kind == "platt" else _isotonic)(pairs.scores, pairs.right)
    if calibration is None:
        raise InputError("calibration: the scores of right pairs are no higher than those of wrong ones")
    return calibration


def _platt(scores, right) -> Calibration | None:
    """Maximum likelihood with Platt's targets, which keep the slope finite where scores separate the answers."""
    mean, spread = scores.mean(), scores.std() or 1.0
    x, ups = (scores - mean) / spread, np.count_nonzero(right)
    targets = np.where(right, (ups + 1) / (ups + 2), 1 / (len(right) - ups + 2))

    def loss(weights):
        z = weights[0] * x + weights[1]
        residual = sigmoid(z) - targets
        return np.mean(np.logaddexp(0, z) - targets * z), np.array([np.mean(residual * x), np.mean(residual)])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if slope <= 0:
        return None
    return Calibration("platt", float(slope / spread), float(offset - slope * mean / spread))


def _isotonic(scores, right) -> Calibration | None:
    """A knot for each level of the isotonic regression: mean score and (right + 1/2) / (pairs + 1), so that no
    probability is 0 or 1."""
    values, of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ups = np.bincount(of, right)
    blocks = np.asarray(isotonic_regression(ups / counts, weights=counts).blocks)[:-1]
    sizes, rights = np.add.reduceat(counts, blocks), np.add.reduceat(ups, blocks)
    if len(blocks) < 2:
        return None
    knots = np.add.reduceat(values * counts, blocks) / sizes
    heights = np.maximum.accumulate((rights + 0.5) / (sizes + 1))
    return Calibration("isotonic", scores=knots.tolist(), probabilities=heights.tolist())


def held_out(pairs: ScoredPairs, kind: str) -> np.ndarray:
    """Probabilities [P] of calibrations fitted without the landmark of the pair: in turn on all folds but its own.
    Raises InputError for pairs of a single landmark."""
    found = np.empty(len(pairs.scores))
    for labels in folds_of(pairs.landmark):
        own = np.isin(pairs.landmark, labels)
        found[own] = fit(pairs.part(~own), kind)(pairs.scores[own])
    return found


def folds_of(landmarks: np.ndarray) -> list[np.ndarray]:
    """Labels dealt into FOLDS, as many as there are labels at most. Raises InputError for a single landmark."""
    labels = np.unique(landmarks)
    if len(labels) < 2:
        raise InputError("calibration: all queries have one label, so that nothing is held out; give more landmarks")
    # Shuffled, because lists have an order of their own.
    fold = np.random.default_rng(0).permutation(len(labels)) % min(FOLDS, len(labels))
    return [labels[fold == each] for each in range(fold.max() + 1)]


def across(parts: list[ScoredPairs], kind: str) -> list[float]:
    """The expected calibration error of each search when all others fitted the calibration: what another collection
    of images, with other wrong answers and another share of right ones, costs."""
    found = []
    for number, part in enumerate(parts):
        others = joined([each for index, each in enumerate(parts) if index != number])
        found.append(round(expected_calibration_error(fit(others, kind)(part.scores), part.right), 4))
    return found


def bins_of(probabilities: np.ndarray, number: int = BINS, equal_mass: bool = True) -> list[np.ndarray]:
    """Positions of the probabilities in each bin that is not empty: as many in each, or bins of equal width."""
    if equal_mass:
        parts = np.array_split(np.argsort(probabilities, kind="stable"), number)
    else:
        of = np.minimum((probabilities * number).astype(int), number - 1)
        parts = [np.flatnonzero(of == each) for each in range(number)]
    return [part for part in parts if len(part)]


def expected_calibration_error(
    probabilities: np.ndarray, right: np.ndarray, number: int = BINS, equal_mass: bool = True
) -> float:
    """Mean over the pairs of |mean probability - share of right pairs| of their bin, 0..1."""
    bins = bins_of(probabilities, number, equal_mass)
    gaps = [len(part) * abs(probabilities[part].mean() - right[part].mean()) for part in bins]
    return float(sum(gaps) / len(probabilities))


def figures_of(probabilities: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Both expected calibration errors, the Brier score and the mean negative log likelihood."""
    inside = np.clip(probabilities, 1e-6, 1 - 1e-6)
    found = {
        "ece_equal_mass": expected_calibration_error(probabilities, right),
        "ece_equal_width": expected_calibration_error(probabilities, right, equal_mass=False),
        "brier": float(np.mean((probabilities - right) ** 2)),
        "log_loss": float(-np.mean(np.where(right, np.log(inside), np.log(1 - inside)))),
    }
    return {name: round(value, 4) for name, value in found.items()}


def calibrate(pairs: ScoredPairs, kind: str = "auto") -> tuple[Calibration, np.ndarray]:
    """(Calibration of all pairs, held-out probabilities). kind auto: the one of smaller held-out log loss."""
    tried = {each: held_out(pairs, each) for each in (KINDS if kind == "auto" else (kind,))}
    best = min(tried, key=lambda each: figures_of(tried[each], pairs.right)["log_loss"])
    about = {"pairs": len(pairs.right), "right": int(pairs.right.sum()), "queries": len(np.unique(pairs.query))}
    about |= {"landmarks": len(np.unique(pairs.landmark)), "held_out": figures_of(tried[best], pairs.right)}
    return replace(fit(pairs, best), about=about), tried[best]


def belonging(
    calibration: Calibration, method: RerankMethod | None, store: Store, whitening: Whitening | None, **about: Any
) -> Calibration:
    """The calibration with what it was fitted on: method, descriptors, whitening, and plain values."""
    return replace(
        calibration,
        method=identity_of(method) if method else [],
        descriptors=descriptors_of(store.config | {"model_sha256": store.attributes["model_sha256"]}),
        whitening=whitening.digest if whitening else None,
        about=calibration.about | about,
    )


def draw_reliability(path: str | Path, curves: dict[str, np.ndarray], right: np.ndarray) -> Path:
    """The share of right pairs over the mean probability of each bin of equal mass, and how many pairs have which
    probability. curves {label: probabilities [P]}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 7), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=0.9, label="as it should be")
    for number, (label, probabilities) in enumerate(curves.items()):
        style = LINE_STYLES[number % len(LINE_STYLES)]
        bins = bins_of(probabilities)
        points = [[probabilities[part].mean(), right[part].mean()] for part in bins]
        error = expected_calibration_error(probabilities, right)
        marks = {"marker": MARKERS[number], "linestyle": style, "label": f"{label} (error {error:.3f})"}
        above.plot(*np.transpose(points), **marks)
        below.hist(probabilities, np.linspace(0, 1, 41), histtype="step", linestyle=style)
    above.set(xlabel="mean probability of a bin", ylabel="share of right pairs", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False, fontsize=8, loc="upper left")
    below.set(xlabel="probability of the pair", ylabel="pairs", yscale="log")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    return save_figure(figure, path)
