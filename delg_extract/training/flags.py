"""The flags of delg_extract/train.py; those of the reference keep their names and, but for paths, their defaults
(docs/delg.md 2.1)."""

from __future__ import annotations

import argparse
import sys

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError, check_least

BACKBONES = ("resnet50", "resnet101", "small")
DATASET_CLASSES = {"gld_v1": 14951, "gld_v2": 203094, "gld_v2_clean": 81313}
STAGES = ("joint", "finetune", "keypoint")
FREEZES = ("none", "conv4", "trunk")
# May change when a run is continued.
FREE_SETTINGS = {"save_interval", "eval_interval", "report_interval", "summary_interval", "eval_images"}
DEBUG = {
    "max_iters": 100,
    "batch_size": 4,
    "image_size": 97,
    "report_interval": 10,
    "save_interval": 50,
    "eval_interval": 100,
    "eval_images": 16,
    "summary_interval": 50,
}


class Switch(argparse.Action):
    """``--flag``, ``--flag=false``, ``--noflag`` and ``--no-flag``: what the reference's commands and today's habits
    write."""

    def __init__(self, option_strings, dest, **kwargs):
        name = option_strings[0][2:]
        super().__init__([f"--{name}", f"--no-{name}", f"--no{name}"], dest, nargs="?", metavar="BOOL", **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        """Stores true or false; another value ends the command."""
        if option_string != self.option_strings[0]:
            value = False if values is None else None
        else:
            value = {"true": True, "1": True, None: True, "false": False, "0": False}.get(
                values.lower() if isinstance(values, str) else None
            )
        if value is None:
            parser.error(f"argument {option_string}: expected true or false, not {values!r}")
        setattr(namespace, self.dest, value)


def add_flag(p, name: str, default, text: str) -> None:
    """A flag whose type is that of its default; ``text`` is followed by the default."""
    kind = {"action": Switch} if isinstance(default, bool) else {"type": type(default)}
    p.add_argument(f"--{name}", default=default, help=f"{text} (default %(default)s)", **kind)


def add_list_flags(p, required: bool = False) -> None:
    """The flags that name training images by image lists."""
    p.add_argument(
        "--train_list",
        action="append",
        required=required,
        help="image list; may be given several times, classes are then joined",
    )
    p.add_argument(
        "--image_dir",
        action="append",
        required=required,
        help="the folder the list's names are relative to, one for each list",
    )
    p.add_argument(
        "--repeat",
        action="append",
        type=int,
        help="how often an epoch shows each image of a list, a number for each list",
    )


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(description)

    data = p.add_argument_group("images: TFRecords or image lists")
    data.add_argument(
        "--train_file_pattern", help="TFRecord shards of build_image_dataset.py, as 'gldv2/tfrecord/train*' (quoted)"
    )
    data.add_argument("--validation_file_pattern", help="shards to validate with (default: no validation)")
    add_list_flags(data)
    add_flag(data, "validation_fraction", 0.05, "share of each class of the lists held out for validation")
    data.add_argument(
        "--dataset_version",
        choices=tuple(DATASET_CLASSES),
        help="sets the number of classes: " + ", ".join(f"{name} {count}" for name, count in DATASET_CLASSES.items()),
    )
    data.add_argument(
        "--num_classes",
        type=int,
        help="classes of any other data set (default: those of the lists, or of the relabeling.csv beside the shards)",
    )
    add_flag(data, "use_augmentation", True, "random crops")
    add_flag(data, "image_size", 321, "side of the square training crops, pixels")
    add_flag(data, "min_crop_area", 0.08, "smallest share of an image in a training crop")
    add_flag(data, "max_crop_area", 1.0, "largest share of an image in a training crop")
    add_flag(data, "seed", 0, "seed of weights, order and crops")

    network = p.add_argument_group("network")
    network.add_argument("--backbone", choices=BACKBONES, default="resnet50", help="trunk (default %(default)s)")
    add_flag(
        network,
        "delg_global_features",
        False,
        "DELG: GeM, embedding and ArcFace; without: DELF, whose trunk learns by softmax",
    )
    add_flag(network, "delg_gem_power", 3.0, "GeM exponent")
    network.add_argument(
        "--delg_embedding_layer_dim", type=int, help="global descriptor size (default: the backbone's, 2048)"
    )
    add_flag(network, "use_autoencoder", True, "reduce local descriptors")
    add_flag(network, "autoencoder_dimensions", 128.0, "local descriptor size")
    network.add_argument(
        "--local_feature_map_channels",
        type=float,
        help="channels of the local feature map; given by the backbone (1024), another number is refused",
    )
    add_flag(network, "block3_strides", True, "local features every 32 pixels instead of 16")

    start = p.add_argument_group("where training starts")
    start.add_argument(
        "--imagenet_checkpoint",
        help="Keras ResNet .h5 file the trunk starts from (classic or keras.applications names)",
    )
    start.add_argument(
        "--init_weights",
        help="what to start from: a weight file of this project, a --logdir, or one of its checkpoints",
    )
    add_flag(start, "partial_weights", False, "accept an ImageNet or weight file that lacks some variables")
    start.add_argument(
        "--conv5_start",
        choices=("random", "identity"),
        default="random",
        help="identity: conv5 passes conv4 on at first (for ImageNet files without conv5)",
    )
    add_flag(
        start,
        "init_heads_steps",
        0,
        "batches from which the heads are set before training (principal components; after "
        "--init_weights the class weights only); 0 starts them from noise",
    )

    loss = p.add_argument_group("losses and optimisation")
    loss.add_argument(
        "--stage",
        choices=STAGES,
        default="joint",
        help="joint: all losses at once, as DELG; finetune: the global loss alone; keypoint: the local head alone on a "
        "frozen trunk, crops scaled by a random gamma: finetune, then keypoint is DELF's way in two stages "
        "(default %(default)s)",
    )
    loss.add_argument(
        "--freeze",
        choices=FREEZES,
        default="none",
        help="what is not trained: nothing, conv1 to conv4, or the trunk up to the embedding (default %(default)s)",
    )
    add_flag(loss, "min_gamma", 0.25, "smallest gamma of --stage keypoint")
    add_flag(loss, "batch_size", 32, "images a step, of all replicas together")
    add_flag(loss, "initial_lr", 0.01, "learning rate, falling linearly to zero at --max_iters")
    add_flag(loss, "max_iters", 500000, "steps; 0 writes the starting weights")
    add_flag(loss, "attention_loss_weight", 1.0, "weight of the attention loss")
    add_flag(loss, "reconstruction_loss_weight", 10.0, "weight of the reconstruction loss")
    add_flag(loss, "delg_scale_factor_init", 45.25, "ArcFace scale; a constant, as in the reference")
    add_flag(loss, "delg_arcface_margin", 0.1, "ArcFace margin, radians")

    run = p.add_argument_group("the run")
    add_flag(run, "logdir", "logs/delg", "folder for checkpoints, curves, TensorBoard and the final weights")
    run.add_argument(
        "--mixed_precision",
        choices=("none", "bfloat16"),
        default="none",
        help="type of the convolutions; weights, statistics and losses stay float32 (default %(default)s)",
    )
    add_flag(run, "report_interval", 100, "steps between lines of train.csv")
    add_flag(run, "summary_interval", 100, "steps between TensorBoard summaries; 0: none")
    add_flag(run, "eval_interval", 1000, "steps between validations")
    add_flag(run, "eval_images", 2000, "images of a validation at most")
    add_flag(run, "save_interval", 1000, "steps between checkpoints")
    add_flag(run, "debug", False, "a hundred steps on four small crops, then a validation (flags given beside it win)")
    return p


def parse(description: str | None, arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags of a command line, checked as far as that needs no file. Raises InputError for those that contradict
    each other."""
    p = parser(description)
    arguments = sys.argv[1:] if arguments is None else arguments
    if p.parse_args(arguments).debug:
        p.set_defaults(**DEBUG)
    args = p.parse_args(arguments)
    if bool(args.train_file_pattern) == bool(args.train_list):
        raise InputError("give the images by --train_file_pattern (TFRecords) or by --train_list and --image_dir")
    if args.validation_file_pattern and not args.train_file_pattern:
        raise InputError(
            "--validation_file_pattern goes with --train_file_pattern; of image lists --validation_fraction is held out"
        )
    for name in ("batch_size", "image_size", "report_interval", "eval_interval", "eval_images", "save_interval"):
        check_least(f"--{name}", getattr(args, name))
    for name in ("max_iters", "summary_interval", "init_heads_steps"):
        check_least(f"--{name}", getattr(args, name), 0)
    if args.image_size < 33:
        raise InputError(
            f"--image_size {args.image_size}: expected at least 33 pixels, one cell of the local feature map"
        )
    if not 0 < args.min_gamma <= 1 or (args.stage == "keypoint" and args.min_gamma * args.image_size < 33):
        raise InputError(
            f"--min_gamma {args.min_gamma}: expected a factor up to 1 that leaves crops of at least 33 pixels"
        )
    if not 0 < args.min_crop_area <= args.max_crop_area <= 1:
        raise InputError(
            f"--min_crop_area {args.min_crop_area}, --max_crop_area {args.max_crop_area}: expected shares of an image, "
            "the first not above the second"
        )
    if args.stage == "keypoint":
        if not (args.init_weights or args.imagenet_checkpoint):
            raise InputError(
                "--stage keypoint trains the local head alone; give the trunk by --init_weights (the weights.h5 of "
                "--stage finetune) or --imagenet_checkpoint"
            )
        args.freeze = "trunk"
    elif args.stage == "finetune" and args.freeze == "trunk":
        raise InputError(
            "--stage finetune --freeze trunk: nothing of the trunk would be trained; leave one of them out"
        )
    return args
