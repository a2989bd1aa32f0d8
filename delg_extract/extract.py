"""Extracts DELG descriptors of the pictures of image lists into one HDF5 store.

    python delg_extract/extract.py --weights rrt_gld_ckpts/delg_small.h5 --image_dir data/oxford5k \
        --list data/oxford5k/test_gallery.txt --query_list data/oxford5k/test_query.txt \
        --ground_truth data/oxford5k/gnd_roxford5k.pkl --output data/oxford5k/delg_small.h5

Pictures of --query_list are cropped to their box in the ground truth. The store is written in parts: a run that was killed goes
on where it was. Pictures that cannot be read are listed in <output>.skipped.csv, and the exit status is 1 unless --allow_missing.
"""
from __future__ import annotations

import argparse
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from delg_extract.config import ExtractionSettings
from delg_extract.inference import Descriptors, Extractor
from delg_extract.network import DelgNetwork
from delg_extract.pyramid import GLOBAL_SCALES, SCALES
from delg_extract.weights import load_weights, read_settings
from rrt.errors import InputError, run_command, sha256_of_file
from rrt.groundtruth import load_ground_truth
from rrt.lists import read_image_list
from rrt.store import COMPRESSIONS, LOCAL_DTYPES, ImageRecord, PartWriter, Skipped, is_complete, remove_store

DECODED_AHEAD = 4


@dataclass(frozen=True)
class Job:
    """A picture to extract: its name in the store, its file, and the box (x1, y1, x2, y2) it is cropped to, if any."""

    name: str
    file: Path
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Picture:
    """A decoded picture or the reason there is none. ``resize_factor``: longest side of the crop over that of the original."""

    job: Job
    pixels: np.ndarray | None
    resize_factor: float = 1.0
    reason: str = ""


def read_picture(job: Job) -> Picture:
    """Decodes to RGB and crops as the reference does; EXIF orientation is ignored. Never raises for a bad file."""
    try:
        with Image.open(job.file) as image:
            image = image.convert("RGB")
    except FileNotFoundError:
        return Picture(job, None, reason="no such file")
    except UnidentifiedImageError:
        return Picture(job, None, reason="not a picture that can be read")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Picture(job, None, reason=" ".join(str(error).split()) or type(error).__name__)
    if job.box is None:
        return Picture(job, np.asarray(image))
    crop = image.crop(job.box)
    if min(crop.size) < 1:
        return Picture(job, None, reason=f"the box {job.box} is empty")
    return Picture(job, np.asarray(crop), max(crop.size) / max(image.size))


def collect_jobs(lists: list[str], query_lists: list[str], ground_truth: str | None, image_dir: str, crop: bool = True) -> list[Job]:
    """The pictures of all lists in order, each once; those of ``query_lists`` with their rounded box of the ground truth."""
    boxes = {}
    if query_lists and crop:
        if not ground_truth:
            raise InputError(f"{query_lists[0]}: queries are cropped to their box; give --ground_truth, or --no-crop_queries")
        gnd = load_ground_truth(ground_truth)
        boxes = {Path(name).stem: tuple(int(round(v)) for v in query["bbx"]) for name, query in zip(gnd.qimlist, gnd.gnd)}
    jobs: dict[str, Job] = {}
    for path in [*lists, *query_lists]:
        images = read_image_list(path)
        for name in images.names:
            box = None
            if boxes and path in query_lists:
                box = boxes.get(Path(name).stem)
                if box is None:
                    raise InputError(f"{ground_truth}: no query {Path(name).stem!r} ({images.where(name)}); "
                                     "give the ground truth that belongs to the list")
            job = Job(name, Path(image_dir) / name, box)
            if jobs.setdefault(name, job) != job:
                raise InputError(f"{path}: {name!r} is a cropped query and a gallery picture at once; extract the two lists into two stores")
    return list(jobs.values())


