"""Makes photographs of flat things: `python tools/make_flat.py --train_txt data/x/train.txt --out data/flat`.

Pictures of an image list, or drawn posters without one, are the gallery; some of them are photographed as prints by
four phones each (clear, dim, glare, old), which are the queries.

    python tools/search.py build data/flat --list data/flat/test_gallery.txt --index data/flat.index
    python tools/search.py measure data/flat.index --query_list data/flat/test_query.txt \\
        --gallery_list data/flat/test_gallery.txt --ground_truth data/flat/gnd_flat.pkl --image_dir data/flat

Of an image list there is also gnd_flat_places.pkl, which ignores other pictures of the same label: a print of a
photograph of a building is rightly told to be the building of the others.
"""

import argparse

from rrt.command_line.parser import CommandParser
from rrt.files.locks import owned
from rrt.files.machine import usable_cores
from rrt.scenes.flat import FlatSettings, make_flat

HELP = {
    "objects": "pictures that are photographed",
    "others": "further pictures of the gallery",
    "side": "longer side of a picture in pixels",
    "seed": "the same seed gives the same images",
}


def main():
    """Draw what is missing and print where it is."""
    parser = CommandParser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for jpg/, the lists and the ground truth")
    parser.add_argument("--train_txt", help="image list of the pictures (default: posters are drawn)")
    parser.add_argument("--image_dir", help="folder its names start from (default: the list's own)")
    parser.add_fields(FlatSettings, HELP)
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes")
    arguments = vars(parser.parse_args())
    given = {name: arguments.pop(name) for name in ("out", "train_txt", "image_dir", "num_workers")}
    with owned(given["out"], "drawing there"):
        print(f"wrote {make_flat(settings=FlatSettings(**arguments), **given)}")
