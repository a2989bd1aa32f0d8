"""The options of commands that describe images with a model of the user's choice."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

GLOBAL_POOLS = ("cls", "mean", "gem", "pooled")
ATTENTIONS = ("cls", "norm", "learned")
TRANSFORMERS_ONLY = ("global_pool", "attention", "device")
MODELS = "lite0 (default), onnx:FILE, or transformers:FOLDER_OR_NAME (docs/backbones.md)"
SETTINGS = ("image_size", "scales", "max_features", "layer", "global_pool", "attention", "projection", "device")


def add_describer_options(parser: argparse._ActionsContainer, without: Sequence[str] = ()) -> None:
    """Adds what of a description can be chosen, except the options named in ``without``."""
    options = {
        "image_size": {"type": int, "help": "longest side of an image at scale 1, pixels"},
        "scales": {"type": float, "nargs": "+", "help": "image scales"},
        "max_features": {"type": int, "help": "local descriptors an image at most"},
        "layer": {"help": "of the local descriptors: of onnx:FILE an output, of transformers a number (-1: the last)"},
        "global_pool": {"choices": GLOBAL_POOLS, "help": "of transformers: what the global descriptor is"},
        "attention": {"choices": ATTENTIONS, "help": "of transformers: what orders the local descriptors"},
        "projection": {"metavar": "FILE", "help": "what tools/learn_projection.py learned (.npz)"},
        "device": {"help": "of transformers: cpu, cuda or auto (default: a GPU where there is one)"},
    }
    for name, option in options.items():
        if name not in without:
            parser.add_argument(f"--{name}", **option)


def given_settings(args: argparse.Namespace) -> dict:
    """What was given of those options, for ``open_describer``."""
    found = {name: getattr(args, name, None) for name in SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
