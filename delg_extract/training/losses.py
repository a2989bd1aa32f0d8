"""The joint DELG loss (DELG paper, section 3.3; docs/delg.md 1.3 to 1.7) and the classifiers that exist only while
training.

    L = L_global + attention_weight * L_attention + reconstruction_weight * L_reconstruction

Only L_global reaches the trunk: the local head reads a conv4 whose gradient is stopped.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from delg_extract.network.model import Delg, LocalMaps, attention_pool
from delg_extract.network.tensorflow import tf

SCALE_FACTOR = 45.25  # about sqrt(2048); a constant, as in the reference


class Losses(NamedTuple):
    """Scalars of one replica; ``total`` is what is differentiated."""

    total: tf.Tensor
    global_: tf.Tensor
    attention: tf.Tensor
    reconstruction: tf.Tensor


def add_classifiers(model: Delg, num_classes: int, stage: str = "joint") -> None:
    """Adds the training-only variables: ``cosine_weights`` (DELG) or ``desc_fc`` (DELF), and ``att_fc``; those the
    stage trains."""
    if stage != "keypoint" and model.use_global:
        model.add_matrix("cosine_weights", model.embedding_dim, num_classes)
    elif stage != "keypoint":
        model.add_dense("desc_fc", model.sizes.global_channels, num_classes)
    if stage != "finetune":
        model.add_dense("att_fc", model.sizes.local_channels, num_classes)


CLASSIFIERS = ("cosine_weights", "desc_fc", "att_fc")


@tf.custom_gradient
def cosines(embedding: tf.Tensor, weights: tf.Tensor) -> Any:
    """Cosines [B, C] of unit embeddings [B, D] with the columns of the weights [D, C].

    The weights of 81313 classes take 0.7 GB: they are never written out normalised, neither here nor in the gradient.
    """
    inverse_norm = 1.0 / tf.maximum(tf.math.reduce_euclidean_norm(weights, axis=0), 1e-6)
    cosine = (embedding @ weights) * inverse_norm

    def gradient(upstream):
        scaled = upstream * inverse_norm
        # What points along a column would only change its length.
        along = tf.reduce_sum(scaled * cosine, axis=0) * inverse_norm
        return tf.matmul(scaled, weights, transpose_b=True), tf.matmul(
            embedding, scaled, transpose_a=True
        ) - weights * along

    return cosine, gradient


def arcface_logits(
    embedding: tf.Tensor, weights: tf.Tensor, labels: tf.Tensor | None, margin: float = 0.1, scale: float = SCALE_FACTOR
) -> tf.Tensor:
    """Cosine logits [B, C] with the additive angular margin of ArcFace on the true class; ``labels=None``: no margin
    (validation).

    The margin is left out where theta > pi - margin. The cosine is clamped before acos, whose gradient is infinite at
    +-1.
    """
    cosine = cosines(tf.nn.l2_normalize(embedding, axis=1), tf.convert_to_tensor(weights))
    if labels is not None:
        entries = tf.stack([tf.range(tf.size(labels)), tf.cast(labels, tf.int32)], axis=1)
        true_cosine = tf.gather_nd(cosine, entries)
        theta = tf.acos(tf.clip_by_value(true_cosine, -1.0 + 1e-6, 1.0 - 1e-6))
        with_margin = tf.where(theta <= math.pi - margin, tf.cos(theta + margin), true_cosine)
        cosine = tf.tensor_scatter_nd_update(cosine, entries, with_margin)
    return scale * cosine


def global_logits(
    model: Delg, embedding: tf.Tensor, labels: tf.Tensor | None, margin: float, scale: float = SCALE_FACTOR
) -> tf.Tensor:
    """Class logits of the global branch: cosine with margin for DELG, a dense layer for DELF."""
    v = model.variables_by_name
    if model.use_global:
        return arcface_logits(embedding, v["cosine_weights"], labels, margin, scale)
    return embedding @ v["desc_fc/kernel"] + v["desc_fc/bias"]


def local_logits(model: Delg, block3: tf.Tensor, maps: LocalMaps) -> tf.Tensor:
    """Class logits of the local branch: attention-pooled reconstruction (block3 itself without the autoencoder)."""
    v = model.variables_by_name
    targets = block3 if maps.reconstruction is None else maps.reconstruction
    return attention_pool(targets, maps.attention) @ v["att_fc/kernel"] + v["att_fc/bias"]


def joint_loss(
    global_logits_: tf.Tensor | None,
    local_logits_: tf.Tensor | None,
    block3: tf.Tensor | None,
    maps: LocalMaps | None,
    labels: tf.Tensor,
    global_batch: int | tf.Tensor,
    attention_weight: float = 1.0,
    reconstruction_weight: float = 10.0,
    num_replicas: int = 1,
) -> Losses:
    """The weighted sum above for one replica; what is None is left out. Cross entropies are summed here and divided by
    the batch of all replicas.

    The reconstruction error is a mean over the replica's batch; it is divided by the number of replicas, because
    gradients are summed over them (not so in the reference, where the weight grows with the number of GPUs).
    """

    def cross_entropy(logits):
        if logits is None:
            return tf.constant(0.0)
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)) / tf.cast(
            global_batch, tf.float32
        )

    loss_global, loss_attention = cross_entropy(global_logits_), cross_entropy(local_logits_)
    loss_reconstruction = tf.constant(0.0)
    if block3 is not None and maps is not None and maps.reconstruction is not None:
        loss_reconstruction = tf.reduce_mean(tf.square(block3 - maps.reconstruction)) / num_replicas
    total = loss_global + attention_weight * loss_attention + reconstruction_weight * loss_reconstruction
    return Losses(total, loss_global, loss_attention, loss_reconstruction)
