"""Pairs of the report: which are asked for, and the images that rrt.report.pair makes of them."""

import hashlib
import sys
from pathlib import Path, PurePosixPath

from rrt.errors import InputError
from rrt.formats.ground_truth import GroundTruth
from rrt.report.data import Comparison


def parse_pairs(texts, comparison: Comparison) -> list[tuple[int, int]]:
    """(query, image of the gallery) for each text QUERY:CANDIDATE, names as in the lists or their stems (`a` for
    `jpg/a.jpg`). A name may hold colons. Raises InputError for names that are none or not unique."""
    if not texts:
        return []
    queries, gallery = _by_name(comparison.queries), _by_name(comparison.names)
    found = {}
    for text in texts:
        splits = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == ":"]
        if not splits:
            raise InputError(f"--pairs {text}: expected QUERY:CANDIDATE")
        known = [(a, b) for a, b in splits if a in queries and b in gallery]
        if not known:
            query, candidate = next(((a, b) for a, b in splits if a in queries), splits[0])
            what, name = ("query", query) if query not in queries else ("gallery image", candidate)
            raise InputError(f"--pairs {text}: no {what} '{name}'; give names of the image lists, or their stems")
        indices = [(queries[a], gallery[b]) for a, b in known]
        if len(indices) > 1 or len(indices[0][0]) > 1 or len(indices[0][1]) > 1:
            raise InputError(f"--pairs {text}: fits more than one pair; give the names as in the image lists")
        found[indices[0][0][0], indices[0][1][0]] = None
    return list(found)


def _by_name(names):
    """{name or stem: indices}; a whole name means that image alone."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        indices.setdefault(PurePosixPath(name).stem, []).append(index)
    return indices | {name: [index] for index, name in enumerate(names)}


def folder_of(query: int, image: int, comparison: Comparison) -> str:
    """Name of the folder of a pair's images."""
    told = f"{comparison.queries[query]}\0{comparison.names[image]}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def draw_pairs(folder, pairs: list[tuple[int, int]], comparison: Comparison, image_dir, resume=None) -> list[dict]:
    """For each pair {"query", "image", "name", "images": [{"file", "title", "caption"}], "numbers"}; files are
    written to ``folder`` and named from there."""
    if not pairs:
        return []
    from rrt.report.pair import write_pair
    from rrt.store.store import Store

    first, drawn = comparison.evaluations[0], []
    reranker = _reranker(comparison, resume)
    truth = GroundTruth(first.path, first.gallery, first.queries, first.gnd)
    with Store(_store_path(comparison, "store")) as store, Store(_store_path(comparison, "query_store")) as query_store:
        for query, image in pairs:
            inside = Path(folder) / folder_of(query, image, comparison)
            inside.mkdir(parents=True, exist_ok=True)
            names = comparison.queries[query], comparison.names[image]
            options = {"reranker": reranker, "ground_truth": truth, "query_store": query_store}
            made = write_pair(inside, store, *names, image_dir, **options)
            images = [each | {"file": f"{inside.name}/{each['file']}"} for each in made["images"]]
            drawn.append(
                {"query": query, "image": image, "name": names[1], "images": images, "numbers": made["numbers"]}
            )
    return drawn


def _store_path(comparison, part):
    """The store of the first evaluation, or that of its queries: as it was named there, or beside the lists."""
    first = comparison.evaluations[0]
    named = first.find(first.about["protocol"].get(part) or first.about["protocol"]["store"])
    beside = Path(first.about["data_dir"]) / named.name
    return beside if not named.exists() and beside.exists() else named


def _reranker(comparison, resume):
    """With the checkpoint given, else the first that an evaluation used and that is still there; None without any."""
    from rrt.network.reranker import Reranker

    if resume is not None:
        return Reranker.from_checkpoint(resume)
    evaluations = comparison.evaluations
    used = [
        evaluations[m.evaluation].find(m.details["checkpoint"]) for m in comparison.methods if "checkpoint" in m.details
    ]
    there = [path for path in used if path.exists()]
    if used and not there:
        print(
            f"{used[0]}: the checkpoint of the evaluation is not there; pairs are drawn without it (--resume)",
            file=sys.stderr,
        )
    return Reranker.from_checkpoint(there[0]) if there else None
