"""Evaluations as a folder of web pages: figures, failure cases, and every query's results side by side.

    python tools/report.py logs/rrt_landmarks logs/compare_landmarks --image_dir PHOTOS --out logs/report
    python tools/report.py logs/NAME --pairs all_souls_000013:all_souls_000026 --resume rrt_gld_ckpts/r50_gldv2.pt

EVALUATION is a temp_dir of evaluate_revisited.py or tools/compare.py, which left rankings.npz in it. Several of one
test set are shown side by side; test sets that differ need a report each. The report opens from disk (OUT/index.html),
without a server or a network. Thumbnails that are there already are kept. Missing images are shown as their names.
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import check_least
from rrt.files.locks import owned
from rrt.files.machine import usable_cores
from rrt.report.data import summary_lines
from rrt.report.pages import make_report


def parser() -> CommandParser:
    """The command line's options."""
    p = CommandParser(__doc__)
    p.add_argument("evaluations", nargs="+", metavar="EVALUATION")
    p.add_argument("--out", default="logs/report", help="folder of the report (default %(default)s)")
    p.add_argument(
        "--image_dir", help="folder that the names in the image lists begin in (default: that of the data set)"
    )
    p.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="QUERY:CANDIDATE",
        help="pairs whose matches are drawn, names as in the image lists or their stems",
    )
    p.add_argument("--resume", help="checkpoint for the pairs (default: the one an evaluation used)")
    p.add_argument(
        "--num_workers", type=int, default=usable_cores(), help="processes for thumbnails (default one a core)"
    )
    return p


def main() -> None:
    """Write the pages and print the mAP of every method."""
    args = parser().parse_args()
    check_least("--num_workers", args.num_workers)
    with owned(args.out, "writing this report"):
        comparison, summary, missing = make_report(
            args.evaluations, args.out, args.image_dir, args.pairs, args.resume, args.num_workers
        )
    print("\n".join(summary_lines(comparison, summary)))
    if missing:
        print(
            f"{missing} images cannot be read; their names stand in their place (--image_dir names the folder of "
            "images)"
        )
    print(f"wrote {Path(args.out) / 'index.html'}")
