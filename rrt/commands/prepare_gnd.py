"""Ground truth from one form into another: Revisited files as .pkl, .mat (positions from 1) or .json, and the text
files of the original Oxford5k and Paris6k.

    python tools/prepare_gnd.py convert gnd_roxford5k.mat data/oxford5k/gnd_roxford5k.pkl
    python tools/prepare_gnd.py classic gt_files_170407 data/oxford5k_classic/jpg data/oxford5k_classic/gnd_oxford5k.pkl

The suffix of a file says its form. `classic` reads `<landmark>_<n>_query.txt` (image and box of a query),
`_good.txt`, `_ok.txt` and `_junk.txt`; the gallery is all images of the folder, in alphabetical order. What every
tool then measures is the classic average precision: good and ok are right, junk is left out.
"""

from rrt.command_line.parser import CommandParser
from rrt.formats.ground_truth import convert
from rrt.formats.ground_truth_classic import convert_classic


def main():
    """Write the ground truth in its new form and print what it holds."""
    parser = CommandParser(__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    mode = modes.add_parser("convert", help="from one of .pkl, .mat and .json into another")
    mode.add_argument("source", help="the file to read")
    mode.add_argument("target", help="the file to write")
    mode = modes.add_parser("classic", help="from the text files of Oxford5k or Paris6k")
    mode.add_argument("texts", help="folder with <landmark>_<n>_query.txt and the others")
    mode.add_argument("image_dir", help="folder with the images of the gallery")
    mode.add_argument("target", help="the file to write")
    mode.add_argument(
        "--allow_missing", action="store_true", help="leave out images that the files name and the folder lacks"
    )
    args = parser.parse_args()
    if args.mode == "convert":
        print(f"wrote {args.target}: {convert(args.source, args.target)} queries")
        return
    queries, missing = convert_classic(args.texts, args.image_dir, args.target, args.allow_missing)
    print(f"wrote {args.target}: {queries} queries")
    for name, file in missing.items():
        print(f"left out {name}, which {file.name} names")
