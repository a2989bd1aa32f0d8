"""This project's networks as sources of descriptors: every scale through a trained network (level.py), the strongest
features kept.

- conv5 runs only at the scales that feed the global descriptor.
- One graph serves every image size: nothing is retraced.
- ``bfloat16`` halves the bytes and, on processors and GPUs that multiply it natively, the time; the heads stay in
  float32.

Weights are captured tensors: as constants inside the graph they gained nothing in float32, took a gigabyte more and
made the first call last eight seconds.
"""

from __future__ import annotations

import numpy as np

from delg_extract.extraction.extractor import LocalAndGlobal
from delg_extract.extraction.pyramid import level_size, receptive_boxes, usable_scales
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.level import Level, level_weights
from delg_extract.network.model import Delg, normalize_pixels
from delg_extract.network.tensorflow import tf


class DelgNetwork:
    """A trained network for extraction; ``precision``, float32 or bfloat16, is that of the convolutions."""

    def __init__(self, model: Delg, precision: str = "float32"):
        self.model, self.precision = model, precision
        self._level = Level(model, tf.nest.map_structure(tf.constant, level_weights(model, precision)))
        spec = (tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([2], tf.int32))
        self._local, self._both, self._global = (
            tf.function(level, input_signature=spec, autograph=False)
            for level in (self._local_level, self._both_level, self._global_level)
        )

    # ---- the pyramid -------------------------------------------------------------------------------------------------

    def local_and_global(self, images: np.ndarray, settings: ExtractionSettings) -> list[LocalAndGlobal]:
        """Features of uint8 [B, H, W, 3]: those of all scales with attention >= the threshold, the strongest first, for
        each. Scales at which the images are under MIN_LEVEL_SIDE pixels are left out."""
        normalized = normalize_pixels(images)
        positions = settings.global_positions
        levels, globals_ = [], []
        height, width = images.shape[1:3]
        for index in usable_scales(height, width, settings.scales):
            scale = settings.scales[index]
            size = tf.constant([level_size(side, scale) for side in (height, width)], tf.int32)
            if not settings.use_local:
                if index in positions:
                    globals_.append(self._global(normalized, size).numpy())
                continue
            if index in positions:
                attention, descriptors, embedding = (x.numpy() for x in self._both(normalized, size))
                globals_.append(embedding)
            else:
                attention, descriptors = (x.numpy() for x in self._local(normalized, size))
            boxes = receptive_boxes(attention.shape[1], attention.shape[2], self.model.stride)
            levels.append(_LevelMaps(scale, attention, descriptors, boxes))
        by_image = np.stack(globals_, 1) if globals_ else np.empty((len(images), 0, 0), np.float32)
        return [_strongest(levels, image, by_image[image], settings) for image in range(len(images))]

    # ---- one level ---------------------------------------------------------------------------------------------------

    def _local_level(self, images, size):
        return self._level.heads(self._level.conv4(images, size))

    def _both_level(self, images, size):
        conv4 = self._level.conv4(images, size)
        return *self._level.heads(conv4), self._level.embedding(conv4)

    def _global_level(self, images, size):
        return self._level.embedding(self._level.conv4(images, size))


class _LevelMaps:
    """The local maps of one scale for a batch: attention [B, h, w], descriptors [B, h, w, D], boxes [h * w, 4] of its
    grid."""

    def __init__(self, scale, attention, descriptors, boxes):
        self.attention = attention.reshape(len(attention), -1)
        self.descriptors = descriptors.reshape(*self.attention.shape, -1)
        self.boxes = boxes / np.float32(scale)
        self.inverse_scale = np.float32(1.0) / np.float32(scale)


def _strongest(
    levels: list[_LevelMaps], image: int, global_descriptors: np.ndarray, settings: ExtractionSettings
) -> LocalAndGlobal:
    """The features of one image whose attention reaches the threshold, over all levels, the strongest first."""
    none = np.empty(0, np.float32)
    boxes, features, scales, scores = [none.reshape(0, 4)], [], [none], [none]
    for level in levels:
        attention = level.attention[image]
        keep = np.flatnonzero(attention >= settings.score_threshold)
        boxes.append(level.boxes[keep])
        features.append(level.descriptors[image, keep])
        scores.append(attention[keep])
        scales.append(np.full(len(keep), level.inverse_scale, np.float32))
    scores = np.concatenate(scores)
    boxes = np.concatenate(boxes)
    if settings.iou_threshold < 1:
        best = tf.image.non_max_suppression(boxes, scores, settings.max_features, settings.iou_threshold).numpy()
    else:
        best = np.argsort(-scores, kind="stable")[: settings.max_features]
    features = np.concatenate(features)[best] if features else np.empty((0, 0), np.float32)
    return LocalAndGlobal(boxes[best], features, np.concatenate(scales)[best], scores[best], global_descriptors)
