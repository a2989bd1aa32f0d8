"""EfficientNet-Lite0 in torch, which the ONNX file of rrt.extraction.lite0 is compared with."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from rrt.extraction.lite0.network import (
    HEAD,
    LAST_OF_STRIDE_16,
    MEAN,
    STD,
    STEM,
    Block,
    blocks,
    fold_batch_norms,
    read_published,
)


class Maps(NamedTuple):
    """Feature maps [B, channels, h, w]: `stride16` (112, output of the last block of stride 16), `expanded` (672, the
    expansion of the next block after ReLU6), `head` (1,280 of stride 32 after ReLU6)."""

    stride16: torch.Tensor
    expanded: torch.Tensor
    head: torch.Tensor


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: ceil(size / stride) cells, the odd pixel of padding at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x):
        """[B, inputs, h, w] -> [B, outputs, ceil(h / stride), ceil(w / stride)]."""
        pads = []
        for size in (x.shape[3], x.shape[2]):
            stride, kernel = self.stride[0], self.kernel_size[0]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


class InvertedResidual(nn.Module):
    """Expansion 1x1 (none where it would change nothing), depthwise convolution, linear projection 1x1."""

    def __init__(self, block: Block):
        super().__init__()
        self.block = block
        widened = block.expanded != block.inputs
        self.expand = SameConv(block.inputs, block.expanded) if widened else None
        self.depthwise = SameConv(block.expanded, block.expanded, block.kernel, block.stride, block.expanded)
        self.project = SameConv(block.expanded, block.outputs)

    def expanded(self, x):
        """The map inside the block before its depthwise convolution."""
        return x if self.expand is None else functional.relu6(self.expand(x))

    def forward(self, x):
        """[B, inputs, h, w] -> [B, outputs, ceil(h / stride), ceil(w / stride)]."""
        inside = functional.relu6(self.depthwise(self.expanded(x)))
        return self.project(inside) + (x if self.block.residual else 0)


class Lite0(nn.Module):
    """The network without its classifier; state dictionary as `fold_batch_norms` gives it."""

    def __init__(self):
        super().__init__()
        self.stem = SameConv(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in blocks())
        self.head = SameConv(blocks()[-1].outputs, HEAD)

    def forward(self, pixels) -> Maps:
        """RGB pixels 0..255, float32 [B, 3, H, W] -> Maps."""
        x = functional.relu6(self.stem((pixels - MEAN) / STD))
        stride16 = expanded = x
        for number, block in enumerate(self.blocks):
            assert isinstance(block, InvertedResidual)
            if number == LAST_OF_STRIDE_16:
                stride16, expanded = x, block.expanded(x)
            x = block(x)
        return Maps(stride16, expanded, functional.relu6(self.head(x)))


def load_lite0(path):
    """The network with the weights of a published file, in evaluation mode."""
    network = Lite0()
    folded = fold_batch_norms(read_published(path), path)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in folded.items()})
    return network.eval()
