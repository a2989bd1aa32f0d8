"""How well the count of verified matches tells pairs of images of the same building from pairs of different ones.

    python tools/verify_pairs.py --store data/oxford5k/delg_small.h5 --ground_truth data/oxford5k/gnd_roxford5k.pkl \\
        --query_list data/oxford5k/test_query.txt --gallery_list data/oxford5k/test_gallery.txt --pairs 200 --output
        pairs.csv

Half of the pairs are a query and one of its Easy (classic ground truth: good) images, half a query and an image that
its ground truth does not name; the queries take turns, in both halves the same ones. Matches are counted as
delg_extract/match_images.py does, from the store alone. Printed is the area under the ROC curve: the chance that a pair
of the same building has more inliers than one of different buildings, ties counting half (0.5: they say nothing, 1:
they always tell), with an interval from resampling the queries.
"""

from __future__ import annotations

import argparse
from collections import deque
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError
from rrt.files.atomic import atomic_path
from rrt.files.jobs import run_jobs
from rrt.files.machine import usable_cores
from rrt.formats.ground_truth import grades_of
from rrt.formats.revisited import RevisitedSet, load_revisited_set
from rrt.matching.pictures import (
    MAX_FEATURES,
    add_matching_options,
    check_matching_options,
    inner,
    match_pictures,
    matching_settings,
    strongest,
)
from rrt.store.store import Store

RESAMPLES = 1000
INTERVAL = (0.025, 0.975)


# ---- drawing pairs ---------------------------------------------------------------------------------------------------


