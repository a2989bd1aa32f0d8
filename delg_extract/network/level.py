"""One level of the image pyramid through a trained network: the numbers of delg_extract/network/model.py with far less
work.

- Batch norms are folded into the convolutions before them, so that TensorFlow fuses convolution, bias, addition and
  ReLU.
- Every stage begins with 1x1 convolutions of stride two, which read a quarter of the cells of the stage before it. Here
  the last block of that stage computes only those: its 3x3 convolution takes the stride (the cells of block3_strides
  likewise).
- oneDNN's 3x3 convolution slows down two- or threefold when its kernel does not stay in a core's cache; those of 256
  and more channels are computed 64 output channels at a time, which gives the same bits.

The weights are given: captured tensors for extraction (extraction/delg.py), variables for an export
(extraction/serving.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from delg_extract.network.convolutions import every_second
from delg_extract.network.model import BATCH_NORM_EPSILON, Delg, convolution_before, gem
from delg_extract.network.tensorflow import tf

_CACHED_KERNEL = 2**20  # bytes; of cores with 1 to 2 MiB of second-level cache
_CHANNELS_AT_ONCE = 64
_LOCAL_HEADS = ("attn_conv1", "attn_conv2", "autoenc_conv1")


class Level:
    """The graph of one level. ``weights``: tensors or variables in the structure of ``level_weights``.
    ``block3_strides``: whether only every second cell of conv4 is computed (default: the model's)."""

    def __init__(self, model: Delg, weights: dict, block3_strides: bool | None = None):
        self.model, self.weights = model, weights
        self.block3_strides = model.block3_strides if block3_strides is None else block3_strides

    def conv4(self, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Normalised images [B, H, W, 3] and the level's size (height, width) -> conv4 [B, h, w, C] at the cells of
        block3."""
        # Bilinear without antialiasing on the normalised float image, as the published exports do.
        x = tf.cast(tf.image.resize(images, size), self._pieces("conv1")[0][0].dtype)
        x = self._conv_relu(x, "conv1", 2, "SAME")
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        for stage in (2, 3):
            x = self._stage(x, stage, thinned=True)
        return self._stage(x, 4, thinned=self.block3_strides)

    def heads(self, conv4: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Attention [B, h, w] and descriptors [B, h, w, D], in float32."""
        block3 = tf.cast(conv4, tf.float32)
        attention = tf.nn.softplus(self._head(tf.nn.relu(self._head(block3, "attn_conv1")), "attn_conv2"))[..., 0]
        return attention, self._head(block3, "autoenc_conv1") if self.model.local_dim else block3

    def embedding(self, conv4: tf.Tensor) -> tf.Tensor:
        """Global descriptors [B, E], not normalised, in float32."""
        cells = conv4 if self.block3_strides else every_second(conv4)
        block4 = tf.cast(self._stage(cells, 5, thinned=False), tf.float32)
        if not self.model.use_global:
            return tf.reduce_mean(block4, axis=(1, 2))
        return (
            gem(block4, self.model.gem_power) @ self.weights["embedding_layer/kernel"]
            + self.weights["embedding_layer/bias"]
        )

    def _head(self, x, name):
        return tf.nn.conv2d(x, self.weights[f"{name}/kernel"], 1, "VALID") + self.weights[f"{name}/bias"]

    def _pieces(self, name):
        """The convolutions (kernel, bias) that make up one."""
        return list(zip(self.weights[f"{name}/kernel"], self.weights[f"{name}/bias"]))

    def _conv(self, x, name, stride=1):
        ((kernel, bias),) = self._pieces(name)
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, "VALID"), bias)

    def _conv_relu(self, x, name, stride=1, padding: Any = "VALID"):
        pieces = [
            tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, padding), bias))
            for kernel, bias in self._pieces(name)
        ]
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


def level_weights(
    model: Delg, precision: str = "float32", local: bool = True, global_: bool = True
) -> dict[str, np.ndarray | list[np.ndarray]]:
    """What a ``Level`` needs, by name: batch norms folded, the trunk in ``precision``, the heads in float32.

    A kernel or bias of the trunk is a list: of one array, or of several with a part of the output channels each, where
    the convolution is faster in parts. ``local``, ``global_``: with the local heads, with conv5 and the embedding.
    """
    dtype, weights = tf.as_dtype(precision).as_numpy_dtype, {}
    folded = folded_weights(model)
    for name, value in folded.items():
        layer = name.split("/")[0]
        if layer == "conv1" or (layer.startswith("res") and (global_ or not layer.startswith("res5"))):
            kernel = folded[f"{layer}/kernel"].shape
            at_once = _channels_at_once(kernel, np.dtype(dtype).itemsize)
            weights[name] = [
                value.astype(dtype)[..., start : start + at_once] for start in range(0, kernel[-1], at_once)
            ]
        elif (local and layer in _LOCAL_HEADS) or (global_ and layer == "embedding_layer"):
            weights[name] = value
    return weights


def _channels_at_once(kernel_shape: tuple[int, ...], itemsize: int) -> int:
    cached = math.prod(kernel_shape) * itemsize <= _CACHED_KERNEL
    whole = kernel_shape[0] != 3 or cached or tf.config.list_physical_devices("GPU")
    return kernel_shape[-1] if whole else _CHANNELS_AT_ONCE


def folded_weights(model: Delg) -> dict[str, np.ndarray]:
    """The weights by name, float32, batch norms folded (in float64) into the convolutions before them."""
    values = {name: variable.numpy() for name, variable in model.variables_by_name.items()}
    for name in list(values):
        if name.endswith("/gamma"):
            norm = name.removesuffix("/gamma")
            conv = convolution_before(norm)
            parts = ("gamma", "beta", "moving_mean", "moving_variance")
            gamma, beta, mean, variance = (values.pop(f"{norm}/{part}").astype("float64") for part in parts)
            factor = gamma / (variance + BATCH_NORM_EPSILON) ** 0.5
            values[f"{conv}/bias"] = ((values[f"{conv}/bias"] - mean) * factor + beta).astype("float32")
            values[f"{conv}/kernel"] = (values[f"{conv}/kernel"] * factor).astype("float32")
    return values
