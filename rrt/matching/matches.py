"""Matches between the local descriptors of two images, and the plane geometry that verifies them; numpy and OpenCV
alone.

The rules are those of docs/delg.md 6.2 and 7.1: nearest neighbours by L2 distance, a distance or ratio test, and a
transform with inliers counted by their residual in pixels. The transform is estimated by MAGSAC++ (Barath et al., CVPR
2020, as in OpenCV) instead of plain RANSAC: its counts scatter far less over the seeds, and the same seed gives the
same inliers.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

MODES = ("one_way", "mutual")
# Estimator, and points that fix the transform exactly, so that matches no more than these agree with anything.
_ESTIMATORS = {"affine": (cv2.estimateAffine2D, 3), "homography": (cv2.findHomography, 4)}
MODELS = tuple(_ESTIMATORS)
_CELLS = 2**22  # of the product held at a time: 16 MiB
_FLAT = 1e-3  # points whose spread across a line is less than this part of that along it do not fix a plane


class Neighbours(NamedTuple):
    """For each query row: indices int64 [n] of the nearest index row (-1: there is none), distances float32 [n] to it
    and second_distances float32 [n] to the next one (infinite where there is none)."""

    indices: np.ndarray
    distances: np.ndarray
    second_distances: np.ndarray


class Verification(NamedTuple):
    """inliers bool [k]; transform from the first to the second image, float64 [2, 3] (affine) or [3, 3] (homography),
    on x, y; None, with no inliers, when the matches fix none."""

    inliers: np.ndarray
    transform: np.ndarray | None


def nearest(query: np.ndarray, index: np.ndarray) -> Neighbours:
    """The nearest row of ``index`` [m, D] for every row of ``query`` [n, D] by L2 distance; of equally near ones the
    first.

    Matrix products (in float32, in blocks that bound memory) say which rows may be nearest, their differences which one
    is. Raises ValueError for tables of other shapes and for values that are not finite.
    """
    query, index = _table(query), _table(index)
    if query.shape[1] != index.shape[1]:
        raise ValueError(f"descriptors of {query.shape[1]} and of {index.shape[1]} dimensions cannot be compared")
    found, halves = _nothing_near(len(query)), half_squares(index)[:, None]
    step = max(1, _CELLS // max(1, len(index)))
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        table = index @ query[rows].T
        np.subtract(halves, table, out=table)
        for whole, part in zip(found, nearest_in(table, query[rows], index)):
            whole[rows] = part
    return found


def nearest_in(
    table, query: np.ndarray, index: np.ndarray, farthest: float | None = None, second: bool = True
) -> Neighbours:
    """As ``nearest``, from products made before: ``table`` [m, n] is ``half_squares(index)[:, None] - index @
    query.T``, as a numpy array or as a tensor on any device; what was added to a whole column does not matter where
    ``farthest`` is None.

    The product rounds, and may round differently in a larger product or on another device; so all rows that may be the
    nearest are compared by the differences, and the result is the same. Left out, as if there were no index row: rows
    without one nearer than ``farthest``, and, without ``second``, the second distances.
    """
    found = _nothing_near(len(query))
    if not len(index) or not len(query):
        return found
    # |q - x|^2 / 2 = |q|^2 / 2 + table. Twice what rounding can do to a cell, or to the square of a difference's
    # length.
    margin = 2 * rounding(query, index)
    limits = _least(table) + 2 * margin
    if farthest is not None:
        limits[limits > farthest**2 / 2 - half_squares(query) + 3 * margin] = -np.inf
    _settle(found.indices, found.distances, table, limits, query, index)
    if second:
        nearest_cells = found.indices[found.indices >= 0], np.flatnonzero(found.indices >= 0)
        hidden = table[nearest_cells]
        table[nearest_cells] = np.inf
        limits = _least(table) + 2 * margin
        # Nothing is next where there is one row alone.
        limits[(found.indices < 0) | np.isinf(limits)] = -np.inf
        _settle(np.empty_like(found.indices), found.second_distances, table, limits, query, index)
        table[nearest_cells] = hidden
    return found


def half_squares(rows: np.ndarray) -> np.ndarray:
    """Half the squared length of each row [n, D]: [n]."""
    return np.einsum("ij,ij->i", rows, rows) / 2


def rounding(query: np.ndarray, index: np.ndarray) -> float:
    """How far half a squared distance between rows of the two may be from what float32 products of any order give for
    it."""
    longest = sum(np.sqrt(2 * half_squares(rows).max(initial=0)) for rows in (query, index))
    return float((query.shape[1] + 4) * np.finfo(np.float32).eps * longest**2 / 2)


def match(
    descriptors_a: np.ndarray,
    descriptors_b: np.ndarray,
    mode: str = "one_way",
    max_distance: float | None = None,
    ratio: float | None = None,
) -> np.ndarray:
    """Pairs (row of a [n, D], row of b [m, D]) as int64 [k, 2], by rising row of a: each row of a with its nearest row
    of b.

    Kept are pairs at an L2 distance < ``max_distance`` (unit vectors: 1.0 is a cosine of 0.5) and < ``ratio`` times the
    distance to the second nearest row; None: no such test. "one_way": several rows of a may share a row of b; "mutual":
    each is the nearest of the other. No rows on a side, no pairs. Raises ValueError for another mode and as ``nearest``
    does.
    """
    if mode not in MODES:
        raise ValueError(f"matching mode {mode!r} is not one of {', '.join(MODES)}")
    if not len(descriptors_a) or not len(descriptors_b):  # a file without features does not say how long they would be
        return np.empty((0, 2), np.int64)
    pairs = _kept(nearest(descriptors_a, descriptors_b), max_distance, ratio)
    if mode == "mutual":
        pairs = pairs[nearest(np.asarray(descriptors_b)[pairs[:, 1]], descriptors_a).indices == pairs[:, 0]]
    return pairs


def match_in(
    table,
    descriptors_a: np.ndarray,
    descriptors_b: np.ndarray,
    mode: str = "one_way",
    max_distance: float | None = None,
    ratio: float | None = None,
) -> np.ndarray:
    """As ``match``, from products made before: ``table`` [m, n] as in ``nearest_in``, with a as query and b as index.
    Descriptors are float32 and finite."""
    pairs = _kept(nearest_in(table, descriptors_a, descriptors_b, max_distance, ratio is not None), max_distance, ratio)
    if mode == "mutual" and len(pairs):
        rows = descriptors_b[pairs[:, 1]]
        # The other way round the lengths of a count, which are the same within a column so far.
        back = table[pairs[:, 1]]
        back += _beside(back, half_squares(descriptors_a))
        pairs = pairs[nearest_in(back.T, rows, descriptors_a, second=False).indices == pairs[:, 0]]
    return pairs


def _nothing_near(count: int) -> Neighbours:
    return Neighbours(np.full(count, -1), *np.full((2, count), np.inf, np.float32))


def _settle(indices, distances, table, limits, query, index) -> None:
    """Writes for every column of ``table`` with cells up to its limit the nearest of their rows, and its distance."""
    rows, columns = _cells(table, limits)
    found = np.empty(len(rows), np.float32)
    step = max(1, _CELLS // query.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = np.linalg.norm(query[columns[part]] - index[rows[part]], axis=1)
    order = np.lexsort((rows, found, columns))
    best = order[np.flatnonzero(np.diff(columns[order], prepend=-1))]
    indices[columns[best]], distances[columns[best]] = rows[best], found[best]


# What differs between numpy's arrays and torch's tensors, which this module does not import.


def _least(table) -> np.ndarray:
    least = table.min(0)
    return least if isinstance(table, np.ndarray) else least.values.cpu().numpy()


def _cells(table, limits) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells up to the limit of their column."""
    below = table <= _beside(table, limits)
    flat = np.flatnonzero(below) if isinstance(table, np.ndarray) else below.flatten().nonzero()[:, 0].cpu().numpy()
    return np.divmod(flat, table.shape[1])


