"""Options of the commands that extract descriptors: what is computed, by which model, and with which projection."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from delg_extract.extraction.delf_config import preset_settings, read_delf_config
from delg_extract.extraction.open import fastest_precision, in_another_process, is_saved_model, model_facts
from delg_extract.extraction.pca import Pca, read_pca_folder
from delg_extract.extraction.settings import PRESETS, ExtractionSettings
from delg_extract.network.weight_file import local_depth
from rrt.errors import InputError, check_count

PRECISIONS = ("float32", "bfloat16", "auto")
# Settings of the same name.
_FLAGS = (
    "scales",
    "global_scales",
    "max_features",
    "score_threshold",
    "max_image_size",
    "min_image_size",
    "use_local",
    "use_global",
    "normalize_scales",
)


class Extraction(NamedTuple):
    """What a command line asks for, in the words of ``Plan``; identity: that of the model and its precision alone;
    left_out: what of it does not count, for the user, empty when all does."""

    model: str
    settings: ExtractionSettings
    override: dict
    precision: str
    identity: dict
    model_sha256: str
    left_out: str = ""


def add_model_option(p: argparse.ArgumentParser) -> None:
    """The option that names the network."""
    p.add_argument(
        "--model",
        "--weights",
        dest="model",
        help="weight file written by delg_extract/train.py, or the folder of a SavedModel",
    )


def add_settings_options(p: argparse.ArgumentParser, global_too: bool = True):
    """The options of what is computed, without those of global descriptors unless ``global_too``; returns their
    group."""
    what = p.add_argument_group(
        "what is computed",
        "defaults are those of the published DELG models; a preset or configuration sets all of them, and single flags "
        "change it",
    )
    source = what.add_mutually_exclusive_group()
    source.add_argument("--preset", choices=sorted(PRESETS), help="the configuration of a published model")
    source.add_argument(
        "--config", help="DelfConfig text file (.pbtxt) of the reference; names the model, too, unless --model does"
    )
    what.add_argument("--scales", type=float, nargs="+", help="image scales (default the seven of DELG)")
    what.add_argument("--max_features", type=int, help="local descriptors an image at most (default 1000)")
    what.add_argument(
        "--score_threshold",
        type=float,
        help=(
            "smallest attention of a local descriptor (default: the one of preset, configuration or weight file, "
            "else 0)"
        ),
    )
    what.add_argument(
        "--max_image_size", type=int, help="longer images are shrunk to this side, pixels (default 1024; -1: never)"
    )
    what.add_argument(
        "--min_image_size", type=int, help="shorter images are enlarged to this side, pixels (default never)"
    )
    what.add_argument(
        "--block3_strides",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="local features every 32 pixels, or with --no-block3_strides every 16 (default: as trained)",
    )
    what.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the convolutions: float32 is exact (default); auto takes bfloat16 where it is faster on this machine",
    )
    if global_too:
        what.add_argument(
            "--global_scales",
            type=int,
            nargs="*",
            help="positions among --scales whose global descriptors are summed (default 3 4 5; none given: all)",
        )
        what.add_argument(
            "--normalize_scales",
            action=argparse.BooleanOptionalAction,
            default=None,
            help=(
                "unit length for the global descriptor of each scale before the sum (default), or not: the Kaggle "
                "2020 form"
            ),
        )
        what.add_argument(
            "--use_local", action=argparse.BooleanOptionalAction, default=None, help="local descriptors (default: yes)"
        )
        what.add_argument(
            "--use_global",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="global descriptors (default: yes)",
        )
    else:
        p.set_defaults(use_local=True, use_global=False, global_scales=[], normalize_scales=None)
    return what


def add_pca_options(p) -> None:
    """The options that project local descriptors; ``p``: a parser or a group of one."""
    p.add_argument(
        "--pca_dir", help="folder written by delg_extract/train_pca.py: project the local descriptors on its components"
    )
    p.add_argument("--pca_dim", type=int, help="components used (default: all that the folder holds)")
    p.add_argument("--pca_whitening", action="store_true", help="divide the components by their standard deviations")


def requested_pca(args: argparse.Namespace) -> Pca | None:
    """The projection of ``add_pca_options``, None when there is none to be."""
    if not args.pca_dir:
        for name, without in (("pca_dim", None), ("pca_whitening", False)):
            if getattr(args, name) != without:
                raise InputError(f"--{name} without --pca_dir has no effect; give the folder of the PCA")
        return None
    return read_pca_folder(args.pca_dir, args.pca_dim, args.pca_whitening)


def requested_extraction(args: argparse.Namespace) -> Extraction:
    """What the options ask for. Raises InputError when they contradict each other or the model."""
    model, settings, threshold_known = requested_settings(args)
    override = {} if args.block3_strides is None else {"block3_strides": args.block3_strides}
    facts, sha256 = model_facts(model, args.precision, **override)
    if settings.local_pca and not is_saved_model(model):
        settings.local_pca.check_depth(local_depth(model))
    left_out = ""
    if not threshold_known:
        own = float(facts.get("score_threshold", 0.0))
        if settings.score_threshold not in (0.0, own) and settings.use_local:
            left_out = (
                f"--preset {args.preset}: its attention threshold {settings.score_threshold:g} is that of the published"
                f" model and is left out for {model}, which has {own:g}; --score_threshold or --calibrate_threshold"
                " sets another"
            )
        settings = replace(settings, score_threshold=own)
    precision = in_another_process(fastest_precision) if args.precision == "auto" else args.precision
    identity = {"model": facts, "model_sha256": sha256, "precision": precision}
    return Extraction(model, settings, override, precision, identity, sha256, left_out)


def extraction_of(words: Iterable[str]) -> Extraction:
    """What the options in a list of words ask for, as another program hands them on. Raises InputError."""
    parser = argparse.ArgumentParser()
    add_model_option(parser)
    add_pca_options(add_settings_options(parser))
    return requested_extraction(parser.parse_args([*words]))


def requested_settings(args: argparse.Namespace) -> tuple[str, ExtractionSettings, bool]:
    """(model, settings, whether their attention threshold means this model) from the preset or configuration and the
    flags."""
    model, settings, threshold_known = args.model, ExtractionSettings(), False
    if args.preset:
        if not model:
            model = f"data/models/{PRESETS[args.preset].model}"
            if not Path(model).exists():
                raise InputError(
                    f"{model}: no such model; fetch it with delg_extract/download_weights.py "
                    f"{PRESETS[args.preset].model.split('/')[0]}, or give --model"
                )
        learned = "pca_dir" not in args or args.pca_dir  # the published one is not needed, then
        settings = PRESETS[args.preset].settings if learned else preset_settings(args.preset, model)
        threshold_known = is_saved_model(model)  # a published threshold says nothing about the weights of a file
    elif args.config:
        config = read_delf_config(args.config)
        model, settings, threshold_known = model or str(config.model_path), config.settings, True
    if not model:
        raise InputError("no network to extract with; give --model, --preset or --config")
    flags = {name: getattr(args, name) for name in _FLAGS}
    flags = {
        name: tuple(value) if isinstance(value, list) else value for name, value in flags.items() if value is not None
    }
    if "pca_dir" in args:
        flags["local_pca"] = requested_pca(args) or settings.local_pca
    settings = replace(settings, **flags)
    for index in settings.global_scales:
        if not 0 <= index < len(settings.scales):
            raise InputError(
                f"--global_scales {index}: positions among the {len(settings.scales)} --scales count from 0"
            )
    if not 0 < min(settings.scales) <= max(settings.scales) < float("inf"):
        raise InputError(f"--scales {' '.join(map(str, settings.scales))}: scales are positive numbers")
    check_count("max_features", settings.max_features)
    if not settings.use_local and not settings.use_global:
        raise InputError("neither local nor global descriptors are asked for; switch --use_local or --use_global on")
    return model, settings, threshold_known or args.score_threshold is not None
