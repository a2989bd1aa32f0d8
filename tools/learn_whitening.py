"""Learn a PCA whitening of global descriptors from a store, to be given to the search as whitening=FILE.

Learn it on training images: the search of a test set must not see its own statistics.

    python tools/learn_whitening.py data/gldv2/delg_r50_gldv2.h5 data/gldv2/whitening_r50_gldv2.npz --dim 512
"""

import argparse

from rrt.errors import InputError, run_command
from rrt.lists import read_image_list
from rrt.neighbors import fit_pca_whitening, load_globals


def learn_whitening(store_path, out_path, list_path=None, dim=256, power=0.5):
    """Fit fit_pca_whitening on all images of the store, or on those of an image list, and write it -> path.

    dim: dimensions kept. power: exponent of the eigenvalue that is divided by (0.5 whitening, 0 PCA alone).
    """
    if not str(out_path).endswith(".npz"):
        raise InputError(f"{out_path}: the name of a whitening file ends in .npz")
    images = read_image_list(list_path) if list_path else None
    descriptors, = load_globals(store_path, images)
    return fit_pca_whitening(descriptors, dim, power).save(out_path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="descriptor store (.h5)")
    parser.add_argument("out", help="file to write (.npz)")
    parser.add_argument("--list", help="learn from the images of this list (default: all of the store)")
    parser.add_argument("--dim", type=int, default=256, help="dimensions to keep (default 256)")
    parser.add_argument("--power", type=float, default=0.5,
                        help="exponent of the eigenvalue divided by: 0.5 whitens, 0 is PCA alone (default 0.5)")
    args = parser.parse_args()
    print(f"wrote {learn_whitening(args.store, args.out, args.list, args.dim, args.power)}")


if __name__ == "__main__":
    run_command(main)
