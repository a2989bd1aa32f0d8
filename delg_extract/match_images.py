"""Matches the local descriptors of two pictures, verifies the matches by a plane transform, and draws the inliers.

    python delg_extract/match_images.py jpg/a.jpg jpg/b.jpg --output match.png
    python delg_extract/match_images.py jpg/a.jpg jpg/b.jpg --features1 a.delg_local --features2 b.delg_local
    python delg_extract/match_images.py jpg/a.jpg jpg/b.jpg --image_dir data/oxford5k --store data/oxford5k/delg_small.h5

Descriptors are extracted with --model, or read from feature files, or from a store (where the pictures have the names given here).
Pictures that do not match are an answer too: 0 inliers, a picture without lines, exit status 0. A few inliers prove nothing:
unrelated photographs reach some by chance, the more the weaker the descriptors are.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from delg_extract.one_picture import add_options, check_options, describe, open_extractor, read_pixels, save_figure
from delg_extract.options import add_pca_options, requested_pca
from rrt.delf_files import read_features
from rrt.errors import InputError, run_command
from rrt.matching import MODELS, MODES, Verification, match, verify
from rrt.store import Store

# Few of the matches of real photographs are right; ten times the trials of the reference take a few milliseconds.
MAX_TRIALS = 10_000
# Of a picture shrunk to 1,024 pixels the same part.
RESIDUAL, RESIDUAL_PART = 20.0, 0.02
# Near the border a network sees its own padding, which resembles the padding of any other picture.
BORDER = 0.05
DRAWN_HEIGHT, GAP = 800, 20  # pixels of the drawing's own raster
WIDEST, HIGHEST, NARROWEST, TITLE = 16.0, 9.0, 7.0, 0.8  # inches


class Features(NamedTuple):
    """Local features of a picture: points [n, 2] (x, y in its pixels) and descriptors [n, D], by falling attention."""

    points: np.ndarray
    descriptors: np.ndarray


class Picture(NamedTuple):
    """A picture's name for people, its pixels uint8 [H, W, 3], and its features."""

    name: str
    pixels: np.ndarray
    features: Features


class Matches(NamedTuple):
    """Rows of the first and the second picture's features as int [k, 2], what verification found in them, and the largest
    residual of an inlier in pixels of the second picture."""

    pairs: np.ndarray
    verification: Verification
    residual: float

    @property
    def inliers(self) -> np.ndarray:
        return self.pairs[self.verification.inliers]


def match_pictures(first: Picture, second: Picture, mode: str = "mutual", max_distance: float | None = 1.0, ratio: float | None = None,
                   geometry: str = "affine", residual: float | None = None, seed: int = 0) -> Matches:
    """Each feature of the second picture with its nearest of the first (DELG_SPEC 7.1), and the transform from the first to the second.

    ``residual``: pixels of the second picture, None: RESIDUAL or, in large pictures, RESIDUAL_PART of the longest side.
    Raises InputError when the two have descriptors of different length.
    """
    if residual is None:
        residual = max(RESIDUAL, RESIDUAL_PART * max(second.pixels.shape[:2]))
    try:
        pairs = match(second.features.descriptors, first.features.descriptors, mode, max_distance, ratio)[:, ::-1]
    except ValueError as error:
        raise InputError(f"{first.name}, {second.name}: {error}; extract both with the same model") from None
    found = verify(first.features.points[pairs[:, 0]], second.features.points[pairs[:, 1]], geometry, residual, MAX_TRIALS, seed=seed)
    return Matches(pairs, found, residual)


# ---- where features come from --------------------------------------------------------------------------------------------


def strongest(local, args: argparse.Namespace) -> Features:
    """The features of a file or a store (descriptors, keypoints, attention) that the options leave."""
    order = np.argsort(-local.attention, kind="stable")
    if args.score_threshold is not None:
        order = order[local.attention[order] >= args.score_threshold]
    order = order[:args.max_features]
    return Features(local.keypoints[order], local.descriptors[order])


