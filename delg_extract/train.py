"""Trains DELG or DELF: TFRecords or image lists in, a weight file out.

    python delg_extract/train.py --train_file_pattern 'gldv2/tfrecord/train*' --validation_file_pattern
    'gldv2/tfrecord/validation*' \
        --dataset_version gld_v2_clean --imagenet_checkpoint resnet50_notop.h5 --delg_global_features --logdir
        logs/delg_r50
    python delg_extract/train.py --train_list data/mine/train.txt --image_dir data/mine --delg_global_features --logdir
    logs/mine

Flags of the reference keep their names and defaults. A killed run continues from its last checkpoint in --logdir. At
the end <logdir>/weights.h5 holds the network without its classifiers, <logdir>/train.csv the curves and
<logdir>/curves.png an image; <logdir>/train_logs is for TensorBoard. All GPUs of the machine are used; several
machines by TF_CONFIG.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

from delg_extract.training.flags import parse
from rrt.command_line.parser import run_command
from rrt.files.locks import owned


def main() -> None:
    """The command."""
    args = parse(__doc__)
    # TensorFlow takes seconds to load: --help and wrong flags answer before.
    from delg_extract.training.run import train

    # Of several machines each runs the same command.
    with nullcontext() if "TF_CONFIG" in os.environ else owned(args.logdir, "training there"):
        print(f"wrote {train(args)}")


if __name__ == "__main__":
    run_command(main)
