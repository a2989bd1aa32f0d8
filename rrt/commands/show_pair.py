"""Draws why two images of a store match, or do not: what the reranking transformer attends to, and the verified
matches.

    python tools/show_pair.py --store data/oxford5k/delg_r50_gldv2.h5 --image_dir data/oxford5k \\
        all_souls_000013 all_souls_000026 --resume rrt_gld_ckpts/r50_gldv2.pt --gnd data/oxford5k/gnd_roxford5k.pkl

Above, each local descriptor is a dot, the brighter and larger the more attention it gets; lines are the strongest
links, descriptors that attend to each other across the pair, solid where the verified transform agrees. Below are the
inliers of the reranker geometric with its default settings. Images are named by their path in the store, file stem or
position; a query that was cropped is drawn as its crop, for which --gnd or --box is needed. Without --resume only the
verified matches are drawn.
"""

from dataclasses import fields

from rrt.command_line.parser import CommandParser
from rrt.datasets.sets import add_query_store, open_stores
from rrt.errors import InputError
from rrt.network.reranker import Reranker
from rrt.report.explanation import ATTENTIONS, AttentionView, describe_numbers, explain_pair
from rrt.report.pair import draw_pair
from rrt.viz.style import add_figure_output, check_figure_path, save_figure


def parser() -> CommandParser:
    """The command line's options."""
    p = CommandParser(__doc__)
    p.add_argument("query", help="name, file stem or position in the store")
    p.add_argument("candidate", help="the same")
    p.add_argument("--store", required=True, help="descriptor store (.h5, or a folder of its parts) that holds both")
    add_query_store(p)
    p.add_argument("--image_dir", required=True, help="the folder that the names in the store are relative to")
    p.add_argument("--resume", help="checkpoint of the reranking transformer, published or of experiment.py")
    p.add_argument("--gnd", help="ground truth (.pkl, .json, .mat): boxes of the queries, and what the pair is")
    p.add_argument(
        "--box",
        type=int,
        nargs=4,
        metavar=("X1", "Y1", "X2", "Y2"),
        help="pixels of the query's image that it was cropped to, where no ground truth says so",
    )
    add_figure_output(p, "pair.png")
    p.add_argument("--no-geometric", dest="geometric", action="store_false", help="leave the verified matches out")
    p.add_argument(
        "--attention",
        choices=ATTENTIONS,
        default="cls",
        help="; ".join(f"{name}: {meaning}" for name, meaning in ATTENTIONS.items()) + " (default %(default)s)",
    )
    p.add_argument(
        "--layer", type=int, help="layer of dots and links, from 0 (default: dots the last, links all but the last)"
    )
    p.add_argument("--head", type=int, help="one head, from 0 (default: the mean of all)")
    p.add_argument(
        "--links", type=int, default=AttentionView.links, help="strongest links that are drawn (default %(default)s)"
    )
    p.add_argument(
        "--max_local", type=int, help="local descriptors of an image (default: as the checkpoint was trained)"
    )
    p.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    return p


def main() -> None:
    """Write the figure of the pair and print its numbers."""
    args = parser().parse_args()
    check_figure_path(args.output)
    view = AttentionView(**{entry.name: getattr(args, entry.name) for entry in fields(AttentionView)})
    reranker = None
    if args.resume:
        reranker = Reranker.from_checkpoint(args.resume, device="cpu" if args.cpu else None)
    elif not args.geometric:
        raise InputError("--no-geometric without --resume leaves nothing to draw; give a checkpoint")
    box = tuple(args.box) if args.box else None
    store, queries = open_stores(args.store, args.query_store)
    with store, queries:
        pair = explain_pair(
            store, args.query, args.candidate, args.image_dir, reranker, args.geometric, box, args.gnd, view, queries
        )
    save_figure(draw_pair(pair), args.output)
    print(pair.title, describe_numbers(pair.numbers), f"wrote {args.output}", sep="\n")