def _beside(table, numbers: np.ndarray):
    """The numbers where the table is."""
    return numbers if isinstance(table, np.ndarray) else table.new_tensor(numbers)


def _kept(found: Neighbours, max_distance, ratio) -> np.ndarray:
    keep = found.indices >= 0
    if max_distance is not None:
        keep &= found.distances < max_distance
    if ratio is not None:
        keep &= found.distances < ratio * found.second_distances
    return np.stack([np.flatnonzero(keep), found.indices[keep]], axis=1)


def verify(
    points_a: np.ndarray,
    points_b: np.ndarray,
    model: str = "affine",
    threshold: float = 20.0,
    max_trials: int = 1000,
    confidence: float = 0.9999,
    seed: int = 0,
) -> Verification:
    """The transform from ``points_a`` [k, 2] to ``points_b`` [k, 2] (x, y) that most matches agree with, and those
    matches.

    Inliers are all matches with a residual <= ``threshold`` pixels of the second image. No inliers and no transform
    when no more different matches are given than fix the transform (3 for "affine", 4 for "homography"; the reference's
    rule, docs/delg.md 6.2), or when those that agree lie on a line. Matches with a coordinate that is not finite are
    outliers. The same ``seed`` gives the same inliers. Raises ValueError for another model and points that do not pair
    up.
    """
    if model not in MODELS:
        raise ValueError(f"geometry {model!r} is not one of {', '.join(MODELS)}")
    points_a, points_b = np.asarray(points_a, np.float64), np.asarray(points_b, np.float64)
    if points_a.shape != points_b.shape or points_a.ndim != 2 or points_a.shape[1] != 2:
        raise ValueError(
            f"points of shapes {points_a.shape} and {points_b.shape}; expected two tables [k, 2] of equal length"
        )
    estimate, sample = _ESTIMATORS[model]
    nothing = Verification(np.zeros(len(points_a), bool), None)
    usable = np.isfinite(points_a).all(1) & np.isfinite(points_b).all(1)
    if len(np.unique(np.hstack([points_a, points_b])[usable], axis=0)) <= sample:
        return nothing
    transform, _ = estimate(points_a[usable], points_b[usable], _magsac(threshold, max_trials, confidence, seed))
    if transform is None:
        return nothing
    inliers = residuals(transform, points_a, points_b) <= threshold
    if not (_spans_plane(points_a[inliers]) and _spans_plane(points_b[inliers])):
        return nothing
    return Verification(inliers, transform)


