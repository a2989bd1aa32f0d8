"""The reranking transformer the plain way, for tests and benchmarks of the fast one: nn.MultiheadAttention that returns
its weights, every image padded, every row of every layer computed."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rrt.network.pairs import scale_index
from rrt.store.checked import read_descriptors
from rrt.store.values import as_float32

# A network that tries a benchmark itself (--quick).
QUICK: dict[str, Any] = {"num_global_features": 16, "dim_feedforward": 64, "num_encoder_layers": 2}


class PlainLayer(nn.Module):
    """A layer of the published network: nn.MultiheadAttention and a feed-forward part, post-norm."""

    def __init__(self, dim, num_heads, dim_feedforward):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, dim_feedforward), nn.Linear(dim_feedforward, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x, padding):
        """x [B, T, d]; padding bool [B, T], True for tokens that are none -> [B, T, d]."""
        attended, _ = self.self_attn(x, x, x, key_padding_mask=padding)
        x = self.norm1(x + attended)
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class PlainRRT(nn.Module):
    """The published network (post-norm, ReLU; docs/protocol.md 2) with the published names. settings:
    ``RRT.settings``."""

    def __init__(self, settings: dict):
        super().__init__()
        dim = settings["num_local_features"]
        self.remap = nn.Linear(settings["num_global_features"], dim)
        self.scale_encoder, self.seg_encoder = nn.Embedding(7, dim), nn.Embedding(6, dim)
        self.encoder = nn.Module()
        layer = (dim, settings["nhead"], settings["dim_feedforward"])
        self.encoder.layers = nn.ModuleList(PlainLayer(*layer) for _ in range(settings["num_encoder_layers"]))
        self.classifier = nn.Linear(dim, 1)

    def forward(self, query, candidate):
        """query, candidate: (global [B, Dg], local [B, L, Dl], scale index [B, L], padding bool [B, L]) -> [B]"""
        segment, tokens, padding = self.seg_encoder.weight, [], []
        for side, (global_, local, scales, padded) in enumerate((query, candidate)):
            batch = len(global_)
            tokens.append(segment[2 + side].expand(batch, 1, -1))
            tokens.append(F.normalize(self.remap(global_), dim=-1)[:, None] + segment[4 + side])
            tokens.append(F.normalize(local, dim=-1) + self.scale_encoder(scales) + segment[side])
            padding += [padded.new_zeros(batch, 2), padded]
        x, padding = torch.cat(tokens, 1), torch.cat(padding, 1)
        for layer in self.encoder.get_submodule("layers").children():
            x = layer(x, padding)
        return self.classifier(x[:, 0]).squeeze(1)


def padded_images(store, images, max_local: int, binning: str = "published", device="cpu"):
    """(global, local, scale index, padding) of images, each padded to ``max_local`` local descriptors."""
    packed = read_descriptors(store, np.asarray(images), max_local)
    descriptors = as_float32(packed.descriptors)
    local = np.zeros((len(images), max_local, descriptors.shape[1]), np.float32)
    scales = np.zeros((len(images), max_local), np.int64)
    padding = np.ones((len(images), max_local), bool)
    for i, (start, end) in enumerate(zip(packed.offsets, packed.offsets[1:])):
        local[i, : end - start], padding[i, : end - start] = descriptors[start:end], False
        scales[i, : end - start] = scale_index(packed.scales[start:end], binning)
    global_ = np.array(store.global_descriptors[images], np.float32)
    return [torch.from_numpy(array).to(device) for array in (global_, local, scales, padding)]


def plain_logits(model: PlainRRT, store, queries, candidates, max_local: int, binning: str = "published", device="cpu"):
    """Logits float32 [B] of the pairs (queries[i], candidates[i]), store indices, as one padded batch."""
    with torch.inference_mode():
        sides = [padded_images(store, images, max_local, binning, device) for images in (queries, candidates)]
        return model(*sides).cpu().numpy()
