"""How often the first result of a search is right, measured on images whose landmarks are known."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rrt.calibration import GROUPS
from rrt.errors import InputError
from rrt.evaluation.grouping import told
from rrt.evaluation.metrics import ProtocolResult, evaluate, format_table
from rrt.files.atomic import write_json
from rrt.formats.ground_truth import POSITIVE_GRADES, chosen_protocol, ignored_positions, protocols_of
from rrt.formats.revisited import RevisitedSet, load_revisited_set
from rrt.photo_index.extraction import describe_queries
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.ranking import Ranker, ranker_of
from rrt.photo_index.second_look import look_again
from rrt.progress import bar
from rrt.store.joined import JoinedStore
from rrt.store.store import Store

KS = (1, 5, 10)
WIDTH = 20  # results of a search, as a user sees them


def measure_index(
    index: PhotoIndex, images: RevisitedSet, queries: Store, rankers: list[Ranker]
) -> dict[str, dict[str, ProtocolResult]]:
    """{method: {protocol: figures}} of an index that holds the gallery's images.

    images: the lists and their ground truth; only the images of their gallery are searched. queries: store of their
    queries. Raises InputError for a gallery image that is not in the index.
    """
    lacking = [name for name in images.gallery.names if name not in index.numbers]
    if lacking:
        raise InputError(
            f"{index.folder}: has no {lacking[0]!r} ({images.gallery.where(lacking[0])}; {len(lacking)} of "
            f"{len(images.gallery)} are missing); build the index of the folder that the list is relative to"
        )
    rows_of: dict[int, list[int]] = {}  # copies of one file are one entry
    for row, name in enumerate(images.gallery.names):
        rows_of.setdefault(index.numbers[name], []).append(row)
    among = np.array(list(rows_of))
    store, results = JoinedStore(index.store, queries), {}
    query_rows = len(index.store) + queries.indices(images.query.names, images.query)
    for ranker in rankers:
        rankings = [
            index.ranked(store, int(row), ranker, None, among=among)[0].candidates
            for row in bar(query_rows, f"measuring {ranker.name}", "query")
        ]
        ranks = np.array([[row for number in ranking.tolist() for row in rows_of[number]] for ranking in rankings])
        results["global search" if ranker.name == "none" else ranker.name] = evaluate(
            ranks, images.truth.gnd, KS, len(images.gallery)
        )
    return results


def measure_answers(
    index: PhotoIndex, images: RevisitedSet, queries: Store, ranker: Ranker, image_dir: str | Path
) -> dict[str, float | int | None]:
    """How often the answers that a user sees are right, with the second look: shares from 0 to 1, None of nothing.

    first_right: queries whose first result is right; right_first_same, right_first_found: of these queries, those whose
    first result is called the same, or at least maybe; wrong_same: wrong results among all that are called the same, in
    the first WIDTH of each search; unknown_same, unknown_found: queries whose first result is called the same, or at
    least maybe, when the right images are taken out of the gallery. The calibration of the ranker must have thresholds.
    """
    first: dict[bool, list[tuple[str, bool]]] = {False: [], True: []}
    same: list[bool] = []
    numbers = np.array([index.numbers[name] for name in images.gallery.names])
    protocol = chosen_protocol(protocols_of(images.truth.gnd))
    rows = queries.indices(images.query.names, images.query)
    for row, name, entry in zip(bar(rows, "measuring answers", "query"), images.query.names, images.truth.gnd):
        record = queries[int(row)].record()
        right = numbers[np.concatenate([entry[grade] for grade in POSITIVE_GRADES[protocol]]).astype(int)]
        seen = np.setdiff1d(numbers, numbers[ignored_positions(entry, protocol).astype(int)])
        x1, y1, x2, y2 = (int(round(side)) for side in entry["bbx"])
        for unknown in (False, True):
            hits = index.search(record, ranker, WIDTH, np.setdiff1d(seen, right) if unknown else seen)
            hits = look_again(index, hits, ranker, Path(image_dir) / name, (x1, y1, x2, y2))
            found = [index.contents[hit.entry.content] in right for hit in hits]
            first[unknown] += [(str(hits[0].group), found[0])] * bool(hits)
            same += [not known for hit, known in zip(hits, found) if hit.group == GROUPS[0]]
    right_first = [group for group, known in first[False] if known]
    others = [group for group, _ in first[True]]
    shares = {
        "first_right": [known for _, known in first[False]],
        "right_first_same": [group == GROUPS[0] for group in right_first],
        "right_first_found": [group != GROUPS[2] for group in right_first],
        "wrong_same": same,
        "unknown_same": [group == GROUPS[0] for group in others],
        "unknown_found": [group != GROUPS[2] for group in others],
    }
    figures = {name: round(float(np.mean(share)), 4) if share else None for name, share in shares.items()}
    return {"queries": len(rows), "called_same": len(same), **figures}


def measure(args) -> None:
    """The command: prints precision and mean average precision of global search and of the reranking method, and how
    often the answers are right. Raises InputError."""
    images = load_revisited_set(args.query_list, args.gallery_list, args.ground_truth)
    index = PhotoIndex(args.index)
    chosen = ranker_of(index.manifest, args, index.whitening)
    rankers = [Ranker("none")] + [chosen] * (chosen.name != "none")
    with TemporaryDirectory(prefix="rrt_measure_") as folder:
        queries = describe_queries(
            index.manifest.extraction, args.query_list, args.ground_truth, args.image_dir, Path(folder)
        )
        results = measure_index(index, images, queries, rankers)
        known = chosen.calibration and chosen.calibration.thresholds
        answers = measure_answers(index, images, queries, chosen, args.image_dir) if known else {}
    if chosen.note:
        print(f"note: {chosen.note}")
    print(f"{len(images.query)} queries, {len(images.gallery)} photographs")
    print(format_table(results))
    if answers:
        print(told(answers, "answers"))
    figures: dict[str, Any] = {
        name: {
            protocol: {"mAP": round(100 * result.map, 2), "precision at 1": round(100 * result.mp[0], 2)}
            for protocol, result in by_protocol.items()
        }
        for name, by_protocol in results.items()
    }
    if args.json:
        write_json(Path(args.json), figures | ({"answers": answers} if answers else {}))
