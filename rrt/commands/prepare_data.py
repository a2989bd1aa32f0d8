"""Makes image lists (`path,label,width,height` a line) and, for Google Landmarks v2, ground truth.

    python tools/prepare_data.py folder PHOTOS data/mine/train.txt
    python tools/prepare_data.py photographs PHOTOS data/mine/train.txt
    python tools/prepare_data.py described data/mine/all.txt data/mine/delg_lite0.h5 data/mine/train.txt
    python tools/prepare_data.py revisited data/oxford5k data/oxford5k/gnd_roxford5k.pkl data/oxford5k
    python tools/prepare_data.py gldv2_train GLDV2 GLDV2/train/train_clean.csv data/gldv2/train.txt --min_pictures 4
    python tools/prepare_data.py gldv2_test GLDV2 GLDV2/index/index.csv GLDV2/test/retrieval_solution_v2.1.csv
    data/gldv2_test

Sizes are read from the images' headers without decoding them. An image that is missing or cannot be read is left out
and listed with its reason in `<list>.skipped.csv`; then the exit status is 1 unless --allow_missing is given.
"""

from rrt.command_line.parser import CommandParser
from rrt.datasets.split import keep_described
from rrt.errors import InputError
from rrt.files.names import shown
from rrt.formats.gldv2 import USAGES
from rrt.formats.listing import (
    Written,
    list_folder,
    list_gldv2_test,
    list_gldv2_train,
    list_photographs,
    list_revisited,
)

# Skipped images named on the console; a part of a large data set lacks millions.
_SHOWN = 10


def list_described(list, store, output, num_workers=None):
    """The images of a list that a store holds -> Written."""
    kept, left_out = keep_described(list, store, output)
    return Written({output: kept}, notes=[f"left out {left_out} images that {store} does not hold"] if left_out else [])


def main():
    """Write the lists and print what they hold and lack; InputError for missing images that are not allowed."""
    parser = CommandParser(__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)

    def add_mode(function, text, *positionals):
        mode = modes.add_parser(function.__name__.removeprefix("list_"), help=text)
        for name, meaning in positionals:
            mode.add_argument(name, help=meaning)
        mode.add_argument("--num_workers", type=int, help="processes that read images' headers (default one a core)")
        mode.set_defaults(function=function)
        return mode

    folder = add_mode(
        list_folder,
        "a folder with a sub-folder per landmark",
        ("photos", "the folder"),
        ("output", "the list to write"),
    )
    photographs = add_mode(
        list_photographs,
        "photographs without labels, each of which gets one of its own",
        ("source", "a folder, or a text file with a path a line"),
        ("output", "the list to write"),
    )
    for mode in (folder, photographs):
        mode.add_argument(
            "--exclude",
            action="append",
            default=[],
            metavar="PATTERN",
            help="leave out files and folders of this name or path (*, ?, [...]); may be given several times; hidden"
            " ones, @eaDir, #recycle and __MACOSX are left out in any case",
        )
    add_mode(
        list_described,
        "what a descriptor store holds of a list: images that could not be described are left out",
        ("list", "the list"),
        ("store", "the store"),
        ("output", "the list to write"),
    )
    revisited = add_mode(
        list_revisited,
        "query and gallery lists for a ground truth",
        ("image_dir", "the folder the names in the lists start from"),
        ("ground_truth", "a .pkl, .json or .mat file"),
        ("output", "the folder to write to"),
    )
    revisited.add_argument("--subfolder", default="jpg", help="folder of the images below that (default %(default)s)")
    revisited.add_argument(
        "--query_size",
        choices=("published", "box", "picture"),
        default="published",
        help="width and height of a query: its box's, the image's, or as the published lists have it",
    )
    train = add_mode(
        list_gldv2_train,
        "training list of Google Landmarks v2",
        ("images", "the folder that holds train/"),
        ("train_csv", "train.csv or train_clean.csv"),
        ("output", "the list to write"),
    )
    train.add_argument(
        "--min_pictures", type=int, default=1, help="leave out landmarks with fewer (default %(default)s)"
    )
    train.add_argument("--max_pictures", type=int, help="draw so many of landmarks with more (default all)")
    train.add_argument("--seed", type=int, default=0, help="of that draw (default %(default)s)")
    test = add_mode(
        list_gldv2_test,
        "query and gallery lists and ground truth of Google Landmarks v2",
        ("images", "the folder that holds test/ and index/"),
        ("index_csv", "index.csv"),
        ("solution_csv", "retrieval_solution_v2.1.csv"),
        ("output", "the folder to write to"),
    )
    test.add_argument("--usages", nargs="+", choices=USAGES, default=USAGES, help="rows that are queries (default all)")
    for mode in (folder, photographs, train, test):
        mode.add_argument(
            "--allow_missing", action="store_true", help="exit status 0 although some images cannot be read"
        )
    args = vars(parser.parse_args())
    args.pop("mode")
    function, allow_missing = args.pop("function"), args.pop("allow_missing", False)
    written = function(**args)
    for path, count in written.counts.items():
        print(f"wrote {path}: {count} images")
    for note in written.notes:
        print(note)
    for name, reason in list(written.skipped.items())[:_SHOWN]:
        print(f"skipped {shown(name)}: {reason}")
    if written.skipped and not allow_missing:
        name, reason = next(iter(written.skipped.items()))
        raise InputError(
            f"{len(written.skipped)} images cannot be read, first {shown(name)}: {reason}; mend or remove them, or"
            " accept with --allow_missing"
        )
