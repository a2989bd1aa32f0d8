"""What the command ``evaluate_revisited.py`` does, as functions of its settings; what other commands share of it."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrt.datasets.configured import open_test
from rrt.datasets.distractors import add_distractors
from rrt.datasets.sets import TestSet, check_num_rerank, neighbors_path
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError
from rrt.evaluation.methods import Measured, measure_method
from rrt.evaluation.metrics import ProtocolResult
from rrt.evaluation.rankings import RankedMethod, save_rankings
from rrt.evaluation.reranking import evaluate_global, summary
from rrt.evaluation.settings import EvaluationSettings
from rrt.evaluation.significance import baselines, paired_gains
from rrt.evaluation.trec import write_qrels, write_run
from rrt.files.atomic import all_or_none, sha256_of_file, write_csv, write_json
from rrt.formats.ground_truth import IGNORED_GRADES, ignored_positions, protocols_of
from rrt.progress import bar
from rrt.rerankers.build import ConfiguredMethod, configure
from rrt.rerankers.transformer import Transformer
from rrt.store.joined import JoinedStore
from rrt.store.store import Store

# What `select_on` of a checkpoint means (rrt.training.trainer).
SELECTION_RULES = {
    "val": "the epoch of the best Medium mAP on held-out validation landmarks",
    "test": "the epoch of the best Medium + Hard mAP on the TEST SET, as published",
    "last": "the last epoch; nothing was selected",
}


@dataclass(frozen=True)
class EvaluationReport:
    """results: {method: {protocol: ProtocolResult}}, first of the neighbour table (``TestSet.search_label``), then of
    the reranker; reranker: its name there (``RRT``, or as it was given), None without one; numbers: plain figures for
    ``results.json``; paths: results.json, queries.csv and rankings.npz; trec: the TREC files, where they were asked
    for."""

    results: dict[str, dict[str, ProtocolResult]]
    reranker: str | None
    numbers: dict[str, Any]
    paths: list[Path]
    trec: list[Path]


def evaluate_run(settings: EvaluationSettings) -> EvaluationReport:
    """Measure global search and its reranking. Everything is opened and checked before the long work, and before
    anything is written; raises InputError."""
    fusion, whitening = settings.open_fusion(), settings.open_whitening()
    configured = _configured(settings)
    transformer = Transformer(settings.open_reranker(), fusion) if settings.resume else None
    max_local = transformer.reranker.max_local if transformer else settings.dataset.max_local
    test = open_test(settings.dataset)
    if configured and configured.depths[-1] is not None:
        check_num_rerank(test, configured.depths[-1])
    if transformer:
        transformer.reranker.scorer(test.store)  # refuses descriptors of other sizes
    protocol = protocol_of_search(test, settings.dataset, settings.whitening)
    numbers: dict[str, Any] = {"protocol": protocol}
    if settings.distractors:
        start = time.perf_counter()
        listed = configured.listed_among_distractors() if configured else 0
        listed = max(listed, (settings.num_rerank or 100) if settings.baselines else 0)
        test = add_distractors(test, settings.distractors, listed, whitening, max_local)
        protocol["distractors"] = f"{settings.distractors} ({len(test.gallery_index) - protocol['gallery']} images)"
        numbers["distractor_seconds"] = round(time.perf_counter() - start, 3)
    folder = Path(settings.temp_dir)
    folder.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is found before the long work
    searched = evaluate_global(test, settings.dataset.recalls)
    numbers[test.search_label] = summary(searched)
    methods = [RankedMethod(test.search_label, searched, dict.fromkeys(searched, test.ranks))]
    protocol_of_table = dict(protocol)
    if configured:
        method = configured.method(transformer)
        measured = measure_method(
            test, method, whitening, settings.num_rerank, settings.dataset.recalls, settings.ray_address
        )
        of_rrt = protocol_of_reranking(transformer, test.store) if transformer else {}
        numbers |= _numbers_of(configured, measured, searched)
        protocol |= {"num_rerank": measured.num_rerank or len(test.gallery_index)} | of_rrt
        if measured.remark:
            protocol["remark"] = measured.remark
        if configured.settings:
            protocol |= {"reranker": configured.label, "reranker_settings": configured.settings}
        details = method_details(configured, measured) | of_rrt
        methods.append(RankedMethod(configured.label, measured.results, measured.rankings, details))
    if settings.baselines:
        beside = _measured_baselines(settings, test, transformer, whitening, configured, max_local)
        numbers |= {method.label: summary(method.results, searched) for method in beside}
        methods += beside
        numbers["gain_over"] = _gains_over(methods)
    numbers |= peak_memory()
    label = configured.label if configured else None
    return _write_report(folder, test, methods, label, numbers, protocol_of_table, settings.trec)


def _measured_baselines(
    settings: EvaluationSettings, test, transformer, whitening, configured, max_local
) -> list[RankedMethod]:
    """What the reranker is to be compared with, on as many candidates and local descriptors."""
    num = configured.depths[-1] if configured else settings.num_rerank
    fusion = transformer.fusion if transformer else None
    found = []
    names = baselines(max_local, fusion, num)
    # The last is the transformer as it was asked for.
    for name in names[:-1] if configured and configured.names == ("rrt",) else names:
        each = configure(name, settings.rerankers or {}, settings.resume, cpu=settings.cpu)
        assert each is not None
        measured = measure_method(
            test, each.method(transformer), whitening, ks=settings.dataset.recalls, ray_address=settings.ray_address
        )
        details = method_details(each, measured)
        found.append(RankedMethod(each.label, measured.results, measured.rankings, details))
    return found


def _gains_over(methods: list[RankedMethod]) -> dict[str, dict[str, Any]]:
    """{label: by how much the reranker, or without one the first baseline, is better than this method}."""
    gains = paired_gains([method.results for method in methods], 1)
    found = {}
    for method, row in zip(methods, gains):
        if row["gain"] is not None:
            turned = [-end for end in row["gain_interval"][::-1]]
            found[method.label] = row | {"gain": -row["gain"], "gain_interval": turned}
    return found


def _configured(settings: EvaluationSettings) -> ConfiguredMethod | None:
    configured = configure(
        settings.reranker, settings.rerankers or {}, settings.resume, settings.num_rerank, settings.cpu
    )
    if settings.resume and configured and "rrt" not in configured.names:
        raise InputError(
            f"setting reranker={settings.reranker}: resume is the checkpoint of rrt, which is not among them"
        )
    return configured


def _numbers_of(configured: ConfiguredMethod, measured: Measured, before: dict) -> dict[str, Any]:
    """The figures and times of a method for results.json."""
    numbers: dict[str, Any] = {configured.label: summary(measured.results, before)}
    if configured.settings:
        numbers["prepare_seconds"] = round(measured.prepare_seconds, 3)
    return numbers | {
        "seconds": round(measured.seconds, 3),
        "ms_per_query": measured.ms_per_query,
        "pairs_per_second": round(measured.num_scored / max(measured.seconds, 1e-9), 1),
    }


def _write_report(
    folder, test, methods: list[RankedMethod], label: str | None, numbers, protocol, with_trec: bool
) -> EvaluationReport:
    results = {method.label: method.results for method in methods}
    with all_or_none():  # a report of an earlier method's rankings beside these figures would say so of neither
        write_json(folder / "results.json", numbers)
        paths = [
            folder / "results.json",
            _write_queries(folder / "queries.csv", test, results),
            save_rankings(folder, test, methods, protocol),
        ]
        trec = _write_trec(folder / "trec", test, methods) if with_trec else []
    return EvaluationReport(results, label, numbers, paths, trec)


def peak_memory() -> dict[str, int]:
    """{"peak_memory_mb"} of this process so far and, where a GPU was used, {"peak_device_memory_mb"} on it."""
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return peak


def protocol_of_search(test: TestSet, dataset: DatasetSettings, whitening) -> dict[str, Any]:
    """How the ranking before reranking came about, in words a reader of the results needs. whitening: path of the file
    under which similarities are taken."""
    assert dataset.desc_name is not None
    neighbors = neighbors_path(test.folder, dataset.desc_name)
    return {
        "queries": len(test.query_index),
        "gallery": len(test.gallery_index),
        "ground_truth": str(test.images.truth.path),
        "store": str(test.store.first.path if isinstance(test.store, JoinedStore) else test.store.path),
        "query_store": str(test.query_store.path) if test.query_store else None,
        "neighbors": str(neighbors),
        "neighbors_sha256": sha256_of_file(neighbors),
        "neighbors_search": test.search,
        "cropping": cropping_of(test),
        "junk": "; ".join(f"{name}: {', '.join(IGNORED_GRADES[name])}" for name in protocols_of(test.gnd))
        + " - behind the gallery before reranking, left out of every measure",
        "whitening": str(whitening) if whitening else None,
        "distractors": None,
        "num_rerank": 0,
    }


def protocol_of_reranking(transformer: Transformer, store) -> dict[str, Any]:
    """What shaped the scores of the transformer, in the same way."""
    reranker, fusion = transformer.reranker, transformer.fusion
    scorer, selection = reranker.scorer(store), reranker.recorded.get("selection")
    unknown = "unknown: the checkpoint does not say"
    return {
        "network": reranker.model.settings.get("kind", "RRT"),
        "precision": scorer.precision,
        "device": scorer.device.type,
        "scale_binning": scorer.binning,
        "max_local": reranker.max_local,
        "lambda": fusion.weight,
        "temperature": fusion.temperature,
        "encoded": str(reranker.gallery.store.path) if reranker.gallery else None,
        "encoded_keep": reranker.gallery.keep if reranker.gallery else None,
        "checkpoint": str(reranker.checkpoint),
        "checkpoint_sha256": sha256_of_file(reranker.checkpoint),
        "selection_rule": SELECTION_RULES.get(selection["select_on"], selection["select_on"]) if selection else unknown,
        "selected": selection or unknown,
    }


def method_details(configured: ConfiguredMethod, measured: Measured) -> dict[str, Any]:
    """A method's settings and times for the record of its rankings."""
    return {
        "num_rerank": measured.num_rerank,
        "settings": configured.settings,
        "ms_per_query": measured.ms_per_query,
        "prepare_seconds": round(measured.prepare_seconds, 3),
    }


