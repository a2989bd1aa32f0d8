"""What an exported SavedModel computes (docs/delg.md 4): an image and scales in, local and global descriptors out, as
one graph.

Inputs and outputs have the names, types and shapes of the reference's exports, without a batch axis. Unlike there
- local features have the depth that the network gives, with and without the autoencoder;
- conv5 runs only at the scales asked for;
- scales at which the image has fewer than MIN_LEVEL_SIDE pixels are left out (TensorFlow would end the process);
- ``input_global_scales_ind`` that names none of the scales gives no row; pooling over none is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delg_extract.extraction.pyramid import MIN_LEVEL_SIDE, PADDING, RECEPTIVE_FIELD
from delg_extract.extraction.saved_models import (
    COUNT,
    IMAGE,
    LOCAL_OUTPUTS,
    POOLED,
    POSITIONS,
    ROWS,
    SCALES,
    SIGNATURE,
    THRESHOLD,
)
from delg_extract.network.level import Level, level_weights
from delg_extract.network.model import Delg, normalize_pixels
from delg_extract.network.tensorflow import tf, without_warnings

SPECS = {
    IMAGE: tf.TensorSpec([None, None, 3], tf.uint8, IMAGE),
    SCALES: tf.TensorSpec([None], tf.float32, SCALES),
    COUNT: tf.TensorSpec([], tf.int32, COUNT),
    THRESHOLD: tf.TensorSpec([], tf.float32, THRESHOLD),
    POSITIONS: tf.TensorSpec([None], tf.int32, POSITIONS),
}
SUM = "sum"


@dataclass(frozen=True)
class Form:
    """What a SavedModel gives.

    local, global_: which descriptors. iou: overlap of two receptive fields from which the weaker local feature is left
    out (1: never). scales: those fixed at the export, each of which feeds the global descriptor; None: the scales are
    an input. pooling: how the global descriptors of the scales become one, sum or average; None: a row for each scale.
    normalize: whether global descriptors get unit length, after the pooling.
    """

    local: bool = True
    global_: bool = True
    iou: float = 1.0
    scales: tuple[float, ...] | None = None
    pooling: str | None = None
    normalize: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        names = [IMAGE]
        if self.scales is None:
            names.append(SCALES)
        if self.local:
            names += [COUNT, THRESHOLD]
        if self.global_ and self.scales is None:
            names.append(POSITIONS)
        return tuple(names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        local = LOCAL_OUTPUTS if self.local else ()
        return (*local, POOLED if self.pooling else ROWS) if self.global_ else local


def describe(level: Level, form: Form, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The outputs of ``form`` by name, as graph operations: boxes [N, 4] (ymin, xmin, ymax, xmax) in pixels of the
    image, features [N, D] not normalised, scales [N] = 1 / image scale, scores [N, 1] by falling attention;
    global_descriptors [G, E] in the order of the scales, or pooled global_descriptor [E]."""
    image = normalize_pixels(inputs[IMAGE])[None]
    scales = inputs[SCALES] if form.scales is None else tf.constant(form.scales, tf.float32)
    wanted = tf.ones_like(scales, tf.bool)
    if POSITIONS in inputs:
        wanted = tf.reduce_any(tf.equal(tf.range(tf.size(scales))[:, None], inputs[POSITIONS]), 1)
    # As level_size(): a product in float32, rounded half to even.
    sizes = tf.cast(tf.round(tf.cast(tf.shape(image)[1:3], tf.float32) * scales[:, None]), tf.int32)
    runs = tf.reduce_min(sizes, 1) >= MIN_LEVEL_SIDE
    scales, sizes, wanted = (tf.boolean_mask(x, runs if form.local else runs & wanted) for x in (scales, sizes, wanted))
    widths = _widths(level.model, form)

    def step(i, arrays):
        conv4, found = level.conv4(image, sizes[i]), {}
        if form.local:
            found = _local_features(level, conv4, scales[i], inputs[THRESHOLD])
        if form.global_ and form.local:
            found[ROWS] = tf.cond(wanted[i], lambda: level.embedding(conv4), lambda: tf.zeros([0, *widths[ROWS]]))
        elif form.global_:
            found[ROWS] = level.embedding(conv4)
        return i + 1, {name: array.write(i, found[name]) for name, array in arrays.items()}

    arrays = {
        name: tf.TensorArray(tf.float32, tf.size(scales), element_shape=[None, *width], infer_shape=False)
        for name, width in widths.items()
    }
    _, arrays = tf.while_loop(lambda i, _: i < tf.size(scales), step, (tf.constant(0), arrays), parallel_iterations=1)
    found = {name: tf.ensure_shape(array.concat(), [None, *widths[name]]) for name, array in arrays.items()}
    return (_strongest(found, form, inputs[COUNT]) if form.local else {}) | (
        _pooled(found[ROWS], form) if form.global_ else {}
    )


