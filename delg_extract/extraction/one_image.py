"""What the commands that look at single images share: their options, the network and the pixels."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from delg_extract.extraction.extractor import Descriptors, Extractor
from delg_extract.extraction.open import is_saved_model, open_network
from delg_extract.extraction.pyramid import SCALES
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.weight_file import read_settings
from rrt.errors import InputError, check_least
from rrt.formats.image_jobs import Job, read_image
from rrt.matching.images import MAX_FEATURES
from rrt.progress import waiting
from rrt.viz.style import add_figure_output, check_figure_path


def add_options(parser: argparse.ArgumentParser, output: str) -> None:
    """The options of both commands; ``output``: the default file."""
    parser.add_argument("--model", help="weight file (.h5) of delg_extract/train.py, or folder of a SavedModel")
    add_figure_output(parser, output)
    parser.add_argument(
        "--max_features",
        type=int,
        default=MAX_FEATURES,
        help="local descriptors an image at most (default %(default)s)",
    )
    parser.add_argument(
        "--score_threshold",
        type=float,
        help="smallest attention of a local descriptor (default: the one of the weight file, else none)",
    )
    parser.add_argument(
        "--max_image_size",
        type=int,
        default=1024,
        help="longer images are described at this longest side, pixels (default %(default)s; -1: never shrunk)",
    )
    parser.add_argument(
        "--scales", type=float, nargs="+", default=list(SCALES), help="image scales (default the seven of DELG)"
    )


def check_options(args: argparse.Namespace) -> None:
    """InputError for values that no extraction can work with, before any work is done."""
    check_figure_path(args.output)
    check_least("--max_features", args.max_features)
    if not all(0 < scale < np.inf for scale in args.scales):
        raise InputError(f"--scales {' '.join(map(str, args.scales))}: expected numbers above 0")
    if args.max_image_size == 0 or args.max_image_size < -1:
        raise InputError(f"--max_image_size {args.max_image_size}: expected pixels, or -1 for the image as it is")


def open_extractor(args: argparse.Namespace, **settings) -> tuple[Extractor, float]:
    """An extractor of local descriptors by the options, and the smallest attention asked for; ``settings`` replace the
    options'."""
    with waiting("opening the network"):
        network = open_network(args.model)
    threshold = 0.0 if is_saved_model(args.model) else read_settings(args.model).get("score_threshold", 0.0)
    threshold = threshold if args.score_threshold is None else args.score_threshold
    asked = {
        "scales": tuple(args.scales),
        "max_features": args.max_features,
        "score_threshold": threshold,
        "max_image_size": args.max_image_size,
        "use_global": False,
        **settings,
    }
    return Extractor(network, ExtractionSettings(**asked)), threshold


def read_pixels(path: str | Path) -> np.ndarray:
    """An image as uint8 RGB [H, W, 3], as the extraction reads it: EXIF orientation is ignored. Raises InputError
    naming the file."""
    image = read_image(Job(str(path), Path(path)))
    if image.pixels is None:
        raise InputError(f"{path}: {image.reason}; give a photograph (JPEG, PNG, ...)")
    return image.pixels


def describe(extractor: Extractor, pixels: np.ndarray, path: str | Path) -> Descriptors:
    """Descriptors of uint8 [H, W, 3]. Raises InputError naming the file when the image is too small."""
    with waiting(f"describing {Path(path).name}"):
        descriptors = extractor(pixels)
    if descriptors is None:
        raise InputError(f"{path}: {extractor.TOO_SMALL}; give a larger image, or larger --scales")
    return descriptors
