"""Two images compared by SIFT points (Lowe, IJCV 2004, with the square roots of Arandjelovic and Zisserman, CVPR 2012).
They tell far more surely than learned descriptors that two images show the same print or wall, but only where both were
taken from about the same direction."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from rrt.matching.matches import match, verify

SIDE = 640  # pixels of the longer side; the figures of docs/calibration.md 7 were measured with it
_RATIO, _RESIDUAL = 0.8, 6.0  # pixels
_EXTENT = 0.02  # least part of both images that the points in common span; a stamp or a watermark is smaller


class SiftPoints(NamedTuple):
    """points: float32 [n, 2] (x, y in pixels); descriptors: float32 [n, 128] of unit length; area: of the image, in
    pixels."""

    points: np.ndarray
    descriptors: np.ndarray
    area: int


def sift_points(grey: np.ndarray, most: int = 1000, contrast: float = 0.04) -> SiftPoints:
    """The strongest SIFT points of an image uint8 [H, W]: at most ``most``, with at least this contrast."""
    detector = cv2.SIFT.create(most, contrastThreshold=contrast, enable_precise_upscale=True)
    found, descriptors = detector.detectAndCompute(grey, None)  # pyright: ignore[reportCallIssue,reportArgumentType]
    if not found:
        return SiftPoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), grey.size)
    descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9)).astype(np.float32)
    return SiftPoints(np.array([point.pt for point in found], np.float32), descriptors, grey.size)


def points_in_common(first: SiftPoints, second: SiftPoints) -> int:
    """The number of pairs of points that one homography maps from the first image to the second, among the pairs whose
    points are the nearest of each other and clearly nearer than all others; 0 where they lie close together in one
    image."""
    pairs = match(first.descriptors, second.descriptors, "mutual", None, _RATIO)
    points = first.points[pairs[:, 0]], second.points[pairs[:, 1]]
    inliers = verify(*points, "homography", _RESIDUAL).inliers
    for places, image in zip(points, (first, second)):
        # For points spread over a rectangle the product is its area; quartiles ignore a few points outside of it.
        limit = _EXTENT * image.area
        if not inliers.any() or 4 * np.prod(np.ptp(np.percentile(places[inliers], (25, 75), axis=0), axis=0)) < limit:
            return 0
    return int(inliers.sum())
