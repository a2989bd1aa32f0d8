"""How well the number of verified matches tells pairs of images of the same building from pairs of different ones."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, mannwhitneyu

from rrt.errors import InputError
from rrt.files.jobs import run_jobs
from rrt.formats.ground_truth import grades_of
from rrt.formats.revisited import RevisitedSet
from rrt.matching.images import inner, match_images, strongest
from rrt.store.store import Store

RESAMPLES = 1000
INTERVAL = (0.025, 0.975)


def draw_pairs(data: RevisitedSet, number: int, seed: int) -> pd.DataFrame:
    """``number`` pairs, half of them of the same building: a row each of ``first`` (a query's name), ``second`` (a
    gallery name) and ``same`` (bool).

    No two images make two pairs, whichever comes first, and none a pair with itself (in classic sets queries are in
    the gallery). Queries without images of one kind are left out; of the others none has two pairs of a kind more
    than another, unless that one has no more. Raises InputError when there are too few pairs.
    """
    rng = np.random.default_rng(seed)
    index_of = {name: index for index, name in enumerate(data.gallery.names)}
    candidates = {}
    for query, entry in enumerate(data.truth.gnd):
        grades = [entry[grade] for grade in grades_of(entry)]
        itself = [index_of[name] for name in data.query.names[query : query + 1] if name in index_of]
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
        (query, iter(rng.choice(images, min(len(images), 2 * number), replace=False)))
        for query, images in candidates.items()
    )
    found = []
    while waiting and len(found) < number:
        query, images = waiting.popleft()
        for image in images:
            pair = data.query.names[query], data.gallery.names[image]
            if frozenset(pair) not in taken:
                taken.add(frozenset(pair))
                found.append(pair)
                waiting.append((query, images))
                break
    return found


def count_matches(
    pairs: pd.DataFrame,
    data: RevisitedSet,
    stores: tuple[Store, Store],
    chosen: dict,
    border: float,
    settings: dict,
    num_workers=1,
) -> pd.DataFrame:
    """The pairs with two columns more: ``matches``, and ``inliers``, those of them that verification kept.

    stores: of gallery and queries (``open_stores``); chosen: what strongest() takes beside the descriptors; border: of
    inner(); settings: of match_images(). num_workers: processes.
    """
    gallery, queries = stores
    indices = queries.indices(pairs["first"], data.query), gallery.indices(pairs["second"], data.gallery)
    images = [list(zip((queries.path, gallery.path), pair)) for pair in np.stack(indices, axis=1).tolist()]
    jobs = [(pair, chosen, border, settings) for pair in images]
    counts = run_jobs(_count, jobs, num_workers, "verify", "pair")
    return pairs.assign(**dict(zip(("matches", "inliers"), np.transpose(counts))))


def _count(job) -> tuple[int, int]:
    pair, chosen, border, settings = job
    images = []
    for path, index in pair:
        store = _opened(path)
        images.append(strongest(store.names[index], store.image_size[index], store.read(index), **chosen))
    first, second = (inner(image, border) for image in images)
    matches = match_images(first, second, **settings)
    return len(matches.pairs), len(matches.inliers)


@lru_cache(maxsize=2)
def _opened(path) -> Store:
    """A store, opened once in a process."""
    return Store(path)


def area_under_curve(counts, same) -> float:
    """Chance that a count [n] of the ``same`` [n] bool is above one of the others, ties half: Mann-Whitney's U over its
    maximum."""
    counts, same = np.asarray(counts), np.asarray(same, bool)
    return float(mannwhitneyu(counts[same], counts[~same]).statistic / (same.sum() * (~same).sum()))


def interval(pairs: pd.DataFrame, seed: int) -> tuple[float, float]:
    """Bounds that hold 95 in 100 of the areas when the queries are drawn anew, with all their pairs, which are not
    independent."""
    counts, same = pairs["inliers"].to_numpy(), pairs["same"].to_numpy(bool)
    queries, query = np.unique(pairs["first"].to_numpy(), return_inverse=True)
    right = (np.sign(counts[same][:, None] - counts[~same]) + 1) / 2  # as area_under_curve() counts
    # The sum of a query's rows and of a query's columns, and their number: what each two queries add to the area.
    rows, columns = np.eye(len(queries))[:, query[same]], np.eye(len(queries))[:, query[~same]]
    sums, numbers = rows @ right @ columns.T, np.outer(rows.sum(1), columns.sum(1))

    def area(drawn):
        both = np.ix_(drawn, drawn)
        number = numbers[both].sum()
        # Queries without pairs of both kinds have no area.
        return sums[both].sum() / number if number else np.nan

    if len(queries) < 2:
        return float(area([0])), float(area([0]))
    random = np.random.default_rng(seed)
    drawn = bootstrap(
        [np.arange(len(queries))], area, n_resamples=RESAMPLES, vectorized=False, method="percentile", rng=random
    ).bootstrap_distribution
    low, high = np.nanquantile(drawn, INTERVAL)
    return float(low), float(high)


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
