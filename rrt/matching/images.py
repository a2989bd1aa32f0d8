"""Two images matched by their local descriptors and verified by a plane transform, and the options of commands that do
so.

The geometry itself is in rrt/matching/matches.py. This module adds what the program for two images (docs/delg.md 7.1)
needs: which features count, the defaults, and how large a residual may be in an image of a given size.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from rrt.errors import InputError
from rrt.matching.matches import MODELS, MODES, Verification, match, verify

MAX_FEATURES = 1000
# Ten times the trials of the reference, because few matches of real photographs are right; they take milliseconds.
MAX_TRIALS = 10_000
# Pixels, and part of the longest side: 20 pixels are 2 % of an image shrunk to 1,024 pixels.
RESIDUAL, RESIDUAL_PART = 20.0, 0.02
# Near the border a network sees its own padding, which resembles the padding of any other image.
BORDER = 0.05


class ImageFeatures(NamedTuple):
    """An image and its local features by falling attention. name: for messages; size: (width, height) in pixels;
    points: [n, 2] (x, y in its pixels); descriptors: [n, D]."""

    name: str
    size: tuple[int, int]
    points: np.ndarray
    descriptors: np.ndarray


class Matches(NamedTuple):
    """pairs: rows of the first and of the second image's features, int [k, 2]; verification: of these pairs; residual:
    the largest that an inlier may have, in pixels of the second image."""

    pairs: np.ndarray
    verification: Verification
    residual: float

    @property
    def inliers(self) -> np.ndarray:
        """The pairs that verification kept, int [i, 2]."""
        return self.pairs[self.verification.inliers]


def strongest(
    name: str, size, local, max_features: int = MAX_FEATURES, score_threshold: float | None = None
) -> ImageFeatures:
    """An image with those of its features whose attention is highest: at most ``max_features``, each at least
    ``score_threshold``. local: descriptors, keypoints and attention as a file or a store has them."""
    order = np.argsort(-local.attention, kind="stable")
    if score_threshold is not None:
        order = order[local.attention[order] >= score_threshold]
    order = order[:max_features]
    width, height = map(int, size)
    return ImageFeatures(name, (width, height), local.keypoints[order], local.descriptors[order])


def inner(image: ImageFeatures, border: float) -> ImageFeatures:
    """The image with only the features that are at least ``border`` times its shorter side away from its border."""
    keep = is_inner(image.points, image.size, border)
    return image._replace(points=image.points[keep], descriptors=image.descriptors[keep])


def is_inner(points: np.ndarray, sizes: np.ndarray | tuple[int, int], border: float) -> np.ndarray:
    """Which of the points [n, 2] are at least ``border`` times the shorter side away from the image's border: bool [n],
    all where ``border`` is 0. sizes: (width, height) of the image, or of each point's image [n, 2]."""
    sizes = np.asarray(sizes)
    if not border:
        return np.ones(len(points), bool)
    margin = border * sizes.min(-1, keepdims=True)
    return ((points >= margin) & (points <= sizes - margin)).all(1)


def match_images(
    first: ImageFeatures,
    second: ImageFeatures,
    mode: str = "mutual",
    max_distance: float | None = 1.0,
    ratio: float | None = None,
    geometry: str = "affine",
    residual: float | None = None,
    seed: int = 0,
) -> Matches:
    """Matches each feature of the second image with its nearest of the first (docs/delg.md 7.1), and estimates the
    transform from the first to the second.

    mode, max_distance, ratio: as in ``match``; geometry, seed: as in ``verify``; residual: pixels of the second image,
    None = RESIDUAL or, in large images, RESIDUAL_PART of the longest side. Raises InputError when the descriptors of
    the two have different dimensions.
    """
    if residual is None:
        residual = max(RESIDUAL, RESIDUAL_PART * max(second.size))
    try:
        pairs = match(second.descriptors, first.descriptors, mode, max_distance, ratio)[:, ::-1]
    except ValueError as error:
        raise InputError(f"{first.name}, {second.name}: {error}; extract both with the same model") from None
    found = verify(first.points[pairs[:, 0]], second.points[pairs[:, 1]], geometry, residual, MAX_TRIALS, seed=seed)
    return Matches(pairs, found, residual)


# ---- options ---------------------------------------------------------------------------------------------------------


def add_matching_options(p: argparse.ArgumentParser) -> None:
    """Adds the options that matching_settings() and check_matching_options() read."""
    p.add_argument(
        "--border",
        type=float,
        default=BORDER,
        help="features nearer to the border than this part of the shorter side are left out, because the padding that "
        "a network sees there matches that of any other image (default %(default)s; 0: none)",
    )
    p.add_argument(
        "--matching",
        choices=MODES,
        default="mutual",
        help="mutual: each is the nearest of the other; one_way: the nearest of the first image for each feature of "
        "the second, as the published program does (default %(default)s)",
    )
    p.add_argument(
        "--max_distance",
        type=float,
        default=1.0,
        help="matches are nearer than this L2 distance; unit vectors: 1.0 is a cosine of 0.5, above 2 any "
        "(default %(default)s)",
    )
    p.add_argument(
        "--ratio",
        type=float,
        help="matches are nearer than this part of the distance to the second nearest, as 0.9 (default: any; features "
        "of neighbouring scales resemble each other, so that the test costs many right matches)",
    )
    p.add_argument(
        "--geometry", choices=MODELS, default="affine", help="transform between the images (default %(default)s)"
    )
    p.add_argument(
        "--residual",
        type=float,
        help=f"largest residual of an inlier, pixels of the second image (default {RESIDUAL:g}, or "
        f"{RESIDUAL_PART:.0%} of its longest side where that is more)".replace("%", "%%"),
    )


def check_matching_options(args: argparse.Namespace) -> None:
    """Raises InputError for values that are out of range."""
    for name, value in (("--max_distance", args.max_distance), ("--ratio", args.ratio), ("--residual", args.residual)):
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{name} {value}: expected a number above 0")
    if not 0 <= args.border < 0.5:
        raise InputError(f"--border {args.border}: expected a part of the image's shorter side, 0 to less than 0.5")


def matching_settings(args: argparse.Namespace) -> dict:
    """The options as keyword arguments of match_images()."""
    return {
        "mode": args.matching,
        **{name: getattr(args, name) for name in ("max_distance", "ratio", "geometry", "residual")},
    }
