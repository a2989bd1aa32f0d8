"""Two images of which one is a warp of the other, and features that move with it."""

from dataclasses import replace

import cv2
import numpy as np

from rrt.formats.delf import LocalFeatures
from rrt.store.records import ImageRecord

WARP = np.array([[0.98, -0.07, 14.0], [0.06, 1.02, -9.0]])


def textured(height, width, seed=0):
    """Patches and blobs of many sizes, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.uint8)
    for side in (120, 60, 30, 15):
        for _ in range(height * width // (side * side)):
            x, y = rng.integers(0, (width, height)).tolist()
            colour = rng.integers(0, 256, 3).tolist()
            if rng.random() < 0.5:
                cv2.rectangle(
                    picture, (x, y), (x + int(rng.integers(5, side)), y + int(rng.integers(5, side))), colour, -1
                )
            else:
                cv2.circle(picture, (x, y), side // 3, colour, -1)
    return picture


def features(n, size=(300, 205), seed=0, dim=16):
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((n, dim)).astype(np.float32)
    return LocalFeatures(
        descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        rng.uniform(20, size, (n, 2)).astype(np.float32),
        np.ones(n, np.float32),
        np.linspace(9, 1, n, dtype=np.float32),
        np.zeros(n, np.float32),
    )


def record(name, size, local):
    return ImageRecord(
        name=name,
        size=size,
        global_=np.eye(4)[0],
        descriptors=local.descriptors,
        keypoints=local.keypoints,
        scales=local.scales,
        attention=local.attention,
    )


def moved(local):
    """The same descriptors where WARP moves them."""
    return replace(local, keypoints=local.keypoints @ WARP[:, :2].T + WARP[:, 2])
