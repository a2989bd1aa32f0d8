"""What the command ``evaluate_revisited.py`` does, as functions of plain settings; what other tools share of it."""

import csv
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rrt.datasets.configured import open_test
from rrt.datasets.distractors import add_distractors
from rrt.datasets.sets import TestSet, check_num_rerank, neighbors_path
from rrt.devices import choose_device
from rrt.errors import InputError, check_count
from rrt.evaluation.methods import measure_method
from rrt.evaluation.rankings import RankedMethod, save_rankings
from rrt.evaluation.reranking import evaluate_global, summary
from rrt.evaluation.trec import write_qrels, write_run
from rrt.files.atomic import atomic_path, sha256_of_file
from rrt.formats.ground_truth import IGNORED_GRADES, ignored_positions, protocols_of
from rrt.network.model import DEFAULT_SETTINGS
from rrt.network.pairs import check_binning
from rrt.network.reranker import Reranker
from rrt.progress import bar
from rrt.rerankers.build import configure
from rrt.rerankers.fusion import read_fusion
from rrt.rerankers.transformer import Transformer
from rrt.search.whitening import load_whitening

# {setting: (default, meaning)}
EVALUATION_SETTINGS = {
    "temp_dir": ("logs/evaluate", "folder for results.json, queries.csv, rankings.npz and the record of the run"),
    "resume": (None, "checkpoint of rrt; without it and without reranker= global search is measured alone"),
    "reranker": (
        None,
        "a method of rrt.rerankers or a chain of them, as superglobal+geometric; None: rrt, with resume",
    ),
    "num_rerank": (None, "candidates of a query that are reranked; None: the method's own number; too many mean all"),
    "scale_binning": (None, "published | exact; None: as the checkpoint was trained"),
    "lambda": (0.0, "share of the global similarity in the score, 0..1; 0 ranks by the reranker alone"),
    "temperature": (1.0, "of the blend lambda * similarity + (1 - lambda) * sigmoid(temperature * logit)"),
    "fusion": (None, "a fusion.json of tools/tune_fusion.py instead of lambda and temperature"),
    "whitening": (None, "an .npz of tools/learn_whitening.py for global similarities (of fusion and of distractors)"),
    "distractors": (None, "a store whose images all join the gallery as wrong ones, for example R1M's"),
    "trec": (False, "write rankings and ground truth as TREC files, too, into temp_dir/trec"),
    "seed": (0, "unused by the evaluation, whose intervals have their own; Sacred records it"),
    "precision": ("float32", "float32 (exact) | bfloat16 | float16 | auto, which takes what multiplies fastest here"),
    "compile": (False, "torch.compile in the reranker: takes a minute, pays for many queries on a GPU"),
    "memory_mb": (None, "MiB the scorer may use; None: half of what is free on a GPU, else at most 4096"),
    "cpu": (False, "do not use a GPU"),
    "visdom_port": (None, "accepted and unused, as published command lines may set it"),
}

# What `select_on` of a checkpoint means (rrt.training.trainer).
SELECTION_RULES = {
    "val": "the epoch of the best Medium mAP on held-out validation landmarks",
    "test": "the epoch of the best Medium + Hard mAP on the TEST SET, as published",
    "last": "the last epoch; nothing was selected",
}


@dataclass(frozen=True)
class EvaluationReport:
    """results: {method: {protocol: ProtocolResult}}, ``global`` and the reranker's; reranker: its name there (``RRT``,
    or as it was given), None without one; numbers: plain figures for ``results.json``; paths: results.json, queries.csv
    and rankings.npz; trec: the TREC files, where they were asked for."""

    results: dict
    reranker: str | None
    numbers: dict
    paths: list[Path]
    trec: list[Path]


