"""Makes the TFRecord files that training reads from the images and CSV files of Google Landmarks v2, or of any other
data set.

    python delg_extract/build_image_dataset.py --train_clean_csv_path gldv2_dataset/train/train_clean.csv \\
        --generate_train_validation_splits
    python delg_extract/build_image_dataset.py --train_directory mine --train_csv_path mine.csv --output_directory
    mine_tfrecord

With train_clean.csv (landmark_id,images): its images, labels 0 to C-1 by ascending landmark_id, and relabeling.csv,
which says what they stand for. Without: every image of the folder that train.csv (id,landmark_id; more columns do no
harm) names, sorted by id, labelled with its landmark_id as it is. An id is the name of a .jpg file without folder and
ending. A test folder gives records without labels, in the order of --test_csv_path or, without it, sorted by id. JPEG
files are decoded to see that they are whole, and stored as they are.

--generate_train_validation_splits gives max(1, int(validation_split_size * n)) images of each landmark of n images to
validation; a landmark of one image has none left for training. The split is made over all images of train_clean.csv
(without it: all labelled files on disk): a missing or broken image is left out at its position and moves no other one,
so that a later run with more of the images of train_clean.csv has the same validation part.

What is missing or broken is listed in missing.csv (id,reason; of the test part in missing_test.csv). Then the exit
status is 1 unless --allow_missing is given: missing files are told before anything is written, broken ones at the end,
when the rest is made.

A killed run is continued by the same command: finished shards are kept. So are they in a run after a repair, which
makes only those again that lacked an image. build/ below the output folder remembers the settings, and other ones are
refused.
"""

import argparse
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from delg_extract.data.dataset_plan import (
    DatasetImages,
    Shard,
    deal_shards,
    read_test_images,
    read_train_images,
    stratified_split,
)
from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError
from rrt.files.atomic import guard_settings, write_csv
from rrt.files.locks import owned
from rrt.files.machine import usable_cores

# File names have five digits.
_MOST_SHARDS = 99999
_SHOWN = 3


class Part(NamedTuple):
    """What a run makes of a folder of images. shards: {train, validation or test: its shards}, in the order they are
    written. settings: all that shapes them. landmarks: what the new labels stand for. unlabelled: ids of files that the
    CSV file lacks."""

    images: DatasetImages
    shards: dict[str, list[Shard]]
    settings: dict
    landmarks: np.ndarray | None = None
    unlabelled: tuple[str, ...] = ()


def plan_train(args: argparse.Namespace) -> Part:
    """The train and validation shards of the command line."""
    images, landmarks, unlabelled = read_train_images(
        args.train_directory, args.train_csv_path, args.train_clean_csv_path
    )
    assert images.labels is not None
    rows = {"train": np.arange(len(images.ids))}
    settings = {
        "directory": os.path.abspath(args.train_directory),
        "pictures": images.fingerprint(),
        "num_shards": args.num_shards,
        "relabelled": landmarks is not None,
        "generate_train_validation_splits": args.generate_train_validation_splits,
    }
    if args.generate_train_validation_splits:
        settings |= {"validation_split_size": args.validation_split_size, "seed": args.seed}
        train, validation = stratified_split(images.labels, args.validation_split_size, args.seed)
        rows = {"validation": validation, "train": train}
    shards = {name: deal_shards(name, chosen, args.num_shards) for name, chosen in rows.items()}
    return Part(images, shards, settings, landmarks, tuple(unlabelled))


def plan_test(args: argparse.Namespace) -> Part:
    """The test shards of the command line."""
    images = read_test_images(args.test_directory, args.test_csv_path)
    settings = {
        "directory": os.path.abspath(args.test_directory),
        "pictures": images.fingerprint(),
        "num_shards": args.num_shards,
    }
    return Part(images, {"test": deal_shards("test", np.arange(len(images.ids)), args.num_shards)}, settings)


class Build:
    """Makes one part in the folder ``output``."""

    def __init__(self, part: Part, output: Path, num_workers: int):
        self.part, self.output, self.num_workers = part, output, num_workers
        is_test = "test" in part.shards
        self.missing_csv = output / ("missing_test.csv" if is_test else "missing.csv")
        self._settings_file = output / "build" / ("test.json" if is_test else "train.json")
        self._shard_name = re.compile(
            ("test" if is_test else "(train|validation)") + r"-\d{5}-of-\d{5}(\.[0-9a-f]{8}\.tmp)?"
        )

    def list_missing(self) -> list[tuple[str, str]]:
        """(id, reason) of what is known to be missing before an image is opened, written to ``missing_csv`` as well."""
        return self._list([(image, "not found") for image in self.part.images.missing()])

    def run(self) -> list[tuple[str, str]]:
        """Writes the shards that are not there yet -> (id, reason) of every image in no shard, written to
        ``missing_csv``."""
        self._guard()
        landmarks = self.part.landmarks
        if landmarks is not None:
            rows = [("new_label", "old_label"), *enumerate(landmarks.tolist())]
            write_csv(self.output / "relabeling.csv", rows)
        from delg_extract.data.shards import ShardWriter

        writer, left_out = ShardWriter(self.part.images, self.output, self.output / "build"), []
        for name, shards in self.part.shards.items():
            todo = writer.unfinished(shards)
            writer.write_all(todo, self.num_workers, name)
            without = [pair for shard in shards for pair in writer.left_out(shard)]
            left_out += without
            print(
                f"{name}: {sum(len(shard.rows) for shard in shards) - len(without)} images in {len(shards)} shards"
                + f", {len(shards) - len(todo)} of them were there" * (len(todo) < len(shards))
            )
        if self.part.images.labels is not None:
            print(
                f"labels up to {self.part.images.labels.max()}"
                + ", their landmarks in relabeling.csv" * (landmarks is not None)
            )
        return self._list(left_out)

    def _guard(self) -> None:
        present = [path for path in self.output.glob("*") if self._shard_name.fullmatch(path.name)]
        for path in present:
            if path.suffix == ".tmp":  # what a killed run was writing
                path.unlink(missing_ok=True)
        shards = sorted(path.name for path in present if path.suffix != ".tmp")
        if shards and not self._settings_file.is_file():
            raise InputError(
                f"{self.output / shards[0]}: a shard that this program did not make; choose another --output_directory"
            )
        if not shards:  # settings of which nothing came bind nobody
            self._settings_file.unlink(missing_ok=True)
        guard_settings(self._settings_file, self.part.settings)

    def _list(self, left_out):
        left_out = [(image, "no label in the CSV file") for image in self.part.unlabelled] + left_out
        if left_out:
            write_csv(self.missing_csv, [("id", "reason"), *left_out], "surrogateescape")
        else:
            self.missing_csv.unlink(missing_ok=True)
        return left_out


