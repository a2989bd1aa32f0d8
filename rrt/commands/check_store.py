"""Check a descriptor store: schema, offsets, finite values, unit length, falling attention, completeness.

Prints what the store holds and every problem found (the first 20, then their number); exit status 1 when there is one.

    python tools/check_store.py data/oxford5k/delg_r50_gldv2.h5 --list data/oxford5k/test_gallery.txt
"""

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError
from rrt.formats.lists import read_image_list
from rrt.store.check import check_store


def main():
    """Print what the store holds and its problems; InputError when there is one."""
    parser = CommandParser(__doc__)
    parser.add_argument("store", help="descriptor store (.h5, or a folder of its parts)")
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        help="image list whose images must all be there; may be given several times",
    )
    parser.add_argument("--show", type=int, default=20, help="problems printed (default %(default)s)")
    args = parser.parse_args()
    check = check_store(args.store, [read_image_list(path) for path in args.list], args.show)
    for what, value in check.summary.items():
        print(f"{what}: {value}")
    for problem in check.problems:
        print(f"problem: {problem}")
    if check.num_problems:
        raise InputError(
            f"{args.store}: {check.num_problems} problems, {len(check.problems)} of them shown; copy the "
            "file again or make it again"
        )