def evaluate_run(dataset: dict, model: dict, settings: dict) -> EvaluationReport:
    """Measure global search and its reranking by ``settings["reranker"]``. settings: those of EVALUATION_SETTINGS that
    differ from their defaults, and {method: {setting: value}}. Everything is opened and checked before the long work;
    raises InputError."""
    settings = {name: default for name, (default, _) in EVALUATION_SETTINGS.items()} | settings
    _check_settings(dataset, settings)
    max_local, ks = dataset["max_sequence_len"], dataset["recalls"]
    fusion = read_fusion(settings["fusion"], settings["lambda"], settings["temperature"])
    whitening = load_whitening(settings["whitening"]) if settings["whitening"] else None
    configured = configure(settings["reranker"], settings, settings["resume"], settings["num_rerank"], settings["cpu"])
    if settings["resume"] and "rrt" not in configured.names:
        raise InputError(
            f"setting reranker={settings['reranker']}: resume is the checkpoint of rrt, which is not among them"
        )
    reranker = open_reranker(dataset, model, settings) if settings["resume"] else None
    test = open_test(dataset, "test", max_local)
    if configured and configured.depths[-1] is not None:
        check_num_rerank(test, configured.depths[-1])
    if reranker:
        reranker.scorer(test.store)
    protocol = protocol_of_search(test, dataset, settings)
    numbers: dict = {"protocol": protocol}
    if settings["distractors"]:
        start = time.perf_counter()
        listed = configured.listed_among_distractors() if configured else 0
        test = add_distractors(test, settings["distractors"], listed, whitening, max_local)
        protocol["distractors"] = f"{settings['distractors']} ({len(test.store.second)} images)"
        numbers["distractor_seconds"] = round(time.perf_counter() - start, 3)
    folder = Path(settings["temp_dir"])
    folder.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is found before the long work
    results = {"global": evaluate_global(test, ks)}
    numbers["global"] = summary(results["global"])
    rankings = {"global": dict.fromkeys(results["global"], test.ranks)}
    details, searched = {"global": {}}, dict(protocol)
    label = None
    if configured:
        label = configured.label
        method = configured.method(Transformer(reranker, fusion) if reranker else None)
        measured = measure_method(test, method, whitening, settings["num_rerank"], ks)
        results[label], rankings[label] = measured.results, measured.rankings
        numbers[label] = summary(results[label], results["global"])
        protocol["num_rerank"] = measured.num_rerank or len(test.gallery_index)
        of_rrt = protocol_of_reranking(reranker, test.store, fusion) if reranker else {}
        protocol |= of_rrt
        if configured.settings:
            protocol |= {"reranker": label, "reranker_settings": configured.settings}
            numbers["prepare_seconds"] = round(measured.prepare_seconds, 3)
        numbers["seconds"] = round(measured.seconds, 3)
        numbers["ms_per_query"] = round(1000 * measured.seconds / len(test.query_index), 2)
        numbers["pairs_per_second"] = round(measured.num_scored / max(measured.seconds, 1e-9), 1)
        details[label] = method_details(configured, measured, len(test.query_index)) | of_rrt
    numbers |= peak_memory()
    ranked = [RankedMethod(name, results[name], rankings[name], details[name]) for name in results]
    paths = [
        write_json(folder, "results.json", numbers),
        _write_queries(folder / "queries.csv", test, results),
        save_rankings(folder, test, ranked, searched),
    ]
    trec = _write_trec(folder / "trec", test, rankings) if settings["trec"] else []
    return EvaluationReport(results, label, numbers, paths, trec)


def _check_settings(dataset, settings):
    for name in ("resume", "fusion", "whitening", "distractors"):
        if settings[name] is not None and not isinstance(settings[name], (str, Path)):
            raise InputError(f"setting {name}={settings[name]!r}: expected the path of a file, or None")
    if settings["num_rerank"] is not None:
        check_count("num_rerank", settings["num_rerank"])
    if settings["scale_binning"] is not None:
        check_binning(settings["scale_binning"])
    max_local, ks = dataset["max_sequence_len"], dataset["recalls"]
    if max_local is not None and (not isinstance(max_local, int) or max_local < 0):
        raise InputError(f"dataset.max_sequence_len={max_local}: expected an integer of at least 0")
    if not isinstance(ks, (list, tuple)) or not all(isinstance(k, int) and k > 0 for k in ks):
        raise InputError(f"dataset.recalls={ks}: expected a list of integers of at least 1, as [1, 5, 10]")


def open_reranker(dataset: dict, model: dict, settings: dict) -> Reranker:
    """The transformer of the checkpoint ``settings["resume"]``; scale_binning=None takes the one it was trained
    with."""
    return Reranker.from_checkpoint(
        settings["resume"],
        choose_device("cpu" if settings["cpu"] else None),
        dataset["max_sequence_len"],
        settings["scale_binning"],
        {name: model[name] for name in DEFAULT_SETTINGS},
        settings["precision"],
        settings["compile"],
        settings["memory_mb"],
        all_local=dataset["max_sequence_len"] is None,
    )


def peak_memory() -> dict:
    """{"peak_memory_mb"} of this process so far and, where a GPU was used, {"peak_device_memory_mb"} on it."""
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return peak


