"""Extracts global and local descriptors of the images of image lists into one HDF5 store, without TensorFlow.

    python tools/extract.py --model lite0 --image_dir data/oxford5k --list data/oxford5k/test_gallery.txt \\
        --query_list data/oxford5k/test_query.txt --ground_truth data/oxford5k/gnd_roxford5k.pkl \\
        --output data/oxford5k/delg_lite0.h5

--model lite0 is the shipped network (docs/models.md), --model onnx:FILE any other in ONNX's format, --model
transformers:FOLDER_OR_NAME a vision model of Hugging Face transformers (docs/backbones.md). Images of --query_list are
cropped to their box in the ground truth. The store is written in parts: a run that was killed goes on where it was.
Images that cannot be read are listed in <output>.skipped.csv, and the exit status is 1 unless --allow_missing.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError, check_count
from rrt.extraction.describer import Describer, open_describer
from rrt.extraction.extract import Plan, extract
from rrt.extraction.options import MODELS, add_describer_options, given_settings
from rrt.formats.image_jobs import add_job_options, asked_jobs, check_job_options
from rrt.store.finished import add_part_options, is_complete, refuse_skipped, remove_store, writing
from rrt.store.local_counts import tell_of_extraction
from rrt.store.values import LOCAL_DTYPES


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = CommandParser(__doc__)
    p.add_argument("--model", default="lite0", help=MODELS)
    add_job_options(p)
    p.add_argument("--output", required=True, help="the store to write, data/<dataset>/delg_<desc_name>.h5")
    what = p.add_argument_group("what is computed", "the defaults are the model's own")
    add_describer_options(what)
    how = p.add_argument_group("how it is done")
    how.add_argument("--num_workers", type=int, default=0, help="worker processes (default: one a core, on a GPU one)")
    how.add_argument("--local_dtype", choices=LOCAL_DTYPES, default="float16", help="type of the stored descriptors")
    add_part_options(how)
    return p


def make_plan(args: argparse.Namespace) -> tuple[Plan, Describer]:
    """(what to extract and how, the describer in this process) of the command line. Raises InputError."""
    check_job_options(args)
    check_count("block", args.block)
    if args.num_workers < 0:
        raise InputError(f"--num_workers {args.num_workers}: give 1 or more, or 0 for one a core")
    settings = given_settings(args)
    describer = open_describer(args.model, threads=1, **settings)
    jobs = asked_jobs(args)
    identity = {**describer.identity, "crop_queries": args.crop_queries, "exif_rotation": args.exif_rotation}
    plan = Plan(
        partial(open_describer, args.model, **settings),
        jobs,
        args.output,
        identity,
        args.block,
        {"local_dtype": args.local_dtype, "compression": args.compression},
    )
    return plan, describer


def main() -> int:
    """Extract, and say what was left out."""
    args = parser().parse_args()
    plan, describer = make_plan(args)
    names = [job.name for job in plan.jobs]
    with writing(plan.output):
        if args.overwrite:
            remove_store(plan.output)
        if is_complete(plan.output, names, plan.identity, **plan.layout):
            print(f"{plan.output}: complete, nothing to do")
            return 0
        # Workers on one GPU would only take its memory from each other.
        num_workers = args.num_workers or (0 if describer.device == "cpu" else 1)
        skipped = extract(
            plan,
            describer.sha256,
            Path(plan.output).stem.removeprefix("delg_"),
            num_workers,
            args.keep_parts,
            args.ray_address,
            describer.device != "cpu",
        )
    tell_of_extraction(plan.output, len(names), skipped)
    if not args.allow_missing:
        refuse_skipped(plan.output, skipped, len(names))
    return 0
