"""Convolutions as the network trains with them: the numbers of tf.nn.conv2d, in less time on a processor.

- A 1x1 convolution is a matrix product over the cells; oneDNN's product is faster than its convolution and that one's
  gradients.
- A 3x3 convolution of many channels, in float32 and without a GPU, is Winograd's F(2x2, 3x3) (Lavin and Gray, "Fast
  Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1): 16 products where the sums over the windows
  take 36, for each tile of 2x2 cells, at an error of a few float32 roundings. Without it a whole step of ResNet-50 (321
  pixels, batch 4) takes 12 % more processor time with AVX-512, 10 % with AVX2 (medians, taking turns).
- Taking every second cell is a pooling forward and a padding backward; TensorFlow's slices take ten times as long.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from delg_extract.network.tensorflow import tf

# With fewer channels the transforms take longer than the products they save.
WINOGRAD_CHANNELS = 256
# The transforms of an axis of a tile: four input cells, three kernel taps and two output cells to and from four
# products.
_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)
# A kernel read backwards has the same four products in this order.
_TURNED = [3, 1, 2, 0]


def convolve(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, padding: Literal["SAME", "VALID"] = "SAME") -> tf.Tensor:
    """tf.nn.conv2d of [B, H, W, C] and a kernel [k, k, C, D], by the fastest way known here."""
    if kernel.shape[0] == 1 and stride == 1:
        cells = tf.matmul(tf.reshape(x, (-1, kernel.shape[2])), tf.reshape(kernel, kernel.shape[2:]))
        return tf.reshape(cells, (*tf.unstack(tf.shape(x))[:3], kernel.shape[3]))
    wide = kernel.shape[0] == 3 and all((side or 0) >= WINOGRAD_CHANNELS for side in kernel.shape[2:])
    if wide and (stride, padding, x.dtype) == (1, "SAME", tf.float32) and not tf.config.list_physical_devices("GPU"):
        return winograd(x, tf.convert_to_tensor(kernel))
    return tf.nn.conv2d(x, kernel, stride, padding)


@tf.custom_gradient
def every_second(x: tf.Tensor) -> Any:
    """Every second cell of both axes, [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]."""

    def gradient(upstream):
        _, height, width, channels = tf.unstack(tf.shape(x))
        _, rows, columns, _ = tf.unstack(tf.shape(upstream))
        spread = tf.pad(upstream[:, :, None, :, None], ((0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0)))
        return tf.reshape(spread, (-1, 2 * rows, 2 * columns, channels))[:, :height, :width]

    return tf.nn.max_pool2d(x, 1, 2, "VALID"), gradient


@tf.custom_gradient
def winograd(x: tf.Tensor, kernel: tf.Tensor) -> Any:
    """The 3x3 convolution of [B, H, W, C] with [3, 3, C, D] at stride one and padding "SAME", [B, H, W, D], in
    float32."""
    height, width = tf.unstack(tf.shape(x))[1:3]
    kernels = _transform(_KERNEL, kernel)
    inputs = _transform(_INPUT, _tiles(x))

    def gradient(upstream):
        # The gradient of the input is the convolution of the upstream with the turned kernel.
        products = tf.matmul(_transform(_INPUT[_TURNED], _tiles(upstream)), kernels, transpose_b=True)
        blocks = tf.reshape(
            tf.space_to_batch(upstream, (2, 2), _missing_cells(height, width)), (2, 2, -1, upstream.shape[3])
        )
        of_kernels = tf.matmul(inputs, _transform(_OUTPUT.T, blocks), transpose_a=True)
        of_kernel = tf.reshape(_transform(_KERNEL.T, of_kernels), tf.shape(kernel))
        return _untile(products, _OUTPUT[:, _TURNED], height, width), of_kernel

    return _untile(tf.matmul(inputs, kernels), _OUTPUT, height, width), gradient


def _transform(matrix: np.ndarray, x: tf.Tensor) -> tf.Tensor:
    """The matrix applied to the two axes of tiles [n * n, M, C] or [n, n, M, C] -> [m * m, M, C]."""
    both = np.kron(matrix, matrix)
    return tf.reshape(tf.matmul(both, tf.reshape(x, (both.shape[1], -1))), (both.shape[0], -1, x.shape[-1]))


def _missing_cells(height, width):
    """What rows and columns lack to an even number, as paddings."""
    return (0, height % 2), (0, width % 2)


def _tiles(x):
    """The overlapping tiles of 4x4 cells every 2 cells, beginning at the cell (-1, -1): [16, B * tiles, C]."""
    batch, height, width, channels = tf.unstack(tf.shape(x))
    (_, below), (_, right) = _missing_cells(height, width)
    padded = tf.pad(x, ((0, 0), (1, 1 + below), (1, 1 + right), (0, 0)))
    down, across = (height + below) // 2, (width + right) // 2
    rows = tf.range(4)[:, None] + 2 * tf.range(down)
    columns = tf.range(4)[:, None] + 2 * tf.range(across)
    image = tf.range(batch)[:, None, None] * (2 * down + 2) * (2 * across + 2)
    cells = image + rows[:, None, None, :, None] * (2 * across + 2) + columns[None, :, None, None, :]
    return tf.reshape(tf.gather(tf.reshape(padded, (-1, channels)), tf.reshape(cells, (16, -1))), (16, -1, x.shape[3]))


def _untile(products, matrix, height, width):
    """Products [16, B * tiles, D] -> the cells [B, H, W, D] by the output transform."""
    (_, below), (_, right) = crops = _missing_cells(height, width)
    down, across = (height + below) // 2, (width + right) // 2
    blocks = tf.reshape(_transform(matrix, products), (-1, down, across, products.shape[2]))
    return tf.batch_to_space(blocks, (2, 2), crops)
