"""Learn a codebook of visual words from the local descriptors of a store, for the reranker asmk (codebook=FILE).

Learn it on training images: a codebook made of a test set's descriptors has seen what it is measured on.

    python tools/train_codebook.py data/gldv2/delg_r50_gldv2.h5 data/gldv2/codebook_r50_gldv2.npz --size 65536
"""

from rrt.command_line.parser import CommandParser
from rrt.rerankers.codebook import make_codebook


def main():
    """Write the codebook and print what it was learned from."""
    parser = CommandParser(__doc__)
    parser.add_argument("store", help="descriptor store (.h5, or a folder of its parts)")
    parser.add_argument("out", help="file to write (.npz)")
    parser.add_argument("--list", help="learn from the images of this list (default: all of the store)")
    parser.add_argument("--size", type=int, default=4096, help="visual words (default %(default)s)")
    parser.add_argument("--sample", type=int, help="descriptors to learn from, chosen at random (default: 256 a word)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and of k-means (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=20, help="of k-means (default %(default)s)")
    args = parser.parse_args()
    settings = {name: getattr(args, name) for name in ("size", "sample", "seed", "iterations")}
    codebook = make_codebook(args.store, args.out, args.list, **settings)
    print(
        f"wrote {args.out}: {len(codebook)} words of {codebook.dim} dimensions, learned from "
        f"{codebook.origin['descriptors']} descriptors of {codebook.origin['images']} images"
    )