def cropping_of(test: TestSet) -> str:
    """Whether the queries' descriptors are of their boxes or of whole images, as far as the store tells."""
    crops = _config_of_queries(test).get("crop_queries")
    if crops is None:
        return "unknown: the store does not say"
    if not crops:
        return "queries taken whole"
    sizes = np.asarray(test.store.image_size)[test.query_index]
    corners = [entry["bbx"] for entry in test.gnd]
    boxes = np.array([[round(x2) - round(x1), round(y2) - round(y1)] for x1, y1, x2, y2 in corners])
    # A box counts its last pixel in the lists and not in the crop.
    if abs(sizes - boxes).max() <= 1:
        return "queries cropped to their boxes"
    return "unknown: the store was made with crop_queries, but its queries do not have the sizes of their boxes"


def _config_of_queries(test: TestSet) -> dict[str, Any]:
    store = test.query_store or test.store
    return store.config if isinstance(store, Store) else {}


def protocol_text(numbers: Mapping[str, Any]) -> str:
    """The protocol of the results, a line for each thing."""
    return "\n".join(f"{name}: {value}" for name, value in numbers["protocol"].items() if value is not None)


def _write_queries(path: Path, test: TestSet, results: dict) -> Path:
    """One row a query: its name and the average precision of every method and protocol (empty without positives)."""
    columns = [(method, protocol) for method, by_protocol in results.items() for protocol in by_protocol]
    rows = [["query", *(f"{method}_{protocol}_ap" for method, protocol in columns)]]
    for row, name in enumerate(test.images.query.names):
        aps = [results[method][protocol].aps[row] for method, protocol in columns]
        rows.append([name, *("" if ap != ap else f"{ap:.6f}" for ap in aps)])
    return write_csv(path, rows)


def _write_trec(folder: Path, test: TestSet, methods: list[RankedMethod]) -> list[Path]:
    """A run of every method and protocol, without what the protocol ignores, and the protocols' qrels."""
    queries, gallery = test.images.query.names, test.images.gallery.names
    in_store = test.store.names

    def names(row, positions, protocol):
        kept = positions[(positions >= 0) & ~np.isin(positions, ignored_positions(test.gnd[row], protocol))]
        return [gallery[p] if p < len(gallery) else in_store[test.gallery_index[p]] for p in kept]

    paths = []
    for protocol in protocols_of(test.gnd):
        paths.append(write_qrels(folder / f"{protocol}.qrels", queries, gallery, test.gnd, protocol))
        for method in methods:
            tag = f"{method.label}_{protocol}"
            documents = (
                names(row, ranked, protocol)
                for row, ranked in enumerate(bar(method.rankings[protocol], tag, "query", passing=True))
            )
            paths.append(write_run(folder / f"{tag}.run", queries, documents, tag))
    return paths
