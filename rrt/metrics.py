"""Measures of the Revisited Oxford and Paris benchmarks: mAP, mP@k, mR@k for Easy, Medium, Hard (DELG_SPEC 6.3)."""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError
from rrt.groundtruth import GRADES

PROTOCOLS = ("easy", "medium", "hard")

# What a protocol counts as right, and what it leaves out of the ranking as if it were not in the gallery.
POSITIVE_GRADES = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
IGNORED_GRADES = {"easy": ("junk", "hard"), "medium": ("junk",), "hard": ("junk", "easy")}



@dataclass(frozen=True)
class ProtocolResult:
    """Fractions 0..1 of one protocol over Q queries and K cut-offs; NaN in the rows of queries without positives.

    map: mean of aps. aps [Q]: average precision. ps, rs [Q, K]: precision and recall at k. mp, mr [K]: their means.
    """

    map: float
    aps: np.ndarray
    mp: np.ndarray
    ps: np.ndarray
    mr: np.ndarray
    rs: np.ndarray
    ks: tuple


def average_precision(hit_ranks, num_positive):
    """Area under the precision-recall curve by the trapezoidal rule (DELG_SPEC 6.3).

    hit_ranks: zero-based ranks of the positives that were found, rising, junk not counted. num_positive: how many there
    are in all; those not found add nothing.
    """
    ranks = np.asarray(hit_ranks, dtype=np.float64)
    found = np.arange(len(ranks))
    # Precision just before a hit is found / rank; at rank 0 there is nothing before and it counts as 1.
    before = np.divide(found, ranks, out=np.ones_like(ranks), where=ranks > 0)
    return float(np.sum(before + (found + 1) / (ranks + 1)) / (2 * num_positive))


def evaluate(ranks, gnd, ks=(1, 5, 10), num_gallery=None):
    """Measure rankings against Revisited ground truth under the three protocols.

    ranks: integers [Q, R], gallery positions by falling similarity. It may be cut (R smaller than the gallery): a
        positive that is not listed counts as not found. A row may end in -1 where fewer were ranked.
    gnd: a dict per query with `easy`, `hard`, `junk` (GroundTruth.gnd). num_gallery: checks the positions when given.
    Returns {protocol: ProtocolResult}. Raises InputError for rows that do not fit gnd, repeat or leave the gallery.

    Precision at k divides by min(k, rank of the last positive), so that a perfect ranking has precision 1.
    """
    ranks = _checked_ranks(ranks, gnd, num_gallery)
    size = num_gallery or 1 + max([ranks.max(initial=-1)] + [np.max(entry[grade], initial=-1)
                                                             for entry in gnd for grade in GRADES])
    ks = tuple(int(k) for k in ks)
    tables = {protocol: np.full((len(ranks), 1 + 2 * len(ks)), np.nan) for protocol in PROTOCOLS}
    place_of = np.empty(int(size), dtype=np.int32)
    for row, entry in enumerate(gnd):
        _invert(ranks[row], place_of, row)
        places = {grade: place_of[np.asarray(entry[grade], dtype=np.int64)] for grade in GRADES}
        for protocol in PROTOCOLS:
            positives = np.concatenate([places[grade] for grade in POSITIVE_GRADES[protocol]])
            ignored = np.concatenate([places[grade] for grade in IGNORED_GRADES[protocol]])
            if len(positives):
                tables[protocol][row] = _measure_query(positives, ignored, ks)
    return {protocol: _summarise(table, ks) for protocol, table in tables.items()}


def _measure_query(positives, ignored, ks):
    """One row (average precision, precision at ks, recall at ks) from places in the ranking; -1 = not listed."""
    num_positive = len(positives)
    positives, ignored = np.sort(positives[positives >= 0]), np.sort(ignored[ignored >= 0])
    hit_ranks = positives - np.searchsorted(ignored, positives)
    hits = np.searchsorted(hit_ranks, ks)
    # With a positive missing from a cut ranking the last one's rank is past the cut, and past every k within it.
    depth = np.minimum(ks, hit_ranks[-1] + 1) if len(hit_ranks) == num_positive else np.asarray(ks)
    return np.concatenate([[average_precision(hit_ranks, num_positive)], hits / depth, hits / num_positive])