def draw_pairs(data: RevisitedSet, number: int, seed: int) -> pd.DataFrame:
    """``number`` pairs, half of them of the same building: a row each of ``first`` (a query's name), ``second`` (a
    gallery name) and ``same`` (bool).

    No two images make two pairs, whichever comes first, and none a pair with itself (in classic sets queries are in
    the gallery). Queries without images of one kind are left out; of the others none has two pairs of a kind more
    than another, unless that one has no more. Raises InputError when there are too few pairs.
    """
    rng = np.random.default_rng(seed)
    place_of = {name: place for place, name in enumerate(data.gallery.names)}
    candidates = {}
    for query, entry in enumerate(data.truth.gnd):
        grades = [entry[grade] for grade in grades_of(entry)]
        itself = [place_of[name] for name in data.query.names[query : query + 1] if name in place_of]
        same = np.setdiff1d(grades[0], itself)
        different = np.setdiff1d(np.arange(len(data.gallery)), np.concatenate([*grades, itself]).astype(np.int64))
        if len(same) and len(different):
            candidates[query] = same, different
    order = rng.permutation(list(candidates)).astype(int).tolist()
    taken, rows = set(), []
    for kind, what in ((0, "the same building (a query and its Easy or good images)"), (1, "different buildings")):
        found = _take_turns({query: candidates[query][kind] for query in order}, number // 2, data, taken, rng)
        if len(found) < number // 2:
            raise InputError(
                f"{data.truth.path}: {len(found)} pairs of {what} where {number // 2} are asked for; lower --pairs"
            )
        rows += [(*pair, kind == 0) for pair in found]
    return pd.DataFrame(rows, columns=["first", "second", "same"])


def _take_turns(
    candidates: dict[int, np.ndarray], number: int, data: RevisitedSet, taken: set, rng: np.random.Generator
) -> list:
    """Names of up to ``number`` pairs that are not ``taken`` yet; every query in turn with one of its candidates."""
    # At most so many pairs are ever taken: a query that finds none among as many candidates would find none at all.
    waiting = deque(
        (query, iter(rng.choice(places, min(len(places), 2 * number), replace=False)))
        for query, places in candidates.items()
    )
    found = []
    while waiting and len(found) < number:
        query, places = waiting.popleft()
        for place in places:
            pair = data.query.names[query], data.gallery.names[place]
            if frozenset(pair) not in taken:
                taken.add(frozenset(pair))
                found.append(pair)
                waiting.append((query, places))
                break
    return found


# ---- counting --------------------------------------------------------------------------------------------------------


def count_matches(pairs: pd.DataFrame, data: RevisitedSet, store: Store, args: argparse.Namespace) -> pd.DataFrame:
    """The pairs with two columns more: ``matches``, and ``inliers``, those of them that verification kept."""
    places = np.stack([store.indices(pairs["first"], data.query), store.indices(pairs["second"], data.gallery)], axis=1)
    chosen = {"max_features": args.max_features, "score_threshold": args.score_threshold}
    jobs = [(store.path, pair, chosen, args.border, matching_settings(args)) for pair in places.tolist()]
    counts = run_jobs(_count, jobs, args.num_workers, "verify", "pair")
    return pairs.assign(**dict(zip(("matches", "inliers"), np.transpose(counts))))


def _count(job) -> tuple[int, int]:
    path, places, chosen, border, settings = job
    store = _opened(path)
    pictures = [strongest(store.names[place], store.image_size[place], store.read(place), **chosen) for place in places]
    matches = match_pictures(*(inner(picture, border) for picture in pictures), **settings)
    return len(matches.pairs), len(matches.inliers)


@lru_cache(maxsize=1)
def _opened(path) -> Store:
    """The store, opened once in a process."""
    return Store(path)


# ---- measuring -------------------------------------------------------------------------------------------------------


def area_under_curve(counts, same) -> float:
    """Chance that a count [n] of the ``same`` [n] bool is above one of the others, ties half: Mann-Whitney's U over its
    maximum."""
    counts, same = np.asarray(counts), np.asarray(same, bool)
    return float(mannwhitneyu(counts[same], counts[~same]).statistic / (same.sum() * (~same).sum()))


def interval(pairs: pd.DataFrame, seed: int) -> tuple[float, float]:
    """Bounds that hold 95 in 100 of the areas when the queries are drawn anew, with all their pairs, which are not
    independent."""
    counts, same = pairs["inliers"].to_numpy(), pairs["same"].to_numpy(bool)
    queries, query = np.unique(pairs["first"], return_inverse=True)
    right = (np.sign(counts[same][:, None] - counts[~same]) + 1) / 2  # as area_under_curve() counts
    # The sum of a query's rows and of a query's columns, and their number: what each two queries add to the area.
    rows, columns = np.eye(len(queries))[:, query[same]], np.eye(len(queries))[:, query[~same]]
    sums, numbers = rows @ right @ columns.T, np.outer(rows.sum(1), columns.sum(1))
    times = np.random.default_rng(seed).multinomial(len(queries), np.full(len(queries), 1 / len(queries)), RESAMPLES)
    total, number = (np.einsum("ri,ij,rj->r", times, table, times, optimize=True) for table in (sums, numbers))
    return tuple(np.quantile(total[number > 0] / number[number > 0], INTERVAL).tolist())


def report(pairs: pd.DataFrame, seed: int) -> str:
    """Lines for people: quartiles of the counts of both kinds, and the area with its interval."""
    lines = [f"{'inliers':<10}{'pairs':>7}{'min':>7}{'25%':>7}{'median':>8}{'75%':>7}{'max':>7}{'mean':>8}"]
    for same, name in ((True, "same"), (False, "different")):
        counts = pairs.loc[pairs["same"] == same, "inliers"].to_numpy()
        low, first, middle, third, high = np.quantile(counts, (0, 0.25, 0.5, 0.75, 1))
        lines.append(
            f"{name:<10}{len(counts):>7}{low:>7.0f}{first:>7.0f}{middle:>8.1f}{third:>7.0f}{high:>7.0f}"
            f"{counts.mean():>8.1f}"
        )
    below, above = interval(pairs, seed)
    area, unverified = (area_under_curve(pairs[column], pairs["same"]) for column in ("inliers", "matches"))
    lines.append(
        f"area under the ROC curve {area:.3f} (95% interval {below:.3f} to {above:.3f} over {pairs['first'].nunique()} "
        f"queries); of the matches before verification {unverified:.3f}"
    )
    return "\n".join(lines)


# ---- the command -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    p = CommandParser(__doc__)
    p.add_argument("--store", required=True, help="descriptor store (.h5) with the images of both lists")
    p.add_argument("--ground_truth", required=True, help="Revisited or classic ground truth (.pkl, .json, .mat)")
    p.add_argument("--query_list", required=True, help="image list of the queries")
    p.add_argument("--gallery_list", required=True, help="image list of the gallery")
    p.add_argument("--pairs", type=int, default=200, help="pairs in all, an even number (default %(default)s)")
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the drawing; the trials of the verification are always the same (default %(default)s)",
    )
    p.add_argument("--output", help="write a CSV of the pairs: first,second,same,matches,inliers")
    p.add_argument("--num_workers", type=int, default=usable_cores(), help="processes (default one a core)")
    p.add_argument(
        "--max_features",
        type=int,
        default=MAX_FEATURES,
        help="local descriptors an image at most, those of highest attention (default %(default)s)",
    )
    p.add_argument("--score_threshold", type=float, help="smallest attention of a local descriptor (default: any)")
    add_matching_options(p)
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """InputError for values that make no sense, before any file is read."""
    check_matching_options(args)
    if args.pairs < 2 or args.pairs % 2:
        raise InputError(f"--pairs {args.pairs}: expected an even number of 2 or more, half of each kind")
    for name, least in (("seed", 0), ("max_features", 1), ("num_workers", 1)):
        value = getattr(args, name)
        if value < least:
            raise InputError(f"--{name} {value}: expected {least} or more")


def main() -> int:
    args = parser().parse_args()
    check_arguments(args)
    data = load_revisited_set(args.query_list, args.gallery_list, args.ground_truth)
    drawn = draw_pairs(data, args.pairs, args.seed)
    with Store(args.store) as store:
        pairs = count_matches(drawn, data, store, args)
    print(report(pairs, args.seed))
    if args.output:
        with atomic_path(args.output) as temporary:
            pairs.assign(same=pairs["same"].astype(int)).to_csv(temporary, index=False)
        print(f"wrote {args.output}")
    return 0
