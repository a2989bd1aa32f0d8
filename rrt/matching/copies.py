"""Whether an image is a changed copy of another, and what was changed.

Small versions of both are compared. A transform from one to the other, from their sizes alone or from SIFT points
(rrt/matching/sift.py), lays them over each other; then their pixels are compared in blocks. Two photographs of the same
object also have matching details, but their pixels do not coincide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from rrt.matching.matches import match, verify
from rrt.matching.sift import sift_points

METHOD = 2  # version of this comparison; results of another version are not used
SIDE = 256  # pixels of the longest side of the small images
CROPPED, RESIZED, MIRRORED, TURNED, FRAMED = "cropped", "resized", "mirrored", "turned", "framed"
UNFRAMED, WIDER, GREY, TONES = "without a frame", "shows more", "grey", "other tones"
RETOUCHED, SAVED = "retouched", "saved anew"
_BLOCK = 16  # pixels a side of a block
_FEATURES = 400
_RESIDUAL = 2.0  # pixels
# Largest ratio of the factors by which the two sides of a copy are scaled, and largest factor.
_ASPECT, _ZOOM = 1.3, 5.0
_STRETCH = math.log(2)  # logarithm of the largest stretch of an image in one direction
# A block is compared if its details reach _DETAIL grey levels; from these correlations on it is alike, and exact.
_DETAIL, _NOISE, _ALIKE, _EXACT = 4.0, 1.5, 0.8, 0.95
# A copy has at least this share and this number of alike blocks, this part of them is exact, and this part of one of
# the two images is covered by the other.
_SHARE, _BLOCKS, _PART, _COVERED = 0.5, 8, 0.65, 0.85
_FLAT = 12.0  # grey levels between the darkest and the lightest of a frame
_RETOUCHED = 0.05  # share of blocks that are not alike
# Mirroring reverses the horizontal order of the 4 x 4 cells of a SIFT descriptor, and the order of their 8 directions.
_SIFT = np.arange(128).reshape(4, 4, 8)
_MIRRORED_SIFT = _SIFT[::-1, :, [0, 7, 6, 5, 4, 3, 2, 1]].reshape(-1)
_Y, _X = np.mgrid[:_BLOCK, :_BLOCK]
_PLANE = np.linalg.qr(np.stack([np.ones(_BLOCK**2), _X.ravel(), _Y.ravel()], 1))[0].astype(np.float32)


class Look:
    """The small version of an image that is compared. pixels: uint8 RGB [h, w, 3], upright, at most SIDE pixels a side;
    size: (width, height) of the whole image."""

    def __init__(self, pixels: np.ndarray, size: tuple[int, int]):
        self.size = size
        self.grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        self.colour = float(np.ptp(pixels.astype(np.float32), axis=2).mean())

    @cached_property
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Points float32 [n, 2] and their descriptors float32 [n, 128] of unit length."""
        return sift_points(self.grey, _FEATURES, 0.02)[:2]

    @property
    def mirrored(self) -> Look:
        """The same image with left and right exchanged."""
        other = Look.__new__(Look)
        other.size, other.grey, other.colour = self.size, np.ascontiguousarray(self.grey[:, ::-1]), self.colour
        points, rows = self.features
        width = self.grey.shape[1]
        vars(other)["features"] = (
            np.array([width - 1, 0], np.float32) + points * np.array([-1, 1], np.float32),
            rows[:, _MIRRORED_SIFT],
        )
        return other


class Overlay(NamedTuple):
    """The first image laid over the second by ``transform`` [2, 3] (x, y in pixels of the small images).

    share: part of the blocks with details that are alike; blocks: how many are alike; exact: part of these that are
    exact; first, second: part of each image that the other covers; gain, shift: second = gain * first + shift in grey
    levels; first_rest, second_rest: grey levels between the darkest and the lightest of each image where the other does
    not cover it.
    """

    transform: np.ndarray
    share: float
    blocks: int
    exact: float
    first: float
    second: float
    gain: float = 1.0
    shift: float = 0.0
    first_rest: float = 0.0
    second_rest: float = 0.0

    @property
    def is_copy(self) -> bool:
        """Whether one of the images is a copy of the other."""
        enough = self.share >= _SHARE and self.blocks >= _BLOCKS and self.exact >= _PART
        return enough and max(self.first, self.second) >= _COVERED


def compare(first: Look, second: Look) -> tuple[str, ...] | None:
    """What was done to the first image to get the second, in the words above; None where they are not copies."""
    for mirrored in (False, True):
        other = second.mirrored if mirrored else second
        found = [laid for laid in _overlays(first, other) if laid.is_copy]
        if found:
            laid = max(found, key=lambda laid: laid.share)
            return (MIRRORED,) * mirrored + _changes(first, second, laid) or (SAVED,)
    return None