def inner(features: Features, pixels: np.ndarray, border: float) -> Features:
    """The features at least ``border`` times the shorter side away from the border of their picture."""
    height, width = pixels.shape[:2]
    margin = border * min(height, width)
    keep = ((features.points >= margin) & (features.points <= (width - margin, height - margin))).all(1)
    return Features(features.points[keep], features.descriptors[keep])


def read_pictures(args: argparse.Namespace) -> list[Picture]:
    """The two pictures with the features that the options name. Raises InputError naming the file at fault."""
    files = [Path(args.image_dir, name) for name in (args.image1, args.image2)]
    pixels = [read_pixels(file) for file in files]
    if args.store:
        with Store(args.store) as store:
            places = store.indices([args.image1, args.image2])
            for place, name, file, picture in zip(places, (args.image1, args.image2), files, pixels):
                stored, shown = (f"{width} x {height}" for width, height in (store.image_size[place], picture.shape[1::-1]))
                if stored != shown:
                    raise InputError(f"{args.store}: {name!r} was extracted from {stored} pixels, {file} has {shown}; give the same "
                                     "picture (of a query: its crop)")
            features = [strongest(store.read(place), args) for place in places]
    elif args.features1:
        features = [_checked(strongest(read_features(file), args), file, picture, image)
                    for file, picture, image in zip((args.features1, args.features2), pixels, files)]
    else:
        extractor, _ = open_extractor(args, local_pca=requested_pca(args))
        found = [describe(extractor, picture, file) for picture, file in zip(pixels, files)]
        features = [Features(one.locations[:, ::-1], one.descriptors) for one in found]
    return [Picture(file.name, picture, inner(feature, picture, args.border)) for file, picture, feature in zip(files, pixels, features)]


def _checked(features: Features, file: str, pixels: np.ndarray, image: Path) -> Features:
    """InputError unless every keypoint lies in the picture that is drawn."""
    height, width = pixels.shape[:2]
    inside = ((features.points >= -1) & (features.points <= (width + 1, height + 1))).all(1)
    if not inside.all():
        x, y = features.points[np.flatnonzero(~inside)[0]]
        raise InputError(f"{file}: a keypoint at ({x:.0f}, {y:.0f}) lies outside {image} of {width} x {height} pixels; give the picture "
                         "that the features were extracted from")
    return features


# ---- drawing -------------------------------------------------------------------------------------------------------------


