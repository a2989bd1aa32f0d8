"""Made-up evaluation folders (rankings.npz) and their images, for tests of reports."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from rrt.datasets.sets import TestSet
from rrt.evaluation.metrics import evaluate
from rrt.evaluation.rankings import RankedMethod, save_rankings
from rrt.formats.ground_truth import GroundTruth
from rrt.formats.lists import ImageList
from rrt.formats.revisited import RevisitedSet

SIZE = (64, 48)
# Names that end a string, an attribute, an element or an address where they are not escaped.
HOSTILE = [
    'jpg/a "quoted" <b>bold&amp;\'.jpg',
    "jpg/100%25 #1?x=y.jpg",
    "jpg/ünï 漢字\u2028.jpg",
    "jpg/<img src=x onerror=alert(1)>.jpg",
    "jpg/back\\slash:colon.jpg",
]


def make_names(queries, gallery, hostile=False):
    names = [f"jpg/q_{i:03d}.jpg" for i in range(queries)], [f"jpg/g_{i:04d}.jpg" for i in range(gallery)]
    if hostile:
        names[0][: len(HOSTILE)] = HOSTILE
        names[1][: len(HOSTILE)] = [name.replace("jpg/", "gallery/") for name in HOSTILE]
    return names


def make_gnd(queries, gallery, seed=0, grades=("easy", "hard", "junk"), counts=(3, 4, 3)):
    """Random grades; the last query has no positives."""
    generator, gnd = np.random.default_rng(seed), []
    for query in range(queries):
        parts = np.split(generator.permutation(gallery)[: sum(counts)], np.cumsum(counts))
        if query == queries - 1:
            parts[0], parts[1] = parts[0][:0], parts[1][:0]
        gnd.append({"bbx": [8.0, 6.0, 55.6, 40.2]} | {grade: np.sort(part) for grade, part in zip(grades, parts)})
    return gnd


def make_rankings(gnd, gallery, labels, seed=0):
    """{label: ranks [Q, gallery]}: graded images come sooner than chance, with later labels more so."""
    generator, found = np.random.default_rng(seed), {}
    for strength, label in enumerate(labels):
        scores = generator.standard_normal((len(gnd), gallery))
        for row, entry in enumerate(gnd):
            for grade in list(entry)[1:]:
                scores[row, entry[grade]] += 0.8 + 0.4 * strength * (row % 3 - 0.5)
        found[label] = np.argsort(-scores, axis=1)
    return found


def make_evaluation(
    folder,
    queries=6,
    gallery=40,
    labels=("global", "RRT"),
    seed=0,
    hostile=False,
    others=(),
    gnd=None,
    rankings=None,
    data_dir=None,
    details=None,
):
    """Write rankings.npz to ``folder``; images belong to ``data_dir`` (default: folder/data). others: names of
    distractors, which rankings may list behind the gallery. Returns names of queries and gallery, gnd and rankings."""
    folder, data_dir = Path(folder), Path(data_dir or Path(folder) / "data")
    names = make_names(queries, gallery, hostile)
    gnd = make_gnd(queries, gallery, seed) if gnd is None else gnd
    rankings = make_rankings(gnd, gallery + len(others), labels, seed) if rankings is None else rankings
    lists = [
        ImageList(data_dir / f"test_{what}.txt", list(part), np.zeros(len(part), int), np.full((len(part), 2), SIZE))
        for what, part in zip(("query", "gallery"), names)
    ]
    truth = GroundTruth(data_dir / "gnd.pkl", names[1], names[0], gnd)
    store = SimpleNamespace(names=[*names[0], *names[1], *others])
    places = np.arange(queries, queries + gallery + len(others))
    test = TestSet(data_dir, RevisitedSet(*lists, truth), store, np.arange(queries), places, rankings["global"])
    methods = []
    for label, ranks in rankings.items():
        measured = evaluate(ranks, gnd)
        told = {} if label == "global" else {"num_rerank": 100, "ms_per_query": 1.5} | (details or {})
        methods.append(RankedMethod(label, measured, dict.fromkeys(measured, ranks), told))
    save_rankings(
        folder, test, methods, {"store": str(data_dir / "delg_toy.h5"), "queries": queries, "distractors": None}
    )
    return names[0], names[1], gnd, rankings


def make_pictures(folder, names, size=SIZE):
    """A JPEG of one colour with a stripe for every name."""
    for number, name in enumerate(names):
        pixels = np.full((size[1], size[0], 3), [(37 * number) % 256, (91 * number) % 256, 120], np.uint8)
        pixels[:, :8] = 255
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
