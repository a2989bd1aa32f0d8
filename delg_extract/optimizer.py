"""The reference's optimizer (DELG_SPEC 2.2), gradient descent with momentum and clipping, in one pass over the weights."""
from __future__ import annotations

from collections.abc import Sequence

from delg_extract.quiet_tensorflow import tf


class ClippedMomentum:
    """m <- momentum * m - rate * clip(gradient), variable <- variable + m: what tf.clip_by_global_norm and Keras' SGD give, which
    go over every weight ten times. Made and applied under a tf.distribute strategy, each replica's gradient is clipped before
    they are summed, as in the reference.

    ``momenta`` is the state that a checkpoint keeps, in the order of ``variables``.
    """

    def __init__(self, variables: Sequence[tf.Variable], momentum: float = 0.9, clip_norm: float = 10.0):
        self.variables, self.momentum, self.clip_norm = list(variables), momentum, clip_norm
        self.momenta = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in self.variables]

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: float | tf.Tensor) -> tf.Tensor:
        """One step; returns the norm of this replica's gradient before clipping. A gradient of None leaves its variable alone."""
        found = [triple for triple in zip(self.variables, self.momenta, gradients, strict=True) if triple[2] is not None]
        variables, momenta, gradients = zip(*found)
        norm = tf.linalg.global_norm(gradients)
        factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:
            gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, [factor * gradient for gradient in gradients])
        else:
            learning_rate = learning_rate * factor
        for variable, accumulator, gradient in zip(variables, momenta, gradients):
            tf.raw_ops.ResourceApplyKerasMomentum(var=variable.handle, accum=accumulator.handle, lr=learning_rate, grad=gradient,
                                                  momentum=self.momentum)
        return norm
