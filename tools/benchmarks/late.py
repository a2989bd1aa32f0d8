"""Shortlists scored by LATE, its gallery encoded before, against the RRT in the same precision (tools/benchmark.py
late)."""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rrt.network.late import LATE
from rrt.network.model import RRT
from rrt.network.networks import make_scorer
from rrt.network.precision import DTYPES, ScoringSettings
from tools.benchmarks.common import Row, add_options
from tools.benchmarks.rerank import make_test_set, sharpened

HELP = "shortlists of 100 and 1,000 by model.LATE, and of 100 by model.RRT"
QUERY = np.array([0])
CURVE = (50, 100, 200, 500)
TARGETS = {"times": ">= 30", "thousand": "<= 1"}


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=list(DTYPES))
    parser.add_argument(
        "--pairs", type=int, default=20, help="pairs of the RRT that are measured (default %(default)s)"
    )
    add_options(parser, "device", "seed", quick="a tiny set")


def run(args):
    """Rows of both networks in every precision, wall-clock and seconds of processors, the smallest of several."""
    images, locals_, global_dim, curve = (40, 30, 16, (10, 30)) if args.quick else (1000, 500, 2048, CURVE)
    torch.manual_seed(args.seed)
    networks = [sharpened(kind(global_dim, 128)).to(args.device) for kind in (RRT, LATE)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        test = make_test_set(Path(folder), images, 2, locals_, global_dim, args.seed)
        gallery = test.gallery_index
        for precision in args.precisions:
            settings = ScoringSettings(precision=precision)
            plain, late = (
                make_scorer(each, test.store, locals_, device=args.device, settings=settings) for each in networks
            )
            pairs = max(1, min(args.pairs, len(gallery)))
            slow = _seconds(partial(plain.score, QUERY, [gallery[:pairs]]), 2) * (100 / pairs)
            start = time.perf_counter()
            late.score(QUERY, [gallery])
            encoding = 1000 * (time.perf_counter() - start) / len(gallery)
            fast, thousand = (_query_seconds(late, gallery[:number]) for number in (100, 1000))
            found = [
                ("100 candidates", fast[0], "s", f"{fast[1]:.3f} s of processors, query encoded anew"),
                ("100 candidates", slow[0] / fast[0], "times as fast", "by the clock", TARGETS["times"]),
                ("100 candidates", slow[1] / fast[1], "times as fast", "in seconds of processors"),
                ("1,000 candidates", thousand[0], "s", f"{thousand[1]:.2f} s of processors", TARGETS["thousand"]),
            ]
            note = f"{slow[1]:.2f} s of processors, from {pairs} pairs"
            rows.append(Row(f"RRT, {precision}: 100 candidates", slow[0], "s", note))
            rows.append(Row(f"LATE, {precision}: an image encoded", encoding, "ms", "once, with its first comparison"))
            rows += [Row(f"LATE, {precision}: {what}", *figures) for what, *figures in found]
            for number in curve:
                scorer = make_scorer(networks[1], test.store, number, device=args.device, settings=settings)
                scorer.score(QUERY, [gallery[:100]])
                wall, used = _query_seconds(scorer, gallery[:100])
                label = f"LATE, {precision}: {number} descriptors, 100 candidates"
                rows.append(Row(label, 1000 * wall, "ms", f"{1000 * used:.0f} ms of processors"))
    return rows


def _query_seconds(scorer, candidates):
    """As ``_seconds`` for a query that is not yet encoded against candidates that are."""

    def score():
        scorer.forget_image(0)
        scorer.score(QUERY, [candidates])

    return _seconds(score, 5)


def _seconds(function, times) -> np.ndarray:
    """Wall-clock and processors' seconds of a call, the smallest of several, after one that is not counted."""
    function()
    found = []
    for _ in range(times):
        wall, used = time.perf_counter(), time.process_time()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append([time.perf_counter() - wall, time.process_time() - used])
    return np.min(found, axis=0)
