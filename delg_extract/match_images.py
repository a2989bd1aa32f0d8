"""Matches the local descriptors of two images, verifies the matches by a plane transform, and draws the inliers.

    python delg_extract/match_images.py jpg/a.jpg jpg/b.jpg --model delg.h5 --output match.png
    python delg_extract/match_images.py jpg/a.jpg jpg/b.jpg --features1 a.delg_local --features2 b.delg_local
    python delg_extract/match_images.py jpg/a.jpg jpg/b.jpg --image_dir data/oxford5k --store
    data/oxford5k/delg_r50_gldv2.h5

Descriptors are extracted with --model, or read from feature files, or from a store (where the images have the names
given here). Images that do not match are an answer too: 0 inliers, an image without lines, exit status 0. A few
inliers prove nothing: unrelated photographs reach some by chance, the more the weaker the descriptors are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from delg_extract.extraction.one_image import add_options, check_options, describe, open_extractor, read_pixels
from delg_extract.extraction.options import add_pca_options, requested_pca
from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError
from rrt.formats.delf import read_features
from rrt.matching.images import (
    ImageFeatures,
    add_matching_options,
    check_matching_options,
    inner,
    match_images,
    matching_settings,
    strongest,
)
from rrt.store.store import Store
from rrt.viz.two_images import save_matches

# ---- where features come from ----------------------------------------------------------------------------------------


def read_images(args: argparse.Namespace) -> tuple[list[ImageFeatures], list[np.ndarray]]:
    """The two images with the features that the options name, and their pixels uint8 [H, W, 3]. Raises InputError
    naming the file at fault."""
    files = [Path(args.image_dir, name) for name in (args.image1, args.image2)]
    pixels = [read_pixels(file) for file in files]
    sizes = [image.shape[1::-1] for image in pixels]
    chosen = {"max_features": args.max_features, "score_threshold": args.score_threshold}
    if args.store:
        with Store(args.store) as store:
            indices = store.indices([args.image1, args.image2])
            for index, name, file, size in zip(indices, (args.image1, args.image2), files, sizes):
                stored, shown = (f"{width} x {height}" for width, height in (store.image_size[index], size))
                if stored != shown:
                    raise InputError(
                        f"{args.store}: {name!r} was extracted from {stored} pixels, {file} has {shown}; give the "
                        "same image (of a query: its crop)"
                    )
            images = [
                strongest(file.name, size, store.read(index), **chosen)
                for file, size, index in zip(files, sizes, indices)
            ]
    elif args.features1:
        images = [
            _checked(strongest(file.name, size, read_features(features), **chosen), features, file)
            for file, size, features in zip(files, sizes, (args.features1, args.features2))
        ]
    else:
        extractor, _ = open_extractor(args, local_pca=requested_pca(args))
        found = [describe(extractor, image, file) for image, file in zip(pixels, files)]
        images = [
            ImageFeatures(file.name, size, one.locations[:, ::-1], one.descriptors)
            for file, size, one in zip(files, sizes, found)
        ]
    return [inner(image, args.border) for image in images], pixels


def _checked(image: ImageFeatures, features: str, file: Path) -> ImageFeatures:
    """InputError unless every keypoint lies in the image that is drawn."""
    width, height = image.size
    inside = ((image.points >= -1) & (image.points <= (width + 1, height + 1))).all(1)
    if not inside.all():
        x, y = image.points[np.flatnonzero(~inside)[0]]
        raise InputError(
            f"{features}: a keypoint at ({x:.0f}, {y:.0f}) lies outside {file} of {width} x {height} pixels; give "
            "the image that the features were extracted from"
        )
    return image


# ---- the command -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    p.add_argument("image1", help="first image")
    p.add_argument("image2", help="second image")
    p.add_argument("--image_dir", default=".", help="the folder the images are relative to (default %(default)s)")
    add_options(p, output="match.png")
    add_pca_options(p)
    p.add_argument("--features1", help="feature file of the first image (.delf, .delg_local), instead of an extraction")
    p.add_argument("--features2", help="feature file of the second image")
    p.add_argument("--store", help="store that holds both images by name, instead of an extraction")
    add_matching_options(p)
    p.add_argument("--seed", type=int, default=0, help="of the random trials (default %(default)s)")
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """InputError for options that contradict each other or make no sense."""
    check_options(args)
    if bool(args.features1) != bool(args.features2):
        raise InputError("--features1 and --features2 belong together; give both")
    given = [
        name
        for name, value in (("--model", args.model), ("--features1", args.features1), ("--store", args.store))
        if value
    ]
    if not given:
        raise InputError(
            "no descriptors; give --model, --features1 and --features2, or --store (tools/match_images.py needs none)"
        )
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: descriptors can come from one place only; give one of them")
    if args.pca_dir and (args.features1 or args.store):
        raise InputError("--pca_dir: descriptors of feature files or a store are compared as they are; leave it out")
    check_matching_options(args)


def main() -> int:
    """The command."""
    args = parser().parse_args()
    check_arguments(args)
    images, pixels = read_images(args)
    matches = match_images(images[0], images[1], **matching_settings(args), seed=args.seed)
    print(save_matches(args.output, pixels, images, matches, args.geometry))
    return 0


if __name__ == "__main__":
    run_command(main)