def residuals(transform: np.ndarray, points_a: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Pixels of the second image [k] between the transformed ``points_a`` [k, 2] and ``points_b`` [k, 2].

    Infinite where there is no number: coordinates that are not finite, and points that a homography sends beyond the
    horizon.
    """
    with np.errstate(all="ignore"):
        mapped = points_a @ transform[:, :2].T + transform[:, 2]
        if len(transform) == 3:
            depth = mapped[:, 2] * np.sign(np.nanmedian(mapped[:, 2]))
            mapped = np.where(depth[:, None] > 0, mapped[:, :2] / mapped[:, 2:], np.inf)
        distances = np.linalg.norm(mapped - points_b, axis=1)
    return np.where(np.isnan(distances), np.inf, distances)


def _magsac(threshold: float, max_trials: int, confidence: float, seed: int) -> cv2.UsacParams:
    params = cv2.UsacParams()
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.threshold, params.maxIterations, params.confidence = threshold, max_trials, confidence
    params.randomGeneratorState = seed % 2**31
    params.isParallel = False  # threads would make the result depend on their timing
    return params


def _spans_plane(points: np.ndarray) -> bool:
    if len(points) < 3:
        return False
    along, across = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return bool(across > _FLAT * along)


def _table(descriptors: np.ndarray) -> np.ndarray:
    descriptors = np.ascontiguousarray(descriptors, np.float32)
    if descriptors.ndim != 2:
        raise ValueError(f"descriptors of shape {descriptors.shape}; expected a table [n, D]")
    if not np.isfinite(descriptors).all():
        raise ValueError("descriptors that are not finite")
    return descriptors
