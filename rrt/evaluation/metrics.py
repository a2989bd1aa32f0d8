"""Measures of rankings: Revisited Oxford and Paris, classic Oxford5k and Paris6k, Google Landmarks v2.

Rankings are integers [queries, ranked], gallery positions by falling similarity. They may be cut: what is not listed
counts as not found. A row may be filled up with -1 at its end. A row that repeats a position, leaves the gallery or has
-1 in between is refused with an InputError naming it: listing a good candidate twice would raise every measure.
"""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.tables import padded
from rrt.formats.ground_truth import IGNORED_GRADES, POSITIVE_GRADES, grades_of, protocols_of

# Tables over all positions are kept; without num_gallery a ranking could name any number.
_LARGEST_GALLERY = 2**28


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
    """Area under the precision-recall curve by the trapezoidal rule (docs/protocol.md 6.3).

    hit_ranks: zero-based ranks of the positives that were found, rising, junk not counted. num_positive: how many there
    are in all; those not found add nothing.
    """
    ranks = np.asarray(hit_ranks, dtype=np.float64)
    found = np.arange(len(ranks))
    # Precision just before a hit is found / rank; at rank 0 there is nothing before and it counts as 1.
    before = np.divide(found, ranks, out=np.ones_like(ranks), where=ranks > 0)
    return float(np.sum(before + (found + 1) / (ranks + 1)) / (2 * num_positive))


def evaluate(ranks, gnd, ks=(1, 5, 10), num_gallery=None):
    """Measure rankings [Q, R] under every protocol that the ground truth is made for -> {protocol: ProtocolResult}.

    gnd: a dict per query (GroundTruth.gnd). With `easy`, `hard`, `junk`: the three Revisited protocols. With `good`,
    `ok`, `junk`: the classic one of Oxford5k and Paris6k (Philbin et al., CVPR 2007): good and ok are right, junk is
    left out; its average precision follows the same trapezoidal rule. num_gallery: checks the positions when given.
    Raises InputError for rankings and ground truth that do not fit together.

    Precision at k divides by min(k, rank of the last positive), so that a perfect ranking has precision 1.
    """
    ranks, lengths, size = _checked_ranks(ranks, len(gnd), num_gallery)
    protocols, ks = protocols_of(gnd), _checked_ks(ks)
    graded = [{grade: np.asarray(entry[grade], dtype=np.int64) for grade in grades_of(entry)} for entry in gnd]
    size = max(size, _checked_truth([np.concatenate(list(entry.values())) for entry in graded], num_gallery))
    tables = {protocol: np.full((len(ranks), 1 + 2 * len(ks)), np.nan) for protocol in protocols}
    grade_of, seen = np.zeros(size, dtype=np.uint8), np.empty(size, dtype=bool)
    for row, positions in enumerate(graded):
        ranked = ranks[row, : lengths[row]]
        seen.fill(False)
        seen[ranked] = True
        if np.count_nonzero(seen) != len(ranked):
            raise _repeated(ranked, row)
        found = _ranks_by_grade(ranked, positions, grade_of)
        for protocol in protocols:
            num_positive = sum(len(positions[grade]) for grade in POSITIVE_GRADES[protocol])
            if num_positive:
                positives = np.sort(np.concatenate([found[grade] for grade in POSITIVE_GRADES[protocol]]))
                ignored = np.sort(np.concatenate([found[grade] for grade in IGNORED_GRADES[protocol]]))
                tables[protocol][row] = _measure_query(positives, ignored, num_positive, ks)
    return {protocol: _summarise(table, ks) for protocol, table in tables.items()}


def _ranks_by_grade(ranked, positions, grade_of):
    """{grade: rising ranks of its images}. grade_of: zeros for the whole gallery, left
    so."""
    for number, array in enumerate(positions.values(), start=1):
        grade_of[array] = number
    found = grade_of.take(ranked)
    # In booleans numpy finds what is not zero eight times faster than in numbers.
    listed = np.flatnonzero(found != 0)
    found = found[listed]
    for array in positions.values():
        grade_of[array] = 0
    return {grade: listed[found == number] for number, grade in enumerate(positions, start=1)}


def _measure_query(positives, ignored, num_positive, ks):
    """One row (average precision, precision at ks, recall at ks) from rising ranks."""
    hit_ranks = positives - np.searchsorted(ignored, positives)
    hits = np.searchsorted(hit_ranks, ks)
    # With a positive missing from a cut ranking the last one's rank is past the cut, and past every k within it.
    depth = np.minimum(ks, hit_ranks[-1] + 1) if len(hit_ranks) == num_positive else np.asarray(ks)
    return np.concatenate([[average_precision(hit_ranks, num_positive)], hits / depth, hits / num_positive])


