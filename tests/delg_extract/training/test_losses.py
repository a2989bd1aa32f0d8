"""The losses against slow, obvious statements of their formulas."""

import math

import numpy as np
import pytest

from delg_extract.network.model import LocalMaps
from delg_extract.network.tensorflow import tf
from delg_extract.training.losses import arcface_logits, cosines, joint_loss


def plain_logits(embedding, weights, labels, margin, scale):
    """docs/delg.md 1.6 word for word: the angle of every class, then the margin on the true one."""
    cosine = tf.nn.l2_normalize(embedding, axis=1) @ tf.nn.l2_normalize(weights, axis=0)
    theta = tf.acos(tf.clip_by_value(cosine, -1.0 + 1e-6, 1.0 - 1e-6))
    true_class = tf.one_hot(labels, weights.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    return scale * tf.where(true_class & (theta <= math.pi - margin), tf.cos(theta + margin), cosine)


def cases():
    """Embeddings, weights and labels: random ones, one opposite its class, one along it."""
    rng = np.random.default_rng(0)
    embedding, weights = rng.standard_normal((6, 5)), rng.standard_normal((5, 7))
    labels = np.array([3, 0, 6, 3, 1, 2])
    embedding[4], embedding[5] = -2 * weights[:, 1], 0.5 * weights[:, 2]
    return tf.constant(embedding, tf.float32), tf.constant(weights, tf.float32), tf.constant(labels, tf.int32)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_logits_and_gradients_equal_the_formula(margin):
    embedding, weights, labels = cases()
    upstream = tf.constant(np.random.default_rng(1).standard_normal((6, 7)), tf.float32)
    results = []
    for function in (arcface_logits, plain_logits):
        with tf.GradientTape() as tape:
            tape.watch((embedding, weights))
            logits = function(embedding, weights, labels, margin, 45.25)
        results.append((logits, *tape.gradient(logits, (embedding, weights), output_gradients=upstream)))
    for ours, plain in zip(*results):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4 * float(tf.reduce_max(abs(plain))))


def test_the_margin_lowers_the_logit_of_the_true_class_alone():
    embedding, weights, labels = cases()
    with_margin, without = (arcface_logits(embedding, weights, x, 0.1).numpy() for x in (labels, None))
    changed = np.argwhere(np.abs(with_margin - without) > 1e-3)
    # The fifth embedding lies opposite its class, where a margin would bring it nearer again.
    assert changed.tolist() == [[0, 3], [1, 0], [2, 6], [3, 3], [5, 2]]
    assert (with_margin[tuple(changed.T)] < without[tuple(changed.T)]).all()


def test_a_label_past_the_last_class_is_an_error_and_no_silent_zero():
    embedding, weights, _ = cases()
    with pytest.raises(tf.errors.InvalidArgumentError):
        arcface_logits(embedding, weights, tf.fill((6,), 7))


def test_a_class_of_zero_weights_has_cosine_zero_and_finite_gradients():
    unit, weights = tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 3.0], [0.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch((unit, weights))
        cosine = cosines(unit, weights)
    np.testing.assert_allclose(cosine, [[0.0, 0.6]], rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(cosine, (unit, weights)))


def test_the_shares_of_two_replicas_add_up_to_the_losses_of_the_joined_batch():
    rng = np.random.default_rng(2)
    labels = tf.constant([0, 2, 1, 4, 3, 0])
    global_, local_ = (tf.constant(rng.standard_normal((6, 5)), tf.float32) for _ in range(2))
    block3, reconstruction = (tf.constant(rng.standard_normal((6, 2, 3, 4)), tf.float32) for _ in range(2))

    def losses(rows, num_replicas):
        maps = LocalMaps(None, None, None, reconstruction[rows])
        logits = global_[rows], local_[rows]
        return np.array(joint_loss(*logits, block3[rows], maps, labels[rows], 6, 0.5, 10.0, num_replicas))

    shares = losses(slice(0, 3), 2) + losses(slice(3, 6), 2)
    whole = losses(slice(0, 6), 1)
    np.testing.assert_allclose(shares, whole, rtol=1e-5)
    assert whole[3] == pytest.approx(np.mean((block3 - reconstruction) ** 2), rel=1e-5)
    assert whole[0] == pytest.approx(whole[1] + 0.5 * whole[2] + 10 * whole[3], rel=1e-5)
