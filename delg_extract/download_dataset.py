"""Fetches the Google Landmarks Dataset v2: its CSV files and as many of its tar files as are asked for, unpacked.

    python delg_extract/download_dataset.py 500 100 20
    python delg_extract/download_dataset.py 2 0 0 --splits train --output_dir /disk/gldv2_dataset

The numbers: how many tar files of the splits train (there are 500, 1 GB each), index (100 of 850 MB) and test (20 of
500 MB), taken from the first on; 0: the split's CSV files alone. Makes, for the next commands,

    gldv2_dataset/train/    a/b/c/<id>.jpg   train.csv, train_clean.csv, train_attribution.csv,
    train_label_to_category.csv gldv2_dataset/index/    a/b/c/<id>.jpg   index.csv, index_image_to_landmark.csv,
    index_label_to_category.csv gldv2_dataset/test/     a/b/c/<id>.jpg   test.csv, recognition_solution_v2.1.csv,
    retrieval_solution_v2.1.csv

Every tar file is compared with its published MD5 sum, unpacked, and deleted unless --keep_tars: all of them are 600 GB,
and the images are as much again. What a tar file was and how many images it had stays in images_000.tar.json; while
that is there, the tar file is not fetched again (delete it to have the tar file fetched and unpacked anew).

Whatever stops this command, the same command goes on where it was, in the middle of a file too. A file that cannot be
had does not keep the others away; the last line names all that are missing, and the exit status is 1.

A mirror has <base_url>/metadata/*.csv, <base_url>/ground_truth/*_solution_v2.1.csv, <base_url>/<split>/images_000.tar
and <base_url>/md5sum/<split>/md5.images_000.txt. The default address and the folders are those in the README of the
data set (github.com/cvdfoundation/google-landmark); the addresses themselves have not been tried. The remedy for a CSV
file that has moved is to put it into its folder by hand; a tar file put there is used as well when its MD5 sum is
right.
"""

import argparse
import os
import re
import shutil
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError
from rrt.files.archives import ArchiveError, unpack_tar
from rrt.files.atomic import read_json, write_json
from rrt.files.downloads import download
from rrt.files.locks import locked
from rrt.files.mirrors import check_address, fetch_each, file_address
from rrt.progress import bar, report_progress

BASE_URL = "https://s3.amazonaws.com/google-landmark"


class Split(NamedTuple):
    """What is published of a split. tars: how many; tar_gb: gigabytes of one; tables: {CSV file: (folder, columns)}."""

    tars: int
    tar_gb: float
    tables: dict


# docs/delg.md 3.1.
SPLITS = {
    "train": Split(
        500,
        1.0,
        {
            "train.csv": ("metadata", {"id", "url", "landmark_id"}),
            "train_clean.csv": ("metadata", {"landmark_id", "images"}),
            "train_attribution.csv": ("metadata", {"id", "author", "license"}),
            "train_label_to_category.csv": ("metadata", {"landmark_id", "category"}),
        },
    ),
    "index": Split(
        100,
        0.85,
        {
            "index.csv": ("metadata", {"id"}),
            "index_image_to_landmark.csv": ("metadata", {"id", "landmark_id"}),
            "index_label_to_category.csv": ("metadata", {"landmark_id", "category"}),
        },
    ),
    "test": Split(
        20,
        0.5,
        {
            "test.csv": ("metadata", {"id"}),
            "recognition_solution_v2.1.csv": ("ground_truth", {"id", "landmarks", "Usage"}),
            "retrieval_solution_v2.1.csv": ("ground_truth", {"id", "images", "Usage"}),
        },
    ),
}
_IMAGE = re.compile(r"([0-9a-f])/([0-9a-f])/([0-9a-f])/\1\2\3[0-9a-f]{13}\.jpg")


def fetch_table(split, name, folder, base_url=BASE_URL, retries=4, on_bytes=None):
    """Make folder/name of a CSV file of SPLITS[split]; one that is there is kept. Raises InputError, also when a column
    lacks."""
    path, (remote, columns) = Path(folder) / name, SPLITS[split].tables[name]
    was_there, url = path.exists(), file_address(base_url, remote, name)
    download(url, path, retries=retries, shown=False, on_bytes=on_bytes)
    with open(path, "rb") as file:
        header = file.readline(10_000).decode("utf-8-sig", errors="replace").strip()
    lacking = sorted(columns - {column.strip(' "') for column in header.split(",")})
    if lacking:
        reason = f"no column {lacking[0]!r} in its first line {header[:80]!r}"
        if was_there:
            raise InputError(f"{path}: {reason}; delete it and run again")
        path.unlink()
        raise InputError(f"{url}: {reason}; name a mirror with --base_url")