def _widths(model: Delg, form: Form) -> dict[str, list[int]]:
    """Shapes of a row of everything that the scales give."""
    widths = {}
    if form.local:
        widths = {
            "boxes": [4],
            "features": [model.local_dim or model.sizes.local_channels],
            "scales": [],
            "scores": [1],
        }
    if form.global_:
        widths[ROWS] = [model.embedding_dim if model.use_global else model.sizes.global_channels]
    return widths


def _local_features(level: Level, conv4, scale, threshold):
    """The features of one level whose attention reaches the threshold."""
    attention, descriptors = level.heads(conv4)
    height, width = tf.shape(attention)[1], tf.shape(attention)[2]
    y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    corners = float(level.model.stride) * tf.cast(tf.reshape(tf.stack([y, x, y, x], -1), [-1, 4]), tf.float32)
    ahead = RECEPTIVE_FIELD - 1 - PADDING
    attention = tf.reshape(attention, [-1])
    keep = tf.where(attention >= threshold)[:, 0]
    return {
        "boxes": (tf.gather(corners, keep) + [-PADDING, -PADDING, ahead, ahead]) / scale,
        "scores": tf.gather(attention, keep)[:, None],
        "features": tf.gather(tf.reshape(descriptors, [-1, descriptors.shape[-1]]), keep),
        "scales": tf.fill([tf.size(keep)], 1.0 / scale),
    }


def _strongest(found, form, max_features):
    """The strongest of all scales, at most ``max_features``, ties in the order of the scales."""
    scores = found["scores"][:, 0]
    count = tf.clip_by_value(max_features, 0, tf.size(scores))
    if form.iou < 1:
        best = tf.image.non_max_suppression(found["boxes"], scores, count, form.iou)
    else:  # the same without comparing boxes
        best = tf.math.top_k(scores, count).indices
    return {name: tf.gather(found[name], best) for name in LOCAL_OUTPUTS}


def _pooled(rows, form):
    if form.pooling:
        message = (
            "no global descriptor to pool: input_global_scales_ind names none of the scales, or the image is too small"
        )
        with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(rows)[0], message)]):
            rows = tf.identity(rows)
        rows = tf.reduce_sum(rows, 0) if form.pooling == SUM else tf.reduce_mean(rows, 0)
    if form.normalize:
        rows = tf.nn.l2_normalize(rows, -1)
    return {POOLED if form.pooling else ROWS: rows}


def save_serving(folder: str | Path, model: Delg, form: Form) -> None:
    """Writes the SavedModel, signature ``serving_default``, with those weights alone that the form needs."""
    module: Any = tf.Module()
    module.weights = tf.nest.map_structure(
        lambda array: tf.Variable(array, trainable=False), level_weights(model, local=form.local, global_=form.global_)
    )
    # Without local features nothing but every second cell is looked at.
    level = Level(model, module.weights, block3_strides=model.block3_strides or not form.local)
    specs = [SPECS[name] for name in form.inputs]
    serve = tf.function(
        lambda *tensors: describe(level, form, dict(zip(form.inputs, tensors))), input_signature=specs, autograph=False
    )
    with without_warnings():
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})
