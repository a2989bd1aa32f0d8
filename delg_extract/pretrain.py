"""Teaches a trunk that starts from noise to recognise a point again: local descriptors from unlabelled images.

    python delg_extract/pretrain.py --train_list data/x/train.txt --image_dir data/x --logdir logs/pretrained

A label says one thing about a crop; a crop and a warped copy of it in another light say of every cell where its partner
is. Both go through the trunk, and each cell of the copy has to find the point it came from among all points of the
batch (InfoNCE, van den Oord et al., 2018, over the cells of a feature map). Hours of classification from noise do less
for local descriptors than minutes of this. A killed run continues from its last checkpoint. <logdir>/weights.h5 holds
the trunk and the encoder of the local descriptors; conv5 and the other heads are still noise: train.py --init_weights
goes on from there.
"""

from __future__ import annotations

import argparse

from delg_extract.training.flags import BACKBONES, add_list_flags
from rrt.command_line.parser import CommandParser, run_command
from rrt.files.locks import owned


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    add_list_flags(p, required=True)
    p.add_argument("--backbone", choices=BACKBONES, default="small", help="trunk (default %(default)s)")
    p.add_argument("--init_weights", help="weight file of this project to start from")
    for name, default, text in (
        ("logdir", "logs/pretrained", "folder for checkpoints, the curve and the final weights"),
        ("max_iters", 2500, "steps"),
        ("batch_size", 24, "crops a step, each seen twice"),
        ("image_size", 128, "side of a view, pixels"),
        ("min_crop_area", 0.1, "smallest share of an image in a crop (of 1.5 times the view's side)"),
        ("max_crop_area", 0.6, "largest share"),
        ("temperature", 0.07, "divides the cosines in the loss"),
        ("initial_lr", 0.001, "learning rate of Adam, falling as a half cosine"),
        ("seed", 0, "seed of weights, order, crops, warps and light"),
        ("report_interval", 50, "steps between lines of train.csv"),
        ("save_interval", 250, "steps between checkpoints"),
    ):
        p.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default %(default)s)")
    return p


def main() -> None:
    """The command."""
    args = parser().parse_args()
    # TensorFlow takes seconds to load: --help and wrong flags answer before.
    from delg_extract.training.pretraining import pretrain

    with owned(args.logdir, "training there"):
        print(f"wrote {pretrain(args)}")


if __name__ == "__main__":
    run_command(main)
