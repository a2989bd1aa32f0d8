"""Encode the images of a descriptor store by a checkpoint of model.LATE, once for all queries.

    python tools/encode_store.py data/oxford5k/delg_r50_gldv2.h5 logs/late/best.pt data/oxford5k/late_r50_gldv2.h5
    python evaluate_revisited.py with dataset.roxford_r50_gldv2 resume=logs/late/best.pt
        encoded=data/oxford5k/late_r50_gldv2.h5

OUT is a descriptor store itself, so that tools/check_store.py and tools/compress_store.py (--local_dtype bits for
128-bit codes) take it. A run that was stopped goes on where it was.
"""

from typing import get_args

from rrt.command_line.parser import CommandParser
from rrt.errors import check_least
from rrt.network.settings import ScoringPrecision


def main():
    """Encode, and print what was written."""
    parser = CommandParser(__doc__)
    parser.add_argument("store", help="descriptor store (.h5, or a folder of its parts)")
    parser.add_argument("checkpoint", help="checkpoint of model.LATE (.pt)")
    parser.add_argument("out", help="store to write (.h5)")
    parser.add_argument(
        "--precision",
        choices=get_args(ScoringPrecision),
        default="float32",
        help="of the network (default %(default)s)",
    )
    parser.add_argument(
        "--keep", type=int, metavar="N", help="vectors of an image at most, those that weigh most (default: all)"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete what stands at OUT, and its parts, first")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    arguments = vars(parser.parse_args())
    check_least("--keep", arguments["keep"])
    from rrt.network.encoding import encode_file  # loads PyTorch, which help does without

    print("wrote {}: {} images, {:.1f} vectors and {:,.0f} bytes an image".format(*encode_file(**arguments)))
