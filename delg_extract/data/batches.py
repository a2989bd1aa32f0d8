"""Training images for DELG in batches, from image lists or TFRecord shards (docs/delg.md 2.3).

The images of step N follow from the seed and N alone: an epoch is one permutation of all images, a crop is drawn
from the seed and the image's place in the run. So a resumed run reads on at its step, and several workers share the
batches of one.

Deliberate differences from the reference:
- the order is a permutation of all images, not a buffer of 100 filled file by file: shards need not be mixed
beforehand;
- reading and decoding run in parallel and ahead of the network;
- grey and CMYK images become RGB (there a grey one breaks the run); PNG, GIF and BMP are read as well;
- a label that is no class is an error which names the image (there it is clamped, and one too many slips through);
- an image or record that cannot be read is an error which names it;
- validation is one pass over its images in order (there an endless shuffled stream).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from delg_extract.data.decoding import AREA, decode, random_crop, resized
from delg_extract.network.tensorflow import tf
from rrt.errors import InputError, describe_error
from rrt.files.machine import usable_cores
from rrt.formats.lists import read_image_list

_READ_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


class PictureSource(Protocol):
    """Numbered images with labels 0..num_classes-1. Numbers become addresses in NumPy, addresses become bytes in the
    graph.

    recent: for each use the images asked for lately, see ``unreadable_picture_named``. remedy: what to do about a bad
    image.
    """

    num_classes: int
    recent: dict[str, deque]
    address_types: tuple[tf.DType, ...]
    remedy: str

    def __len__(self) -> int: ...

    def training_order(self) -> np.ndarray:
        """The images of an epoch, each as often as it is shown, before they are shuffled."""

    def validation_order(self) -> np.ndarray:
        """The images of a validation pass."""

    def addresses(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Where the images stand: columns of ``address_types``."""

    def read(self, *address: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One address -> bytes of the image file, int32 label; part of a graph."""

    def read_checked(self, index: int) -> bytes:
        """The bytes of an image file; InputError or OSError that says what is wrong where ``read`` would fail."""

    def name(self, index: int) -> str:
        """The file of an image, or its shard and record."""


@dataclass(frozen=True)
class LabelledPictures:
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
        return np.repeat(np.arange(len(self)), np.where(self.is_validation, 0, self.repeats))

    def validation_order(self) -> np.ndarray:
        return np.flatnonzero(self.is_validation)

    def addresses(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.files[indices], self.labels[indices]

    @staticmethod
    def read(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(file), label

    def read_checked(self, index: int) -> bytes:
        return Path(self.files[index]).read_bytes()

    def name(self, index: int) -> str:
        return str(self.files[index])


def read_labelled_pictures(
    lists: list[str],
    image_dirs: list[str],
    repeats: list[int] | None = None,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> LabelledPictures:
    """Joins image lists whose labels are separate classes; of each class ``validation_fraction`` goes to validation.

    ``repeats``: how often an epoch shows each image of each list (default once).

    A class with one image has no validation image. Raises InputError naming list and line when an image is
    missing.
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
            if not (Path(folder) / name).is_file():
                raise InputError(
                    f"{list_path}:{line}: no image {name!r} in {folder}; give the folder the list is relative to"
                )
            files.append(str(Path(folder) / name))
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
    return LabelledPictures(np.array(files), labels.astype(np.int32), is_validation, np.array(shown), first_label)


def training_batches(
    source: PictureSource,
    batch_size: int,
    size: int,
    seed: int,
    augment: bool = True,
    area: tuple[float, float] = AREA,
    skip_steps: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Endless batches (images float32 [B, size, size, 3] normalised, labels int32 [B]) in a random order that ``seed``
    fixes.

    ``skip_steps`` batches are passed over without reading them, so that a resumed run sees what an undisturbed one
    would see. ``shard=(i, n)``: worker i of n gets the i-th of n equal parts of each batch of n * batch_size images
    that one worker alone would get.
    """
    order, (worker, workers) = source.training_order(), shard
    if not len(order):
        raise InputError(
            f"none of the {len(source)} images is for training; give more images or hold fewer out for validation"
        )

    @lru_cache(maxsize=2)
    def epoch(number: int) -> np.ndarray:
        return np.random.default_rng((seed, number)).permutation(order)

    def pictures_of_step(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = (step * workers + worker) * batch_size + np.arange(batch_size)
        return np.array([epoch(int(p) // len(order))[p % len(order)] for p in positions]), positions

    def load(position: tf.Tensor, *address: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = source.read(*address)
        if not augment:
            return resized(encoded, size), label
        return random_crop(encoded, size, tf.stack([tf.cast(seed, tf.int64), position]), area), label

    steps = tf.data.Dataset.counter(skip_steps)
    return _batches(source, "training", steps, pictures_of_step, load, batch_size, drop_remainder=True)


def validation_batches(
    source: PictureSource, batch_size: int, size: int, at_most: int | None = None
) -> tf.data.Dataset:
    """One pass over the validation images (``at_most`` of them, evenly spread), resized whole; the last batch may be
    smaller.

    Images and labels as of ``training_batches``.
    """
    chosen = source.validation_order()
    if at_most is not None and at_most < len(chosen):
        chosen = chosen[np.arange(at_most) * len(chosen) // at_most]

    def pictures_of_step(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = np.arange(step * batch_size, min((step + 1) * batch_size, len(chosen)))
        return chosen[positions], positions

    def load(_: tf.Tensor, *address: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = source.read(*address)
        return resized(encoded, size), label

    steps = tf.data.Dataset.range(-(-len(chosen) // batch_size))
    return _batches(source, "validation", steps, pictures_of_step, load, batch_size, drop_remainder=False)


def _batches(
    source: PictureSource,
    use: str,
    steps: tf.data.Dataset,
    pictures_of_step: Callable,
    load: Callable,
    batch_size: int,
    drop_remainder: bool,
) -> tf.data.Dataset:
    """Batches of ``load(position, *address)`` of the images of all steps, computed side by side and ahead, in order.

    ``pictures_of_step(step)``: numbers and positions in the run of a step's images.
    """
    # More than are ever on their way at once: batches in the buffers, and images being read and waiting for their
    # turn.
    recent = source.recent[use] = deque(maxlen=24 + 4 * usable_cores() // batch_size)

    def rows(step):
        indices, positions = pictures_of_step(int(step))
        recent.append(indices)
        return (positions.astype(np.int64), *source.addresses(indices))

    def columns(step):
        found = tf.numpy_function(rows, [step], (tf.int64, *source.address_types))
        return tuple(tf.ensure_shape(column, (None,)) for column in found)

    # Addresses ahead keep the readers busy while the Python that makes them waits for the interpreter's lock.
    data = steps.map(columns).prefetch(2).unbatch()
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    # Workers share by rows of a batch, see ``shard``; TensorFlow would share by files.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.batch(batch_size, drop_remainder=drop_remainder).prefetch(2).with_options(options)


@contextmanager
def unreadable_picture_named(*sources: PictureSource):
    """Turns TensorFlow's error for an image that cannot be read, which does not say which, into an InputError that
    does."""
    try:
        yield
    except _READ_ERRORS:
        for source in sources:
            recent = [index for batches in source.recent.values() for indices in list(batches) for index in indices]
            with ThreadPoolExecutor(usable_cores()) as pool:
                for fault in pool.map(partial(_fault, source), recent):
                    if fault:
                        raise InputError(fault) from None
        raise


def _fault(source: PictureSource, index: int) -> str | None:
    """What is wrong with an image, in one line."""
    try:
        decode(source.read_checked(index))
    except (InputError, OSError) as error:
        return describe_error(error)
    except tf.errors.InvalidArgumentError:
        return f"{source.name(index)}: cannot be decoded as an image; {source.remedy}"
    return None
