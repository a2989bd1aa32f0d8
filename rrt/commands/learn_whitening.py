"""Learn a whitening of global descriptors from a store, to be given to every search as whitening=FILE.

Learn it on training images: the search of a test set must not see its own statistics. `pca` (unsupervised) makes all
directions equally strong; `supervised` those in which matching images differ (rrt/search/whitening.py). Matching are
the images of a label of --list, or the pairs of --pairs, for example verified ones: a CSV file with the columns
`first` and `second` (names in the store) and, for --min_inliers, `inliers`, as tools/verify_pairs.py writes it.

    python tools/learn_whitening.py data/gldv2/delg_r50_gldv2.h5 data/gldv2/whitening_r50_gldv2.npz --dim 512
    python tools/learn_whitening.py data/gldv2/delg_r50_gldv2.h5 data/gldv2/whitening_r50_gldv2.npz --dim 512 \\
        --method supervised --list data/gldv2/train.txt
"""

from rrt.command_line.parser import CommandParser
from rrt.search.learning import METHODS, learn_whitening


def main():
    """Write the whitening and print its path."""
    parser = CommandParser(__doc__)
    parser.add_argument("store", help="descriptor store (.h5, or a folder of its parts)")
    parser.add_argument("out", help="file to write (.npz)")
    parser.add_argument("--list", help="learn from the images of this list (default: all of the store)")
    parser.add_argument("--method", choices=METHODS, default="pca", help="(default pca)")
    parser.add_argument(
        "--pairs", metavar="CSV", help="matching pairs, for supervised (default: equal labels in --list)"
    )
    parser.add_argument("--min_inliers", type=float, default=0, help="of the pairs to take from --pairs (default: all)")
    parser.add_argument(
        "--shrinkage",
        type=float,
        help="supervised: 0..1, the more the fewer pairs there are; 1 is PCA alone (default 0.5)",
    )
    parser.add_argument("--dim", type=int, default=256, help="dimensions to keep (default 256)")
    parser.add_argument(
        "--power",
        type=float,
        default=0.5,
        help="exponent of the eigenvalue divided by: 0.5 whitens, 0 is PCA alone (default 0.5)",
    )
    args = parser.parse_args()
    path = learn_whitening(
        args.store, args.out, args.list, args.dim, args.power, args.method, args.pairs, args.shrinkage, args.min_inliers
    )
    print(f"wrote {path}")
