"""Hold out landmarks of a training list as a validation set, so that settings are chosen on unseen training landmarks.

Writes OUT_TRAIN/train.txt and OUT_VAL/test_query.txt, test_gallery.txt, gnd_NAME.pkl in the Revisited format. All
positives are graded Easy, as nothing is known of their difficulty: the Medium figures are the ones to choose by. The
query's box is the whole image.

    python tools/train_val_split.py data/gldv2/train.txt data/gldv2_train data/gldv2_val --name gldv2_val
        --landmarks 200 --queries 2 --distractors 5000 --link_stores

    python tools/train_val_split.py data/x/train.txt data/x_train data/x_val --folds 4 --queries 8 --link_stores

With --folds the landmarks are dealt into so many parts, of which each is held out in turn: data/x_train_0, data/x_val_0
and so on, so that a choice is made on all landmarks, by trainings that never saw those they are judged on.

Folders of these names (<list's folder>_train and _val, gnd_<folder>.pkl) are what dataset.gldv2_* take by themselves.
Then tools/prepare_topk_gldv2.py in OUT_TRAIN finds neighbours among the training part alone,
tools/prepare_topk_revisited.py those of OUT_VAL.
"""

import os

from rrt.command_line.parser import CommandParser
from rrt.datasets.split import split_in_folds, train_val_split


def main():
    """Write both parts and print what they hold."""
    parser = CommandParser(__doc__)
    parser.add_argument("list", help="training list: path,label,width,height a line")
    parser.add_argument("out_train", help="folder for train.txt without the held-out landmarks")
    parser.add_argument("out_val", help="folder for the validation lists and ground truth")
    parser.add_argument("--name", default="val", help="the ground truth is gnd_NAME.pkl (default val)")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--landmarks", type=int, help="number of landmarks to hold out")
    amount.add_argument("--fraction", type=float, help="fraction of the landmarks to hold out")
    amount.add_argument("--folds", type=int, help="parts, each of which is held out in turn")
    parser.add_argument(
        "--view_list",
        help="made views of the list's photographs: those of the training part go to OUT_TRAIN_views/train.txt",
    )
    parser.add_argument(
        "--join_views",
        action="store_true",
        help="and, as further images of their landmarks, with the training part to OUT_TRAIN_joined/train.txt",
    )
    parser.add_argument("--queries", type=int, default=1, help="queries a held-out landmark (default 1)")
    parser.add_argument("--distractors", type=int, default=0, help="training images added to the gallery (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--query_seed", type=int, help="draws other queries and distractors for the landmarks of --seed"
    )
    stores = parser.add_mutually_exclusive_group()
    stores.add_argument("--link_stores", action="store_true", help="link the list's delg_*.h5 into both folders")
    stores.add_argument("--store", help="link this store into both folders; images that it does not hold are left out")
    args = vars(parser.parse_args())
    if args["folds"] is None:
        args.pop("folds")
        splits = [train_val_split(args.pop("list"), **args)]
    else:
        args = {name: value for name, value in args.items() if name not in ("landmarks", "fraction")}
        splits = split_in_folds(args.pop("list"), **args)
    for split in splits:
        if split.num_left_out:
            print(f"left out {split.num_left_out} images that {args['store']} does not hold")
        print(f"{split.train}: {split.num_train} images for training")
        print(
            f"{split.gnd}: {len(split.held_out)} landmarks held out, {split.num_query} queries,"
            f" {split.num_gallery} gallery images"
        )
        for link in split.links:
            print(f"{link} -> {os.readlink(link)}")
