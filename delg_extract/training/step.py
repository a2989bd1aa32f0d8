"""The step of DELG's and DELF's training: forward, losses, gradients, SGD (docs/delg.md 1.3 to 1.7 and 2.2).

Deviations from the reference, all on purpose:
- the ImageNet stem is loaded, too (network/weights.py); the reference leaves conv1 random, and takes a step before
  loading;
- the reconstruction loss does not grow with the number of replicas, and the cosine is clamped before acos (losses.py);
- labels are checked, not clamped (data/records.py);
- validation pools what training pools: the reconstruction, where there is an autoencoder;
- gradients are clipped after they are summed over the replicas, so that the bound is the same for any number of them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NamedTuple

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.training.losses import global_logits, joint_loss, local_logits

CLIP_NORM = 10.0
CONV4 = ("conv1/", "bn_conv1/", "res2", "res3", "res4", "bn2", "bn3", "bn4")
LOCAL_HEAD = ("attn_", "autoenc_", "att_fc/")
FROZEN = {"none": (), "conv4": CONV4, "trunk": (*CONV4, "res5", "bn5", "embedding_layer/")}


class StepResult(NamedTuple):
    """Scalars of one step, over all replicas: losses, norm of the gradient before clipping, accuracies of the batch."""

    total: tf.Tensor
    global_: tf.Tensor
    attention: tf.Tensor
    reconstruction: tf.Tensor
    gradient_norm: tf.Tensor
    global_accuracy: tf.Tensor
    local_accuracy: tf.Tensor


def is_of_stage(name: str, stage: str) -> bool:
    """Whether a stage trains the variable of this name: finetune all but the local head, keypoint the local head
    alone."""
    return stage == "joint" or name.startswith(LOCAL_HEAD) == (stage == "keypoint")


class Trainer:
    """One training step and its state. What ``args.freeze`` keeps as it is has its batch norms in inference mode.

    ``model`` must have been made in the scope of ``strategy`` (default: the one in use), with its classifiers.
    """

    def __init__(self, model: Delg, args: Namespace, strategy: tf.distribute.Strategy | None = None):
        self.model, self.args = model, args
        self.strategy = strategy or tf.distribute.get_strategy()
        trained = [v for name, v in model.trained_variables(FROZEN[args.freeze]) if is_of_stage(name, args.stage)]
        with self.strategy.scope():
            self.optimizer = ClippedMomentum(trained)
            self.step_count = tf.Variable(
                tf.constant(0, tf.int64), trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
            self.data_seed = tf.Variable(
                args.seed, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )

    def checkpoint(self) -> tf.train.Checkpoint:
        """All that a run needs to go on as if it had not stopped."""
        return tf.train.Checkpoint(
            variables=self.model.variables_by_name,
            step=self.step_count,
            data_seed=self.data_seed,
            momenta=self.optimizer.momenta,
        )

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self.args.initial_lr * (1.0 - int(self.step_count.numpy()) / self.args.max_iters)

    # ---- forward -----------------------------------------------------------------------------------------------------

    def forward(self, images, labels, training):
        """Global and local logits, block3 and local maps; None for what the stage leaves out. The margin is for
        training only."""
        args, model = self.args, self.model
        conv4 = model.conv4(images, training and args.freeze == "none")
        global_, local_, block3, maps = None, None, None, None
        if args.stage != "finetune":
            block3 = tf.stop_gradient(model.block3(conv4))
            maps = model.local(block3, training)
            local_ = local_logits(model, block3, maps)
        if args.stage != "keypoint":
            embedding = model.embed(model.conv5(conv4, training and args.freeze != "trunk"))
            global_ = global_logits(
                model, embedding, labels if training else None, args.delg_arcface_margin, args.delg_scale_factor_init
            )
        return global_, local_, block3, maps

    def losses(self, images, labels):
        """Losses of a replica's share of the batch, as ``joint_loss``, and the two accuracies."""
        replicas = self.strategy.num_replicas_in_sync
        global_, local_, block3, maps = self.forward(images, labels, training=True)
        losses = joint_loss(
            global_,
            local_,
            block3,
            maps,
            labels,
            tf.shape(images)[0] * replicas,
            self.args.attention_loss_weight,
            self.args.reconstruction_loss_weight,
            replicas,
        )
        return losses, accuracy(global_, labels), accuracy(local_, labels)

    # ---- one step ----------------------------------------------------------------------------------------------------

    def gradients(self, images, labels):
        """Losses, accuracies, and the gradients of the mean loss over the joined batch by the optimizer's variables; in
        replica context."""
        with tf.GradientTape() as tape:
            losses, *accuracies = self.losses(images, labels)
        found = tape.gradient(losses.total, self.optimizer.variables)
        if self.strategy.num_replicas_in_sync > 1:
            found = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, found)
        return losses, accuracies, found

    def _replica_step(self, images, labels):
        losses, accuracies, gradients = self.gradients(self._at_random_scale(images), labels)
        remaining = 1.0 - tf.cast(self.step_count, tf.float32) / self.args.max_iters
        norm = self.optimizer.apply(gradients, self.args.initial_lr * remaining)
        return StepResult(*losses, norm, *accuracies)

    def _at_random_scale(self, images):
        """Stage keypoint: the batch scaled by gamma, uniform from ``min_gamma`` to 1 (Noh et al., ICCV 2017, section
        4.2)."""
        if self.args.stage != "keypoint":
            return images
        seed = tf.stack([self.data_seed, self.step_count])
        gamma = tf.random.stateless_uniform((), seed, self.args.min_gamma, 1.0)
        side = tf.cast(tf.round(gamma * self.args.image_size), tf.int32)
        return tf.image.resize(images, (side, side), antialias=True)

    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(self, images, labels) -> StepResult:
        """One SGD step on a batch (of each replica: its share), the gradient clipped to a global norm of 10."""
        each = self.strategy.run(self._replica_step, args=(images, labels))
        self.step_count.assign_add(1)
        summed = [self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in each[:4]]
        # The norm is that of the sum already; accuracies are of equal shares.
        return StepResult(
            *summed, *(self.strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None) for value in each[4:])
        )

    @tf.function(reduce_retracing=True, autograph=False)
    def validation_step(self, images, labels):
        """How many images each head names right, and how many there are; labels below zero do not count."""

        def of_replica(images, labels):
            global_, local_, *_ = self.forward(images, labels, training=False)
            return tuple(
                tf.reduce_sum(tf.cast(hits, tf.float32))
                for hits in (right(global_, labels), right(local_, labels), labels >= 0)
            )

        counts = self.strategy.run(of_replica, args=(images, labels))
        return [self.strategy.reduce(tf.distribute.ReduceOp.SUM, count, axis=None) for count in counts]

    @tf.function(reduce_retracing=True, autograph=False)
    def attention(self, images):
        """Attention maps [B, h, w] of each replica's images."""

        def of_replica(images):
            return self.model.local(self.model.block3(self.model.conv4(images))).attention

        return self.strategy.run(of_replica, args=(images,))


