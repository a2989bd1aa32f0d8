"""Average precision of every query of the classic Oxford5k or Paris6k, from the original ground truth files.

    python tools/classic_table.py gt_files_170407 data/oxford5k_classic/nn_inds_r50.pkl --data_dir data/oxford5k_classic
    python tools/classic_table.py gt_files_170407 logs/trec/RRT_classic.run --data_dir data/oxford5k_classic --out
    table.tex

A row a landmark with its five queries and their mean, and the mean of all, as published for DELF (Noh et al., ICCV
2017). A ranking is a neighbour table of tools/prepare_topk_revisited.py, or a TREC run of any program, whose names may
lack folder and suffix, and which may name its queries as the files do (`all_souls_1`). The query image, which is in
the gallery, counts as the ground truth has it; good and ok are right, junk is left out (Philbin et al., CVPR 2007).
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.datasets.sets import add_test_lists
from rrt.errors import InputError
from rrt.evaluation.classic_table import FORMATS, classic_precisions, format_landmarks, landmark_table
from rrt.files.atomic import write_bytes
from rrt.formats.lists import read_image_list


def parse_arguments():
    """The command line's options, read."""
    parser = CommandParser(__doc__)
    parser.add_argument("texts", help="folder with <landmark>_<n>_query.txt, _good.txt, _ok.txt and _junk.txt")
    parser.add_argument("rankings", nargs="+", metavar="RANKING", help="neighbour tables (.pkl) and TREC runs")
    parser.add_argument("--data_dir", default="data/oxford5k_classic", help="folder of the image lists (%(default)s)")
    add_test_lists(parser)
    parser.add_argument(
        "--allow_missing", action="store_true", help="leave out images that the files name and the gallery lacks"
    )
    parser.add_argument("--out", help="write the table to this file (.md, .csv or .tex) instead of printing it")
    return parser.parse_args()


def main():
    """Print the tables of the rankings, or write them to --out."""
    args = parse_arguments()
    form = "markdown"
    if args.out:
        form = FORMATS.get(Path(args.out).suffix)
        if not form:
            raise InputError(f"--out {args.out}: expected a name that ends in {', '.join(FORMATS)}")
    query, gallery = (read_image_list(Path(args.data_dir) / name) for name in args.lists)
    tables = {
        path: landmark_table(classic_precisions(args.texts, path, query, gallery, args.allow_missing)[0])
        for path in args.rankings
    }
    text = format_landmarks(tables, form)
    if args.out:
        write_bytes(Path(args.out), text.encode())
        print(f"wrote {args.out}")
    else:
        print(text, end="")
