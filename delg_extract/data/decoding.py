"""One training image: the bytes of its file to a random crop, or to the whole image resized (docs/delg.md 2.3)."""

from __future__ import annotations

from delg_extract.network.model import normalize_pixels
from delg_extract.network.tensorflow import tf

AREA = (0.08, 1.0)  # smallest and largest share of an image in a random crop
END_OF_JPEG = b"\xff\xd9"
# pixels decoded on both sides of a crop: colour of a subsampled JPEG is interpolated from the neighbouring pixels
EDGE = 8


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """The bytes of an image file (JPEG, PNG, GIF, BMP) -> uint8 [H, W, 3]; grey and CMYK images become RGB."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def resized(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """The whole image resized by bilinear interpolation and normalised: float32 [size, size, 3]."""
    return tf.ensure_shape(normalize_pixels(tf.image.resize(decode(encoded), (size, size))), (size, size, 3))


def random_crop(encoded: tf.Tensor, size: int, seed: tf.Tensor, area: tuple[float, float] = AREA) -> tf.Tensor:
    """A random crop (share ``area`` of the image, aspect 3/4..4/3), resized by area and normalised: float32 [size,
    size, 3].

    Of a JPEG only the crop's columns and rows are computed, to the same pixels as if the whole were; but one that does
    not end in its end marker is decoded whole, because above the place where a file is cut a crop would show nothing of
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