def _summarise(table, ks):
    counted = table[~np.isnan(table[:, 0])]
    means = counted.mean(axis=0) if len(counted) else np.full(table.shape[1], np.nan)
    split = 1 + len(ks)
    return ProtocolResult(
        map=float(means[0]),
        aps=table[:, 0],
        mp=means[1:split],
        ps=table[:, 1:split],
        mr=means[split:],
        rs=table[:, split:],
        ks=ks,
    )


def mean_average_precision_at_k(ranks, positives, k=100, num_gallery=None):
    """mAP@k of Google Landmarks v2 retrieval (Weyand et al., CVPR 2020) -> (mean, of each query [Q]), fractions.

    Of query q with m_q right images: 1 / min(m_q, k) * sum over j <= k of P_q(j) rel_q(j), P_q(j) being the precision
    among the first j and rel_q(j) whether the j-th is right. positives: their gallery positions, a list per query.
    Queries without any are NaN and left out of the mean; rows that the solution file marks `Ignored` are no queries
    (rrt.formats.gldv2.read_solution leaves them out). Only the first k columns of ranks [Q, R] count and are checked.
    """
    hits, num_positive = _hits(ranks, positives, _checked_ks([k])[0], num_gallery)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        aps = np.sum(precision * hits, axis=1) / np.minimum(num_positive, k)
    return _mean(aps), aps


def global_average_precision(predicted, confidence, truth):
    """GAP (micro average precision) of Google Landmarks v2 recognition (Weyand et al., CVPR 2020), a fraction.

    1 / M * sum over i of P(i) rel(i) over all predictions by falling confidence, equal ones in the order given; P(i) is
    the precision among the first i, rel(i) whether the i-th is right, M the number of queries that show a landmark.
    A prediction for a query without one is wrong and lowers the precision of all that follow.

    predicted [Q]: a landmark for each query, -1 for none. confidence [Q]: finite where there is a prediction. truth:
    for each query the landmarks it shows, possibly none (rrt.formats.gldv2.read_solution leaves out `Ignored` rows).
    NaN when no query shows a landmark.
    """
    predicted, confidence = np.asarray(predicted), np.asarray(confidence, dtype=np.float64)
    if (
        predicted.shape != (len(truth),)
        or confidence.shape != (len(truth),)
        or (len(truth) and predicted.dtype.kind not in "iu")
    ):
        raise InputError(
            f"recognition: expected an integer landmark and a confidence for each of {len(truth)} queries, got"
            f" {predicted.dtype} {list(predicted.shape)} and {list(confidence.shape)}"
        )
    given = np.flatnonzero(predicted >= 0)
    if not np.isfinite(confidence[given]).all():
        raise InputError(
            f"recognition: the confidence of query {given[~np.isfinite(confidence[given])][0]} is not finite"
        )
    order = given[np.argsort(-confidence[given], kind="stable")]
    right = np.array([predicted[query] in truth[query] for query in order], dtype=bool)
    num_landmark = sum(len(landmarks) > 0 for landmarks in truth)
    total = np.sum(np.cumsum(right)[right] / (np.flatnonzero(right) + 1))
    return float(total / num_landmark) if num_landmark else float("nan")