def protocol_of_search(test: TestSet, dataset: dict, settings: dict) -> dict:
    """How the ranking before reranking came about, in words a reader of the results needs."""
    neighbors = neighbors_path(test.folder, dataset["desc_name"])
    return {
        "queries": len(test.query_index),
        "gallery": len(test.gallery_index),
        "ground_truth": str(test.images.truth.path),
        "store": str(test.store.path),
        "neighbors": str(neighbors),
        "neighbors_sha256": sha256_of_file(neighbors),
        "neighbors_search": test.search,
        "cropping": cropping_of(test),
        "junk": "; ".join(f"{name}: {', '.join(IGNORED_GRADES[name])}" for name in protocols_of(test.gnd))
        + " - behind the gallery before reranking, left out of every measure",
        "whitening": str(settings["whitening"]) if settings["whitening"] else None,
        "distractors": None,
        "num_rerank": 0,
    }


def protocol_of_reranking(reranker: Reranker, store, fusion) -> dict:
    """What shaped the scores of the transformer, in the same way."""
    selection = reranker.recorded.get("selection")
    unknown = "unknown: the checkpoint does not say"
    scorer = reranker.scorer(store)
    return {
        "precision": scorer.precision,
        "device": scorer.device.type,
        "scale_binning": scorer.binning,
        "max_local": scorer.max_local,
        "lambda": fusion.weight,
        "temperature": fusion.temperature,
        "checkpoint": str(reranker.checkpoint),
        "checkpoint_sha256": sha256_of_file(reranker.checkpoint),
        "selection_rule": SELECTION_RULES.get(selection["select_on"], selection["select_on"]) if selection else unknown,
        "selected": selection or unknown,
    }


def method_details(configured, measured, num_queries: int) -> dict:
    """A method's settings and times for the record of its rankings."""
    return {
        "num_rerank": measured.num_rerank,
        "settings": configured.settings,
        "ms_per_query": round(1000 * measured.seconds / num_queries, 2),
        "prepare_seconds": round(measured.prepare_seconds, 3),
    }


def cropping_of(test: TestSet) -> str:
    """Whether the queries' descriptors are of their boxes or of whole images, as far as the store tells."""
    crops = test.store.config.get("crop_queries")
    if crops is None:
        return "unknown: the store does not say"
    if not crops:
        return "queries taken whole"
    sizes = test.store.image_size[test.query_index]
    boxes = [[round(x2) - round(x1), round(y2) - round(y1)] for x1, y1, x2, y2 in (entry["bbx"] for entry in test.gnd)]
    # A box counts its last pixel in the lists and not in the crop.
    if abs(sizes - boxes).max() <= 1:
        return "queries cropped to their boxes"
    return "unknown: the store was made with crop_queries, but its queries do not have the sizes of their boxes"


def protocol_text(numbers: dict) -> str:
    """The protocol of the results, a line for each thing."""
    return "\n".join(f"{name}: {value}" for name, value in numbers["protocol"].items() if value is not None)


def write_json(folder, name: str, content) -> Path:
    path = Path(folder) / name
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def _write_queries(path: Path, test: TestSet, results: dict) -> Path:
    """One row a query: its name and the average precision of every method and protocol (empty without positives)."""
    columns = [(method, protocol) for method, by_protocol in results.items() for protocol in by_protocol]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query", *(f"{method}_{protocol}_ap" for method, protocol in columns)])
        for row, name in enumerate(test.images.query.names):
            aps = [results[method][protocol].aps[row] for method, protocol in columns]
            writer.writerow([name, *("" if ap != ap else f"{ap:.6f}" for ap in aps)])
    return path


def _write_trec(folder: Path, test: TestSet, rankings: dict) -> list[Path]:
    """A run of every method and protocol, without what the protocol ignores, and the protocols' qrels."""
    queries, gallery = test.images.query.names, test.images.gallery.names
    in_store = test.store.names

    def names(row, positions, protocol):
        kept = positions[(positions >= 0) & ~np.isin(positions, ignored_positions(test.gnd[row], protocol))]
        return [gallery[p] if p < len(gallery) else in_store[test.gallery_index[p]] for p in kept]

    paths = []
    for protocol in protocols_of(test.gnd):
        paths.append(write_qrels(folder / f"{protocol}.qrels", queries, gallery, test.gnd, protocol))
        for method, ranking in rankings.items():
            tag = f"{method}_{protocol}"
            documents = (
                names(row, ranked, protocol)
                for row, ranked in enumerate(bar(ranking[protocol], tag, "query", passing=True))
            )
            paths.append(write_run(folder / f"{tag}.run", queries, documents, tag))
    return paths
