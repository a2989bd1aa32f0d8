"""How often the first result of a search is right, on images whose landmarks are known."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import ProtocolResult, evaluate, format_table
from rrt.files.atomic import write_json
from rrt.formats.revisited import RevisitedSet, load_revisited_set
from rrt.photo_index.extraction import describe_queries
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.ranking import Ranker, ranker_of
from rrt.progress import bar
from rrt.store.joined import JoinedStore
from rrt.store.store import Store

KS = (1, 5, 10)


def measure_index(
    index: PhotoIndex, images: RevisitedSet, queries: Store, rankers: list[Ranker]
) -> dict[str, dict[str, ProtocolResult]]:
    """{method: {protocol: figures}} of an index that holds the gallery's images.

    images: lists and truth; their gallery alone is searched. queries: a store of their queries. Raises InputError for a
    gallery image that the index lacks.
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


def measure(args) -> None:
    """The command: prints precision and mean average precision of global search and of the reranked one."""
    images = load_revisited_set(args.query_list, args.gallery_list, args.ground_truth)
    index = PhotoIndex(args.index)
    chosen = ranker_of(index.manifest, args, index.whitening)
    rankers = [Ranker("none")] + [chosen] * (chosen.name != "none")
    with TemporaryDirectory(prefix="rrt_measure_") as folder:
        queries = describe_queries(
            index.manifest.extraction, args.query_list, args.ground_truth, args.image_dir, Path(folder)
        )
        results = measure_index(index, images, queries, rankers)
    if chosen.note:
        print(f"note: {chosen.note}")
    print(f"{len(images.query)} queries, {len(images.gallery)} photographs")
    print(format_table(results))
    figures = {
        name: {
            protocol: {"mAP": round(100 * result.map, 2), "precision at 1": round(100 * result.mp[0], 2)}
            for protocol, result in by_protocol.items()
        }
        for name, by_protocol in results.items()
    }
    if args.json:
        write_json(Path(args.json), figures)
