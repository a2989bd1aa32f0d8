"""Matches the local descriptors of two images, verifies the matches by a plane transform, and draws the inliers.

    python tools/match_images.py jpg/a.jpg jpg/b.jpg --output match.png

Images are described upright by the shipped model lite0 unless --model names another. Images that do not match are an
answer too: 0 inliers, an image without lines, exit status 0. A few inliers prove nothing: unrelated photographs reach
some by chance. The probability, told with lite0 alone, is that of a search which found one for the other. With DELG
models: delg_extract/match_images.py.
"""

import argparse
from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError
from rrt.extraction.describer import open_describer
from rrt.extraction.levels import TooSmall
from rrt.extraction.options import MODELS, add_describer_options, given_settings
from rrt.formats.image_jobs import read_query
from rrt.matching.images import (
    ImageFeatures,
    add_matching_options,
    check_matching_options,
    inner,
    match_images,
    matching_settings,
)
from rrt.rerankers.shipped import probability_of_pair
from rrt.viz.style import add_figure_output, check_figure_path
from rrt.viz.two_images import save_matches


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = CommandParser(__doc__)
    p.add_argument("image1", help="first image")
    p.add_argument("image2", help="second image")
    p.add_argument("--model", default="lite0", help=MODELS)
    add_describer_options(p.add_argument_group("what is computed", "the defaults are the model's own"))
    add_figure_output(p, "match.png")
    add_matching_options(p)
    p.add_argument("--seed", type=int, default=0, help="of the random trials (default %(default)s)")
    return p


def main() -> int:
    """Prints what matches, and draws it."""
    args = parser().parse_args()
    check_figure_path(args.output)
    check_matching_options(args)
    model = open_describer(args.model, **given_settings(args))
    pixels, described, images = [], [], []
    for path in (args.image1, args.image2):
        try:
            pixels.append(read_query(path))
            described.append(found := model.describe(pixels[-1], str(len(pixels))))
        except TooSmall as too_small:
            raise InputError(f"{path}: {too_small}; give a larger image") from None
        except InputError as reason:
            raise InputError(f"{path}: {reason}; give a photograph (JPEG, PNG, ...)") from None
        height, width = pixels[-1].shape[:2]
        images.append(
            inner(ImageFeatures(Path(path).name, (width, height), found.keypoints, found.descriptors), args.border)
        )
    matches = match_images(*images, **matching_settings(args), seed=args.seed)
    print(save_matches(args.output, pixels, images, matches, args.geometry))
    probability = probability_of_pair(described[0], described[1], model.identity)
    if probability is not None:
        print(f"probability {probability:.2f} that both show the same, as a search says it (docs/calibration.md)")
    return 0
