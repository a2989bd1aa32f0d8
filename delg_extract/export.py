"""Exports a trained network as a SavedModel with the signature of the DELF/DELG reference (docs/delg.md 4).

    python delg_extract/export.py --ckpt_path logs/delg_r50 --export_path data/models/delg_r50
    python delg_extract/export.py --ckpt_path logs/delf_r50/weights.h5 --export_path data/models/delf_r50 --kind local
    python delg_extract/export.py --ckpt_path logs/delg_r50 --export_path data/models/kaggle --kind kaggle

Kinds: local, global, local_and_global; kaggle takes the image alone and gives the unit-length sum of its descriptors
at three scales. The weight file knows its settings: flags that describe the network may be left out, and one that
contradicts the file is an error. The folder holds a DelfConfig file, too, so that it can be extracted with at once:

    python delg_extract/extract.py --config data/models/delg_r50/delf_config.pbtxt --image_dir ... --list ... --output
    ...
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delg_extract.extraction.delf_config import delf_config_text
from delg_extract.extraction.open import GRAPH_FILE
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.training.flags import Switch
from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError
from rrt.files.atomic import flush_to_disk, remove_leftovers, temporary_name
from rrt.progress import waiting

KINDS = ("local", "global", "local_and_global", "kaggle")
POOL_TYPES = ("None", "average", "sum")
KAGGLE_SCALES = (0.70710677, 1.0, 1.4142135)
CONFIG_FILE = "delf_config.pbtxt"


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    yes_or_no = {"action": Switch, "default": None}
    p.add_argument(
        "--kind", choices=KINDS, default="local_and_global", help="what the SavedModel gives (default %(default)s)"
    )
    p.add_argument(
        "--ckpt_path",
        required=True,
        help="weight file, log folder (its weights.h5, or else its latest checkpoint) or checkpoint",
    )
    p.add_argument("--export_path", required=True, help="folder to write; it must not exist")
    p.add_argument("--overwrite", action="store_true", help="replace an older SavedModel at --export_path")
    what = p.add_argument_group("what it computes")
    what.add_argument(
        "--block3_strides",
        **yes_or_no,
        help="local features every 32 pixels, or with --no-block3_strides every 16 (default: as trained)",
    )
    what.add_argument(
        "--iou",
        type=float,
        help="weaker local features whose receptive fields overlap more are left out (default 1: none)",
    )
    what.add_argument(
        "--input_scales_list",
        metavar="S1,S2,...",
        help="image scales fixed in a global model, which then takes the image alone (default: given with each image; "
        f"kaggle: {','.join(map(str, KAGGLE_SCALES))})",
    )
    what.add_argument(
        "--multi_scale_pool_type",
        choices=POOL_TYPES,
        help="how a global model pools over the scales; None: a row for each (default None; kaggle: sum)",
    )
    what.add_argument(
        "--normalize_global_descriptor",
        **yes_or_no,
        help="unit length for what a global model gives (default: not; kaggle: yes)",
    )
    file = p.add_argument_group("the network", "checked against the file, which knows them all")
    file.add_argument("--use_autoencoder", **yes_or_no, help="reduced local descriptors")
    file.add_argument("--autoencoder_dimensions", type=float, help="local descriptor size")
    file.add_argument("--local_feature_map_channels", type=int, help="channels of conv4, which the autoencoder reduces")
    file.add_argument(
        "--delg_global_features", **yes_or_no, help="GeM and embedding; --no-delg_global_features: DELF, a spatial mean"
    )
    file.add_argument("--delg_gem_power", type=float, help="GeM exponent")
    file.add_argument("--delg_embedding_layer_dim", type=int, help="global descriptor size")
    return p


def fixed_scales(text: str) -> tuple[float, ...]:
    """The numbers of --input_scales_list. Raises InputError unless they are scales."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise InputError(f"--input_scales_list {text}: give numbers above 0 with commas between them")
    return scales


