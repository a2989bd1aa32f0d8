"""The fast convolutions of training against tf.nn.conv2d and slices, values and gradients."""

import numpy as np
import pytest

from delg_extract.network.convolutions import WINOGRAD_CHANNELS, convolve, every_second, winograd
from delg_extract.network.tensorflow import tf


def normal(*shape, dtype=tf.float32):
    return tf.cast(np.random.default_rng(len(shape) + shape[-1]).standard_normal(shape), dtype)


def values_and_gradients(function, *inputs):
    """The function's value and the gradients of its inputs from the same upstream gradient, as NumPy arrays."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    gradients = tape.gradient(value, inputs, output_gradients=normal(*value.shape, dtype=value.dtype))
    return [tf.cast(x, tf.float32).numpy() for x in (value, *gradients)]


def assert_same(ours, expected, tolerance):
    for got, wanted in zip(ours, expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (4, 4), (5, 8), (7, 7)])
def test_winograd_equals_the_convolution_and_so_do_its_gradients(height, width):
    x, kernel = normal(2, height, width, 5), normal(3, 3, 5, 3)
    plain = values_and_gradients(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), x, kernel)
    assert_same(values_and_gradients(winograd, x, kernel), plain, 2e-6)


CASES = {
    "1x1": (1, 8, 16, 1, "VALID"),
    "1x1 of stride two": (1, 8, 16, 2, "VALID"),
    "3x3": (3, 8, 16, 1, "SAME"),
    "3x3 of many channels": (3, WINOGRAD_CHANNELS, WINOGRAD_CHANNELS + 8, 1, "SAME"),
    "3x3 of many channels, no padding": (3, WINOGRAD_CHANNELS, WINOGRAD_CHANNELS, 1, "VALID"),
    "3x3 of many channels, stride two": (3, WINOGRAD_CHANNELS, WINOGRAD_CHANNELS, 2, "SAME"),
    "7x7": (7, 3, 8, 2, "SAME"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 5e-6), ("bfloat16", 0.02)])
def test_every_convolution_equals_that_of_tensorflow(case, dtype, tolerance):
    size, channels, channels_out, stride, padding = CASES[case]
    x, kernel = normal(2, 9, 8, channels, dtype=dtype), normal(size, size, channels, channels_out, dtype=dtype)
    plain = values_and_gradients(lambda x, kernel: tf.nn.conv2d(x, kernel, stride, padding), x, kernel)
    assert_same(
        values_and_gradients(lambda x, kernel: convolve(x, kernel, stride, padding), x, kernel), plain, tolerance
    )


def test_only_wide_float32_kernels_go_by_winograd(monkeypatch):
    monkeypatch.setattr("delg_extract.network.convolutions.winograd", lambda x, kernel: "winograd")
    wide, narrow = normal(3, 3, WINOGRAD_CHANNELS, WINOGRAD_CHANNELS), normal(3, 3, WINOGRAD_CHANNELS, 8)
    x = normal(1, 4, 4, WINOGRAD_CHANNELS)
    for gpus, kernel, dtype, expected in (
        ([], wide, "float32", True),
        ([], wide, "bfloat16", False),
        ([], narrow, "float32", False),
        (["a GPU"], wide, "float32", False),
    ):
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind, gpus=gpus: gpus)
        assert isinstance(convolve(tf.cast(x, dtype), tf.cast(kernel, dtype)), str) == expected


@pytest.mark.parametrize("height, width", [(1, 1), (2, 5), (6, 4), (7, 3)])
def test_every_second_cell_is_that_of_a_slice_and_so_is_its_gradient(height, width):
    plain = values_and_gradients(lambda x: x[:, ::2, ::2], normal(2, height, width, 3))
    for got, wanted in zip(values_and_gradients(every_second, normal(2, height, width, 3)), plain):
        assert np.array_equal(got, wanted)


def test_sizes_may_be_unknown_when_the_graph_is_made():
    kernel, point = normal(3, 3, WINOGRAD_CHANNELS, WINOGRAD_CHANNELS), normal(1, 1, WINOGRAD_CHANNELS, 4)

    def network(convolution, thinned):
        return lambda x: convolution(thinned(convolution(x, kernel)), point)

    plain = network(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), lambda x: x[:, ::2, ::2])
    traced = tf.function(
        lambda x: values_and_gradients_of_graph(network(convolve, every_second), x),
        input_signature=[tf.TensorSpec([None, None, None, WINOGRAD_CHANNELS])],
    )
    for height, width in ((4, 5), (7, 6)):
        x = normal(2, height, width, WINOGRAD_CHANNELS)
        assert_same([y.numpy() for y in traced(x)], [y.numpy() for y in values_and_gradients_of_graph(plain, x)], 5e-6)


def values_and_gradients_of_graph(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return value, tape.gradient(value, x)
