"""LATE, a second reranking transformer: late interaction of descriptors that know their image, born equal to matching.

Self-attention runs within an image alone; two images then meet in one matrix product. With y_i the descriptors and w_i
their weights after the transformer, and g the global descriptors,

    m(q, x) = sum_i w_i^q max_j <y_i^q, y_j^x>              symmetric: the mean of m(q, x) and m(x, q)
    z(q, x) = t ((m(q, x) - m_0) / m_1 + a (<g^q, g^x> - g_0) / g_1) + b

m is the late interaction of ColBERT (Khattab and Zaharia, SIGIR 2020, section 3.3), weighted, z the logit. The
weights of an image are the softmax of r tanh(u_i / r), u_i from the transformer, so that no descriptor counts more
than e^2r times another: labels of few landmarks would otherwise have it believe a handful of descriptors. The
transformer adds to a descriptor, and its last projections start from zero: a new network gives every descriptor as it
is and the same weight, so that m is exactly what plain matching gives (``rrt.rerankers.maxsim``), and training begins
there. Nothing of an image depends on the other, so a gallery is encoded once (``LATE.encode``).
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rrt.errors import InputError
from rrt.network.attention import Packing
from rrt.network.model import NUM_SCALES, Encoder, Linear, check_architecture
from rrt.network.pairs import LOGIT_GAIN, POSITION_PERIODS, ImageBatch

# Lengths of the embeddings of scale and position beside descriptors of length 1.
_EMBEDDING = 0.3


@dataclass(frozen=True)
class Encoded:
    """Images as LATE compares them: vectors [m, d] of unit length and weights float32 [m], which sum to 1 within an
    image, all images' end to end; globals float32 [n, Dg]; offsets int64 [n + 1] of the images in the rows."""

    vectors: torch.Tensor
    weights: torch.Tensor
    globals_: torch.Tensor
    offsets: np.ndarray

    def grid(self, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [k, L, d] and weights [k, L] of these images, L the largest of their numbers of descriptors.

        A shorter image repeats its last vector with weight 0, which changes neither the largest cosine nor a sum; one
        without any has a zero vector, which matches nothing.
        """
        device, counts = self.vectors.device, np.diff(self.offsets)[images]
        column = np.arange(max(1, counts.max(initial=0)))
        rows = self.offsets[images][:, None] + np.minimum(column, counts[:, None] - 1)
        there = torch.from_numpy(column < counts[:, None]).to(device)
        rows = torch.from_numpy(np.where(counts[:, None] > 0, rows, len(self.vectors)).ravel()).to(device)
        vectors = F.pad(self.vectors, (0, 0, 0, 1)).index_select(0, rows)
        weights = F.pad(self.weights, (0, 1)).index_select(0, rows)
        return vectors.view(*there.shape, -1), weights.view(there.shape) * there

    def strongest(self, keep: int | None) -> "Encoded":
        """The images with no more than so many vectors (None: all), those that weigh most, whose weights sum to 1."""
        if keep is None or not len(self.weights) or np.diff(self.offsets).max() <= keep:
            return self
        kept = [
            start + torch.argsort(-self.weights[start:end], stable=True)[:keep]
            for start, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist())
        ]
        counts, rows = np.array([len(each) for each in kept]), torch.cat(kept)
        owner = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(rows.device)
        weights = self.weights.index_select(0, rows)
        sums = weights.new_zeros(len(counts)).index_add_(0, owner, weights)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Encoded(self.vectors.index_select(0, rows), weights / sums[owner], self.globals_, offsets)


def matched(query, query_weights, candidate, candidate_weights, symmetric: bool) -> torch.Tensor:
    """m of pairs, float32 [n]. query [n, k, d] or [k, d] for all, candidate [n, l, d]; weights likewise."""
    cosines = candidate @ query.transpose(-1, -2)  # [n, l, k]
    found = (cosines.amax(1).float() * query_weights).sum(-1)
    if symmetric:
        found = (found + (cosines.amax(2).float() * candidate_weights).sum(-1)) / 2
    return found


class LATE(nn.Module):
    """The network; the defaults are for the published sizes of descriptors.

    ``num_local_features`` is also the width. positions: the transformer sees where in the image a descriptor lies
    (``rrt.network.pairs.normalised_positions``); vectors: it changes descriptors, beside weighing them; weight_range:
    r, 0 = every descriptor weighs the same; symmetric: both directions of the matching count; global_weight: a, 0 =
    local descriptors alone; learn_global_weight: whether training moves it. The four standardising constants are no
    settings but part of the weights: a training sets them (``standardise``), and they are 0 and 1 before.
    """

    def __init__(
        self,
        num_global_features: int = 2048,
        num_local_features: int = 128,
        dim_feedforward: int = 256,
        nhead: int = 4,
        num_encoder_layers: int = 2,
        dropout: float = 0.0,
        activation: str = "relu",
        positions: bool = True,
        vectors: bool = True,
        weight_range: float = 3.0,
        symmetric: bool = True,
        global_weight: float = 1.0,
        learn_global_weight: bool = False,
    ):
        values = locals()
        super().__init__()
        self.settings: dict[str, Any] = {"kind": "LATE"} | {name: values[name] for name in LATE_SETTINGS}
        dim = num_local_features
        check_architecture(self.settings)
        if not math.isfinite(global_weight) or global_weight < 0:
            raise InputError(f"model.global_weight={global_weight}: must not be negative")
        if not math.isfinite(weight_range) or weight_range < 0:
            raise InputError(f"model.weight_range={weight_range}: must not be negative; 0 weighs all alike")
        if not vectors and not weight_range:
            raise InputError("model.vectors=False model.weight_range=0: then there is nothing to learn")
        self.remap = nn.Linear(num_global_features, dim)
        self.scale_encoder = nn.Embedding(NUM_SCALES, dim)
        self.position_encoder = nn.Linear(4 * len(POSITION_PERIODS), dim) if positions else None
        self.encoder = Encoder(
            num_encoder_layers,
            dim,
            normalize_before=True,
            num_heads=nhead,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
            activation=activation,
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.scale_encoder.weight, std=_EMBEDDING / math.sqrt(dim))
        if self.position_encoder:
            nn.init.normal_(self.position_encoder.weight, std=_EMBEDDING / math.sqrt(dim * 2 * len(POSITION_PERIODS)))
            nn.init.zeros_(self.position_encoder.bias)
        self.change, self.weigh = Linear(dim, dim), Linear(dim, 1)
        self.log_temperature, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        for zero in (*self.change.parameters(), *self.weigh.parameters()):
            nn.init.zeros_(zero)
        for part, learned in ((self.change, vectors), (self.weigh, weight_range > 0)):
            part.requires_grad_(learned)
        self.global_weight = nn.Parameter(torch.tensor(float(global_weight)), requires_grad=learn_global_weight)
        self.constants: torch.Tensor
        self.register_buffer("constants", torch.tensor([0.0, 1.0, 0.0, 1.0]))

    def standardise(self, matched_mean: float, matched_spread: float, global_mean: float, global_spread: float) -> None:
        """Set m_0, m_1, g_0 and g_1: means and spreads (above 0) of both similarities among pairs like those that are
        reranked."""
        self.constants.copy_(torch.tensor([matched_mean, matched_spread, global_mean, global_spread]))

    def combine(self, matched: torch.Tensor, cosine: torch.Tensor) -> torch.Tensor:
        """Logits [n] of m [n] and the cosines of the global descriptors [n]."""
        matched_mean, matched_spread, global_mean, global_spread = self.constants
        score = (matched - matched_mean) / matched_spread
        score = score + self.global_weight * (cosine - global_mean) / global_spread
        return torch.exp(LOGIT_GAIN * self.log_temperature) * score + LOGIT_GAIN * self.bias

    def encode(self, images: ImageBatch, device: torch.device | str = "cpu") -> Encoded:
        """The images on the device, each by itself. InputError when the network needs positions that were not read."""
        arrays = (images.global_, images.descriptors, images.scales, images.positions)
        global_, descriptors, scales, positions = (
            torch.as_tensor(array).to(device, non_blocking=True) for array in arrays
        )
        counts, number, total = images.counts, len(images.offsets) - 1, len(descriptors)
        unit = F.normalize(descriptors.float(), dim=-1, eps=1e-12)
        locals_ = unit + self.scale_encoder(scales)
        if self.position_encoder:
            if len(positions) != total:
                raise InputError("model.positions=True: the images were read without positions of their descriptors")
            locals_ = locals_ + self.position_encoder(_fourier(positions))
        tokens = torch.cat([F.normalize(self.remap(global_), dim=-1, eps=1e-12), locals_.float()])
        # A sequence is an image's global token and its local ones.
        is_global = np.zeros(number + total, bool)
        is_global[images.offsets[:-1] + np.arange(number)] = True
        order = np.empty(number + total, np.int64)
        order[is_global], order[~is_global] = np.arange(number), number + np.arange(total)
        order, local_rows = (torch.from_numpy(rows).to(device) for rows in (order, np.flatnonzero(~is_global)))
        packing = Packing.of(counts + 1, device)
        out = self.encoder.all_rows(tokens.index_select(0, order), packing).index_select(0, local_rows)
        vectors = unit
        if self.settings["vectors"]:
            vectors = F.normalize(unit + self.change(out).float(), dim=-1, eps=1e-12)
        owner = torch.from_numpy(np.repeat(np.arange(number), counts)).to(device)
        logits, most = self.weigh(out).float().squeeze(1), self.settings["weight_range"]
        logits = most * torch.tanh(logits / most) if most else 0 * logits
        return Encoded(vectors, _softmax(logits, owner, number), global_, images.offsets)

    def pair_logits(self, images: ImageBatch, query: np.ndarray, candidate: np.ndarray, device="cpu") -> torch.Tensor:
        """Logits [pairs] of the images (query[i], candidate[i]), each image encoded once."""
        encoded = self.encode(images, device)
        vectors, weights = encoded.grid(np.arange(len(images.offsets) - 1))
        rows = [torch.from_numpy(np.asarray(side, np.int64)).to(device) for side in (query, candidate)]
        (query_vectors, query_weights), (vectors, weights) = [(vectors[row], weights[row]) for row in rows]
        found = matched(query_vectors, query_weights, vectors, weights, self.settings["symmetric"])
        cosine = (encoded.globals_[rows[0]] * encoded.globals_[rows[1]]).sum(1)
        return self.combine(found, cosine)


def _fourier(positions: torch.Tensor) -> torch.Tensor:
    """Positions [m, 2] -> sines and cosines [m, 4 * periods]."""
    turns = positions[:, :, None] * (2 * math.pi / positions.new_tensor(POSITION_PERIODS))
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(1)


def _softmax(x: torch.Tensor, owner: torch.Tensor, number: int) -> torch.Tensor:
    """Softmax of x [m] within each of ``number`` owners, whose rows may be none."""
    largest = x.new_full((number,), -torch.inf).scatter_reduce(0, owner, x.detach(), "amax")
    powers = torch.exp(x - largest[owner])
    return powers / x.new_zeros(number).index_add(0, owner, powers)[owner]


LATE_SETTINGS = {name: p.default for name, p in inspect.signature(LATE).parameters.items()}
