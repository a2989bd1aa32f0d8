"""Training pictures for DELG from image lists: reading, decoding, augmentation, batches (DELG_SPEC 2.3)."""
from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delg_extract.model import normalize_pixels
from delg_extract.quiet_tensorflow import tf
from rrt.errors import InputError
from rrt.lists import read_image_list


@dataclass(frozen=True)
class LabelledPictures:
    """Files and class numbers 0..num_classes-1, whether each belongs to the validation part, and how often an epoch shows it."""

    files: np.ndarray
    labels: np.ndarray
    is_validation: np.ndarray
    repeats: np.ndarray
    num_classes: int


def read_labelled_pictures(lists: list[str], image_dirs: list[str], repeats: list[int] | None = None,
                           validation_fraction: float = 0.05, seed: int = 0) -> LabelledPictures:
    """Joins image lists whose labels are separate classes; of each class ``validation_fraction`` goes to validation.

    ``repeats``: how often an epoch shows each picture of each list (default once).

    A class with one picture has no validation picture. Raises InputError naming list and line when a picture is missing.
    """
    repeats = repeats or [1] * len(lists)
    for flag, values in (("--image_dir", image_dirs), ("--repeat", repeats)):
        if len(values) != len(lists):
            raise InputError(f"--train_list is given {len(lists)} times and {flag} {len(values)} times; give one for each list")
    files, labels, shown, first_label = [], [], [], 0
    for list_path, folder, times in zip(lists, image_dirs, repeats):
        images = read_image_list(list_path)
        for line, name in enumerate(images.names, 1):
            if not (Path(folder) / name).is_file():
                raise InputError(f"{list_path}:{line}: no picture {name!r} in {folder}; give the folder the list is relative to")
            files.append(str(Path(folder) / name))
        classes, numbers = np.unique(images.labels, return_inverse=True)
        labels.append(numbers + first_label)
        shown += [times] * len(images)
        first_label += len(classes)
    labels = np.concatenate(labels)
    rng = np.random.default_rng(seed)
    is_validation = np.zeros(len(labels), bool)
    for label in range(first_label):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_validation[members[:int(np.ceil(validation_fraction * len(members))) if len(members) > 1 else 0]] = True
    return LabelledPictures(np.array(files), labels.astype(np.int32), is_validation, np.array(shown), first_label)


def decode(file: tf.Tensor) -> tf.Tensor:
    """A picture file -> uint8 [H, W, 3]; grey and CMYK pictures become RGB."""
    return tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)


@contextmanager
def unreadable_picture_named(pictures: LabelledPictures):
    """Turns TensorFlow's error for a picture that cannot be decoded, which does not say which, into an InputError that does."""
    try:
        yield
    except tf.errors.InvalidArgumentError:
        for file in pictures.files:
            try:
                decode(file)
            except tf.errors.InvalidArgumentError:
                raise InputError(f"{file}: cannot be decoded as a picture; replace it or take it out of the list, then run again") from None
        raise


def distort(image: tf.Tensor, size: int, seed: tf.Tensor, area: tuple[float, float] = (0.08, 1.0)) -> tf.Tensor:
    """A random crop (share ``area`` of the picture, aspect 3/4..4/3) resized to size x size by area; float32 0..255."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image), bounding_boxes=tf.zeros((1, 0, 4)), seed=seed, min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3), area_range=area, max_attempts=100, use_image_if_no_bounding_boxes=True)
    return tf.image.resize(tf.slice(image, begin, extent), (size, size), method="area")


def training_batches(pictures: LabelledPictures, batch_size: int, size: int, seed: int, augment: bool = True,
                     area: tuple[float, float] = (0.08, 1.0), skip_steps: int = 0) -> tf.data.Dataset:
    """Endless batches (images float32 [B, size, size, 3] normalised, labels int32 [B]) in a random order that ``seed`` fixes.

    ``skip_steps`` batches are passed over without decoding, so that a resumed run sees what an undisturbed one would see.
    """
    order = np.repeat(np.arange(len(pictures.files)), np.where(pictures.is_validation, 0, pictures.repeats))

    def epoch(number):
        permutation = np.random.default_rng((seed, int(number))).permutation(order)
        return permutation.astype(np.int64)

    def load(index, position):
        image = decode(tf.gather(pictures.files, index))
        if augment:
            image = distort(image, size, tf.stack([tf.cast(seed, tf.int64), position]), area)
        else:
            image = tf.image.resize(image, (size, size))
        image.set_shape((size, size, 3))
        return (image - 128.0) / 128.0, tf.gather(pictures.labels, index)

    def indices(number):
        permutation = tf.numpy_function(epoch, [number], tf.int64)
        permutation.set_shape((len(order),))
        return tf.data.Dataset.from_tensor_slices(permutation)

    skip = skip_steps * batch_size
    data = tf.data.Dataset.counter(skip // len(order)).flat_map(indices).skip(skip % len(order))
    data = tf.data.Dataset.zip(data, tf.data.Dataset.counter(skip))
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return data.batch(batch_size, drop_remainder=True).prefetch(2)


def whole_pictures(files: np.ndarray, labels: np.ndarray, batch_size: int, size: int) -> tf.data.Dataset:
    """One pass over pictures resized whole to size x size, as the reference validates."""
    def load(file, label):
        image = tf.image.resize(normalize_pixels(decode(file)), (size, size))
        image.set_shape((size, size, 3))
        return image, label

    data = tf.data.Dataset.from_tensor_slices((files, labels))
    return data.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(2)
