"""What the report shows, computed: methods of several evaluations side by side, frames, rank changes, gains.

A rank is counted as the measures count it: images that the protocol ignores (junk) stand in the list without one.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import bootstrap_interval
from rrt.evaluation.rankings import SavedMethod, SavedRankings
from rrt.evaluation.significance import holm, randomisation_p
from rrt.formats.ground_truth import POSITIVE_GRADES, chosen_protocol, grades_of, ignored_positions

SHOWN = 100
NEGATIVE = "negative"


@dataclass(frozen=True)
class Method(SavedMethod):
    """A method of the report. before: index in ``Comparison.methods`` of the global search it started from (its own for
    global search); evaluation: index in ``Comparison.evaluations``; rankings {protocol: [Q, R]}: images of the
    comparison, -1 filling rows up."""

    before: int
    evaluation: int


@dataclass(frozen=True)
class Comparison:
    """Methods measured on one test set. names: of all images, the gallery first, then distractors; an image is its
    index here."""

    evaluations: list[SavedRankings]
    names: list[str]
    methods: list[Method]

    @property
    def queries(self) -> list[str]:
        """Names of the query images, in the order of the list."""
        return self.evaluations[0].queries

    @property
    def gnd(self) -> list[dict]:
        """Ground truth of each query, as ``GroundTruth.gnd``."""
        return self.evaluations[0].gnd

    @cached_property
    def protocols(self) -> tuple:
        """easy, medium and hard, or classic."""
        return self.evaluations[0].protocols


def combine(evaluations: list[SavedRankings]) -> Comparison:
    """Evaluations of one test set side by side. Global search that several share is one method; other labels that occur
    twice are told apart by the folder. Raises InputError for different test sets or cut-offs."""
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.test_set() != first.test_set():
            raise InputError(
                f"{other.path}: measured on another test set than {first.path} (names, boxes or grades differ); make a"
                " report for each"
            )
        if other.ks != first.ks:
            raise InputError(
                f"{other.path}: mP@k at {list(other.ks)}, {first.path} has {list(first.ks)}; measure both alike"
            )
    folders = [each.path.resolve().parent for each in evaluations]
    if len(set(folders)) < len(folders):
        raise InputError(f"{max(folders, key=folders.count)}: given twice; give every evaluation once")
    names = list(first.gallery)
    index_of: dict[str, int] = {}
    methods: list[Method] = []
    for number, evaluation in enumerate(evaluations):
        for name in evaluation.others.values():
            if name not in index_of:
                index_of[name] = len(names)
                names.append(name)
        indices = {position: index_of[name] for position, name in evaluation.others.items()}
        before = len(methods)
        for saved in evaluation.methods:
            rankings = _renumbered(saved.rankings, len(first.gallery), indices)
            method = Method(**{**vars(saved), "rankings": rankings}, before=before, evaluation=number)
            same = next(
                (i for i, other in enumerate(methods) if saved is evaluation.methods[0] and _same(other, method)), None
            )
            if same is None:
                methods.append(method)
            else:
                before = same
    return Comparison(evaluations, names, _with_own_labels(methods, folders))


def _renumbered(rankings, num_gallery, indices):
    """The same tables with the comparison's numbers for distractors; equal tables stay one."""
    changed = {}
    for table in rankings.values():
        if id(table) not in changed:
            new = table.copy()
            for row, column in np.argwhere(table >= num_gallery):
                new[row, column] = indices[int(table[row, column])]
            changed[id(table)] = new
    return {protocol: changed[id(table)] for protocol, table in rankings.items()}


def _same(one, other):
    """Whether two methods are one global search, measured twice."""
    return one.label == other.label and all(
        np.array_equal(one.rankings[protocol], other.rankings[protocol])
        and np.array_equal(one.aps[protocol], other.aps[protocol], equal_nan=True)
        for protocol in one.rankings
    )


def _with_own_labels(methods, folders):
    counts = Counter(method.label for method in methods)
    short = Counter(folder.name for folder in folders)
    named = []
    for method in methods:
        folder = folders[method.evaluation]
        label = method.label
        if counts[label] > 1:
            label += f" ({folder.name if short[folder.name] == 1 else folder})"
        named.append(replace(method, label=label))
    return named


def frames(entry: dict) -> dict[int, str]:
    """{image: grade} of a query's graded images; all others are NEGATIVE."""
    return {int(image): grade for grade in grades_of(entry) for image in entry[grade]}


