"""Learns the principal components of local descriptors, to be given to the extraction with --pca_dir (DELF: 40
components).

    python delg_extract/train_pca.py --model logs/delf_r50/weights.h5 --train_list data/gldv2/train.txt --image_dir
    data/gldv2 \
        --output_dir data/models/delf_r50/pca
    python delg_extract/train_pca.py --store data/gldv2/delg_delf_r50.h5 --output_dir data/models/delf_r50/pca
    python delg_extract/extract.py --model logs/delf_r50/weights.h5 --pca_dir data/models/delf_r50/pca ...

Descriptors come from a sample of the images, or of a finished store, and have unit length. The folder gets
mean.datum, pca_proj_mat.datum and pca_variances.datum, the files of the published DELF model, which a DelfConfig file
may name. A run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from delg_extract.data.moments import Moments
from delg_extract.extraction.calibration import calibration_sample
from delg_extract.extraction.options import add_model_option, add_settings_options, requested_extraction
from delg_extract.extraction.parts import Plan
from delg_extract.extraction.pca import MEAN_FILE, SHORTEST, write_pca_folder
from delg_extract.extraction.run import extract
from delg_extract.extraction.workers import default_batch
from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError, check_count
from rrt.files.atomic import guard_settings
from rrt.formats.image_jobs import collect_jobs
from rrt.progress import bar, warn
from rrt.store.finished import is_complete, remove_store
from rrt.store.linear import l2_normalize
from rrt.store.store import Store

SETTINGS_FILE, STORE_FILE = "settings.json", "descriptors.h5"
_BLOCK = 16  # images that a kill can cost
# Weaker directions are rounding.
_SMALLEST_PART = 1e-7


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    add_model_option(p)
    p.add_argument("--train_list", action="append", default=[], help="image list; may be given several times")
    p.add_argument("--image_dir", help="the folder the names of the lists are relative to")
    p.add_argument("--store", help="learn from the descriptors of this store, instead of --model and --train_list")
    p.add_argument(
        "--num_pictures",
        type=int,
        default=1000,
        help="images to learn from, chosen by their names (default %(default)s)",
    )
    p.add_argument("--pca_dim", type=int, default=40, help="components to keep (default %(default)s)")
    p.add_argument("--output_dir", required=True, help="the folder to write")
    p.add_argument(
        "--num_workers",
        type=int,
        default=0,
        help="worker processes that extract (default: one a core or GPU, as memory allows)",
    )
    p.add_argument("--keep_store", action="store_true", help=f"keep the extracted descriptors, {STORE_FILE}")
    add_settings_options(p, global_too=False)
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """InputError for options that contradict each other, before any work is done."""
    for name in ("num_pictures", "pca_dim"):
        check_count(name, getattr(args, name))
    if args.num_workers < 0:
        raise InputError(f"--num_workers {args.num_workers}: give 1 or more, or 0 for a sensible number")
    if args.store and (args.model or args.train_list):
        raise InputError(
            "--store, and --model or --train_list: descriptors can come from one place only; give one of them"
        )
    if not args.store and not (args.train_list and args.image_dir):
        raise InputError("nothing to learn from; give --train_list and --image_dir, or --store")


def sampling_plan(args: argparse.Namespace) -> Plan:
    """The extraction of local descriptors, unit length and not projected, of a sample of the images."""
    asked = requested_extraction(args)
    if asked.left_out:
        warn(asked.left_out)
    settings = replace(asked.settings, local_pca=None)
    jobs = collect_jobs(args.train_list, [], None, args.image_dir)
    sample = set(calibration_sample([job.name for job in jobs], args.num_pictures))
    return Plan(
        asked.model,
        settings,
        tuple(job for job in jobs if job.name in sample),
        str(Path(args.output_dir) / STORE_FILE),
        {**asked.identity, **settings.as_json()},
        asked.override,
        asked.precision,
        _BLOCK,
        default_batch(),
    )


def learn_pca(store: Store, names: list[str], dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean [D], components [dim, D] as rows, variances [D] falling) of the local descriptors of the named images at
    unit length, with one image in memory at a time. Raises InputError when they do not vary in ``dim`` directions."""
    if not store.local_dim:
        raise InputError(f"{store.path}: holds no local descriptors; extract them with --use_local")
    if store.config.get("local_pca"):
        raise InputError(
            f"{store.path}: its local descriptors are projected already; give a store that was extracted without a PCA"
        )
    moments = Moments(store.local_dim)
    for index in bar(store.indices(names), "principal components", "image"):
        moments.add(l2_normalize(store.read(index).descriptors, SHORTEST))
    if moments.count < 2:
        raise InputError(
            f"{store.path}: {moments.count} local descriptors in {len(names)} images; give more images, or a lower "
            "--score_threshold"
        )
    mean, variances, components = moments.principal_components()
    usable = int((variances > _SMALLEST_PART * variances[0]).sum())
    if dim > usable:
        raise InputError(
            f"{store.path}: {moments.count} local descriptors of {store.local_dim} dimensions vary in {usable} "
            f"directions, --pca_dim asks for {dim}; give a smaller one or more images"
        )
    return mean, components[:dim], variances


def train_pca(args: argparse.Namespace) -> str:
    """Learns and writes what the command line asks for -> what there is to say of it."""
    folder, plan = Path(args.output_dir), None
    if args.store:
        path = args.store
        with Store(path) as store:
            origin, names = {"store": store.config, "model_sha256": store.attributes["model_sha256"]}, list(store.names)
        names = calibration_sample(names, args.num_pictures)
    else:
        plan = sampling_plan(args)
        path, origin, names = plan.output, plan.identity, [job.name for job in plan.jobs]
    origin = {
        **origin,
        "pictures_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "pca_dim": args.pca_dim,
    }
    if (folder / MEAN_FILE).exists():
        if not (folder / SETTINGS_FILE).exists():
            raise InputError(f"{folder}: holds a PCA that this program did not learn; choose another --output_dir")
        guard_settings(folder / SETTINGS_FILE, origin)
        return f"{folder}: complete, nothing to do"
    if plan and not is_complete(path, names, plan.identity):
        for image in extract(plan, origin["model_sha256"], "pca", args.num_workers):
            print(f"left out {image.name}: {image.reason}")
    with Store(path) as store:
        # Images that could not be read are not in it.
        mean, components, variances = learn_pca(store, names if args.store else store.names, args.pca_dim)
    share = variances[: args.pca_dim].sum() / variances.sum()
    guard_settings(folder / SETTINGS_FILE, origin)
    write_pca_folder(folder, mean, components, variances[: args.pca_dim])
    if plan and not args.keep_store:
        remove_store(path)
    return f"wrote {folder}: {args.pca_dim} of {len(mean)} components, which hold {share:.1%} of the variance"


def main() -> None:
    """The command."""
    args = parser().parse_args()
    check_arguments(args)
    print(train_pca(args))


if __name__ == "__main__":
    run_command(main)
