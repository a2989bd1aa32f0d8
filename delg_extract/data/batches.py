"""Training images for DELG in batches, from image lists or TFRecord shards (docs/delg.md 2.3).

The images of step N follow from the seed and N alone: an epoch is one permutation of all images, a crop is drawn
from the seed and the image's position in the run. So a resumed run reads on at its step, and several workers share the
batches of one.

Deliberate differences from the reference:
- the order is a permutation of all images, not a buffer of 100 filled file by file: shards need not be mixed
  beforehand;
- reading and decoding run in parallel and ahead of the network;
- grey and CMYK images become RGB (there a grey one breaks the run); all kinds that the project reads are decoded;
- a label that is no class is an error which names the image (there it is clamped, and one too many slips through);
- an image or record that cannot be read is an error which names it;
- validation is one pass over its images in order (there an endless shuffled stream).
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, ClassVar, Protocol

import numpy as np

from delg_extract.network.model import normalize_pixels
from delg_extract.network.tensorflow import tf
from rrt.errors import InputError, describe_error
from rrt.files import images
from rrt.files.machine import usable_cores

AREA = (0.08, 1.0)  # smallest and largest share of an image in a random crop
END_OF_JPEG = b"\xff\xd9"
# Of JPEG, PNG, GIF and BMP: what decode_image() knows.
_HEADS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
# Pixels decoded on both sides of a crop: colour of a subsampled JPEG is interpolated from the neighbouring pixels.
EDGE = 8
# Nothing here is written for AutoGraph, which takes a second to find that out.
_as_it_is = tf.autograph.experimental.do_not_convert
_READ_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


class ImageSource(Protocol):
    """Numbered images with labels 0..num_classes-1. Numbers become addresses in NumPy, addresses become bytes in the
    graph.

    recent: for each use the images asked for lately, see ``unreadable_image_named``. remedy: what to do about a bad
    image.
    """

    address_types: ClassVar[tuple[tf.DType, ...]]
    remedy: ClassVar[str]

    @property
    def num_classes(self) -> int:
        """Classes of the labels."""
        ...

    @property
    def recent(self) -> dict[str, deque]:
        """The images asked for lately, by use."""
        ...

    def __len__(self) -> int: ...

    def training_order(self) -> np.ndarray:
        """The images of an epoch, each as often as it is shown, before they are shuffled."""
        ...

    def validation_order(self) -> np.ndarray:
        """The images of a validation pass."""
        ...

    def addresses(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Where the images are: columns of ``address_types``."""
        ...

    def read(self, *address: Any, **named: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """One address -> bytes of the image file, int32 label; part of a graph."""
        ...

    def read_checked(self, index: int) -> bytes:
        """The bytes of an image file; InputError or OSError that says what is wrong where ``read`` would fail."""
        ...

    def name(self, index: int) -> str:
        """The file of an image, or its shard and record."""
        ...


def training_batches(
    source: ImageSource,
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

    def images_of_step(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = (step * workers + worker) * batch_size + np.arange(batch_size)
        return np.array([epoch(int(p) // len(order))[p % len(order)] for p in positions]), positions

    def load(position: tf.Tensor, *address: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = source.read(*address)
        if not augment:
            return resized(encoded, size), label
        return random_crop(encoded, size, tf.stack([tf.cast(seed, tf.int64), position]), area), label

    steps = tf.data.Dataset.counter(skip_steps)
    return _batches(source, "training", steps, images_of_step, load, batch_size, drop_remainder=True)


def validation_batches(source: ImageSource, batch_size: int, size: int, at_most: int | None = None) -> tf.data.Dataset:
    """One pass over the validation images (``at_most`` of them, evenly spread), resized whole; the last batch may be
    smaller.

    Images and labels as of ``training_batches``.
    """
    chosen = source.validation_order()
    if at_most is not None and at_most < len(chosen):
        chosen = chosen[np.arange(at_most) * len(chosen) // at_most]

    def images_of_step(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = np.arange(step * batch_size, min((step + 1) * batch_size, len(chosen)))
        return chosen[positions], positions

    def load(_: tf.Tensor, *address: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = source.read(*address)
        return resized(encoded, size), label

    steps = tf.data.Dataset.range(-(-len(chosen) // batch_size))
    return _batches(source, "validation", steps, images_of_step, load, batch_size, drop_remainder=False)


def _batches(
    source: ImageSource,
    use: str,
    steps: tf.data.Dataset,
    images_of_step: Callable,
    load: Callable,
    batch_size: int,
    drop_remainder: bool,
) -> tf.data.Dataset:
    """Batches of ``load(position, *address)`` of the images of all steps, computed side by side and ahead, in order.

    ``images_of_step(step)``: numbers and positions in the run of a step's images.
    """
    # More than are ever on their way at once: batches in the buffers, and images being read and waiting for their turn.
    recent = source.recent[use] = deque(maxlen=24 + 4 * usable_cores() // batch_size)

    def rows(step):
        indices, positions = images_of_step(int(step))
        recent.append(indices)
        return (positions.astype(np.int64), *source.addresses(indices))

    def columns(step):
        found = tf.numpy_function(rows, [step], (tf.int64, *source.address_types))
        return tuple(tf.ensure_shape(column, (None,)) for column in found)

    # Addresses ahead keep the readers busy while the Python that makes them waits for the interpreter's lock.
    data = steps.map(_as_it_is(columns)).prefetch(2).unbatch()
    data = data.map(_as_it_is(load), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    # Workers share by rows of a batch, see ``shard``; TensorFlow would share by files.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.batch(batch_size, drop_remainder=drop_remainder).prefetch(2).with_options(options)


@contextmanager
def unreadable_image_named(*sources: ImageSource):
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


def _fault(source: ImageSource, index: int) -> str | None:
    """What is wrong with an image, in one line."""
    try:
        decode(source.read_checked(index))
    except (InputError, OSError) as error:
        return describe_error(error)
    except (tf.errors.InvalidArgumentError, ValueError):
        return f"{source.name(index)}: cannot be decoded as an image; {source.remedy}"
    return None


# ---- one image: the bytes of its file to a random crop, or to the whole image resized --------------------------------


def decode(encoded: tf.Tensor | bytes) -> tf.Tensor:
    """The bytes of an image file -> uint8 [H, W, 3]; grey and CMYK images become RGB. JPEG, PNG, GIF and BMP are
    decoded by TensorFlow, other kinds as everywhere else in this project."""

    def by_tensorflow():
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def by_common_reader():
        return tf.ensure_shape(tf.numpy_function(_read_bytes, [encoded], tf.uint8), (None, None, 3))

    heads = [tf.strings.substr(encoded, 0, len(head)) == head for head in _HEADS]
    return tf.cond(tf.reduce_any(heads), by_tensorflow, by_common_reader)


def _read_bytes(encoded: bytes) -> np.ndarray:
    try:
        return images.decode(io.BytesIO(encoded)).pixels
    except images.Unreadable as reason:
        raise ValueError(str(reason)) from None


def resized(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """The whole image resized by bilinear interpolation and normalised: float32 [size, size, 3]."""
    return tf.ensure_shape(normalize_pixels(tf.image.resize(decode(encoded), (size, size))), (size, size, 3))


def random_crop(encoded: tf.Tensor, size: int, seed: tf.Tensor, area: tuple[float, float] = AREA) -> tf.Tensor:
    """A random crop (share ``area`` of the image, aspect 3/4..4/3), resized by area and normalised: float32 [size,
    size, 3].

    Of a JPEG only the crop's columns and rows are computed, to the same pixels as if the whole were; but one that does
    not end in its end marker is decoded whole, because above the point where a file is cut a crop would show nothing of
    it.
    """

    def of_jpeg():
        shape = tf.image.extract_jpeg_shape(encoded)[:2]
        return decode_jpeg_box(encoded, shape, draw_box(shape, seed, area))

    def of_any():
        image = decode(encoded)
        return _cut(image, draw_box(tf.shape(image)[:2], seed, area))

    whole_jpeg = tf.io.is_jpeg(encoded) & (
        tf.strings.substr(encoded, -len(END_OF_JPEG), len(END_OF_JPEG)) == END_OF_JPEG
    )
    crop = tf.cond(whole_jpeg, of_jpeg, of_any)
    return tf.ensure_shape(normalize_pixels(tf.image.resize(crop, (size, size), method="area")), (size, size, 3))


def draw_box(shape: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]) -> tf.Tensor:
    """A random box int32 (top, left, height, width) in an image of ``shape`` = (height, width); int64 ``seed`` [2]."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([shape, [3]], 0),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=area,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


def decode_jpeg_box(encoded: tf.Tensor, shape: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """The pixels uint8 [height, width, 3] of a JPEG of ``shape`` = (height, width) within ``box`` = (top, left, height,
    width)."""
    top, left, height, width = tf.unstack(box)
    first, end = tf.maximum(left - EDGE, 0), tf.minimum(left + width + EDGE, shape[1])
    wider = tf.image.decode_and_crop_jpeg(encoded, tf.stack([top, first, height, end - first]), channels=3)
    return _cut(wider, tf.stack([0, left - first, height, width]))


def _cut(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.stack([box[0], box[1], 0]), tf.stack([box[2], box[3], 3]))
