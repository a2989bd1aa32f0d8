"""Which images become which records: found on disk, labelled by the CSV files, split, and dealt out to shards
(docs/delg.md 3.3).

Everything here is fixed by the CSV files, the seed and the flags (without a CSV file of what there should be: also by
the names of the files on disk). An image that is missing or broken changes none of it: it keeps its position in the
split and in its shard, and is only not written. So no download that is cut short moves an image between train and
validation.
"""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rrt.errors import InputError
from rrt.formats.gldv2 import read_index_csv, read_train_csv
from rrt.progress import bar

SUFFIX = ".jpg"


@dataclass(frozen=True)
class DatasetImages:
    """N images: ``ids``, the folder each lies in (None: no such image), and ``labels`` int64 [N] (None: the test
    part)."""

    ids: list[str]
    folders: list[str | None]
    labels: np.ndarray | None = None

    def file(self, row: int) -> str | None:
        """Path of an image, or None when it is not there."""
        folder = self.folders[row]
        return None if folder is None else os.path.join(folder, self.ids[row] + SUFFIX)

    def missing(self) -> list[str]:
        """The ids that have no image, in order."""
        return [image for image, folder in zip(self.ids, self.folders) if folder is None]

    def fingerprint(self) -> str:
        """Number of images and SHA-256 over their ids and labels: what a restart compares."""
        digest = hashlib.sha256()
        for image, label in zip(self.ids, [""] * len(self.ids) if self.labels is None else self.labels.tolist()):
            digest.update(f"{image},{label}\n".encode(errors="surrogateescape"))
        return f"{len(self.ids)} images, sha256 {digest.hexdigest()}"


class Shard(NamedTuple):
    """A TFRecord file and the images in it: rows of ``DatasetImages`` in the order of the records."""

    name: str
    rows: np.ndarray


def find_images(directory: str, wanted=None, flag: str = "train_directory") -> dict[str, str]:
    """{id: folder} of the .jpg files of a folder and all folders below, only of the ids in ``wanted`` when given.

    ``directory`` is a folder, or a pattern of folders as in the reference's instructions (``train/*/*/*/``), or the
    beginning of the files' paths (``photos/IMG_``). Raises InputError when there are none, or two of one id.
    """
    found, empty = {}, True
    shown = bar(what=f"images of {directory}", unit="file")
    for folder, names in _listings(directory):
        shown.update(len(names))
        for name in names:
            if not name.endswith(SUFFIX):
                continue
            empty = False
            image = name[: -len(SUFFIX)]
            if wanted is not None and image not in wanted:
                continue
            if found.setdefault(image, folder) is not folder:
                shown.close()
                raise InputError(
                    f"{os.path.join(folder, name)}: {found[image]} has an image of this name as well; keep one"
                )
    shown.close()
    if empty:
        raise InputError(
            f"{directory}: no {SUFFIX} files there; give --{flag} the folder that holds them, or a pattern of folders "
            "in quotes"
        )
    return found


def _listings(directory: str):
    """(folder, names of its files) of all folders that ``directory`` stands for."""

    def stop(error):
        raise error

    roots = (
        [directory]
        if os.path.isdir(directory)
        else sorted(path for path in glob.glob(directory) if os.path.isdir(path))
    )
    for root in roots:
        for folder, _, names in os.walk(root, onerror=stop, followlinks=True):
            yield folder, names
    if not roots:
        by_folder = {}
        for path in glob.glob(directory + "*" + SUFFIX):
            folder, name = os.path.split(path)
            by_folder.setdefault(folder, []).append(name)
        yield from by_folder.items()


def read_train_images(
    directory: str, train_csv: str, clean_csv: str | None
) -> tuple[DatasetImages, np.ndarray | None, list[str]]:
    """The training images -> (images, landmarks int64 [C] or None, ids of files without a label).

    With ``clean_csv``: its images in its order, whether they are on disk or not; label c stands for ``landmarks[c]``,
    ascending. Without: the images on disk sorted by id, their labels as in ``train_csv``; files it does not name are
    left out (the third).
    """
    if clean_csv:
        ids, old_labels = read_train_csv(clean_csv, any_ids=True)
        found = find_images(directory, set(ids))
        if not found:
            raise _not_there(directory, ids, clean_csv)
        landmarks, labels = np.unique(old_labels, return_inverse=True)
        return DatasetImages(ids, [found.get(image) for image in ids], labels.astype(np.int64)), landmarks, []
    found = find_images(directory)
    ids, labels = read_train_csv(train_csv, any_ids=True)
    row_of = {image: row for row, image in enumerate(ids) if image in found}
    if not row_of:
        raise InputError(
            f"{train_csv}: names none of the {len(found)} images of {directory}; is it the CSV file of this folder?"
        )
    chosen = sorted(row_of)
    return (
        DatasetImages(chosen, [found[image] for image in chosen], labels[[row_of[image] for image in chosen]]),
        None,
        sorted(found.keys() - row_of.keys()),
    )


def read_test_images(directory: str, test_csv: str | None) -> DatasetImages:
    """The test images: those of ``test_csv`` in its order, or without it all on disk, sorted by id."""
    if not test_csv:
        found = find_images(directory, flag="test_directory")
        ids = sorted(found)
    else:
        ids = read_index_csv(test_csv, any_ids=True)
        found = find_images(directory, set(ids), "test_directory")
        if not found:
            raise _not_there(directory, ids, test_csv)
    return DatasetImages(ids, [found.get(image) for image in ids])


def _not_there(directory, ids, csv_file):
    return InputError(
        f"{directory}: none of the {len(ids)} images of {csv_file} lies there; is it the folder of this CSV file?"
    )


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, validation): rows of both parts in the order of their records, for labels [N] (docs/delg.md 3.3).

    Of each class of n images max(1, int(fraction * n)) go to validation, so that a class of one image has none for
    training.
    """
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    by_class = np.argsort(labels, kind="stable")
    members_of = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    train, validation = [], []
    # The generator is used up class by class, in the order in which the classes first appear.
    for members in sorted(members_of, key=lambda members: members[0]):
        generator.shuffle(members)
        held_out = max(1, int(fraction * len(members)))
        validation.append(members[:held_out])
        train.append(members[held_out:])
    train, validation = np.concatenate(train), np.concatenate(validation)
    generator.shuffle(validation)
    generator.shuffle(train)
    return train, validation


def deal_shards(part: str, rows: np.ndarray, num_shards: int) -> list[Shard]:
    """``num_shards`` shards ``<part>-00000-of-00128`` of nearly equal size, in the order of ``rows``."""
    bounds = np.linspace(0, len(rows), num_shards + 1).astype(np.int64)
    return [
        Shard(f"{part}-{i:05d}-of-{num_shards:05d}", rows[begin:end])
        for i, (begin, end) in enumerate(zip(bounds, bounds[1:]))
    ]
