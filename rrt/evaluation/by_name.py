"""Measures of rankings of names: plain dictionaries in, plain dictionaries out.

rrt.evaluate({"q.jpg": ["a.jpg", "b.jpg"]}, {"q.jpg": ["a.jpg"]})
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.evaluation import metrics

GRADES = ("easy", "hard", "junk")
Truth = Iterable[str] | Mapping[str, Iterable[str]]


def evaluate(
    rankings: Mapping[str, Any], ground_truth: Mapping[str, Truth], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[str, Any]]:
    """Measure rankings of names, {query: names, the best first}; objects with ``names`` serve, too (``Retrieved``).

    ground_truth: {query: the names that are right}, measured as `all`; or {query: {"easy": names, "hard": names,
    "junk": names}}, each of which may be left out, measured as `easy`, `medium` and `hard` (Radenovic et al., CVPR
    2018; docs/protocol.md 6). What is not listed is not found; what the truth does not name is wrong.

    Returns {protocol: {"map": mean average precision, "mp@K", "mr@K": means of precision and recall at K, "aps":
    {query: average precision}}}, fractions; queries without right images are left out. Raises InputError for a query
    without a ranking and for names given twice.
    """
    for what, given in (("rankings", rankings), ("ground truth", ground_truth)):
        if not isinstance(given, Mapping):
            raise InputError(f"{what}: a {type(given).__name__}; give a dictionary {{query: names}}")
    graded = {query: _graded(query, truth) for query, truth in ground_truth.items()}
    if not graded:
        raise InputError("ground truth: no queries; give {query: names}")
    plain = {isinstance(truth, Mapping) for truth in ground_truth.values()} == {False}
    if len({isinstance(truth, Mapping) for truth in ground_truth.values()}) > 1:
        raise InputError("ground truth: some queries have grades, others a list of names; keep to one of the two")
    lists = {query: _names(query, rankings) for query in graded}
    number: dict[str, int] = {}
    for names in [*lists.values(), *(names for truth in graded.values() for names in truth.values())]:
        for name in names:
            number.setdefault(name, len(number))
    ranks = np.full((len(lists), max(1, *map(len, lists.values()))), -1, np.int64)
    for row, names in enumerate(lists.values()):
        ranks[row, : len(names)] = [number[name] for name in names]
    gnd = [{grade: [number[name] for name in names] for grade, names in truth.items()} for truth in graded.values()]
    measured = metrics.evaluate(ranks, gnd, tuple(ks), len(number))
    if plain:
        measured = {"all": measured["easy"]}
    return {protocol: _table(result, list(graded)) for protocol, result in measured.items()}


def _graded(query: str, truth: Truth) -> dict[str, list[str]]:
    grades = truth if isinstance(truth, Mapping) else {"easy": truth}
    unknown = sorted(set(grades) - set(GRADES))
    if unknown:
        raise InputError(f"ground truth of '{query}': '{unknown[0]}' is no grade; known: {', '.join(GRADES)}")
    found = {grade: _checked(f"ground truth of '{query}'", grades.get(grade, ())) for grade in GRADES}
    _checked(f"ground truth of '{query}'", [name for names in found.values() for name in names])
    return found


def _names(query: str, rankings: Mapping[str, Any]) -> list[str]:
    if query not in rankings:
        raise InputError(f"rankings: none for the query '{query}' of the ground truth")
    return _checked(f"ranking of '{query}'", getattr(rankings[query], "names", rankings[query]))


def _checked(where: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"{where}: '{names}' is one name; give a list of names")
    if not np.iterable(names):
        raise InputError(f"{where}: {names!r} is no list of names")
    found = list(names)
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise InputError(f"{where}: '{twice}' is named twice")
    return found


def _table(result: metrics.ProtocolResult, queries: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = {"map": result.map}
    for k, precision, recall in zip(result.ks, result.mp.tolist(), result.mr.tolist()):
        table |= {f"mp@{k}": precision, f"mr@{k}": recall}
    return table | {"aps": {query: ap for query, ap in zip(queries, result.aps.tolist()) if ap == ap}}
