"""Learn from a LATE which parts of an image are worth looking at, as a function of one local descriptor alone.

    python tools/learn_attention.py data/x/delg_lite0.h5 logs/late/best.pt data/x/attention.npz --list data/x/train.txt

LATE weighs the descriptors of an image knowing all of them; the ridge regression of the logarithm of its weights on a
descriptor and the logarithm of its attention comes close, and needs no other. tools/make_lite0.py --attention puts it
into a model, where it weighs the cells in the global descriptor (docs/models.md 4).
"""

from rrt.command_line.parser import CommandParser


def main():
    """Write the attention, and how much of LATE's weights it explains."""
    parser = CommandParser(__doc__)
    parser.add_argument("store", help="descriptor store (.h5, or a folder of its parts)")
    parser.add_argument("checkpoint", help="checkpoint of model.LATE, trained on descriptors of the same model")
    parser.add_argument("out", help="file to write (.npz)")
    parser.add_argument("--list", help="learn from the images of this list (default: all of the store)")
    parser.add_argument("--images", type=int, default=1000, help="at most so many, drawn (default %(default)s)")
    parser.add_argument("--ridge", type=float, default=0.1, help="of the regression (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    args = parser.parse_args()
    from rrt.training.attention import learn_attention  # loads PyTorch, which help does without

    path, images, explained = learn_attention(**vars(args))
    print(f"wrote {path}: learned from {images} images, explains {explained:.0%} of the weights' variance")
