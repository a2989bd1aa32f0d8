"""The optimizer against tf.clip_by_global_norm and Keras' SGD."""

import numpy as np
import pytest

from delg_extract.network.tensorflow import tf
from delg_extract.training.step import ClippedMomentum

SHAPES = ((3, 3, 2, 4), (5,), ())


def variables():
    rng = np.random.default_rng(0)
    return [tf.Variable(rng.standard_normal(shape), dtype=tf.float32) for shape in SHAPES]


def test_steps_equal_those_of_keras_with_and_without_clipping():
    from keras.optimizers import SGD  # a second to load

    ours, plain = variables(), variables()
    optimizer, keras = ClippedMomentum(ours, momentum=0.9, clip_norm=10.0), SGD(0.1, momentum=0.9)
    rng = np.random.default_rng(1)
    clipped = []
    for rate, size in ((0.1, 100.0), (0.08, 0.1), (0.06, 30.0), (0.0, 1.0)):
        gradients = [tf.constant(size * rng.standard_normal(shape), tf.float32) for shape in SHAPES]
        norm = float(optimizer.apply(gradients, rate))
        shortened, expected_norm = tf.clip_by_global_norm(gradients, 10.0)
        keras.learning_rate.assign(rate)
        keras.apply(shortened, plain)
        assert norm == pytest.approx(float(expected_norm), rel=1e-6)
        clipped.append(norm > 10)
        for a, b in zip(ours, plain):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert clipped == [True, False, True, False]


def test_the_momenta_are_all_that_a_continued_run_needs():
    gradients = [tf.ones(shape) for shape in SHAPES]
    undisturbed, continued = variables(), variables()
    first, second = ClippedMomentum(undisturbed), ClippedMomentum(continued)
    first.apply(gradients, 0.1)
    for variable, momentum, source, kept in zip(continued, second.momenta, undisturbed, first.momenta):
        variable.assign(source)
        momentum.assign(kept)
    first.apply(gradients, 0.05)
    second.apply(gradients, 0.05)
    assert all(np.array_equal(a, b) for a, b in zip(undisturbed, continued))
