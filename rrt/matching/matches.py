"""Matches between the local descriptors of two images, and the plane geometry that verifies them; uses only numpy and
OpenCV.

The rules are those of docs/delg.md 6.2 and 7.1: nearest neighbours by L2 distance, a distance or ratio test, and a
transform whose inliers are counted by their residual in pixels. The transform is estimated by MAGSAC++ (Barath et al.,
CVPR 2020, as in OpenCV) instead of plain RANSAC, because its counts vary far less over the seeds, and the same seed
gives the same inliers.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

MODES = ("one_way", "mutual")
# Estimator, and number of points that fix the transform: so few matches always agree with one.
_ESTIMATORS = {"affine": (cv2.estimateAffine2D, 3), "homography": (cv2.findHomography, 4)}
MODELS = tuple(_ESTIMATORS)
_CELLS = 2**22  # of the matrix product that is held at a time: 16 MiB
_FLAT = 1e-3  # points are on a line when their spread across it is less than this part of the spread along it


class Neighbours(NamedTuple):
    """For each of the n query rows: indices int64 [n] of the nearest index row (-1: there is none), distances float32
    [n] to it, and second_distances float32 [n] to the second nearest (infinite where there is none)."""

    indices: np.ndarray
    distances: np.ndarray
    second_distances: np.ndarray


class Verification(NamedTuple):
    """inliers: bool [k]; transform: from the first to the second image, float64 [2, 3] (affine) or [3, 3] (homography),
    of (x, y). When the matches fix no transform it is None, and there are no inliers."""

    inliers: np.ndarray
    transform: np.ndarray | None


def nearest(query: np.ndarray, index: np.ndarray) -> Neighbours:
    """The nearest row of ``index`` [m, D] for each row of ``query`` [n, D] by L2 distance; the first of equally near
    ones.

    Matrix products (float32, in blocks that bound memory) find the rows that may be nearest; their exact distances
    decide. Raises ValueError for tables of other shapes and for values that are not finite.
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
    """As ``nearest``, with products that exist already: ``table`` [m, n] is ``half_squares(index)[:, None] - index @
    query.T``, a numpy array or a tensor on any device. Without ``farthest``, any number may have been added to a whole
    column.

    The products are rounded, and perhaps differently in a larger product or on another device. Therefore the exact
    distances of all rows that may be the nearest are compared, and the result is the same. A query row without an index
    row nearer than ``farthest`` gets none; without ``second`` there are no second distances.
    """
    found = _nothing_near(len(query))
    if not len(index) or not len(query):
        return found
    # |q - x|^2 / 2 = |q|^2 / 2 + table. The margin is twice the largest rounding error of a cell, or of half the square
    # of a distance.
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
        # There is no second nearest row where there is only one row.
        limits[(found.indices < 0) | np.isinf(limits)] = -np.inf
        _settle(np.empty_like(found.indices), found.second_distances, table, limits, query, index)
        table[nearest_cells] = hidden
    return found


def half_squares(rows: np.ndarray) -> np.ndarray:
    """Half the squared length of each row of ``rows`` [n, D]: [n]."""
    return np.einsum("ij,ij->i", rows, rows) / 2


def rounding(query: np.ndarray, index: np.ndarray) -> float:
    """The largest error of half a squared distance between rows of the two tables, when it comes from float32 products
    that are summed in any order."""
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

    Pairs are kept whose L2 distance is < ``max_distance`` (unit vectors: 1.0 is a cosine of 0.5) and < ``ratio`` times
    the distance to the second nearest row; None: no such test. "one_way": several rows of a may have the same row of b;
    "mutual": each of the two is the nearest of the other. A table without rows gives no pairs. Raises ValueError for
    another mode and as ``nearest`` does.
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
    """As ``match``, with products that exist already: ``table`` [m, n] as in ``nearest_in``, where a is the query and b
    the index. Descriptors are float32 and finite."""
    pairs = _kept(nearest_in(table, descriptors_a, descriptors_b, max_distance, ratio is not None), max_distance, ratio)
    if mode == "mutual" and len(pairs):
        rows = descriptors_b[pairs[:, 1]]
        # In the other direction the lengths of the rows of a differ within a column, so they must be added.
        back = table[pairs[:, 1]]
        back += _beside(back, half_squares(descriptors_a))
        pairs = pairs[nearest_in(back.T, rows, descriptors_a, second=False).indices == pairs[:, 0]]
    return pairs


def _nothing_near(count: int) -> Neighbours:
    return Neighbours(np.full(count, -1), *np.full((2, count), np.inf, np.float32))


def _settle(indices, distances, table, limits, query, index) -> None:
    """Compares the exact distances of the cells of ``table`` that are not above the limits of their columns, and writes
    the nearest row of each such column into ``indices`` and its distance into ``distances``."""
    rows, columns = _cells(table, limits)
    found = np.empty(len(rows), np.float32)
    step = max(1, _CELLS // query.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = np.linalg.norm(query[columns[part]] - index[rows[part]], axis=1)
    order = np.lexsort((rows, found, columns))
    best = order[np.flatnonzero(np.diff(columns[order], prepend=-1))]
    indices[columns[best]], distances[columns[best]] = rows[best], found[best]


# These functions take numpy arrays and PyTorch tensors, without importing PyTorch.


def _least(table) -> np.ndarray:
    least = table.min(0)
    return least if isinstance(table, np.ndarray) else least.values.cpu().numpy()


def _cells(table, limits) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells that are not above the limit of their column."""
    below = table <= _beside(table, limits)
    flat = np.flatnonzero(below) if isinstance(table, np.ndarray) else below.flatten().nonzero()[:, 0].cpu().numpy()
    return np.divmod(flat, table.shape[1])


def _beside(table, numbers: np.ndarray):
    """The numbers as an array or tensor of the same kind, and on the same device, as the table."""
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
    """The transform from ``points_a`` [k, 2] to ``points_b`` [k, 2] (x, y) with which most matches agree, and these
    matches.

    All matches with a residual <= ``threshold`` pixels of the second image are inliers. There are no inliers and no
    transform when the number of different matches is not larger than what fixes the transform (3 for "affine", 4 for
    "homography"; the reference's rule, docs/delg.md 6.2), or when the inliers lie on a line. Matches with a coordinate
    that is not finite are outliers. The same ``seed`` gives the same inliers. Raises ValueError for another model and
    for points that do not pair up.
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
    """Distances [k], in pixels of the second image, between the transformed ``points_a`` [k, 2] and ``points_b`` [k,
    2].

    Infinite for coordinates that are not finite, and for points that a homography maps beyond the horizon.
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
