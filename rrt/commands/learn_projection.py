"""Learn what makes the descriptors of a frozen backbone short and good: a file for --projection of tools/extract.py.

The local descriptors of the images of a list are brought to 128 dimensions by PCA; --global_dim also whitens the global
ones, and --learn_attention learns which local descriptors are worth keeping, from the labels of the list: those that
other images of their landmark hold, and images of others do not. Learn it on training images with the model, layer and
pooling that the descriptors are extracted with:

    python tools/learn_projection.py --model transformers:facebook/dinov2-with-registers-small \\
        --image_dir data/gldv2 --list data/gldv2/train.txt --output data/gldv2/projection_dinov2s.npz --global_dim 256
"""

from dataclasses import replace

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError, check_count, check_number
from rrt.extraction.describer import open_describer
from rrt.extraction.learn import learn_projection
from rrt.extraction.options import MODELS, add_describer_options, given_settings
from rrt.formats.image_jobs import collect_jobs
from rrt.formats.lists import read_image_list


def main():
    """Learn, write, and say from how many images."""
    parser = CommandParser(__doc__)
    parser.add_argument("--model", default="lite0", help=MODELS)
    parser.add_argument("--image_dir", required=True, help="the folder the names of the list are relative to")
    parser.add_argument("--list", required=True, help="image list")
    parser.add_argument("--exif_rotation", action="store_true", help="turn images as their EXIF says")
    parser.add_argument("--output", required=True, help="the file to write (.npz)")
    parser.add_argument("--dim", type=int, default=128, help="dimensions of the local descriptors (default 128)")
    parser.add_argument("--global_dim", type=int, help="whiten the global descriptors to so many (default: not)")
    parser.add_argument("--power", type=float, default=0.0, help="of the local ones, as --global_power (default 0)")
    parser.add_argument(
        "--global_power", type=float, default=0.5, help="0.5 makes directions equally strong, 0 is PCA (default 0.5)"
    )
    parser.add_argument("--learn_attention", action="store_true", help="learn the attention, too, from the labels")
    parser.add_argument("--seed", type=int, default=0, help="of the descriptors that are learned from (default 0)")
    add_describer_options(parser, without=("projection",))
    args = parser.parse_args()
    check_count("dim", args.dim)
    check_number("power", args.power, most=1)
    check_number("global_power", args.global_power, most=1)
    if args.global_dim is not None:
        check_count("global_dim", args.global_dim)
    settings = given_settings(args)
    labels = None
    if args.learn_attention:
        if not args.model.startswith("transformers:") or args.attention or args.max_features:
            raise InputError(
                "--learn_attention is for transformers models and looks at all their descriptors; leave it out, or"
                " --attention and --max_features"
            )
        settings |= {"attention": "norm", "max_features": 10**6}
        labels = read_image_list(args.list).labels
    jobs = [
        replace(job, upright=args.exif_rotation) for job in collect_jobs([args.list], [], None, args.image_dir, False)
    ]
    describer = open_describer(args.model, **settings)
    powers = args.power, args.global_power
    learned, skipped = learn_projection(
        describer, jobs, args.output, args.dim, args.global_dim, powers, labels, args.seed
    )
    for image in skipped:
        print(f"skipped {image.name}: {image.reason}")
    print(
        f"wrote {args.output}: from {len(jobs) - len(skipped)} images, local descriptors {len(learned.local.mean)}"
        f" -> {args.dim} dimensions"
    )
