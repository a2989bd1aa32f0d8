"""Measures of Google Landmarks v2 (docs/protocol.md 6.4): retrieval by mAP@100 and precision, recognition by GAP."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import global_average_precision, mean_average_precision_at_k
from rrt.evaluation.trec import read_run, run_positions
from rrt.formats.gldv2 import USAGES, is_recognition, read_recognition, read_retrieval, read_solution
from rrt.formats.ground_truth import POSITIVE_GRADES
from rrt.formats.revisited import RevisitedSet

CUT = 100  # images of a query that count
KS = (1, 10, CUT)


def retrieval_figures(ranks, positives: Sequence, ks=KS, num_gallery: int | None = None) -> dict[str, float]:
    """{"mAP@100", "mP@k" for each k}, fractions, of rankings [Q, R] (gallery positions) and the right ones of each
    query. P@k divides by k, however many right images there are and however short the ranking is; queries without a
    right image are left out."""
    figures = {f"mAP@{CUT}": mean_average_precision_at_k(ranks, positives, CUT, num_gallery)[0]}
    right = [np.isin(row[: max(ks)], found) & (row[: max(ks)] >= 0) for row, found in zip(ranks, positives)]
    counted = [hits for hits, found in zip(right, positives) if len(found)]
    return figures | {f"mP@{k}": float(np.mean([hits[:k].sum() / k for hits in counted] or [np.nan])) for k in ks}


def recognition_figures(answers: Mapping[str, tuple[int, float]], truth: Mapping[str, list[int]]) -> dict[str, float]:
    """{"GAP", "GAP of landmarks"}, fractions: over all queries, and over those that show a landmark. answers:
    {query: (landmark, -1 for none; confidence)}; truth: {query: its landmarks, possibly none}."""

    def gap(queries):
        predicted, confidence = zip(*(answers.get(query, (-1, 0.0)) for query in queries)) if queries else ((), ())
        return global_average_precision(np.array(predicted, np.int64), confidence, [truth[query] for query in queries])

    return {"GAP": gap(list(truth)), "GAP of landmarks": gap([query for query, found in truth.items() if found])}


def measure_answers(path, solution, usages: Sequence[str] = USAGES) -> tuple[dict[str, float], str]:
    """(figures, what is to be said of them) of answers by a solution file: a CSV as it is handed in, or, for retrieval,
    a TREC run whose names are paths of images. usages: rows that are queries. Answers for other images do not count.
    Raises InputError."""
    truth = read_solution(solution, usages)
    recognition = is_recognition(solution)
    answers = _answers(path, recognition)
    there = [query for query in truth if query in answers]
    if not there:
        raise InputError(f"{path}: not one of its {len(answers)} answers is for a query of {solution}; give its own")
    note = f"{len(truth)} queries of {' and '.join(usages)}"
    if len(there) < len(truth):
        note += f", {len(truth) - len(there)} of them without an answer, which counts as nothing found"
    if recognition:
        return recognition_figures(answers, truth), note
    names = dict.fromkeys([*(name for found in truth.values() for name in found)])
    run = {query: answers[query][:CUT] for query in there}
    ranks, size = run_positions(path, run, list(truth), list(names), others=True)
    position = {name: row for row, name in enumerate(names)}
    positives = [[position[name] for name in found] for found in truth.values()]
    return retrieval_figures(ranks, positives, num_gallery=size), note


def measure_lists(path, images: RevisitedSet, distractors: bool = False) -> tuple[dict[str, float], str]:
    """The same of a TREC run by lists and ground truth, as `tools/prepare_data.py gldv2_test` writes them: easy and
    hard images, or good and ok ones, are right, and nothing is ignored."""
    run, _ = read_run(path)
    queries, run = images.query.names, {query: names[:CUT] for query, names in run.items()}
    ranks, size = run_positions(path, run, queries, images.gallery.names, distractors)
    gnd = images.truth.gnd
    grades = POSITIVE_GRADES["classic" if gnd and "good" in gnd[0] else "medium"]
    positives = [np.concatenate([np.asarray(entry[grade], np.int64) for grade in grades]) for entry in gnd]
    missing = len(set(queries) - run.keys())
    note = f", {missing} of them not in the run, which counts as nothing found" if missing else ""
    return retrieval_figures(ranks, positives, num_gallery=size), f"{len(queries)} queries{note}"


def _answers(path, recognition: bool) -> Mapping:
    with open(path, "rb") as file:
        is_csv = file.readline().strip().removeprefix(b"\xef\xbb\xbf").startswith(b"id,")
    if recognition:
        return read_recognition(path)
    if is_csv or Path(path).suffix == ".csv":
        return read_retrieval(path)
    run, _ = read_run(path)
    return {_stem(query): [_stem(name) for name in names] for query, names in run.items()}


def _stem(name):
    return PurePosixPath(name).stem
