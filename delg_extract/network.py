"""This project's networks made ready for extraction: the same numbers as delg_extract/model.py with far less work.

- Batch norms are folded into the convolutions before them, so that TensorFlow fuses convolution, bias, addition and ReLU.
- conv5 runs only at the scales that feed the global descriptor.
- Every stage begins with 1x1 convolutions of stride two, which read a quarter of the cells of the stage before it. Here the last
  block of that stage computes only those: its 3x3 convolution takes the stride (the cells of block3_strides likewise).
- oneDNN's 3x3 convolution slows down two- or threefold when its kernel does not stay in a core's cache; those of 256 and more
  channels are computed 64 output channels at a time, which gives the same bits.
- One graph serves every picture size: nothing is retraced.
- ``bfloat16`` halves the bytes and, on processors and GPUs that multiply it natively, the time; the heads stay in float32.

Weights are captured tensors: as constants inside the graph they gained nothing in float32, took a gigabyte more and made the first call
last eight seconds.
"""
from __future__ import annotations

import time

import numpy as np

from delg_extract.config import ExtractionSettings
from delg_extract.convolutions import every_second
from delg_extract.inference import LocalAndGlobal
from delg_extract.model import BATCH_NORM_EPSILON, Delg, convolution_before, gem, normalize_pixels
from delg_extract.pyramid import level_size, receptive_boxes, usable_scales
from delg_extract.quiet_tensorflow import tf

PRECISIONS = ("float32", "bfloat16")
# A reduced precision must be worth its rounding.
_WORTH = 1.2
_CACHED_KERNEL = 2**20  # bytes; of cores with 1 to 2 MiB of second-level cache
_CHANNELS_AT_ONCE = 64


class DelgNetwork:
    """A trained network for extraction; ``precision``, one of PRECISIONS, is that of the convolutions."""

    def __init__(self, model: Delg, precision: str = "float32"):
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
        self.model, self.precision = model, precision
        weights = folded_weights(model)
        self._heads_weights = {name: tf.constant(value) for name, value in weights.items() if not name.startswith(("conv1/", "res"))}
        dtype = tf.as_dtype(self.precision).as_numpy_dtype
        self._convolutions = {
            name.removesuffix("/kernel"): _pieces(kernel.astype(dtype), weights[name.replace("kernel", "bias")].astype(dtype))
            for name, kernel in weights.items() if name.startswith(("conv1/", "res")) and name.endswith("/kernel")}
        spec = (tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([2], tf.int32))
        self._local, self._both, self._global = (tf.function(level, input_signature=spec, autograph=False)
                                                 for level in (self._local_level, self._both_level, self._global_level))

    # ---- the pyramid -----------------------------------------------------------------------------------------------------

    def local_and_global(self, images: np.ndarray, settings: ExtractionSettings) -> list[LocalAndGlobal]:
        """Features of uint8 [B, H, W, 3]: those of all scales with attention >= the threshold, the strongest first, for each.
        Scales at which the pictures are under MIN_LEVEL_SIDE pixels are left out."""
        normalized = normalize_pixels(images)
        positions = settings.global_positions
        levels, globals_ = [], []
        for index in usable_scales(*images.shape[1:3], settings.scales):
            scale = settings.scales[index]
            size = tf.constant([level_size(side, scale) for side in images.shape[1:3]], tf.int32)
            if not settings.use_local:
                if index in positions:
                    globals_.append(self._global(normalized, size).numpy())
                continue
            if index in positions:
                attention, descriptors, embedding = (x.numpy() for x in self._both(normalized, size))
                globals_.append(embedding)
            else:
                attention, descriptors = (x.numpy() for x in self._local(normalized, size))
            levels.append(_Level(scale, attention, descriptors, receptive_boxes(*attention.shape[1:], self.model.stride)))
        by_picture = np.stack(globals_, 1) if globals_ else np.empty((len(images), 0, 0), np.float32)
        return [_strongest(levels, picture, by_picture[picture], settings) for picture in range(len(images))]

    # ---- one level -------------------------------------------------------------------------------------------------------

    def _local_level(self, images, size):
        return self._heads(self._conv4(images, size))

    def _both_level(self, images, size):
        conv4 = self._conv4(images, size)
        return *self._heads(conv4), self._embedding(conv4)

    def _global_level(self, images, size):
        return self._embedding(self._conv4(images, size))

    def _conv4(self, images, size):
        # Bilinear without antialiasing on the normalised float picture, as the published exports do.
        x = tf.cast(tf.image.resize(images, size), self.precision)
        x = self._conv_relu(x, "conv1", 2, "SAME")
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        for stage in (2, 3):
            x = self._stage(x, stage, thinned=True)
        return self._stage(x, 4, thinned=self.model.block3_strides)

    def _heads(self, conv4):
        """Attention [B, h, w] and descriptors [B, h, w, D], in float32."""
        block3, w = tf.cast(conv4, tf.float32), self._heads_weights
        hidden = tf.nn.relu(tf.nn.conv2d(block3, w["attn_conv1/kernel"], 1, "VALID") + w["attn_conv1/bias"])
        attention = tf.nn.softplus(tf.nn.conv2d(hidden, w["attn_conv2/kernel"], 1, "VALID") + w["attn_conv2/bias"])[..., 0]
        if not self.model.local_dim:
            return attention, block3
        return attention, tf.nn.conv2d(block3, w["autoenc_conv1/kernel"], 1, "VALID") + w["autoenc_conv1/bias"]

    def _embedding(self, conv4):
        """Global descriptors [B, E], not normalised, in float32."""
        cells = conv4 if self.model.block3_strides else every_second(conv4)
        block4 = tf.cast(self._stage(cells, 5, thinned=False), tf.float32)
        if not self.model.use_global:
            return tf.reduce_mean(block4, axis=(1, 2))
        w = self._heads_weights
        return gem(block4, self.model.gem_power) @ w["embedding_layer/kernel"] + w["embedding_layer/bias"]

    def _conv(self, x, name, stride=1):
        (kernel, bias), = self._convolutions[name]
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, "VALID"), bias)

    def _conv_relu(self, x, name, stride=1, padding="VALID"):
        pieces = [tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, padding), bias)) for kernel, bias in self._convolutions[name]]
        return pieces[0] if len(pieces) == 1 else tf.concat(pieces, -1)

    def _stage(self, x, stage, thinned):
        """The blocks of a stage without its leading stride (whoever comes before has thinned already)."""
        blocks = self.model.stage_blocks(stage)
        for block in blocks:
            last = thinned and block == blocks[-1]
            y = self._conv_relu(x, f"res{block}_branch2a")
            # "SAME" with stride two would centre its windows elsewhere on sides of even length.
            y = self._conv_relu(y, f"res{block}_branch2b", 2 if last else 1, [[0, 0], [1, 1], [1, 1], [0, 0]])
            y = self._conv(y, f"res{block}_branch2c")
            x = every_second(x) if last else x
            # TensorFlow fuses add_n into the convolution; "+" it would not, because shapes are unknown.
            x = tf.nn.relu(tf.add_n([y, self._conv(x, f"res{block}_branch1") if block.endswith("a") else x]))
        return x


