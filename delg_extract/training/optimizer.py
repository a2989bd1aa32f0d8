"""The reference's optimizer (docs/delg.md 2.2), gradient descent with momentum and clipping, in one pass over the
weights."""

from __future__ import annotations

from collections.abc import Sequence

from delg_extract.network.tensorflow import tf


class ClippedMomentum:
    """m <- momentum * m - rate * clip(gradient), variable <- variable + m: what tf.clip_by_global_norm and Keras' SGD
    give, which go over every weight ten times. Make it in the scope of the tf.distribute strategy it is used with.

    ``momenta`` is the state that a checkpoint keeps, in the order of ``variables``.
    """

    def __init__(self, variables: Sequence[tf.Variable], momentum: float = 0.9, clip_norm: float = 10.0):
        self.variables, self.momentum, self.clip_norm = list(variables), momentum, clip_norm
        self.momenta = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in self.variables]

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: float | tf.Tensor) -> tf.Tensor:
        """One step, in replica context, with gradients summed over the replicas; returns their norm before clipping."""
        norm = tf.linalg.global_norm(gradients)
        rate = learning_rate * self.clip_norm / tf.maximum(norm, self.clip_norm)
        for variable, accumulator, gradient in zip(self.variables, self.momenta, gradients, strict=True):
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle, accum=accumulator.handle, lr=rate, grad=gradient, momentum=self.momentum
            )
        return norm
