"""Make a descriptor store with fewer bytes an image of another: the same images in the same order.

    python tools/compress_store.py data/oxford5k/delg_r50_gldv2.h5 data/oxford5k/delg_r50_int8.h5 --local_dtype int8
    --max_local 50
    python tools/compress_store.py data/oxford5k/delg_r50_gldv2.h5 data/oxford5k/delg_r50_bits.h5 --local_dtype bits
        --train data/gldv2/delg_r50_gldv2.h5 --train_list data/gldv2/train.txt

Every reranker reads the new store like any other. --local_dtype bits keeps 128 bits of each local descriptor, or --bits
(no more than it has dimensions), by ITQ (Gong and Lazebnik, CVPR 2011) learned on the descriptors of --train, or
without it by a random rotation. Prints the bytes of an image before and after.
"""

from rrt.command_line.parser import CommandParser
from rrt.store.binary_codes import KINDS
from rrt.store.compress import make_store
from rrt.store.values import GLOBAL_DTYPES, LOCAL_DTYPES


def main():
    """Write the smaller store and print the bytes of an image before and after."""
    parser = CommandParser(__doc__)
    parser.add_argument("source", help="descriptor store (.h5, or a folder of its parts)")
    parser.add_argument("out", help="store to write (.h5)")
    parser.add_argument(
        "--local_dtype", choices=[*LOCAL_DTYPES, "bits"], help="of the local descriptors (default: as they are)"
    )
    parser.add_argument(
        "--max_local", type=int, help="local descriptors kept of an image, those of highest attention (default: all)"
    )
    parser.add_argument(
        "--global_dtype", choices=GLOBAL_DTYPES, help="of the global descriptors (default: as they are)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    coding = parser.add_argument_group("with --local_dtype bits")
    coding.add_argument("--train", help="store to learn the codes on, of training images (default: a random rotation)")
    coding.add_argument("--train_list", help="images of --train to learn on (default: all)")
    coding.add_argument(
        "--kind", choices=KINDS, default="itq", help="the turn of the principal directions (default %(default)s)"
    )
    coding.add_argument(
        "--bits", type=int, default=128, help="bits of a descriptor, a multiple of 8 (default %(default)s)"
    )
    coding.add_argument("--sample", type=int, default=50_000, help="descriptors learned from (default %(default)s)")
    coding.add_argument("--seed", type=int, default=0, help="of the choice and of the rotation (default %(default)s)")
    coding.add_argument("--iterations", type=int, default=50, help="of ITQ (default %(default)s)")
    arguments = vars(parser.parse_args())
    out, before, after = make_store(**arguments)
    print(f"wrote {out}: {after:,.0f} bytes an image instead of {before:,.0f}")
