"""Training images from image lists; from TFRecord shards: records.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from delg_extract.network.tensorflow import tf
from rrt.errors import InputError
from rrt.files.names import existing
from rrt.formats.lists import read_image_list


@dataclass(frozen=True)
class LabelledImages:
    """Files and class numbers 0..num_classes-1, whether each belongs to the validation part, and how often an epoch
    shows it."""

    files: np.ndarray
    labels: np.ndarray
    is_validation: np.ndarray
    repeats: np.ndarray
    num_classes: int
    recent: dict = field(default_factory=dict, compare=False, repr=False)

    address_types: ClassVar = (tf.string, tf.int32)
    remedy: ClassVar[str] = "replace it or take it out of the list, then run again"

    def __len__(self) -> int:
        return len(self.files)

    def training_order(self) -> np.ndarray:
        """As ``ImageSource``: each image of the training part, as often as its list says."""
        return np.repeat(np.arange(len(self)), np.where(self.is_validation, 0, self.repeats))

    def validation_order(self) -> np.ndarray:
        """As ``ImageSource``."""
        return np.flatnonzero(self.is_validation)

    def addresses(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``ImageSource``: file and label."""
        return self.files[indices], self.labels[indices]

    @staticmethod
    def read(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As ``ImageSource``."""
        return tf.io.read_file(file), label

    def read_checked(self, index: int) -> bytes:
        """As ``ImageSource``. Raises OSError."""
        return Path(self.files[index]).read_bytes()

    def name(self, index: int) -> str:
        """As ``ImageSource``: the file."""
        return str(self.files[index])


def read_labelled_images(
    lists: list[str],
    image_dirs: list[str],
    repeats: list[int] | None = None,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> LabelledImages:
    """Joins image lists whose labels are separate classes; of each class ``validation_fraction`` goes to validation.

    ``repeats``: how often an epoch shows each image of each list (default once).

    A class with one image has no validation image. Raises InputError naming list and line when an image is missing.
    """
    repeats = repeats or [1] * len(lists)
    for flag, values in (("--image_dir", image_dirs), ("--repeat", repeats)):
        if len(values) != len(lists):
            raise InputError(
                f"--train_list is given {len(lists)} times and {flag} {len(values)} times; give one for each list"
            )
    files, labels, shown, first_label = [], [], [], 0
    for list_path, folder, times in zip(lists, image_dirs, repeats):
        images = read_image_list(list_path)
        for line, name in enumerate(images.names, 1):
            file = existing(Path(folder) / name)
            if not file.is_file():
                raise InputError(
                    f"{list_path}:{line}: no image {name!r} in {folder}; give the folder the list is relative to"
                )
            files.append(str(file))
        classes, numbers = np.unique(images.labels, return_inverse=True)
        labels.append(numbers + first_label)
        shown += [times] * len(images)
        first_label += len(classes)
    labels = np.concatenate(labels)
    rng = np.random.default_rng(seed)
    is_validation = np.zeros(len(labels), bool)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        members = rng.permutation(members)
        is_validation[members[: int(np.ceil(validation_fraction * len(members))) if len(members) > 1 else 0]] = True
    return LabelledImages(np.array(files), labels.astype(np.int32), is_validation, np.array(shown), first_label)