def _mean(values):
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _hits(ranks, positives, k, num_gallery):
    """(bool [Q, min(k, R)]: which of the first k are right; int64 [Q]: how many right images there are)."""
    ranks, lengths, size = _checked_ranks(np.asarray(ranks)[..., :k], len(positives), num_gallery)
    positives = [np.asarray(row, dtype=np.int64) for row in positives]
    size = max(size, _checked_truth(positives, num_gallery))
    rising = np.sort(ranks, axis=1)
    twice = ((rising[:, 1:] == rising[:, :-1]) & (rising[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        row = np.argmax(twice)
        raise _repeated(ranks[row, : lengths[row]], row)
    # A number for every pair of query and position, so that one search answers for all queries.
    first = np.arange(len(ranks)) * size
    right = np.concatenate([start + row for start, row in zip(first, positives)] or [np.empty(0, np.int64)])
    hits = np.isin(first[:, None] + ranks, right) & (ranks >= 0)
    return hits, np.array([len(row) for row in positives], dtype=np.int64)


def _checked_ks(ks):
    for k in ks:
        if int(k) != k or k < 1:
            raise InputError(f"cut-off k = {k}: expected an integer of at least 1")
    return tuple(int(k) for k in ks)


def _checked_ranks(ranks, num_queries, num_gallery):
    """(ranks int64 [Q, R], how many each row lists [Q], number of positions a table needs)."""
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or ranks.dtype.kind not in "iu":
        raise InputError(f"rankings: expected integers [queries, ranked], got {ranks.dtype} {list(ranks.shape)}")
    if len(ranks) != num_queries:
        raise InputError(f"rankings: {len(ranks)} rows for the {num_queries} queries of the ground truth")
    largest = int(ranks.max()) if ranks.size else -1
    limit = _LARGEST_GALLERY if num_gallery is None else num_gallery
    if largest >= limit:
        row, column = np.argwhere(ranks >= limit)[0]
        reason = (
            f"the gallery has {limit} images"
            if num_gallery is not None
            else "more than a gallery has; give num_gallery"
        )
        raise InputError(f"rankings: row {row} names gallery position {ranks[row, column]}, {reason}")
    return ranks.astype(np.int64, copy=False), _row_lengths(ranks), num_gallery or largest + 1


def _row_lengths(ranks):
    """How many positions each row [Q] lists before the -1 that may fill it up."""
    if not ranks.size or ranks.min() >= 0:
        return np.full(len(ranks), ranks.shape[1])
    listed = ranks >= 0
    broken = (ranks < -1).any(axis=1) | (listed[:, 1:] > listed[:, :-1]).any(axis=1)
    if broken.any():
        raise InputError(f"rankings: row {np.argmax(broken)} has a negative gallery position before its end")
    return listed.sum(axis=1)


def _repeated(ranked, row):
    positions, counts = np.unique(ranked, return_counts=True)
    return InputError(f"rankings: row {row} lists gallery position {positions[counts > 1][0]} more than once")


def _checked_truth(rows, num_gallery):
    """The number of positions a table needs for those of the ground truth, an array per query."""
    limit = _LARGEST_GALLERY if num_gallery is None else num_gallery
    together = np.concatenate(rows) if rows else np.empty(0, np.int64)
    query = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    outside = np.flatnonzero((together < 0) | (together >= limit))
    if len(outside):
        raise InputError(
            f"ground truth: query {query[outside[0]]} names gallery position {together[outside[0]]}, the gallery"
            f" has {limit} images"
        )
    order = np.lexsort((together, query))
    again = order[1:][(np.diff(together[order]) == 0) & (np.diff(query[order]) == 0)]
    if len(again):
        raise InputError(
            f"ground truth: query {query[again[0]]} names gallery position {together[again[0]]} more than once"
        )
    return int(together.max(initial=-1)) + 1


def bootstrap_interval(aps, num_samples=10000, seed=0, level=0.95):
    """Percentile bootstrap interval (low, high) of the mean over queries; NaN entries are left out."""
    aps = np.asarray(aps, dtype=np.float64)
    aps = aps[~np.isnan(aps)]
    if len(aps) < 2:
        return (float(aps[0]),) * 2 if len(aps) else (float("nan"),) * 2
    # Loaded here: importing it takes longer than most measurements, which need no interval.
    from scipy.stats import bootstrap

    # In batches, so that a benchmark with many queries does not need num_samples x queries numbers at once.
    found = bootstrap(
        (aps,),
        np.mean,
        n_resamples=num_samples,
        batch=max(1, 2_000_000 // len(aps)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def format_table(results, intervals=False):
    """A Markdown table in percent, readable as plain text: a row per method and protocol with mAP, mP@k and mR@k.

    results: {method: {protocol: ProtocolResult}}. intervals: add the 95 % bootstrap interval of mAP over queries.
    """
    ks = next(iter(next(iter(results.values())).values())).ks
    header = ["method", "protocol", "mAP"] + ["95 % interval"] * intervals
    header += [f"mP@{k}" for k in ks] + [f"mR@{k}" for k in ks]
    rows = []
    for method, by_protocol in results.items():
        for protocol, result in by_protocol.items():
            interval = [interval_text(result.aps)] if intervals else []
            at_k = map(percent, [*result.mp, *result.mr])
            rows.append([method, protocol.capitalize(), percent(result.map), *interval, *at_k])
    return padded([header, *rows], 2)


def interval_text(aps):
    """The bootstrap interval in percent, `64.10–72.52`, or `-` without any query."""
    low, high = map(percent, bootstrap_interval(aps))
    return "-" if low == "-" else f"{low}–{high}"


def percent(fraction):
    """0.6971 as `69.71`; a measure without any query as `-`."""
    return "-" if np.isnan(fraction) else f"{100 * fraction:.2f}"
