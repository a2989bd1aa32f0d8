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
from dataclasses import replace
from functools import partial
from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError, check_count
from rrt.extraction.describer import Describer, open_describer
from rrt.extraction.extract import Plan, extract
from rrt.extraction.options import MODELS, add_describer_options, given_settings
from rrt.formats.image_jobs import collect_jobs, read_table
from rrt.store.finished import is_complete, remove_store, writing
from rrt.store.local_counts import tell_of_extraction
from rrt.store.schema import COMPRESSIONS
from rrt.store.values import LOCAL_DTYPES


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = CommandParser(__doc__)
    p.add_argument("--model", default="lite0", help=MODELS)
    p.add_argument("--image_dir", help="the folder the names of the lists are relative to")
    p.add_argument("--list", action="append", default=[], help="image list; may be given several times")
    p.add_argument("--query_list", action="append", default=[], help="image list of queries, cropped to their box")
    p.add_argument("--table", help="instead of lists, images from anywhere: JSON of the form {name: path}")
    p.add_argument("--exif_rotation", action="store_true", help="turn images as their EXIF says (default: as stored)")
    p.add_argument("--ground_truth", help="Revisited ground truth (.pkl, .json, .mat) with the boxes of the queries")
    p.add_argument(
        "--crop_queries",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="crop queries (default) or take them whole",
    )
    p.add_argument("--output", required=True, help="the store to write, data/<dataset>/delg_<desc_name>.h5")
    what = p.add_argument_group("what is computed", "the defaults are the model's own")
    add_describer_options(what)
    how = p.add_argument_group("how it is done")
    how.add_argument("--num_workers", type=int, default=0, help="worker processes (default: one a core, on a GPU one)")
    how.add_argument(
        "--ray_address", help="work on a Ray cluster: its address, auto for the one of this machine, local to start one"
    )
    how.add_argument("--block", type=int, default=64, help="images a part: what a kill can cost (default %(default)s)")
    how.add_argument("--local_dtype", choices=LOCAL_DTYPES, default="float16", help="type of the stored descriptors")
    how.add_argument("--compression", choices=COMPRESSIONS, help="compress the local descriptors (default: not)")
    how.add_argument(
        "--keep_parts",
        action="store_true",
        help="leave the store a folder of its parts, which every command reads: nothing is copied to one file",
    )
    how.add_argument("--allow_missing", action="store_true", help="exit status 0 although images could not be read")
    how.add_argument("--overwrite", action="store_true", help="delete an existing store and its parts first")
    return p


def make_plan(args: argparse.Namespace) -> tuple[Plan, Describer]:
    """(what to extract and how, the describer in this process) of the command line. Raises InputError."""
    if args.table and (args.list or args.query_list):
        raise InputError("--table stands instead of lists; give one or the other")
    if not args.table and not args.list and not args.query_list:
        raise InputError("nothing to extract; give --list, --query_list or --table")
    if not args.table and not args.image_dir:
        raise InputError("lists name images relative to a folder; give --image_dir")
    check_count("block", args.block)
    if args.num_workers < 0:
        raise InputError(f"--num_workers {args.num_workers}: give 1 or more, or 0 for one a core")
    settings = given_settings(args)
    describer = open_describer(args.model, threads=1, **settings)
    jobs = (
        read_table(args.table)
        if args.table
        else collect_jobs(args.list, args.query_list, args.ground_truth, args.image_dir, args.crop_queries)
    )
    identity = {**describer.identity, "crop_queries": args.crop_queries, "exif_rotation": args.exif_rotation}
    plan = Plan(
        partial(open_describer, args.model, **settings),
        tuple(replace(job, upright=args.exif_rotation) for job in jobs),
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
    if skipped and not args.allow_missing:
        raise InputError(
            f"{plan.output}.skipped.csv: {len(skipped)} of {len(names)} images have no descriptors, first "
            f"{skipped[0].name!r} ({skipped[0].reason}); mend them and use --overwrite, or accept with --allow_missing"
        )
    return 0