def _summarise(table, ks):
    counted = table[~np.isnan(table[:, 0])]
    means = counted.mean(axis=0) if len(counted) else np.full(table.shape[1], np.nan)
    split = 1 + len(ks)
    return ProtocolResult(map=float(means[0]), aps=table[:, 0], mp=means[1:split], ps=table[:, 1:split],
                          mr=means[split:], rs=table[:, split:], ks=ks)


def _checked_ranks(ranks, gnd, num_gallery):
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or ranks.dtype.kind not in "iu":
        raise InputError(f"rankings: expected integers [queries, ranked], got {ranks.dtype} {list(ranks.shape)}")
    if len(ranks) != len(gnd):
        raise InputError(f"rankings: {len(ranks)} rows for the {len(gnd)} queries of the ground truth")
    if num_gallery is not None and ranks.max(initial=0) >= num_gallery:
        row, column = np.argwhere(ranks >= num_gallery)[0]
        raise InputError(f"rankings: row {row} names gallery position {ranks[row, column]}, "
                         f"the gallery has {num_gallery} images")
    return ranks


def _invert(ranked, place_of, row):
    """Set place_of[position] to the place of every ranked gallery position, and to -1 for those not ranked."""
    if len(ranked) and ranked[-1] < 0:
        ranked = ranked[:len(ranked) - np.argmax(ranked[::-1] >= 0)] if (ranked >= 0).any() else ranked[:0]
    if ranked.min(initial=0) < 0:
        raise InputError(f"rankings: row {row} has a negative gallery position before its end")
    # One scatter answers both questions, where each image stands and whether one stands twice.
    place_of.fill(-1)
    place_of[ranked] = np.arange(len(ranked), dtype=np.int32)
    if np.count_nonzero(place_of >= 0) != len(ranked):
        positions, counts = np.unique(ranked, return_counts=True)
        raise InputError(f"rankings: row {row} lists gallery position {positions[counts > 1][0]} more than once")


def bootstrap_interval(aps, num_samples=10000, seed=0, level=0.95):
    """Percentile bootstrap interval (low, high) of the mean over queries; NaN entries are left out."""
    aps = np.asarray(aps, dtype=np.float64)
    aps = aps[~np.isnan(aps)]
    if len(aps) == 0:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    # Block by block, so that a benchmark with many queries does not need num_samples x queries numbers at once.
    block = max(1, 2_000_000 // len(aps))
    means = np.concatenate([aps[generator.integers(len(aps), size=(min(block, num_samples - start), len(aps)))].mean(1)
                            for start in range(0, num_samples, block)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def format_table(results, protocols=PROTOCOLS, intervals=False):
    """A Markdown table in percent, readable as plain text: a row per method and protocol with mAP, mP@k and mR@k.

    results: {method: {protocol: ProtocolResult}}. intervals: add the 95 % bootstrap interval of mAP over queries.
    """
    ks = next(iter(next(iter(results.values())).values())).ks
    header = ["method", "protocol", "mAP"] + ["95 % interval"] * intervals
    header += [f"mP@{k}" for k in ks] + [f"mR@{k}" for k in ks]
    rows = []
    for method, by_protocol in results.items():
        for protocol in protocols:
            result = by_protocol[protocol]
            interval = ["{}–{}".format(*map(percent, bootstrap_interval(result.aps)))] if intervals else []
            rows.append([method, protocol.capitalize(), percent(result.map), *interval,
                         *map(percent, result.mp), *map(percent, result.mr)])
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(_table_line(line, widths) for line in lines)


def percent(fraction):
    """0.6971 as `69.71`; a measure without any query as `-`."""
    return "-" if np.isnan(fraction) else f"{100 * fraction:.2f}"


def _table_line(cells, widths):
    padded = [cell.ljust(width) if column < 2 else cell.rjust(width)
              for column, (cell, width) in enumerate(zip(cells, widths))]
    return f"| {' | '.join(padded)} |"
