"""The images of an extraction: which ones of image lists or tables, decoded and cropped to which box."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import parse_json
from rrt.files.images import Box, Unreadable, decode
from rrt.files.names import ImageNames
from rrt.formats.ground_truth import load_ground_truth, pixel_box
from rrt.formats.lists import ImageList, read_image_list


@dataclass(frozen=True)
class Job:
    """An image to extract: its name in the store, its file, and the box (x1, y1, x2, y2) it is cropped to, if any.
    upright: turned as its EXIF orientation says, first."""

    name: str
    file: Path
    box: Box | None = None
    upright: bool = False


@dataclass(frozen=True)
class ReadImage:
    """A decoded image or the reason there is none. ``resize_factor``: longest side of the crop over that of the
    original."""

    job: Job
    pixels: np.ndarray | None
    resize_factor: float = 1.0
    reason: str = ""


def read_image(job: Job) -> ReadImage:
    """Decodes to RGB and crops as the reference does, which ignores EXIF orientation; ``job.upright`` does not. Never
    raises for a bad file."""
    try:
        found = decode(job.file, job.box, job.upright)
    except Unreadable as unreadable:
        return ReadImage(job, None, reason=str(unreadable))
    return ReadImage(job, found.pixels, max(found.size) / max(found.whole_size))


def read_query(path: str | Path, box: Box | None = None) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an image that is searched for, upright; of ``box`` alone (pixels of the upright image).
    Raises InputError with the reason alone, without the path, also for a box that goes beyond the image."""
    found = read_image(Job("query", Path(path), box, upright=True))
    if found.pixels is None:
        raise InputError(found.reason)
    return found.pixels


def read_table(path: str | Path) -> list[Job]:
    """The images of a table: a JSON object {name in the store: path of the file}. Raises InputError naming the file."""
    try:
        table = parse_json(Path(path).read_bytes())
        if not isinstance(table, dict) or not all(isinstance(file, str) for file in table.values()):
            raise ValueError("no object of names and files")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: not a table of images ({reason}); expected JSON of the form {{name: path}}"
        ) from None
    return [Job(name, Path(file)) for name, file in table.items()]


def add_job_options(p: argparse.ArgumentParser) -> None:
    """The options that say which images a command extracts, for ``asked_jobs``."""
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


def check_job_options(args: argparse.Namespace) -> None:
    """InputError, before any file is read, for options that contradict each other."""
    if args.table and (args.list or args.query_list):
        raise InputError("--table stands instead of lists; give one or the other")
    if not args.table and not args.list and not args.query_list:
        raise InputError("nothing to extract; give --list, --query_list or --table")
    if not args.table and not args.image_dir:
        raise InputError("lists name images relative to a folder; give --image_dir")


def asked_jobs(args: argparse.Namespace) -> tuple[Job, ...]:
    """The images of the options. Raises InputError."""
    jobs = (
        read_table(args.table)
        if args.table
        else collect_jobs(args.list, args.query_list, args.ground_truth, args.image_dir, args.crop_queries)
    )
    return tuple(replace(job, upright=args.exif_rotation) for job in jobs)


def collect_jobs(
    lists: list[str], query_lists: list[str], ground_truth: str | None, image_dir: str, crop: bool = True
) -> list[Job]:
    """The images of all lists in order, each once; those of ``query_lists`` with their rounded box of the ground
    truth."""
    truth, queries, owners = None, ImageNames([]), {}
    if query_lists and crop:
        if not ground_truth:
            raise InputError(
                f"{query_lists[0]}: queries are cropped to their box; give --ground_truth, or --no-crop_queries"
            )
        truth = load_ground_truth(ground_truth)
        queries = ImageNames(truth.qimlist)
    jobs: dict[str, Job] = {}
    for path in [*lists, *query_lists]:
        images = read_image_list(path)
        for name in images.names:
            box = None
            if truth and path in query_lists:
                row = _query(queries, name, ground_truth, images)
                if owners.setdefault(row, name) != name:
                    raise InputError(
                        f"{ground_truth}: '{truth.qimlist[row]}' may be '{owners[row]}' or '{name}' of the query lists;"
                        " use the whole names"
                    )
                box = pixel_box(truth.gnd[row])
            job = Job(name, Path(image_dir) / name, box)
            if jobs.setdefault(name, job) != job:
                raise InputError(
                    f"{path}: {name!r} is a cropped query and a gallery image at once; extract the lists into two "
                    "stores, delg_NAME.h5 of the gallery and delg_NAME_queries.h5 of the queries"
                )
    return list(jobs.values())


def _query(queries: ImageNames, name: str, ground_truth: str | None, images: ImageList) -> int:
    """The row of a listed query in the ground truth."""
    try:
        row = queries.find(name)
    except InputError as error:
        raise InputError(f"{ground_truth}: {error} ({images.where(name)})") from None
    if row is None:
        raise InputError(
            f"{ground_truth}: no query {Path(name).stem!r} ({images.where(name)}); "
            "give the ground truth that belongs to the list"
        )
    return row