def decode_ahead(jobs: Iterable[Job], threads: int = 2) -> Iterator[Picture]:
    """Decoded pictures in order, a few of them ahead of the network."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for job in jobs:
            waiting.append(pool.submit(read_picture, job))
            if len(waiting) > DECODED_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def to_record(picture: Picture, descriptors: Descriptors | None) -> ImageRecord | Skipped:
    """What the store keeps of a picture: keypoints as x, y in pixels of the (cropped) picture."""
    name = picture.job.name
    if picture.pixels is None:
        return Skipped(name, picture.reason)
    if descriptors is None:
        return Skipped(name, "a side is shorter than 10 pixels after resizing")
    height, width = picture.pixels.shape[:2]
    return ImageRecord(name=name, size=(width, height), global_=descriptors.global_descriptor, descriptors=descriptors.descriptors,
                       keypoints=descriptors.locations[:, ::-1], scales=descriptors.scales, attention=descriptors.attention)


def extract(jobs: list[Job], extractor: Extractor, output: str | Path, settings: dict, model_sha256: str = "", desc_name: str = "",
            block: int = 64, **layout) -> list[Skipped]:
    """Extracts what the store at ``output`` still lacks and returns the pictures left out. ``settings``: all that shapes the numbers;
    ``layout``: local_dtype and compression of ``PartWriter``."""
    names = [job.name for job in jobs]
    writer = PartWriter(output, names, settings, block, **layout)
    by_name = {job.name: job for job in jobs}
    missing = writer.missing_parts()
    todo = sum(len(writer.block_names(part)) for part in missing)
    with tqdm(total=len(names), initial=len(names) - todo, desc=f"extract {Path(output).name}", unit="picture", disable=None) as bar:
        for part in missing:
            records = []
            for picture in decode_ahead(by_name[name] for name in writer.block_names(part)):
                descriptors = None if picture.pixels is None else extractor(picture.pixels, picture.resize_factor)
                records.append(to_record(picture, descriptors))
                bar.update()
            writer.write_part(part, records)
    writer.merge(model_sha256=model_sha256, desc_name=desc_name)
    return writer.skipped


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", required=True, help="weight file written by delg_extract/train.py")
    p.add_argument("--image_dir", required=True, help="the folder the names of the lists are relative to")
    p.add_argument("--list", action="append", default=[], help="image list, extracted whole; may be given several times")
    p.add_argument("--query_list", action="append", default=[], help="image list of queries, cropped to their box")
    p.add_argument("--ground_truth", help="Revisited ground truth with the boxes of the queries")
    p.add_argument("--crop_queries", action=argparse.BooleanOptionalAction, default=True, help="crop queries (default) or take them whole")
    p.add_argument("--output", required=True, help="the store to write, data/<dataset>/delg_<desc_name>.h5")
    p.add_argument("--scales", type=float, nargs="+", default=list(SCALES), help="image scales (default the seven of DELG)")
    p.add_argument("--global_scales", type=int, nargs="*", default=list(GLOBAL_SCALES),
                   help="positions among --scales whose global descriptors are summed (default %(default)s; empty: all)")
    p.add_argument("--max_features", type=int, default=1000, help="local descriptors a picture at most (default %(default)s)")
    p.add_argument("--score_threshold", type=float, help="smallest attention of a local descriptor (default: the one of the weight file, else 0)")
    p.add_argument("--max_image_size", type=int, default=1024, help="longer pictures are shrunk to this side, pixels (default %(default)s; -1: never)")
    p.add_argument("--min_image_size", type=int, default=-1, help="shorter pictures are enlarged to this side, pixels (default never)")
    p.add_argument("--block3_strides", action=argparse.BooleanOptionalAction, default=None,
                   help="local features every 32 pixels, or with --no-block3_strides every 16 (default: as trained)")
    p.add_argument("--local_dtype", choices=LOCAL_DTYPES, default="float16", help="type of the stored descriptors (default %(default)s)")
    p.add_argument("--compression", choices=COMPRESSIONS, help="compress the local descriptors: smaller, slower to read (default: not)")
    p.add_argument("--block", type=int, default=64, help="pictures a part (default %(default)s)")
    p.add_argument("--allow_missing", action="store_true", help="exit status 0 although some pictures could not be read")
    p.add_argument("--overwrite", action="store_true", help="delete an existing store and its parts first")
    return p


def main() -> int:
    args = parser().parse_args()
    if not args.list and not args.query_list:
        raise InputError("nothing to extract; give --list or --query_list")
    if any(not 0 <= index < len(args.scales) for index in args.global_scales):
        raise InputError(f"--global_scales {args.global_scales}: positions among the {len(args.scales)} --scales count from 0")
    stored = read_settings(args.weights)
    threshold = stored.get("score_threshold", 0.0) if args.score_threshold is None else args.score_threshold
    override = {} if args.block3_strides is None else {"block3_strides": args.block3_strides}
    jobs = collect_jobs(args.list, args.query_list, args.ground_truth, args.image_dir, args.crop_queries)
    model_sha256 = sha256_of_file(args.weights)
    settings = {"model": {**stored, **override}, "model_sha256": model_sha256, "scales": args.scales, "global_scales": args.global_scales,
                "max_features": args.max_features, "score_threshold": threshold, "max_image_size": args.max_image_size,
                "min_image_size": args.min_image_size, "crop_queries": args.crop_queries}
    if args.overwrite:
        remove_store(args.output)
    layout = {"local_dtype": args.local_dtype, "compression": args.compression}
    if is_complete(args.output, [job.name for job in jobs], settings, **layout):
        print(f"{args.output}: complete, nothing to do")
        return 0
    extractor = Extractor(DelgNetwork(load_weights(args.weights, **override)), ExtractionSettings(
        tuple(args.scales), tuple(args.global_scales), args.max_features, threshold, max_image_size=args.max_image_size,
        min_image_size=args.min_image_size))
    desc_name = Path(args.output).stem.removeprefix("delg_")
    skipped = extract(jobs, extractor, args.output, settings, model_sha256, desc_name, args.block, **layout)
    print(f"wrote {args.output}: {len(jobs) - len(skipped)} pictures")
    for picture in skipped:
        print(f"skipped {picture.name}: {picture.reason}")
    if skipped and not args.allow_missing:
        raise InputError(f"{args.output}.skipped.csv: {len(skipped)} of {len(jobs)} pictures have no descriptors, first "
                         f"{skipped[0].name!r}; mend them and use --overwrite, or accept with --allow_missing")
    return 0


if __name__ == "__main__":
    run_command(main)