def draw_matches(path: str | Path, first: Picture, second: Picture, matches: Matches, title: str) -> None:
    """Writes the two pictures side by side at one height, and a line for every inlier."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    rasters = [_at_most(picture.pixels, DRAWN_HEIGHT) for picture in (first, second)]
    widths = [DRAWN_HEIGHT * raster.shape[1] / raster.shape[0] for raster in rasters]
    lefts = [0, widths[0] + GAP]
    full_width = lefts[1] + widths[1]
    inches = min(WIDEST / full_width, HIGHEST / DRAWN_HEIGHT)
    figure = plt.figure(figsize=(max(NARROWEST, inches * full_width), inches * DRAWN_HEIGHT + TITLE))
    share = inches * DRAWN_HEIGHT / figure.get_figheight()
    axes = figure.add_axes((0, 0, 1, share))
    for raster, left, width in zip(rasters, lefts, widths):
        axes.imshow(raster, extent=(left, left + width, DRAWN_HEIGHT, 0))
    ends = [_on_canvas(picture, rows, left) for picture, rows, left in zip((first, second), matches.inliers.T, lefts)]
    lines = np.stack(ends, axis=1)
    # Bright on dark stands out on any photograph; brighter the lower a line begins, so that lines are told apart in grey too.
    colours = matplotlib.colormaps["plasma"](0.4 + 0.6 * lines[:, 0, 1] / DRAWN_HEIGHT)
    axes.add_collection(LineCollection(lines, colors="black", linewidths=2.4, alpha=0.7))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=1.2))
    for points in ends:
        axes.scatter(*points.T, s=14, c=colours, edgecolors="black", linewidths=0.7, zorder=3)
    axes.set(xlim=(0, full_width), ylim=(DRAWN_HEIGHT, 0), aspect="equal")
    axes.axis("off")
    figure.text(0.5, (1 + share) / 2, title, ha="center", va="center", parse_math=False)
    save_figure(figure, path)
    plt.close(figure)


def _at_most(pixels: np.ndarray, height: int) -> np.ndarray:
    if pixels.shape[0] <= height:
        return pixels
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _on_canvas(picture: Picture, rows: np.ndarray, left: float) -> np.ndarray:
    return picture.features.points[rows] * (DRAWN_HEIGHT / picture.pixels.shape[0]) + (left, 0)


# ---- the command ---------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("image1", help="first picture")
    p.add_argument("image2", help="second picture")
    p.add_argument("--image_dir", default=".", help="the folder the pictures are relative to (default %(default)s)")
    add_options(p, output="match.png")
    add_pca_options(p)
    p.add_argument("--features1", help="feature file of the first picture (.delf, .delg_local), instead of an extraction")
    p.add_argument("--features2", help="feature file of the second picture")
    p.add_argument("--store", help="store that holds both pictures by name, instead of an extraction")
    p.add_argument("--border", type=float, default=BORDER,
                   help="features nearer to the border than this part of the shorter side are left out, because the padding that a network "
                        "sees there matches that of any other picture (default %(default)s; 0: none)")
    p.add_argument("--matching", choices=MODES, default="mutual",
                   help="mutual: each is the nearest of the other; one_way: the nearest of the first picture for each feature of the "
                        "second, as the published program does (default %(default)s)")
    p.add_argument("--max_distance", type=float, default=1.0,
                   help="matches are nearer than this L2 distance; unit vectors: 1.0 is a cosine of 0.5, above 2 any (default %(default)s)")
    p.add_argument("--ratio", type=float,
                   help="matches are nearer than this part of the distance to the second nearest, as 0.9 (default: any; features of "
                        "neighbouring scales resemble each other, so that the test costs many right matches)")
    p.add_argument("--geometry", choices=MODELS, default="affine", help="transform between the pictures (default %(default)s)")
    p.add_argument("--residual", type=float, help=f"largest residual of an inlier, pixels of the second picture (default {RESIDUAL:g}, or "
                                                  f"{RESIDUAL_PART:.0%} of its longest side where that is more)".replace("%", "%%"))
    p.add_argument("--seed", type=int, default=0, help="of the random trials (default %(default)s)")
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """InputError for options that contradict each other or make no sense."""
    check_options(args)
    if bool(args.features1) != bool(args.features2):
        raise InputError("--features1 and --features2 belong together; give both")
    given = [name for name, value in (("--model", args.model), ("--features1", args.features1), ("--store", args.store)) if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: descriptors can come from one place only; give one of them")
    if args.pca_dir and (args.features1 or args.store):
        raise InputError("--pca_dir: descriptors of feature files or a store are compared as they are; leave it out")
    for name, value in (("--max_distance", args.max_distance), ("--ratio", args.ratio), ("--residual", args.residual)):
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{name} {value}: expected a number above 0")
    if not 0 <= args.border < 0.5:
        raise InputError(f"--border {args.border}: expected a part of the picture's shorter side, 0 to less than 0.5")


def main() -> int:
    args = parser().parse_args()
    check_arguments(args)
    first, second = read_pictures(args)
    matches = match_pictures(first, second, args.matching, args.max_distance, args.ratio, args.geometry, args.residual, args.seed)
    counts = [f"{picture.name}: {len(picture.features.points)} features" for picture in (first, second)]
    found = f"{len(matches.inliers)} inliers of {len(matches.pairs)} matches ({args.geometry}, residual up to {matches.residual:g} pixels)"
    draw_matches(args.output, first, second, matches, f"{counts[0]}    {counts[1]}\n{found}")
    print(*counts, found, f"wrote {args.output}", sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)