def right(logits, labels):
    """Whether the largest logit is that of the label, bool [B]; False for all where there are no logits."""
    if logits is None:
        return tf.zeros_like(labels, tf.bool)
    return tf.argmax(logits, 1, tf.int32) == labels


def accuracy(logits, labels):
    """Share of a batch that is named right; NaN where there are no logits."""
    return tf.constant(float("nan")) if logits is None else tf.reduce_mean(tf.cast(right(logits, labels), tf.float32))


class ClippedMomentum:
    """m <- momentum * m - rate * clip(gradient), variable <- variable + m: what tf.clip_by_global_norm and Keras' SGD
    give, which go over every weight ten times. Make it in the scope of the tf.distribute strategy it is used with.

    ``momenta`` is the state that a checkpoint keeps, in the order of ``variables``.
    """

    def __init__(self, variables: Sequence[tf.Variable], momentum: float = 0.9, clip_norm: float = CLIP_NORM):
        self.variables, self.momentum, self.clip_norm = list(variables), momentum, clip_norm
        self.momenta = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in self.variables]

    def apply(self, gradients: Sequence[Any], learning_rate: float | tf.Tensor) -> tf.Tensor:
        """One step, in replica context, with gradients summed over the replicas; returns their norm before clipping."""
        norm = tf.linalg.global_norm(gradients)
        rate = learning_rate * self.clip_norm / tf.maximum(norm, self.clip_norm)
        for variable, accumulator, gradient in zip(self.variables, self.momenta, gradients, strict=True):
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle, accum=accumulator.handle, lr=rate, grad=gradient, momentum=self.momentum
            )
        return norm