def _overlays(first: Look, second: Look) -> Iterator[Overlay]:
    """First by the sizes alone, as if one were stretched to the other; then by matches, if they agree on a
    transform."""
    (height, width), (h, w) = first.grey.shape, second.grey.shape
    x, y = w / width, h / height
    if abs(math.log(x / y)) < _STRETCH:
        laid = overlay(first, second, np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]]))
        yield laid
        if laid.share > 0.9:
            return
    pairs = match(first.features[1], second.features[1], "mutual", None, 0.85)
    points, others = first.features[0][pairs[:, 0]], second.features[0][pairs[:, 1]]
    transform = verify(points, others, "affine", _RESIDUAL).transform
    if transform is not None and np.linalg.det(transform[:, :2]) > 0:
        large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
        if small > 1 / _ZOOM and large < _ZOOM and large / small < _ASPECT:
            yield overlay(first, second, transform)


def overlay(first: Look, second: Look, transform: np.ndarray) -> Overlay:
    """The first image laid over the second. From each block the plane that fits its grey levels best is subtracted,
    because skies resemble each other."""
    scale = math.sqrt(np.linalg.det(transform[:, :2]))
    forth = scale <= 1  # the finer image is laid over the coarser one
    over, under = (first, second) if forth else (second, first)
    onto = transform if forth else cv2.invertAffineTransform(transform)
    warped, there = _warped(over.grey, onto, under.grey.shape)
    a, b = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1) for image in (warped, under.grey))
    whole = _blocks(cv2.erode(there, np.ones((5, 5), np.uint8))).min(1) > 0
    rows, others = (_blocks(image)[whole] for image in (a, b))
    rows, others = (each - (each @ _PLANE) @ _PLANE.T for each in (rows, others))
    deviations = np.stack([rows.std(1), others.std(1)])
    correlations = (rows * others).mean(1) / np.maximum(deviations, _NOISE).prod(0)
    detailed = deviations.max(0) >= _DETAIL
    alike, exact = (correlations[detailed] >= least for least in (_ALIKE, _EXACT))
    away, covered = _warped(under.grey, cv2.invertAffineTransform(onto), over.grey.shape)
    parts = float(covered.mean()) / 255, float(there.mean()) / 255
    gain, shift, rests = 1.0, 0.0, [0.0, 0.0]
    if alike.any():
        dark, light = a[there > 0], b[there > 0]
        gain, shift = float(light.std() / max(dark.std(), 1e-3)), float(light.mean() - dark.mean())
        gain, shift = (gain, shift) if forth else (1 / max(gain, 1e-3), -shift)
        rests = [_spread(over.grey, covered), _spread(under.grey, there)]
    count = int(alike.sum())
    share, part = count / max(len(alike), 1), int(exact.sum()) / max(count, 1)
    (own, other), (rest, more) = (parts, rests) if forth else (parts[::-1], rests[::-1])
    return Overlay(transform, share, count, part, own, other, gain, shift, rest, more)


def _warped(grey: np.ndarray, transform: np.ndarray, shape) -> tuple[np.ndarray, np.ndarray]:
    """An image warped to the size of one of ``shape``, and a mask that is 255 where it lies."""
    scale = math.sqrt(np.linalg.det(transform[:, :2]))
    if scale < 0.8:
        grey = cv2.GaussianBlur(grey, (0, 0), 0.45 / scale)
    size = shape[1], shape[0]
    there = cv2.warpAffine(np.full(grey.shape, 255, np.uint8), transform, size, flags=cv2.INTER_NEAREST)
    return cv2.warpAffine(grey, transform, size, flags=cv2.INTER_LINEAR), there


def _spread(grey: np.ndarray, covered: np.ndarray) -> float:
    """Grey levels between the darkest and the lightest of an image where it is not covered."""
    rest = grey[cv2.dilate(covered, np.ones((7, 7), np.uint8)) == 0]
    return float(np.subtract(*np.percentile(rest, (95, 5)))) if rest.size else 0.0


def _blocks(image: np.ndarray) -> np.ndarray:
    """The blocks [n, _BLOCK ** 2] of an image, without what is left over at two edges."""
    rows, columns = (side // _BLOCK for side in image.shape)
    cut = image[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    return cut.swapaxes(1, 2).reshape(-1, _BLOCK**2)


def _changes(first: Look, second: Look, laid: Overlay) -> tuple[str, ...]:
    (a, b, _), (c, d, _) = laid.transform
    angle = abs(math.degrees(math.atan2(c - b, a + d)))
    # In pixels of the whole images.
    zoom = math.sqrt(a * d - b * c) * second.size[0] / second.grey.shape[1] / first.size[0] * first.grey.shape[1]
    turned, cut, more = angle > 1, laid.first < 0.96, laid.second < 0.96
    changes = {
        UNFRAMED: cut and not turned and laid.first_rest < _FLAT,
        CROPPED: cut and (laid.first < 0.8 if turned else laid.first_rest >= _FLAT),
        FRAMED: more and not turned and laid.second_rest < _FLAT,
        WIDER: more and not turned and laid.second_rest >= _FLAT,
        TURNED: turned,
        RESIZED: abs(math.log(zoom)) > 0.03,
        GREY: second.colour < 3 and first.colour > 6,
        TONES: not 0.9 < laid.gain < 1.1 or abs(laid.shift) > 10,
        RETOUCHED: laid.share < 1 - _RETOUCHED,
    }
    return tuple(name for name, true in changes.items() if true)
