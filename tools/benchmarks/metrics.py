"""The Revisited measures against a plain re-statement of their formula (tools/benchmark.py metrics)."""

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import evaluate
from rrt.formats.ground_truth import IGNORED_GRADES, POSITIVE_GRADES, PROTOCOLS
from tools.benchmarks.common import Row, add_options, median_seconds

HELP = "mAP and mP@k of rankings: rrt.evaluation.metrics against a plain re-statement of the formula"
KS = (1, 5, 10)
# Those of ROxford5k are of this size in the mean.
NUM_GRADED = {"easy": 55, "hard": 35, "junk": 65}
# Ranked images, rankings measured, and how many times as fast as the plain way the measures must be.
SIZES = ((5000, 70, ">= 1"), (1_000_000, 4, ">= 3"))


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--repeats",
        type=int,
        default=9,
        help="times each way is taken, in turns; the median counts (default %(default)s)",
    )
    add_options(parser, "seed", quick="short rankings")


def run(args):
    """Rows of milliseconds a query of random rankings. Raises InputError when the two ways give different numbers."""
    generator, rows = np.random.default_rng(args.seed), []
    for ranked, queries, target in SIZES:
        if args.quick:
            ranked, queries = ranked // 1000 + 200, 2
        ranks = np.stack([generator.permutation(ranked) for _ in range(queries)])
        gnd = [_draw_entry(generator, ranked) for _ in range(queries)]
        rows += _compare(ranks, gnd, target, args.repeats)
    return rows


def plain_evaluate(ranks, gnd, protocols=PROTOCOLS):
    """{protocol: (average precision [Q], precision at KS [Q, 3])} by the formula of docs/delg.md 6.3, a query and a hit
    at a time."""
    results = {}
    for protocol in protocols:
        aps, precisions = np.full(len(gnd), np.nan), np.full((len(gnd), len(KS)), np.nan)
        for query, entry in enumerate(gnd):
            positive = np.concatenate([entry[grade] for grade in POSITIVE_GRADES[protocol]])
            ignored = np.concatenate([entry[grade] for grade in IGNORED_GRADES[protocol]])
            if len(positive) == 0:
                continue
            positions = np.arange(ranks.shape[1])
            hits = positions[np.isin(ranks[query], positive)]
            junk = positions[np.isin(ranks[query], ignored)]
            passed = 0
            for i in range(len(hits)):
                while passed < len(junk) and junk[passed] < hits[i]:
                    passed += 1
                hits[i] -= passed
            total = 0.0
            for i, rank in enumerate(hits):
                before = i / rank if rank else 1.0
                total += (before + (i + 1) / (rank + 1)) / 2
            aps[query] = total / len(positive)
            for column, k in enumerate(KS):
                depth = min(k, max(hits) + 1)
                precisions[query, column] = (hits < depth).sum() / depth
        results[protocol] = aps, precisions
    return results


def _draw_entry(generator, ranked):
    graded = generator.choice(ranked, sum(NUM_GRADED.values()), replace=False)
    return dict(zip(NUM_GRADED, np.split(graded, np.cumsum(list(NUM_GRADED.values()))[:-1])))


def _compare(ranks, gnd, target, repeats):
    for protocol, (aps, precisions) in plain_evaluate(ranks, gnd).items():
        ours = evaluate(ranks, gnd, KS)[protocol]
        if not (
            np.allclose(ours.aps, aps, rtol=0, atol=1e-12) and np.allclose(ours.ps, precisions, rtol=0, atol=1e-12)
        ):
            raise InputError(
                f"rrt.evaluation.metrics and the plain formula differ for {protocol}; do not trust either before you "
                "know why"
            )
    seconds = median_seconds(
        {
            "ours": lambda _: evaluate(ranks, gnd, KS),
            "plain": lambda _: plain_evaluate(ranks, gnd),
            "medium": lambda _: plain_evaluate(ranks, gnd, ["medium"]),
        },
        range(repeats),
    )
    milliseconds = {way: 1e3 * value / len(ranks) for way, value in seconds.items()}
    name = f"{ranks.shape[1]} ranked"
    plain, medium, ours = (milliseconds[way] for way in ("plain", "medium", "ours"))
    against = f"{name}: rrt.evaluation.metrics against plain"
    refused = "Easy, Medium and Hard; repeated and foreign entries refused"
    return [
        Row(f"{name}: plain formula", plain, "ms a query", "Easy, Medium and Hard"),
        Row(f"{name}: plain formula", medium, "ms a query", "Medium alone"),
        Row(f"{name}: rrt.evaluation.metrics", ours, "ms a query", refused),
        Row(against, plain / ours, "times as fast", "the same numbers within 1e-12", target),
        Row(against, medium / ours, "times as fast", "three protocols against one"),
    ]