def _check_left_out(builds: list[Build], left_out: list[list[tuple[str, str]]], rest: str, allow_missing: bool) -> None:
    """InputError that counts what is left out and names the first, unless that is allowed."""
    lacking = [(build, pairs) for build, pairs in zip(builds, left_out) if pairs]
    for build, pairs in lacking:
        print(f"{build.missing_csv}: {len(pairs)} images left out")
    if lacking and not allow_missing:
        pairs = [pair for _, pairs in lacking for pair in pairs]
        named = ", ".join(f"{image!r}: {reason}" for image, reason in pairs[:_SHOWN]) + ", …" * (len(pairs) > _SHOWN)
        count = sum(len(build.part.images.ids) + len(build.part.unlabelled) for build in builds)
        raise InputError(
            f"{lacking[0][0].missing_csv}: {len(pairs)} of {count} images are missing or broken ({named}); {rest}; "
            "fetch them and run again, or give --allow_missing"
        )


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    p.add_argument(
        "--train_directory",
        default="gldv2_dataset/train",
        help="folder of the training images, searched with all folders below, or a pattern of folders in quotes, "
        "as 'gldv2_dataset/train/*/*/*/'; '' builds no training part (default %(default)s)",
    )
    p.add_argument("--test_directory", help="likewise of the test images (default: no test part)")
    p.add_argument(
        "--output_directory", default="gldv2_dataset/tfrecord", help="folder for the shards (default %(default)s)"
    )
    p.add_argument(
        "--train_csv_path",
        default="gldv2_dataset/train/train.csv",
        help="CSV file with id and landmark_id; not read with --train_clean_csv_path (default %(default)s)",
    )
    p.add_argument(
        "--train_clean_csv_path",
        help="CSV file with landmark_id and images (ids with spaces between); one with id and "
        "landmark_id does as well (default: none, nothing is relabelled)",
    )
    p.add_argument("--test_csv_path", help="CSV file with id (default: every image of --test_directory)")
    p.add_argument(
        "--num_shards", type=int, default=128, help="files of each of train, validation and test (default %(default)s)"
    )
    p.add_argument(
        "--generate_train_validation_splits",
        action="store_true",
        help="put a part of the training images aside for validation",
    )
    p.add_argument(
        "--validation_split_size", type=float, default=0.2, help="that part, above 0 and below 1 (default %(default)s)"
    )
    p.add_argument("--seed", type=int, default=0, help="of the split (default %(default)s)")
    p.add_argument(
        "--num_workers",
        type=int,
        default=usable_cores(),
        help="shards made side by side (default: one a core, %(default)s)",
    )
    p.add_argument("--allow_missing", action="store_true", help="exit status 0 although images are missing or broken")
    return p


def check(args: argparse.Namespace) -> None:
    """Raises InputError for a flag out of range."""
    for name, low, high in (("num_shards", 1, _MOST_SHARDS), ("num_workers", 1, 1024), ("seed", 0, 2**63 - 1)):
        if not low <= getattr(args, name) <= high:
            raise InputError(f"--{name} {getattr(args, name)}: give a whole number from {low} to {high}")
    if not 0 < args.validation_split_size < 1:
        raise InputError(f"--validation_split_size {args.validation_split_size}: give a number above 0 and below 1")
    if not args.train_directory and not args.test_directory:
        raise InputError("--train_directory and --test_directory are both empty; name a folder of images")


def main() -> int:
    """The command."""
    args = parser().parse_args()
    check(args)
    parts = [
        plan(args)
        for directory, plan in ((args.train_directory, plan_train), (args.test_directory, plan_test))
        if directory
    ]
    with owned(args.output_directory, "building this data set"):
        builds = [Build(part, Path(args.output_directory), args.num_workers) for part in parts]
        if not args.allow_missing:
            _check_left_out(builds, [build.list_missing() for build in builds], "nothing is made", False)
        _check_left_out(builds, [build.run() for build in builds], "the rest is made", args.allow_missing)
    return 0


if __name__ == "__main__":
    run_command(main)
