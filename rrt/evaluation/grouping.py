"""Chooses the thresholds between the groups of results (*same*, *maybe*, *similar*), and measures how often they are
right.

Two searches with known answers are used: the queries in the whole gallery, and the same queries in the gallery without
the images that are right for them, so that they have no answer (docs/calibration.md 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rrt.calibration import GROUPS, Calibration, middle, standing
from rrt.errors import InputError
from rrt.evaluation.calibrating import ScoredPairs, fit, folds_of, score_pairs
from rrt.evaluation.calibrating import joined as joined_pairs
from rrt.formats.revisited import RevisitedSet
from rrt.rerankers.base import RerankMethod
from rrt.search.whitening import Whitening
from rrt.store.linear import uniformity
from rrt.store.store import Store

WRONG = 0.05  # at most, of the results called the same and of the queries without an answer
KEPT = 0.95  # part of the right first results that are at least maybe
_RIGHT = ("easy", "hard", "good", "ok")
_WEIGHTS = (0.5, 1.0, 2.0, 4.0)  # of the height of a score above the middle of its search
_SPREAD = 2.0  # times the largest uniformity of known queries: a limit that no photograph comes near


@dataclass(frozen=True)
class Answers:
    """known: pairs of the search in the whole gallery; unknown: of the search without the right images; uniformity: the
    largest of the queries (``rrt.store.linear.uniformity``)."""

    known: ScoredPairs
    unknown: ScoredPairs
    uniformity: float = 0.0

    def of_landmarks(self, labels: np.ndarray) -> Answers:
        """The answers to the queries of some landmarks. labels: int64 [n]."""
        known, unknown = (part.part(np.isin(part.landmark, labels)) for part in (self.known, self.unknown))
        return Answers(known, unknown, self.uniformity)


def every_right_image(images: RevisitedSet) -> RevisitedSet:
    """The set with more queries: each gallery image that is right for a query becomes a query, too, with the same right
    images. A search leaves the query out of its own results."""
    query, gallery, truth = images.query, images.gallery, images.truth
    owner: dict[int, int] = {}
    for row, entry in enumerate(truth.gnd):
        for position in np.concatenate([entry.get(grade, []) for grade in _RIGHT]).astype(int).tolist():
            if gallery.names[position] not in query.names:
                owner.setdefault(position, row)
    more, rows = list(owner), list(owner.values())
    columns = [np.concatenate([getattr(query, name), getattr(gallery, name)[more]]) for name in ("labels", "sizes")]
    columns[0][len(query) :] = query.labels[rows]
    queries = replace(query, names=query.names + [gallery.names[i] for i in more], labels=columns[0], sizes=columns[1])
    gnd = truth.gnd + [truth.gnd[row] for row in rows]
    truth = replace(truth, qimlist=truth.qimlist + [truth.imlist[i] for i in more], gnd=gnd)
    return replace(images, query=queries, truth=truth)


def answers_of(
    images: RevisitedSet,
    store: Store,
    method: RerankMethod | None,
    num: int | None = None,
    whitening: Whitening | None = None,
) -> Answers:
    """Runs both searches; the arguments are those of ``score_pairs``."""
    known, unknown = (score_pairs(images, store, method, num, whitening, unknown=each) for each in (False, True))
    queries = store.indices(images.query.names, images.query)
    spread = [uniformity(store.read(int(row)).descriptors) for row in queries]
    return Answers(known, unknown, max(spread, default=0.0))


def joined(parts: list[Answers]) -> Answers:
    """The answers of several pairs of searches as one."""
    known, unknown = joined_pairs([part.known for part in parts]), joined_pairs([part.unknown for part in parts])
    return Answers(known, unknown, max(part.uniformity for part in parts))


def first_of(pairs: ScoredPairs) -> np.ndarray:
    """Positions int64 [Q] of the pair with the highest score of each query, by rising query."""
    order = np.lexsort((-pairs.scores, pairs.query))
    return order[np.flatnonzero(np.diff(pairs.query[order], prepend=-1))]


def of_searches(pairs: ScoredPairs, function: Callable[[np.ndarray], Any]) -> np.ndarray:
    """``function`` applied to the scores of each query, the results joined to one array."""
    queries = np.split(pairs.scores, np.flatnonzero(np.diff(pairs.query)) + 1)
    return np.concatenate([np.atleast_1d(function(scores)) for scores in queries])


def choose_groups(calibration: Calibration, answers: Answers) -> Calibration:
    """The calibration with thresholds and ``in_search``, which is empty or has one of _WEIGHTS: the choice that calls
    most right first results the same. Raises InputError as ``choose_thresholds``."""
    chosen = [
        replace(calibration, thresholds=choose_thresholds(replace(calibration, in_search={}), answers), in_search={})
    ]
    level = float(of_searches(answers.unknown, middle).max())
    for weight in _WEIGHTS:
        scores = of_searches(answers.known, partial(standing, weight=weight, level=level))
        with suppress(InputError):
            fitted = fit(replace(answers.known, scores=scores), "platt")
            how = {"weight": weight, "level": level, "slope": fitted.slope, "offset": fitted.offset}
            tried = replace(calibration, in_search=how)
            chosen.append(replace(tried, thresholds=choose_thresholds(tried, answers)))
    return max(chosen, key=lambda each: group_figures(each, answers)["right_first_same"] or 0.0)


def choose_thresholds(calibration: Calibration, answers: Answers) -> dict[str, float]:
    """The thresholds of a calibration. same: the least probability for which at most WRONG of the results called the
    same are wrong, and at most WRONG of the queries without an answer have a first result called the same. maybe: what
    KEPT of the right first results reach, at most same. uniformity: above it a query shows nothing.

    Raises InputError where no probability fulfils this.
    """
    known, unknown = (of_searches(part, calibration.of_search) for part in (answers.known, answers.unknown))
    first = first_of(answers.known)
    kept = np.sort(known[first][answers.known.right[first]])
    wrong = np.append(known[~answers.known.right], unknown)
    tried = np.unique(np.append(known, unknown))
    amount = _reaching(np.append(known, unknown), tried)
    beside = unknown[first_of(answers.unknown)]
    good = (_reaching(wrong, tried) <= WRONG * amount) & (_reaching(beside, tried) <= WRONG * len(beside))
    if not good.any() or not len(kept) or kept[-1] < tried[good][0]:
        raise InputError("groups: no probability tells the right first results from wrong ones; give more queries")
    # Rounded down, so that the result that gave this threshold reaches it on any machine.
    same = math.floor(1e6 * tried[good][0]) / 1e6
    maybe = min(float(kept[int((1 - KEPT) * len(kept))]), same)
    return {"same": same, "maybe": maybe, "uniformity": round(_SPREAD * answers.uniformity, 4)}


def _reaching(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of the values are at least each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds)


def group_figures(calibration: Calibration, answers: Answers) -> dict[str, Any]:
    """How often the groups of a calibration with thresholds are right, as ``figures_of_groups`` gives it."""
    known, unknown = named(calibration, answers)
    return figures_of_groups(known, unknown, answers)


def named(calibration: Calibration, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """The groups of the known and of the unknown pairs, as positions in GROUPS: int64, one for each pair."""
    parts = answers.known, answers.unknown
    found = (calibration.groups(of_searches(part, calibration.of_search)) for part in parts)
    known, unknown = (np.array([GROUPS.index(str(name)) for name in names], np.int64) for names in found)
    return known, unknown


def figures_of_groups(known: np.ndarray, unknown: np.ndarray, answers: Answers) -> dict[str, Any]:
    """How often groups are right, as shares from 0 to 1. known, unknown: as ``named`` gives them.

    first_right: right first results among the queries; right_first_same, right_first_found: of the right first results,
    those called same, and at least maybe; wrong_same: wrong ones among all results called same, in both searches
    together; unknown_same, unknown_found: queries without an answer whose first result is called same, and at least
    maybe.
    """
    pairs = answers.known
    first, beside = first_of(pairs), first_of(answers.unknown)
    right, other = known[first][pairs.right[first]], unknown[beside]
    same = np.append(pairs.right[known == 0], np.zeros(np.count_nonzero(unknown == 0), bool))
    shares = {
        "first_right": pairs.right[first],
        "right_first_same": right == 0,
        "right_first_found": right < 2,
        "wrong_same": ~same,
        "unknown_same": other == 0,
        "unknown_found": other < 2,
    }
    figures = {name: round(float(share.mean()), 4) if len(share) else None for name, share in shares.items()}
    return {"queries": len(first), "called_same": len(same)} | figures


def grouped(calibration: Calibration, answers: Answers) -> Calibration:
    """The calibration with groups. ``about`` says how often they are right: on the answers they were chosen on, and
    held out, where the groups for each landmark are chosen without it. Raises InputError as ``choose_thresholds``."""
    chosen = choose_groups(calibration, answers)
    known, unknown = named(chosen, answers)
    about = {"chosen_on": figures_of_groups(known, unknown, answers)}
    for labels in folds_of(answers.known.landmark):
        others = answers.of_landmarks(np.setdiff1d(answers.known.landmark, labels))
        by = choose_groups(calibration, others)
        own = np.isin(answers.known.landmark, labels), np.isin(answers.unknown.landmark, labels)
        known[own[0]], unknown[own[1]] = named(by, answers.of_landmarks(labels))
    about["held_out"] = figures_of_groups(known, unknown, answers)
    return replace(chosen, about=calibration.about | {"groups": about})


def told(figures: dict[str, Any], name: str) -> str:
    """A line for people with the figures of ``figures_of_groups``."""
    shares = {name: "-" if share is None else f"{100 * share:.1f} %" for name, share in figures.items()}
    return (
        f"{name}: first result right for {shares['first_right']} of {figures['queries']} queries, of these"
        f" {shares['right_first_same']} called same, {shares['right_first_found']} at least maybe; of the"
        f" {figures['called_same']} results called same {shares['wrong_same']} wrong; of queries without an answer"
        f" {shares['unknown_same']} called same, {shares['unknown_found']} at least maybe"
    )
