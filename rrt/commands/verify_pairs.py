"""How well the count of verified matches tells pairs of images of the same building from pairs of different ones.

    python tools/verify_pairs.py --store data/oxford5k/delg_lite0.h5 --ground_truth data/oxford5k/gnd_roxford5k.pkl \\
        --query_list data/oxford5k/test_query.txt --gallery_list data/oxford5k/test_gallery.txt --pairs 200 --output
        pairs.csv

Half of the pairs are a query and one of its Easy (classic ground truth: good) images, half a query and an image that
its ground truth does not name; the queries take turns, in both halves the same ones. Matches are counted as
delg_extract/match_images.py does, from the store alone. Printed is the area under the ROC curve: the chance that a pair
of the same building has more inliers than one of different buildings, ties counting half (0.5: they say nothing, 1:
they always tell), with an interval from resampling the queries.
"""

from __future__ import annotations

import argparse

from rrt.command_line.parser import CommandParser
from rrt.datasets.sets import add_query_store, open_stores
from rrt.errors import InputError, check_least
from rrt.files.atomic import atomic_path
from rrt.files.machine import usable_cores
from rrt.formats.revisited import load_revisited_set
from rrt.matching.images import MAX_FEATURES, add_matching_options, check_matching_options, matching_settings


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    p = CommandParser(__doc__)
    p.add_argument(
        "--store", required=True, help="descriptor store (.h5, or a folder of its parts) with the images of both lists"
    )
    add_query_store(p)
    p.add_argument("--ground_truth", required=True, help="Revisited or classic ground truth (.pkl, .json, .mat)")
    p.add_argument("--query_list", required=True, help="image list of the queries")
    p.add_argument("--gallery_list", required=True, help="image list of the gallery")
    p.add_argument("--pairs", type=int, default=200, help="pairs in all, an even number (default %(default)s)")
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the drawing; the trials of the verification are always the same (default %(default)s)",
    )
    p.add_argument("--output", help="write a CSV of the pairs: first,second,same,matches,inliers")
    p.add_argument("--num_workers", type=int, default=usable_cores(), help="processes (default one a core)")
    p.add_argument(
        "--max_features",
        type=int,
        default=MAX_FEATURES,
        help="local descriptors an image at most, those of highest attention (default %(default)s)",
    )
    p.add_argument("--score_threshold", type=float, help="smallest attention of a local descriptor (default: any)")
    add_matching_options(p)
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """InputError for values that make no sense, before any file is read."""
    check_matching_options(args)
    if args.pairs < 2 or args.pairs % 2:
        raise InputError(f"--pairs {args.pairs}: expected an even number of 2 or more, half of each kind")
    for name, least in (("seed", 0), ("max_features", 1), ("num_workers", 1)):
        check_least(f"--{name}", getattr(args, name), least)


def main() -> int:
    """Print how well the counts tell, and write those of each pair to --output."""
    args = parser().parse_args()
    check_arguments(args)
    # SciPy takes seconds to load: --help and wrong options answer before.
    from rrt.evaluation.verified_pairs import count_matches, draw_pairs, report

    data = load_revisited_set(args.query_list, args.gallery_list, args.ground_truth)
    drawn = draw_pairs(data, args.pairs, args.seed)
    gallery, queries = open_stores(args.store, args.query_store)
    with gallery, queries:
        chosen = {"max_features": args.max_features, "score_threshold": args.score_threshold}
        stores = gallery, queries
        pairs = count_matches(drawn, data, stores, chosen, args.border, matching_settings(args), args.num_workers)
    print(report(pairs, args.seed))
    if args.output:
        with atomic_path(args.output) as temporary:
            pairs.assign(same=pairs["same"].astype(int)).to_csv(temporary, index=False)
        print(f"wrote {args.output}")
    return 0
