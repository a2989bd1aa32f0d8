"""Seven-scale inference: from one picture to its global and local descriptors (DELG paper section 4.2; DELG_SPEC 4 and 5)."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from delg_extract.model import Delg, normalize_pixels

SCALES = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
GLOBAL_SCALES = (3, 4, 5)
RECEPTIVE_FIELD, PADDING = 291.0, 145.0
MIN_SIDE = 10


class LocalAndGlobal(NamedTuple):
    """What the exported model gives for one picture: boxes [N, 4] (ymin, xmin, ymax, xmax), features [N, D] not normalised,
    scales [N] = 1 / image scale, scores [N] by falling attention, global_descriptors [G, E] not normalised."""

    boxes: np.ndarray
    features: np.ndarray
    scales: np.ndarray
    scores: np.ndarray
    global_descriptors: np.ndarray


class Descriptors(NamedTuple):
    """Post-processed: global_descriptor [E] unit length; locations [N, 2] (y, x) in pixels of the picture given;
    descriptors [N, D] unit length; scales [N] = 1 / image scale; attention [N]."""

    global_descriptor: np.ndarray
    locations: np.ndarray
    descriptors: np.ndarray
    scales: np.ndarray
    attention: np.ndarray


def level_size(side: int, scale: float) -> int:
    """Side of a pyramid level: float32 product, rounded half to even."""
    return int(np.rint(np.float32(side) * np.float32(scale)))


def receptive_boxes(height: int, width: int, stride: float, field: float = RECEPTIVE_FIELD, padding: float = PADDING) -> np.ndarray:
    """Receptive-field boxes [height * width, 4] of a feature grid, row by row, in pixels of the pyramid level (DELG_SPEC 1.12)."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    corner = np.stack([y, x, y, x], -1).reshape(-1, 4).astype(np.float32) * np.float32(stride)
    return corner + np.array([-padding, -padding, field - 1 - padding, field - 1 - padding], np.float32)


def resize_for_extraction(image: np.ndarray, max_size: float = -1, min_size: float = -1, resize_factor: float = 1.0,
                          square: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The reference's size rule on uint8 [H, W, 3]: (resized picture, scale factors (height, width)). Negative sizes are off.

    ``resize_factor`` multiplies both limits (a query crop is its crop's longest side over the original's).
    """
    height, width = image.shape[:2]
    if resize_factor < 0:
        raise ValueError(f"resize_factor {resize_factor} is negative")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture of shape {image.shape} is not [height, width, 3]")
    longest, upper, lower = max(height, width), max_size * resize_factor, min_size * resize_factor
    if max_size >= 0 and longest > upper:
        factor = upper / longest
    elif min_size >= 0 and longest < lower:
        factor = lower / longest
    elif square and height != width:
        factor = 1.0
    else:
        return image, np.ones(2)
    new_height, new_width = (round(longest * factor),) * 2 if square else (round(height * factor), round(width * factor))
    resized = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    return resized, np.array([new_height / height, new_width / width])


def l2_normalize(x: np.ndarray) -> np.ndarray:
    """Unit length along the last axis; squared norms below 1e-12 are taken as 1e-12, as TensorFlow does."""
    return x / np.sqrt(np.maximum((x * x).sum(-1, keepdims=True), 1e-12))


class Extractor:
    """Runs a DELG network over the scales of a picture. conv5 is computed only at the scales of the global descriptor."""

    def __init__(self, model: Delg, scales=SCALES, global_scales=GLOBAL_SCALES, max_features: int = 1000,
                 score_threshold: float = 0.0, max_image_size: int = -1, min_image_size: int = -1, square_images: bool = False,
                 resized_coordinates: bool = False):
        self.model = model.folded()
        self.scales = tuple(scales)
        self.global_scales = frozenset(range(len(self.scales)) if not global_scales else global_scales)
        self.max_features, self.score_threshold = max_features, score_threshold
        self.max_image_size, self.min_image_size, self.square_images = max_image_size, min_image_size, square_images
        self.resized_coordinates = resized_coordinates
        spec = (tf.TensorSpec([None, None, 3], tf.float32), tf.TensorSpec([2], tf.int32))
        # One graph for every picture size: no retracing.
        self._local = tf.function(self._local_level, input_signature=spec)
        self._both = tf.function(self._both_level, input_signature=spec)

    def _conv4(self, image, size):
        # Bilinear without antialiasing on the normalised float picture, as the published exports do.
        return self.model.conv4(tf.image.resize(image[None], size))

    def _heads(self, conv4):
        block3 = self.model.block3(conv4)
        maps = self.model.local(block3)
        return maps.attention[0], maps.descriptors[0]

    def _local_level(self, image, size):
        return self._heads(self._conv4(image, size))

    def _both_level(self, image, size):
        conv4 = self._conv4(image, size)
        return *self._heads(conv4), self.model.embed(self.model.conv5(conv4))[0]

    def local_and_global(self, image: np.ndarray) -> LocalAndGlobal:
        """The exported model's call on uint8 [H, W, 3]: features of all scales with attention >= threshold, the strongest first."""
        normalized = normalize_pixels(image)
        boxes, features, scales, scores, globals_ = [], [], [], [], []
        for index, scale in enumerate(self.scales):
            size = tf.constant([level_size(side, scale) for side in image.shape[:2]], tf.int32)
            if index in self.global_scales:
                attention, descriptors, embedding = (x.numpy() for x in self._both(normalized, size))
                globals_.append(embedding)
            else:
                attention, descriptors = (x.numpy() for x in self._local(normalized, size))
            keep = np.flatnonzero(attention.ravel() >= self.score_threshold)
            boxes.append(receptive_boxes(*attention.shape, self.model.stride)[keep] / np.float32(scale))
            features.append(descriptors.reshape(-1, descriptors.shape[-1])[keep])
            scores.append(attention.ravel()[keep])
            scales.append(np.full(len(keep), np.float32(1.0) / np.float32(scale), np.float32))
        scores = np.concatenate(scores)
        best = np.argsort(-scores, kind="stable")[:self.max_features]
        return LocalAndGlobal(np.concatenate(boxes)[best], np.concatenate(features)[best], np.concatenate(scales)[best], scores[best],
                              np.array(globals_, np.float32).reshape(len(globals_), -1))

    def __call__(self, image: np.ndarray, resize_factor: float = 1.0) -> Descriptors | None:
        """Descriptors of uint8 [H, W, 3], locations in its own pixels; None when a side is under 10 pixels after resizing."""
        resized, factors = resize_for_extraction(image, self.max_image_size, self.min_image_size, resize_factor,
                                                 self.square_images)
        if min(resized.shape[:2]) < MIN_SIDE:
            return None
        out = self.local_and_global(resized)
        centres = (out.boxes[:, :2] + out.boxes[:, 2:]) / 2
        if not self.resized_coordinates:
            centres = centres / factors
        return Descriptors(
            global_descriptor=l2_normalize(l2_normalize(out.global_descriptors).sum(0)),
            locations=centres.astype(np.float32),
            descriptors=l2_normalize(out.features),
            scales=out.scales,
            attention=out.scores,
        )
