"""Extracts DELG descriptors of the images of image lists into one HDF5 store.

    python delg_extract/extract.py --model data/models/r50delg_gldv2clean_20200914 --preset r50_gldv2 --image_dir
    data/oxford5k \
        --list data/oxford5k/test_gallery.txt --query_list data/oxford5k/test_query.txt \
        --ground_truth data/oxford5k/gnd_roxford5k.pkl --output data/oxford5k/delg_r50_gldv2.h5

Images of --query_list are cropped to their box in the ground truth. The store is written in parts: a run that was
killed goes on where it was. Images that cannot be read are listed in <output>.skipped.csv, and the exit status is 1
unless --allow_missing.
"""

from __future__ import annotations

import argparse
import os
import threading
from dataclasses import replace
from pathlib import Path

from delg_extract.extraction.calibration import (
    Calibration,
    calibrate_threshold,
    calibration_guard,
    calibration_sample,
    read_calibration,
    threshold_path,
    write_calibration,
)
from delg_extract.extraction.images import decode_ahead
from delg_extract.extraction.open import in_another_process
from delg_extract.extraction.options import (
    add_model_option,
    add_pca_options,
    add_settings_options,
    requested_extraction,
)
from delg_extract.extraction.parts import Plan
from delg_extract.extraction.run import extract
from delg_extract.extraction.workers import default_batch
from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError, check_count
from rrt.formats.image_jobs import add_job_options, asked_jobs, check_job_options
from rrt.progress import bar, warn
from rrt.store.export import export_delg
from rrt.store.finished import add_part_options, is_complete, refuse_skipped, remove_store, writing
from rrt.store.local_counts import tell_of_extraction
from rrt.store.values import LOCAL_DTYPES


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    add_model_option(p)
    add_job_options(p)
    p.add_argument("--output", required=True, help="the store to write, data/<dataset>/delg_<desc_name>.h5")
    what = add_settings_options(p)
    what.add_argument(
        "--calibrate_threshold",
        type=int,
        metavar="N",
        help="choose the threshold so that N descriptors an image remain on average over a sample of the images",
    )
    what.add_argument("--calibration_images", type=int, default=100, help="images of that sample (default %(default)s)")
    add_pca_options(what)
    how = p.add_argument_group("how it is done")
    how.add_argument(
        "--num_workers",
        type=int,
        default=0,
        help=(
            "worker processes, each with its share of the cores or a GPU (default: one a core or GPU, as memory allows)"
        ),
    )
    how.add_argument(
        "--batch_size", type=int, help="images of one size that go through the network together (default 1, on a GPU 8)"
    )
    how.add_argument(
        "--format",
        choices=("store", "delf"),
        default="store",
        help="delf: also write .delg_global and .delg_local files to the folder named like the store without .h5, and "
        "keep float32 in the store",
    )
    how.add_argument(
        "--local_dtype", choices=LOCAL_DTYPES, help="type of the stored local descriptors (default float16)"
    )
    add_part_options(how)
    how.add_argument(
        "--end_with_stdin", action="store_true", help="end when standard input does: for programs that start this one"
    )
    return p


def make_plan(args: argparse.Namespace) -> tuple[Plan, str]:
    """(what to extract and how, SHA-256 of the model) of the command line; a calibration of the threshold happens
    here."""
    check_job_options(args)
    for name in ("block", "calibration_images", "batch_size", "calibrate_threshold"):
        if getattr(args, name) is not None:
            check_count(name, getattr(args, name))
    if args.num_workers < 0:
        raise InputError(f"--num_workers {args.num_workers}: give 1 or more, or 0 for a sensible number")
    asked = requested_extraction(args)
    if asked.left_out:
        warn(asked.left_out)
    identity = {**asked.identity, "crop_queries": args.crop_queries}
    if args.exif_rotation:  # stores of before know no such setting
        identity["exif_rotation"] = True
    plan = Plan(
        asked.model,
        asked.settings,
        asked_jobs(args),
        args.output,
        identity,
        asked.override,
        asked.precision,
        args.block,
        args.batch_size or default_batch(),
        {
            "local_dtype": args.local_dtype or ("float32" if args.format == "delf" else "float16"),
            "compression": args.compression,
        },
    )
    if args.overwrite:
        remove_store(plan.output)
        threshold_path(plan.output).unlink(missing_ok=True)
    if args.calibrate_threshold:
        found = remembered_calibration(plan, args.calibrate_threshold, args.calibration_images)
        print(
            f"attention threshold {found.threshold:.6g}: {found.kept_mean:.1f} descriptors an image "
            f"({found.kept_fewest} to {found.kept_most}) over {found.num_pictures} images"
        )
        plan = replace(plan, settings=replace(plan.settings, score_threshold=found.threshold))
    return replace(plan, identity={**identity, **plan.settings.as_json()}), asked.model_sha256


def remembered_calibration(plan: Plan, features: int, num_pictures: int) -> Calibration:
    """The threshold that leaves ``features`` descriptors an image, from a sample of the plan's images; the one of an
    earlier run where there is one, so that a restart goes on with it."""
    sample = calibration_sample([job.name for job in plan.jobs], num_pictures)
    guard = calibration_guard(settings=plan.settings, features_per_image=features, sample=sample, **plan.identity)
    found = read_calibration(plan.output, guard)
    if found is None:
        found = in_another_process(_calibrate, plan, features, sample)
        write_calibration(plan.output, found, guard)
    return found


def _calibrate(plan: Plan, features: int, sample: list[str]) -> Calibration:
    extractor = plan.extractor()
    images = decode_ahead([job for job in plan.jobs if job.name in set(sample)], extractor, ahead=4, threads=2)
    shown = bar(images, "calibrating", "image", len(sample))
    return calibrate_threshold(
        extractor.network, plan.settings, (resized.pixels for _, resized in shown if resized), features
    )


def end_with_stdin() -> None:
    """Have this process end, its workers with it, as soon as the one that holds the other end of standard input has
    ended."""

    def wait():
        while os.read(0, 4096):  # not sys.stdin, whose lock a thread may not hold when the interpreter ends
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """The command."""
    args = parser().parse_args()
    if args.end_with_stdin:
        end_with_stdin()
    with writing(args.output):
        plan, sha256 = make_plan(args)
        names = [job.name for job in plan.jobs]
        skipped = []
        if is_complete(plan.output, names, plan.identity, **plan.layout):
            print(f"{plan.output}: complete, nothing to do")
        else:
            skipped = extract(
                plan,
                sha256,
                Path(plan.output).stem.removeprefix("delg_"),
                args.num_workers,
                args.ray_address,
                args.keep_parts,
            )
            threshold = plan.settings.score_threshold
            remedy = f"; --score_threshold {threshold:g} may be that of another model" if threshold else ""
            tell_of_extraction(plan.output, len(names), skipped, plan.settings.use_local, remedy)
        if args.format == "delf":
            folder = Path(plan.output).with_suffix("")
            suffix = ".delg_local" if plan.settings.use_global else ".delf"
            written, present = export_delg(plan.output, folder, suffix, overwrite=args.overwrite)
            print(f"wrote {written} files to {folder}" + f", {present} were there" * bool(present))
    if not args.allow_missing:
        refuse_skipped(plan.output, skipped, len(names))
    return 0


if __name__ == "__main__":
    run_command(main)
