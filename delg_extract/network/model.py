"""The DELG network (Cao, Araujo, Sim, "Unifying Deep Local and Global Features for Image Search", ECCV 2020).

A ResNet trunk in the first Keras layout (stride in the first 1x1 convolution, biases, batch norm epsilon 1e-3) with two
heads:

    image ─ conv1..conv4 ─┬─ conv5 ─ GeM ─ embedding ─────────▶ global descriptor
                          └─ attention + autoencoder ─────────▶ local descriptors (no gradient flows back into the
                          trunk)

Layer and variable names are those of the classic Keras "notop" files and of the DELG reference
(``res2a_branch2a/kernel``), so that weights can be exchanged by name; only the batch norm of the attention head is
called ``attn_bn1`` because the reference uses ``bn_conv1`` twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from delg_extract.network.convolutions import convolve, every_second
from delg_extract.network.tensorflow import tf

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.99
EXPANSION = 4
COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Backbone:
    """Sizes of a trunk: channels of conv1, bottleneck widths and block counts of conv2..conv5, channels of the
    attention layer."""

    stem: int
    widths: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    attention: int
    embedding: int

    @property
    def local_channels(self) -> int:
        """Channels of conv4, of which local descriptors are made."""
        return self.widths[2] * EXPANSION

    @property
    def global_channels(self) -> int:
        """Channels of conv5."""
        return self.widths[3] * EXPANSION


BACKBONES = {
    "resnet50": Backbone(64, (64, 128, 256, 512), (3, 4, 6, 3), 512, 2048),
    "resnet101": Backbone(64, (64, 128, 256, 512), (3, 4, 23, 3), 512, 2048),
    # The same block layout, about a tenth of the work: for the quickstart, for tests and for machines without a GPU.
    "small": Backbone(32, (24, 48, 96, 192), (2, 2, 3, 2), 256, 512),
}


class LocalMaps(NamedTuple):
    """What the local head gives for a batch: attention [B, h, w] after softplus, score [B, h, w] before it,
    descriptors [B, h, w, local_dim] (not normalised), reconstruction [B, h, w, C] (None without the autoencoder)."""

    attention: tf.Tensor
    score: tf.Tensor
    descriptors: tf.Tensor
    reconstruction: tf.Tensor | None


def convolution_before(norm: str) -> str:
    """The name of the convolution that a batch norm follows."""
    return {"bn_conv1": "conv1", "attn_bn1": "attn_conv1"}.get(norm, "res" + norm.removeprefix("bn"))


def normalize_pixels(images: tf.Tensor | np.ndarray) -> tf.Tensor:
    """uint8 RGB 0..255 -> float32 (x - 128) / 128, in training and in extraction alike."""
    return (tf.cast(images, tf.float32) - 128.0) / 128.0


def gem(features: tf.Tensor, power: float) -> tf.Tensor:
    """Generalised mean over height and width, [B, h, w, C] -> [B, C]: (mean max(x, 1e-6)^p)^(1/p)."""
    return tf.reduce_mean(tf.maximum(features, 1e-6) ** power, axis=(1, 2)) ** (1.0 / power)


class Delg(tf.Module):
    """The network. ``use_global=False`` is DELF (spatial mean instead of GeM and embedding);
    ``local_dim=None`` leaves the autoencoder out, the local descriptors are then the conv4 channels themselves.

    ``block3_strides=True`` (the published setting) keeps every second cell of conv4, so that local features lie on a
    grid of 32 pixels; ``False`` gives 16. The global descriptor is the same either way (docs/delg.md 1.1).

    ``values``: arrays by variable name that variables start with, instead of noise from ``seed``. ``seed=None``: zeros,
    for one who fills all of them; noise takes longer than all else.

    ``compute_dtype="bfloat16"`` computes the trunk in it; variables, batch statistics and both heads stay in float32.
    It is a way to compute and no property of the weights, and so not among ``settings``.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        local_dim: int | None = 128,
        embedding_dim: int | None = None,
        gem_power: float = 3.0,
        block3_strides: bool = True,
        use_global: bool = True,
        seed: int | None = 0,
        values: dict | None = None,
        compute_dtype: str = "float32",
    ):
        super().__init__(name="delg")
        if backbone not in BACKBONES:
            raise ValueError(f"backbone {backbone!r} is not one of {', '.join(BACKBONES)}")
        if compute_dtype not in COMPUTE_DTYPES:
            raise ValueError(f"compute_dtype {compute_dtype!r} is not one of {', '.join(COMPUTE_DTYPES)}")
        self.backbone = backbone
        self.sizes = BACKBONES[backbone]
        self.local_dim = local_dim
        self.embedding_dim = embedding_dim or self.sizes.embedding
        self.gem_power = gem_power
        self.block3_strides = block3_strides
        self.use_global = use_global
        self.compute_dtype = compute_dtype
        self.variables_by_name: dict[str, tf.Variable] = {}
        self._rng = tf.random.Generator.from_seed(seed or 0)
        self._values = values or {}
        self._blank = seed is None
        self._build()
        self._blank = False  # what is added is not among what is filled

    @property
    def settings(self) -> dict:
        """What is needed to make the same network again."""
        return {
            "backbone": self.backbone,
            "local_dim": self.local_dim,
            "embedding_dim": self.embedding_dim,
            "gem_power": self.gem_power,
            "block3_strides": self.block3_strides,
            "use_global": self.use_global,
        }

    @property
    def stride(self) -> int:
        """Pixels between neighbouring cells of the local feature grid."""
        return 32 if self.block3_strides else 16

    def trained_variables(self, frozen: tuple[str, ...] = ()) -> list[tuple[str, tf.Variable]]:
        """(name, variable) of what training changes: trainable, and the name begins with none of ``frozen``. Left out
        are the biases in front of a batch norm, whose gradient is zero: the batch norm takes any constant away
        again."""
        norms = [name.removesuffix("/gamma") for name in self.variables_by_name if name.endswith("/gamma")]
        idle = {f"{convolution_before(norm)}/bias" for norm in norms}
        return [
            (name, variable)
            for name, variable in self.variables_by_name.items()
            if variable.trainable and name not in idle and not name.startswith(frozen)
        ]

    # ---- variables ---------------------------------------------------------------------------------------------------

    def _variable(self, name: str, shape: tuple[int, ...], start: float = 0.0, trainable: bool = True) -> None:
        self._add(name, np.full(shape, start, np.float32), trainable)

    def _noise(self, name: str, shape: tuple[int, ...], fan_in: int, fan_out: int) -> None:
        """A variable that starts Glorot uniform, the Keras default."""
        limit = (6.0 / (fan_in + fan_out)) ** 0.5
        spared = self._blank or name in self._values
        self._add(name, np.zeros(shape, np.float32) if spared else self._rng.uniform(shape, -limit, limit))

    def _add(self, name: str, value: Any, trainable: bool = True) -> None:
        # Batch statistics differ between replicas and are averaged when read; nothing else is ever out of step.
        sync = (
            {}
            if trainable
            else {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.MEAN}
        )
        value = self._values.get(name, value)
        self.variables_by_name[name] = tf.Variable(value, trainable=trainable, name=name.replace("/", "_"), **sync)

    def _add_conv(self, name: str, size: int, channels_in: int, channels_out: int) -> None:
        shape = size, size, channels_in, channels_out
        self._noise(f"{name}/kernel", shape, size * size * channels_in, size * size * channels_out)
        self._variable(f"{name}/bias", (channels_out,))

    def _add_batch_norm(self, name: str, channels: int) -> None:
        self._variable(f"{name}/gamma", (channels,), 1.0)
        self._variable(f"{name}/beta", (channels,))
        self._variable(f"{name}/moving_mean", (channels,), trainable=False)
        self._variable(f"{name}/moving_variance", (channels,), 1.0, trainable=False)

    def stage_blocks(self, stage: int) -> list[str]:
        """Names of the blocks of a stage: 4 -> 4a, 4b, ..."""
        return [f"{stage}{chr(ord('a') + i)}" for i in range(self.sizes.blocks[stage - 2])]

    def _build(self) -> None:
        self._add_conv("conv1", 7, 3, self.sizes.stem)
        self._add_batch_norm("bn_conv1", self.sizes.stem)
        channels = self.sizes.stem
        for stage in (2, 3, 4, 5):
            width = self.sizes.widths[stage - 2]
            for block in self.stage_blocks(stage):
                for branch, size, c_in, c_out in (
                    ("2a", 1, channels, width),
                    ("2b", 3, width, width),
                    ("2c", 1, width, 4 * width),
                ):
                    self._add_conv(f"res{block}_branch{branch}", size, c_in, c_out)
                    self._add_batch_norm(f"bn{block}_branch{branch}", c_out)
                if block.endswith("a"):
                    self._add_conv(f"res{block}_branch1", 1, channels, EXPANSION * width)
                    self._add_batch_norm(f"bn{block}_branch1", EXPANSION * width)
                channels = EXPANSION * width
        if self.use_global:
            self.add_dense("embedding_layer", channels, self.embedding_dim)
        local = self.sizes.local_channels
        self._add_conv("attn_conv1", 1, local, self.sizes.attention)
        self._add_batch_norm("attn_bn1", self.sizes.attention)
        self._add_conv("attn_conv2", 1, self.sizes.attention, 1)
        if self.local_dim:
            self._add_conv("autoenc_conv1", 1, local, self.local_dim)
            self._add_conv("autoenc_conv2", 1, self.local_dim, local)

    def add_matrix(self, name: str, features_in: int, features_out: int) -> None:
        """A Glorot-uniform matrix [features_in, features_out]."""
        self._noise(name, (features_in, features_out), features_in, features_out)

    def add_dense(self, name: str, features_in: int, features_out: int) -> None:
        """A dense layer: ``name/kernel`` [features_in, features_out] and ``name/bias``."""
        self.add_matrix(f"{name}/kernel", features_in, features_out)
        self._variable(f"{name}/bias", (features_out,))

    # ---- layers ------------------------------------------------------------------------------------------------------

    def _conv(self, x: tf.Tensor, name: str, stride: int = 1, padding: Literal["SAME", "VALID"] = "SAME") -> tf.Tensor:
        v = self.variables_by_name
        kernel, bias = (tf.cast(v[f"{name}/{part}"], x.dtype) for part in ("kernel", "bias"))
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, padding), bias)

    def _conv_norm(
        self, x: tf.Tensor, norm: str, training: bool, stride: int = 1, padding: Literal["SAME", "VALID"] = "VALID"
    ) -> tf.Tensor:
        """A batch norm and the convolution before it."""
        v, conv = self.variables_by_name, convolution_before(norm)
        gamma, beta = v[f"{norm}/gamma"], v[f"{norm}/beta"]
        mean, variance = v[f"{norm}/moving_mean"], v[f"{norm}/moving_variance"]
        if not training:
            x = self._conv(x, conv, stride, padding)
            return tf.compat.v1.nn.fused_batch_norm(
                x, gamma, beta, mean, variance, BATCH_NORM_EPSILON, is_training=False
            )[0]
        # The bias would go with the mean of the batch: it is spared, and added where the mean is kept.
        x = convolve(x, tf.cast(v[f"{conv}/kernel"], x.dtype), stride, padding)
        # The fused kernel normalises with the biased variance and returns the unbiased one for the moving average, as
        # the reference.
        y, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=BATCH_NORM_EPSILON)
        for moving, batch in ((mean, batch_mean + v[f"{conv}/bias"]), (variance, batch_variance)):
            moving.assign_sub((1.0 - BATCH_NORM_MOMENTUM) * (moving - tf.stop_gradient(batch)))
        return y

    def _residual_block(self, x: tf.Tensor, block: str, training: bool) -> tf.Tensor:
        y = tf.nn.relu(self._conv_norm(x, f"bn{block}_branch2a", training))
        y = tf.nn.relu(self._conv_norm(y, f"bn{block}_branch2b", training, padding="SAME"))
        y = self._conv_norm(y, f"bn{block}_branch2c", training)
        shortcut = self._conv_norm(x, f"bn{block}_branch1", training) if block.endswith("a") else x
        return tf.nn.relu(y + shortcut)

    def _stage(self, x: tf.Tensor, stage: int, training: bool) -> tf.Tensor:
        """The blocks of a stage, less the stride of two of its first 1x1 convolutions, which read ``every_second``
        cell."""
        for block in self.stage_blocks(stage):
            x = self._residual_block(x, block, training)
        return x

    def conv4(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalised images [B, H, W, 3] -> conv4 at stride 16, [B, ceil(H/16) or so, ., local_channels], in
        ``compute_dtype``."""
        x = tf.cast(images, self.compute_dtype)
        x = tf.nn.relu(self._conv_norm(x, "bn_conv1", training, 2, "SAME"))
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        x = self._stage(x, 2, training)
        x = self._stage(every_second(x), 3, training)
        return self._stage(every_second(x), 4, training)

    def block3(self, conv4: tf.Tensor) -> tf.Tensor:
        """The cells of conv4 that carry local features, in float32: every second one when ``block3_strides``."""
        return tf.cast(every_second(conv4) if self.block3_strides else conv4, tf.float32)

    def conv5(self, conv4: tf.Tensor, training: bool = False) -> tf.Tensor:
        """conv4 at stride 16 -> block4 at stride 32, [B, h, w, global_channels], in float32."""
        # The stride of two of l5a reads exactly the cells that block3_strides keeps.
        return tf.cast(self._stage(every_second(conv4), 5, training), tf.float32)

    def embed(self, block4: tf.Tensor) -> tf.Tensor:
        """block4 -> un-normalised global descriptor [B, embedding_dim]: GeM and the embedding layer; DELF: the spatial
        mean."""
        if not self.use_global:
            return tf.reduce_mean(block4, axis=(1, 2))
        v = self.variables_by_name
        return gem(block4, self.gem_power) @ v["embedding_layer/kernel"] + v["embedding_layer/bias"]

    def local(self, block3: tf.Tensor, training: bool = False) -> LocalMaps:
        """Attention and reduced descriptors of block3 [B, h, w, local_channels]; the caller stops the gradient
        (docs/delg.md 1.3 to 1.5)."""
        block3 = tf.cast(block3, tf.float32)
        x = tf.nn.relu(self._conv_norm(block3, "attn_bn1", training))
        score = tf.squeeze(self._conv(x, "attn_conv2"), -1)
        attention = tf.nn.softplus(score)
        if not self.local_dim:
            return LocalMaps(attention, score, block3, None)
        descriptors = self._conv(block3, "autoenc_conv1")
        return LocalMaps(attention, score, descriptors, tf.nn.relu(self._conv(descriptors, "autoenc_conv2")))


def attention_pool(targets: tf.Tensor, attention: tf.Tensor) -> tf.Tensor:
    """Mean over the grid of the L2-normalised targets [B, h, w, C] times the attention [B, h, w] -> [B, C]."""
    return tf.reduce_mean(tf.nn.l2_normalize(targets, axis=-1) * tf.expand_dims(attention, -1), axis=(1, 2))