def measured_ranks(ranking: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """int [R]: the rank, from 1, of each image of a ranking [R], 0 for ignored ones and for the -1 that fill it
    up."""
    counted = (ranking >= 0) & ~np.isin(ranking, ignored)
    return np.where(counted, np.cumsum(counted), 0)


def results(ranking: np.ndarray, before: np.ndarray, ignored: np.ndarray, shown: int = SHOWN) -> dict[str, list[int]]:
    """The first ``shown`` ranked images, and the ignored ones between them: {"images", "ranks", "before"}, lists of
    one length. before: the rank in the ranking before, 0 where it does not list the image; both are 0 for ignored
    ones."""
    ranks, ranks_before = measured_ranks(ranking, ignored), measured_ranks(before, ignored)
    end = int(np.searchsorted(np.cumsum(ranks > 0), shown)) + 1
    head = ranking[:end] >= 0
    was = dict(zip(before.tolist(), ranks_before.tolist()))
    images, shown_ranks = ranking[:end][head].tolist(), ranks[:end][head].tolist()
    ranks_were = [was.get(image, 0) if rank else 0 for image, rank in zip(images, shown_ranks)]
    return {"images": images, "ranks": shown_ranks, "before": ranks_were}


def query_data(comparison: Comparison, row: int, shown: int = SHOWN) -> dict:
    """All that the page of one query needs but the thumbnails: {"names" {image: name}, "grades" {image: grade},
    "results" [method] {protocol: results()}, "positives" {protocol: images}, "places" [method] {protocol: their
    ranks, 0 for those not listed}}."""
    entry = comparison.gnd[row]
    found, ranks = [], []
    positives = {
        p: np.sort(np.concatenate([entry[g] for g in POSITIVE_GRADES[p]])).tolist() for p in comparison.protocols
    }
    seen = set().union(*positives.values())
    for method in comparison.methods:
        before = comparison.methods[method.before].rankings
        found.append({})
        ranks.append({})
        for protocol in comparison.protocols:
            ignored, ranking = ignored_positions(entry, protocol), method.rankings[protocol][row]
            found[-1][protocol] = results(ranking, before[protocol][row], ignored, shown)
            rank_of = dict(zip(ranking.tolist(), measured_ranks(ranking, ignored).tolist()))
            ranks[-1][protocol] = [rank_of.get(image, 0) for image in positives[protocol]]
            seen.update(found[-1][protocol]["images"])
    graded = frames(entry)
    return {
        "names": {image: comparison.names[image] for image in sorted(seen)},
        "grades": {image: graded.get(image, NEGATIVE) for image in sorted(seen)},
        "results": found,
        "positives": positives,
        "places": ranks,
    }


def gains_order(gains: np.ndarray) -> list[int]:
    """Queries by falling gain [Q], equal ones in the order of the list; those without positives (NaN) are left out."""
    return [int(row) for row in np.argsort(-gains, kind="stable") if np.isfinite(gains[row])]


def summary_data(comparison: Comparison) -> dict:
    """Fractions for the summary: {"methods": [{"map", "interval", "mp", "mp_interval", "p", each {protocol: ...}}],
    "gains": [a][b] {protocol: [mean, low, high]} of b over a, paired by query}; None where no query has positives. p:
    of the gain over the search that a method started from, by Holm's correction for the number of methods."""
    methods: list[dict] = [
        {
            "map": {p: _plain(_mean(method.aps[p])) for p in comparison.protocols},
            "interval": {p: _plain(bootstrap_interval(method.aps[p])) for p in comparison.protocols},
            "mp": {p: _plain(_mean(method.ps[p])) for p in comparison.protocols},
            "mp_interval": {
                p: [_plain(bootstrap_interval(column)) for column in method.ps[p].T] for p in comparison.protocols
            },
        }
        for method in comparison.methods
    ]
    for protocol in comparison.protocols:
        found = [each.aps[protocol] - comparison.methods[each.before].aps[protocol] for each in comparison.methods]
        for figures, p in zip(methods, holm([randomisation_p(gains) for gains in found])):
            figures.setdefault("p", {})[protocol] = p
    count = len(comparison.methods)
    gains: list[list[dict]] = [[{} for _ in range(count)] for _ in range(count)]
    for a in range(count):
        for b in range(a, count):
            for protocol in comparison.protocols:
                difference = comparison.methods[b].aps[protocol] - comparison.methods[a].aps[protocol]
                mean, (low, high) = _mean(difference), bootstrap_interval(difference)
                gains[a][b][protocol] = _plain([mean, low, high])
                gains[b][a][protocol] = _plain([-mean, -high, -low])
    return {"methods": methods, "gains": gains}


def _mean(values):
    """Over the queries that have positives."""
    counted = values[np.isfinite(values.reshape(len(values), -1)[:, 0])]
    return counted.mean(axis=0) if len(counted) else np.full(values.shape[1:], np.nan)


def _plain(value):
    """Python floats for JSON, which has no NaN."""
    if np.ndim(value):
        return [_plain(each) for each in value]
    return float(value) if np.isfinite(value) else None


def aps_data(method: Method) -> dict:
    """{protocol: average precision of each query, None without positives}."""
    return {protocol: _plain(aps) for protocol, aps in method.aps.items()}


def image_folder(evaluation: SavedRankings, given=None) -> Path:
    """Where the images lie: as given, else the data set's folder, or that of the list when it is a link to
    elsewhere."""
    if given is not None:
        if not Path(given).is_dir():
            raise InputError(
                f"{given}: no such folder; give as --image_dir the folder that the names in the lists begin in"
            )
        return Path(given)
    folders = [Path(evaluation.about["data_dir"]), evaluation.find(evaluation.about["lists"][0]).resolve().parent]
    return next((f for f in folders if any((f / name).is_file() for name in evaluation.queries[:20])), folders[0])


def summary_lines(comparison: Comparison, summary: dict) -> list[str]:
    """mAP of every method, and the queries that gained and lost most over the search before, as text."""
    protocol = chosen_protocol(comparison.protocols)
    found = []
    for method, figures in zip(comparison.methods, summary["methods"]):
        maps = ", ".join(f"{p} {100 * value:.2f}" for p, value in figures["map"].items() if value is not None)
        found.append(f"{method.label}: {f'mAP {maps}' if maps else 'no query has a right image'}")
        gains = method.aps[protocol] - comparison.methods[method.before].aps[protocol]
        for what, rows in (("gained", gains_order(gains)[:3]), ("lost", gains_order(-gains)[:3])):
            rows = [row for row in rows if (gains[row] > 0 if what == "gained" else gains[row] < 0)]
            if rows:
                named = ", ".join(f"{comparison.queries[row]} {100 * gains[row]:+.1f}" for row in rows)
                found.append(f"  {what} most ({protocol}): {named}")
    return found
