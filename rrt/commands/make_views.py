"""Makes views of photographs: `python tools/make_views.py --train_txt data/x/train.txt --out data/x_views`."""

import argparse

from rrt.command_line.parser import CommandParser
from rrt.files.locks import owned
from rrt.files.machine import usable_cores
from rrt.scenes.photo_views import ViewSettings, make_views

HELP = {
    "views": "views of each photograph",
    "size": "longest side of a view in pixels",
    "smallest_crop": "least share of the photograph's area in a view",
    "perspective": "largest shift of a corner, share of the side",
    "rotation": "rotation in degrees, seldom more",
    "strength": "0..1: light, colour, blur and noise",
    "patches": "mean number of pieces of other photographs in a view",
    "seed": "the same seed gives the same images",
}


def main():
    """Draw what is missing of the views and print their list."""
    parser = CommandParser(__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--train_txt", required=True, help="image list")
    parser.add_argument("--image_dir", help="folder its names start from (default: the list's own)")
    parser.add_argument("--out", required=True, help="folder for views/ and train.txt")
    parser.add_argument(
        "--keep_labels",
        action="store_true",
        help="label views as their photographs (further positives of a landmark), not each photograph by a number",
    )
    parser.add_fields(ViewSettings, HELP)
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes")
    parser.add_argument(
        "--allow_missing", action="store_true", help="exit with status 0 although images could not be read"
    )
    arguments = vars(parser.parse_args())
    places = "train_txt", "out", "image_dir", "keep_labels", "num_workers", "allow_missing"
    given = {name: arguments.pop(name) for name in places}
    with owned(given["out"], "drawing there"):
        print(f"wrote {make_views(settings=ViewSettings(**arguments), **given)}")