def fetch_tar(split, number, folder, base_url=BASE_URL, keep_tar=False, retries=4, on_bytes=None):
    """Unpack tar file `number` of a split into `folder` -> its record {url, size in bytes, md5, images}, kept in
    <tar>.json.

    A tar file that has a record is neither fetched nor unpacked. Only regular files a/b/c/<id>.jpg are taken out of it.
    on_bytes: as in rrt.files.downloads. Raises InputError.
    """
    tar = Path(folder) / tar_name(number)
    note = note_of(tar)
    record = read_record(note)
    if record is None:
        url, md5 = file_address(base_url, split, tar.name), _published_md5(split, number, folder, base_url, retries)
        download(url, tar, md5=md5, retries=retries, shown=False, on_bytes=on_bytes)
        try:
            images = unpack_tar(tar, folder, wanted=_IMAGE.fullmatch, merge=True, links=False, shown=False)
        except ArchiveError:
            # The right MD5 sum, and yet of no use: another mirror must be asked.
            tar.unlink()
            raise
        record = {"url": url, "size": os.path.getsize(tar), "md5": md5, "pictures": images}
        # After the images and before the tar file goes: whenever this is killed, one of the two is there.
        write_json(note, record)
    if not keep_tar:
        tar.unlink(missing_ok=True)
    return record


def tar_name(number):
    """File name of a split's tar file, counted from 0."""
    return f"images_{number:03d}.tar"


def note_of(tar):
    """Where the record of an unpacked tar file is kept."""
    return tar.with_name(f"{tar.name}.json")


def read_record(note):
    """The record of an unpacked tar file, or None when it has none. Raises InputError when it is damaged."""
    record = read_json(note)
    if record is not None and not (isinstance(record, dict) and isinstance(record.get("pictures"), int)):
        raise InputError(f"{note}: no record of an unpacked tar file; delete it and run again")
    return record


def _published_md5(split, number, folder, base_url, retries):
    name = f"md5.{Path(tar_name(number)).stem}.txt"
    url, path = file_address(base_url, "md5sum", split, name), Path(folder) / name
    download(url, path, retries=retries, shown=False)
    text = path.read_bytes()[:1000].decode("ascii", errors="replace")
    path.unlink()
    md5 = (text.split() or [""])[0]
    if not re.fullmatch("[0-9a-fA-F]{32}", md5):
        raise InputError(f"{url}: no MD5 sum, it begins with {text[:40]!r}; name a mirror with --base_url")
    return md5.lower()


class _Progress:
    """One bar over all tar files, those on their way in fractions, with what came in this run and how fast."""

    def __init__(self, total, initial):
        self.bar = bar(
            what="tar files",
            total=total,
            initial=initial,
            smoothing=0,
            miniters=0,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.1f}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )
        self.lock, self.shares, self.there, self.bytes, self.start = threading.Lock(), {}, initial, 0, time.monotonic()

    def came(self, name, count, whole):
        """count more bytes of a file have come; whole: bytes of all of it, or None."""
        self._set(name, self.shares.get(name, 0) + count / whole if whole else 0, count)

    def done(self, name):
        """A tar file is unpacked."""
        self._set(name, 1, 0)

    def _set(self, name, share, count):
        with self.lock:
            self.bytes += count
            rate = self.bytes / max(time.monotonic() - self.start, 1e-3)
            self.bar.set_postfix_str(
                f"{self.bar.format_sizeof(self.bytes, 'B')}, {self.bar.format_sizeof(rate, 'B/s')}", refresh=False
            )
            if name.endswith(".tar"):
                self.shares[name] = min(1, share)
                self.bar.n = self.there + sum(self.shares.values())
            self.bar.update(0)