def _pieces(kernel: np.ndarray, bias: np.ndarray) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """A convolution as one or, where that is faster, several convolutions (kernel, bias) with a part of the output channels each."""
    whole = kernel.shape[0] != 3 or kernel.nbytes <= _CACHED_KERNEL or tf.config.list_physical_devices("GPU")
    at_once = len(bias) if whole else _CHANNELS_AT_ONCE
    return [(tf.constant(kernel[..., start:start + at_once]), tf.constant(bias[start:start + at_once]))
            for start in range(0, len(bias), at_once)]


class _Level:
    """The local maps of one scale for a batch: attention [B, h, w], descriptors [B, h, w, D], boxes [h * w, 4] of its grid."""

    def __init__(self, scale, attention, descriptors, boxes):
        self.attention = attention.reshape(len(attention), -1)
        self.descriptors = descriptors.reshape(*self.attention.shape, -1)
        self.boxes = boxes / np.float32(scale)
        self.inverse_scale = np.float32(1.0) / np.float32(scale)


def _strongest(levels: list[_Level], picture: int, global_descriptors: np.ndarray, settings: ExtractionSettings) -> LocalAndGlobal:
    """The features of one picture whose attention reaches the threshold, over all levels, the strongest first."""
    boxes, features, scales, scores = [np.empty((0, 4), np.float32)], [], [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for level in levels:
        attention = level.attention[picture]
        keep = np.flatnonzero(attention >= settings.score_threshold)
        boxes.append(level.boxes[keep])
        features.append(level.descriptors[picture, keep])
        scores.append(attention[keep])
        scales.append(np.full(len(keep), level.inverse_scale, np.float32))
    scores = np.concatenate(scores)
    boxes = np.concatenate(boxes)
    if settings.iou_threshold < 1:
        best = tf.image.non_max_suppression(boxes, scores, settings.max_features, settings.iou_threshold).numpy()
    else:
        best = np.argsort(-scores, kind="stable")[:settings.max_features]
    features = np.concatenate(features)[best] if features else np.empty((0, 0), np.float32)
    return LocalAndGlobal(boxes[best], features, np.concatenate(scales)[best], scores[best], global_descriptors)


def folded_weights(model: Delg) -> dict[str, np.ndarray]:
    """The weights by name, float32, batch norms folded (in float64) into the convolutions before them."""
    values = {name: variable.numpy() for name, variable in model.variables_by_name.items()}
    for name in list(values):
        if name.endswith("/gamma"):
            norm = name.removesuffix("/gamma")
            conv = convolution_before(norm)
            gamma, beta, mean, variance = (values.pop(f"{norm}/{part}").astype("float64")
                                           for part in ("gamma", "beta", "moving_mean", "moving_variance"))
            factor = gamma / (variance + BATCH_NORM_EPSILON) ** 0.5
            values[f"{conv}/bias"] = ((values[f"{conv}/bias"] - mean) * factor + beta).astype("float32")
            values[f"{conv}/kernel"] = (values[f"{conv}/kernel"] * factor).astype("float32")
    return values


def fastest_precision() -> str:
    """bfloat16 where convolutions of a middle stage run clearly faster in it on this machine, else float32 (a quarter of a second)."""
    seconds = {}
    for precision in ("float32", "bfloat16"):
        x = tf.ones([1, 64, 64, 256], precision)
        kernel = tf.fill([3, 3, 256, 256], tf.constant(1e-3, precision))
        convolve = tf.function(lambda x, kernel=kernel: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")))
        convolve(x)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            convolve(x).numpy()
            took.append(time.perf_counter() - began)
        seconds[precision] = min(took)
    return "bfloat16" if seconds["float32"] > _WORTH * seconds["bfloat16"] else "float32"
