"""Sizes and positions of the image pyramid: pure arithmetic and Pillow, no TensorFlow (docs/delg.md 1.9, 4 and 5.1)."""

from __future__ import annotations

import numpy as np
from PIL import Image

SCALES = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
GLOBAL_SCALES = (3, 4, 5)
RECEPTIVE_FIELD, PADDING = 291.0, 145.0
MIN_SIDE = 10
# conv1 halves a level, and the pooling after it needs three cells; TensorFlow 2.21 ends the process on levels that are
# smaller.
MIN_LEVEL_SIDE = 5


def level_size(side: int, scale: float) -> int:
    """Side of a pyramid level: float32 product, rounded half to even."""
    return int(np.rint(np.float32(side) * np.float32(scale)))


def usable_scales(height: int, width: int, scales: tuple[float, ...]) -> list[int]:
    """Positions of the scales at which an image keeps the MIN_LEVEL_SIDE pixels that the network needs."""
    return [i for i, scale in enumerate(scales) if level_size(min(height, width), scale) >= MIN_LEVEL_SIDE]


def receptive_boxes(
    height: int, width: int, stride: float, field: float = RECEPTIVE_FIELD, padding: float = PADDING
) -> np.ndarray:
    """Receptive-field boxes [height * width, 4] (ymin, xmin, ymax, xmax) of a feature grid, row by row, in pixels of
    the level."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    corner = np.stack([y, x, y, x], -1).reshape(-1, 4).astype(np.float32) * np.float32(stride)
    return corner + np.array([-padding, -padding, field - 1 - padding, field - 1 - padding], np.float32)


def resize_for_extraction(
    image: np.ndarray, max_size: float = -1, min_size: float = -1, resize_factor: float = 1.0, square: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The reference's size rule on uint8 [H, W, 3]: (resized image, scale factors (height, width)). Negative sizes
    are off.

    ``resize_factor`` multiplies both limits (a query crop is its crop's longest side over the original's).
    """
    height, width, _ = image.shape
    longest, upper, lower = max(height, width), max_size * resize_factor, min_size * resize_factor
    if max_size >= 0 and longest > upper:
        factor = upper / longest
    elif min_size >= 0 and longest < lower:
        factor = lower / longest
    elif square and height != width:
        factor = 1.0
    else:
        return image, np.ones(2)
    sides = (longest, longest) if square else (height, width)
    new_height, new_width = (max(1, round(side * factor)) for side in sides)
    resized = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    return resized, np.array([new_height / height, new_width / width])
