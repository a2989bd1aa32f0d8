"""An encoder whose linear layers multiply int8, for processors: oneDNN's products, twice as fast as those of bfloat16.

What a number can be is known from the weights alone, because rows that come in were normalised: a pair's score does not
depend on what it is computed with. Residual sums, norms and the classifier stay in float32, attention in bfloat16.
"""

import math
from functools import cache
from itertools import pairwise

import torch
from torch import nn

from rrt.errors import InputError
from rrt.network.attention import LARGEST_POWER
from rrt.network.model import RRT, EncoderLayer, SelfAttention, halve, relu

# Standard deviations that uint8 spans of a unit inside the feed-forward network; what lies beyond is cut off.
_SPAN = 8.0
_UINT8, _INT8, _ZERO = 255, 127, 128


@torch.no_grad()
def quantise(model: RRT) -> None:
    """Have the encoder's products computed in int8, those of the first layer and of the last in bfloat16: what comes
    into the first is not normalised, and matching may hang on small differences there; the last computes CLS alone.
    InputError where int8 is not to be had."""
    if next(model.parameters()).device.type != "cpu":
        raise InputError("precision=int8: is for processors; on a GPU take precision=bfloat16, or auto")
    if not multiplies_exactly():
        raise InputError(
            "precision=int8: this processor, or this PyTorch, does not multiply int8 exactly (AVX-512 VNNI and oneDNN"
            " do); take precision=auto"
        )
    layers = [layer for layer in model.encoder.layers if isinstance(layer, EncoderLayer)]
    int8 = []
    for before, layer in pairwise(layers[:-1]):
        attention, norm = layer.self_attn, layer.norm1 if layer.normalize_before else before.norm2
        int8.append((attention, "project", Int8Linear(attention.in_proj_weight, attention.in_proj_bias, norm)))
        int8.append((layer, "feedforward", Int8FeedForward(layer)))
        attention.coarse = largest_score(attention, norm) < LARGEST_POWER * math.log(2)
    halve(model, torch.bfloat16)
    for module, name, function in int8:
        setattr(module, name, function)


def largest_score(attention: SelfAttention, norm: nn.LayerNorm) -> float:
    """A bound of what the softmax sees, query . key / sqrt(e), of rows that ``norm`` made. One is no longer than the
    root of its width before its factors, and with a one for the bias behind it query and key are linear in it."""
    weight, bias, heads = attention.in_proj_weight, attention.in_proj_bias, attention.num_heads
    width = weight.shape[1]
    whole = torch.cat([weight * norm.weight, (weight @ norm.bias + bias)[:, None]], 1)
    query, key, _ = whole.unflatten(0, (3, heads, -1))
    largest = torch.linalg.matrix_norm(query.transpose(1, 2) @ key, 2).max().item()
    return largest * (width + 1) / math.sqrt(width / heads)


class Int8Linear:
    """weight x + bias of rows x that ``norm`` made. weight [out, in], bias [out]; out_steps: None, or [out]: then it is
    relu(weight x + bias) / out_steps in uint8."""

    def __init__(self, weight, bias, norm: nn.LayerNorm, out_steps=None):
        # No row is longer than the root of its width, and so is no number of it: nothing is cut off.
        reach = (norm.weight.abs() * math.sqrt(len(norm.weight)) + norm.bias.abs()).max().item()
        self.step, self.out = reach / _INT8, (torch.bfloat16, "none")
        if out_steps is not None:
            weight, bias, self.out = weight / out_steps[:, None], bias / out_steps, (torch.uint8, "relu")
        self.product = Int8Product(weight, bias, self.step, _ZERO)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [n, in] -> bfloat16 or uint8 [n, out]"""
        rounded = torch.add(x.new_tensor(_ZERO + 0.5), x, alpha=1 / self.step).to(torch.uint8)
        return self.product(rounded, *self.out)


class Int8FeedForward:
    """The feed-forward network of a layer; with another activation than relu its second product is in bfloat16."""

    def __init__(self, layer: EncoderLayer):
        norm = layer.norm2 if layer.normalize_before else layer.norm1
        first, second = layer.linear1, layer.linear2
        self.layer, self.second, steps = layer, None, None
        if layer.activation is relu:
            mean, deviation = first.bias + first.weight @ norm.bias, (first.weight * norm.weight).norm(dim=1)
            steps = ((mean + _SPAN * deviation) / _UINT8).clamp_min(1e-12)
            self.second = Int8Product(second.weight * steps, second.bias, 1.0, 0)
        self.first = Int8Linear(first.weight, first.bias, norm, steps)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [n, d] -> [n, d]"""
        inside = self.first(x)
        if self.second:
            return self.second(inside, torch.float32)
        return self.layer.linear2(self.layer.activation(inside))


@cache
def multiplies_exactly() -> bool:
    """Whether oneDNN does; processors without an instruction for it add pairs of products in 16 bits, which the largest
    do not fit into."""
    weight = torch.tensor([[1.0] * 64, [-1.0] * 64])
    try:
        found = Int8Product(weight, torch.zeros(2), 1.0, 0)(torch.full((1, 64), _UINT8, dtype=torch.uint8))
    except (RuntimeError, AttributeError):
        return False
    return bool(torch.allclose(found, weight.sum(1) * _UINT8))


class Int8Product:
    """step (x - zero) weight^T + bias of uint8 x [n, in]; weight [out, in] is rounded, by a step of its own for each
    output."""

    def __init__(self, weight, bias, step: float, zero: int):
        steps = weight.abs().amax(1).clamp_min(1e-12) / _INT8
        rounded = (weight / steps[:, None]).round().to(torch.int8).contiguous()
        packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.fixed = (step, zero, packed, steps, torch.zeros(len(steps), dtype=torch.int64), bias.contiguous(), 1.0, 0)

    def __call__(self, x, dtype=torch.float32, activation="none"):
        """uint8 [n, in] -> [n, out] of the type, activation "none" or "relu"."""
        return torch.ops.onednn.qlinear_pointwise.default(x, *self.fixed, dtype, activation, [], "")