def requested_form(args: argparse.Namespace) -> dict:
    """The fields of ``serving.Form`` that the flags ask for. Raises InputError for a flag that has no effect on the
    kind."""
    local, global_ = "local" in args.kind, args.kind != "local"
    pools = {
        "input_scales_list": args.input_scales_list,
        "multi_scale_pool_type": args.multi_scale_pool_type,
        "normalize_global_descriptor": args.normalize_global_descriptor,
    }
    for name, value in pools.items() if local else [("iou", args.iou)]:
        if value is not None:
            raise InputError(
                f"--{name} has no effect on --kind {args.kind}; leave it out, or choose --kind "
                f"{'global or kaggle' if local else 'local or local_and_global'}"
            )
    iou = 1.0 if args.iou is None else args.iou
    if not 0 <= iou <= 1:
        raise InputError(f"--iou {iou}: a share of the area from 0 to 1")
    kaggle = args.kind == "kaggle"
    scales = KAGGLE_SCALES if kaggle else None
    if args.input_scales_list is not None:
        scales = fixed_scales(args.input_scales_list)
    pool = args.multi_scale_pool_type or ("sum" if kaggle else "None")
    normalize = args.normalize_global_descriptor
    return {
        "local": local,
        "global_": global_,
        "iou": iou,
        "scales": scales,
        "pooling": None if pool == "None" else pool,
        "normalize": kaggle if normalize is None else normalize,
    }


def check_network(args: argparse.Namespace, model, source: Path) -> None:
    """InputError when a flag says otherwise of the network than the file it came from."""
    facts = {
        "use_autoencoder": model.local_dim is not None,
        "local_feature_map_channels": model.sizes.local_channels,
        "delg_global_features": model.use_global,
    }
    if model.local_dim:
        facts["autoencoder_dimensions"] = model.local_dim
    if model.use_global:
        facts |= {"delg_gem_power": model.gem_power, "delg_embedding_layer_dim": model.embedding_dim}
    for name, fact in facts.items():
        asked = getattr(args, name)
        if asked is not None and asked != fact:
            raise InputError(
                f"{source}: the network has {name} {_shown(fact)}, --{name} says {_shown(asked)}; leave the flag out, "
                "or give the file of the other network"
            )


def _shown(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def config_text(form, threshold: float) -> str:
    """A DelfConfig file for the exported model, scales and limits those of the published ones."""
    scales = {} if form.local else {"scales": form.scales or KAGGLE_SCALES, "global_scales": ()}
    return delf_config_text(
        ExtractionSettings(score_threshold=threshold, use_local=form.local, use_global=form.global_, **scales),
        GRAPH_FILE,
    )


def export(args: argparse.Namespace) -> Path:
    """Writes the SavedModel that the command line asks for and returns its folder."""
    folder, fields = Path(args.export_path), requested_form(args)
    check_target(folder, args.overwrite)
    # TensorFlow is imported here, not before.
    from delg_extract.extraction.serving import Form, save_serving
    from delg_extract.training.checkpoints import load_trained

    override = {} if args.block3_strides is None else {"block3_strides": args.block3_strides}
    model, settings, source = load_trained(args.ckpt_path, **override)
    check_network(args, model, source)
    form = Form(**fields)
    with waiting("export"), new_folder(folder, args.overwrite) as temporary:
        save_serving(temporary, model, form)
        (temporary / CONFIG_FILE).write_text(
            f"# {args.kind} of {source}, {model.backbone}\n"
            + config_text(form, float(settings.get("score_threshold", 0.0)))
        )
    return folder


def check_target(folder: Path, overwrite: bool) -> None:
    """InputError when something is at ``folder`` that may not be replaced."""
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"{folder}: exists; choose another --export_path, or replace it with --overwrite")
    if not (folder / GRAPH_FILE).is_file():
        raise InputError(
            f"{folder}: not the folder of a SavedModel, which alone --overwrite replaces; choose another --export_path"
        )


@contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``folder`` when the block succeeds; when it fails, all is as before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    temporary = temporary_name(folder)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            flush_to_disk(file)
        check_target(folder, overwrite)
        if folder.exists():
            replaced = temporary.with_suffix(".old")
            os.rename(folder, replaced)
            os.rename(temporary, folder)
            shutil.rmtree(replaced)
        else:
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    """The command."""
    args = parser().parse_args()
    print(f"wrote {export(args)}")


if __name__ == "__main__":
    run_command(main)