def download_dataset(counts, output_dir, base_url=BASE_URL, keep_tars=False, parallel=6, retries=6):
    """Fetch the CSV files and the first counts[split] tar files of every split named -> {split: images out of these
    tar files}.

    Raises InputError that names all that is missing, when everything else is there.
    """
    output_dir = Path(output_dir)
    folders = {split: output_dir / split for split in counts}
    jobs = {f"{split}/{name}": (split, name) for split in counts for name in SPLITS[split].tables}
    jobs |= {
        f"{split}/{tar_name(number)}": (split, number) for split, count in counts.items() for number in range(count)
    }
    check_address(base_url)
    images = {}
    with ExitStack() as stack:
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            # Two processes that unpack one tar file would take each other's images away.
            stack.enter_context(locked(folder / ".lock", "downloading"))
        absent = {
            split: [number for number in range(count) if not note_of(folders[split] / tar_name(number)).exists()]
            for split, count in counts.items()
        }
        _warn_of_space(output_dir, absent, keep_tars, parallel)
        progress = _Progress(sum(counts.values()), sum(counts.values()) - sum(map(len, absent.values())))

        def fetch(name):
            split, what = jobs[name]

            def on_bytes(count, whole):
                progress.came(name, count, whole)

            if isinstance(what, str):
                fetch_table(split, what, folders[split], base_url, retries, on_bytes)
                return
            record = fetch_tar(split, what, folders[split], base_url, keep_tars, retries, on_bytes)
            images[name] = record["pictures"]
            if what in absent[split]:
                progress.done(name)
                report_progress(f"{name}: unpacked {record['pictures']} images")

        with progress.bar:
            fetch_each(list(jobs), fetch, "files", parallel)
    return {split: sum(found for name, found in images.items() if jobs[name][0] == split) for split in counts}


def _warn_of_space(output_dir, absent, keep_tars, parallel):
    """A line when the disk will be full, hours before it is. The sizes are those of the published tar files."""
    sizes = [SPLITS[split].tar_gb for split, numbers in absent.items() for _ in numbers]
    needed = sum(sizes) + sum(sizes if keep_tars else sorted(sizes)[-parallel:])
    free = shutil.disk_usage(output_dir).free / 1e9
    if needed > free:
        print(
            f"warning: the disk of {output_dir} has {free:.0f} GB free; the {len(sizes)} tar files still to come need "
            f"about {needed:.0f} GB with their images (files of the published size)"
        )


def parser():
    """The options of the command."""
    p = CommandParser(__doc__)
    for split, facts in SPLITS.items():
        p.add_argument(
            split, metavar=split.upper(), help=f"number of tar files of the split {split}, 0 to {facts.tars}"
        )
    p.add_argument(
        "--splits",
        nargs="+",
        default=list(SPLITS),
        metavar="SPLIT",
        help="splits whose CSV files are fetched; the others must have the number 0 (default train index test)",
    )
    p.add_argument("--output_dir", default="gldv2_dataset", help="folder for the splits' folders (default %(default)s)")
    p.add_argument(
        "--base_url", default=BASE_URL, help="address of the data set or a mirror, http or https (default %(default)s)"
    )
    p.add_argument(
        "--keep_tars",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep the tar files when they are unpacked, which takes twice the room (default: delete them)",
    )
    p.add_argument(
        "--parallel", default="6", metavar="N", help="files fetched and unpacked at a time (default %(default)s)"
    )
    p.add_argument(
        "--retries",
        default="6",
        metavar="N",
        help="further attempts after one that brought nothing, 1, 2, 4, ... seconds later (default %(default)s)",
    )
    return p


def _whole_number(name, text, low, high):
    if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
        raise InputError(f"{name} is {text!r}; give a whole number from {low} to {high}")
    return int(text)


def main():
    """The command."""
    args = parser().parse_args()
    unknown = [split for split in args.splits if split not in SPLITS]
    if unknown:
        raise InputError(f"--splits: {unknown[0]!r} is no split; expected {', '.join(SPLITS)}")
    counts = {
        split: _whole_number(split.upper(), getattr(args, split), 0, facts.tars) for split, facts in SPLITS.items()
    }
    excluded = [split for split, count in counts.items() if count and split not in args.splits]
    if excluded:
        split = excluded[0]
        raise InputError(
            f"{split.upper()} is {counts[split]}, but --splits leaves {split} out; name it there or give 0"
        )
    counts = {split: count for split, count in counts.items() if split in args.splits}
    parallel, retries = (
        _whole_number("--parallel", args.parallel, 1, 64),
        _whole_number("--retries", args.retries, 0, 12),
    )
    images = download_dataset(counts, args.output_dir, args.base_url, args.keep_tars, parallel, retries)
    for split, count in images.items():
        print(f"{Path(args.output_dir) / split}: CSV files and {counts[split]} tar files with {count} images are there")
    return 0


if __name__ == "__main__":
    run_command(main)
