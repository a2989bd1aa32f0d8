"""The reranking transformer (Tan, Yuan, Ordonez, "Instance-level Image Retrieval using Reranking Transformers", ICCV
2021).

A pair of images is one sequence ``[CLS, Gq, Lq_1.., SEP, Gc, Lc_1..]`` of global and local descriptors; the classifier
reads the encoder's CLS output as a logit "same object". No token carries a position, so the order of an image's local
tokens does not matter, and only CLS is read, so the last layer computes that row alone. Sequences are kept *packed*:
the rows of all pairs end to end without padding (``rrt.network.attention``).
"""

import inspect
from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rrt.errors import InputError
from rrt.network.attention import Packing, attend
from rrt.network.feedforward import CACHED_ROWS, CachedFeedForward
from rrt.network.pairs import ImageBatch, lay_out_pairs

NUM_SCALES = 7


class Segment(IntEnum):
    """Rows of the learned table that tells the tokens of a pair apart, in the order of the published checkpoints."""

    QUERY_LOCAL = 0
    CANDIDATE_LOCAL = 1
    CLS = 2
    SEP = 3
    QUERY_GLOBAL = 4
    CANDIDATE_GLOBAL = 5


def relu(x: torch.Tensor) -> torch.Tensor:
    """In place where no gradient is wanted."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


ACTIVATIONS = {"relu": relu, "gelu": F.gelu, "glu": F.glu}


class Linear(nn.Linear):
    """A linear layer that computes in the type of its weights, whatever the type of its input (``halve``), or in
    autocast's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        return F.linear(x, self.weight, self.bias)


class SelfAttention(nn.Module):
    """Multi-head self-attention with the parameter names of ``nn.MultiheadAttention``; no attention matrix is
    stored."""

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.coarse = False  # see ``attend``
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, d] -> queries, keys and values [T, 3 d]"""
        return F.linear(x.to(self.in_proj_weight.dtype), self.in_proj_weight, self.in_proj_bias)

    def forward(self, x: torch.Tensor, packing: Packing, projected: torch.Tensor | None = None) -> torch.Tensor:
        """x [T, d] packed -> [T, d]. projected: ``project(x)`` where it is known already."""
        projected = self.project(x) if projected is None else projected
        query, key, value = projected.unflatten(1, (3, self.num_heads, -1)).unbind(1)
        return self.out_proj(attend(query, key, value, packing, dropout=self._dropout, coarse=self.coarse).flatten(1))

    def first_rows(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        """The same for the first row of each sequence alone, [B, d].

        One row a sequence needs no keys and values of all tokens: q (W_k x)^T = (q W_k) x^T and sum(a W_v x) =
        W_v sum(a x), so that each head attends to the tokens themselves. The keys' bias adds the same to every token
        of a softmax and falls out.
        """
        x = x.to(self.in_proj_weight.dtype)
        dim, heads = x.shape[1], self.num_heads
        _, key_weight, value_weight = self.in_proj_weight.unflatten(0, (3, heads, -1))
        query = F.linear(x.index_select(0, packing.first), self.in_proj_weight[:dim], self.in_proj_bias[:dim])
        query = torch.einsum("bhe,hed->bhd", query.unflatten(1, (heads, -1)), key_weight)
        # All heads attend to the same tokens here, so they are rows of one query.
        tokens = x.to(query.dtype)[:, None]
        mixed = attend(query.reshape(-1, 1, dim), tokens, tokens, packing, heads, (dim // heads) ** -0.5, self._dropout)
        value = torch.einsum("bhd,hed->bhe", mixed.view(-1, heads, dim), value_weight)
        return self.out_proj(value.flatten(1) + self.in_proj_bias[2 * dim :])

    @property
    def _dropout(self):
        return self.dropout if self.training else 0.0


class EncoderLayer(nn.Module):
    """One transformer layer, post-norm (normalise after the residual sum) or pre-norm."""

    def __init__(
        self, dim: int, num_heads: int, dim_feedforward: int, dropout: float, activation: str, normalize_before: bool
    ):
        super().__init__()
        # A gated unit halves its input: half of linear1 is the gate.
        inner = dim_feedforward * 2 if activation == "glu" else dim_feedforward
        self.self_attn = SelfAttention(dim, num_heads, dropout)
        self.linear1 = Linear(dim, inner)
        self.linear2 = Linear(dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.activation = ACTIVATIONS[activation]
        self.normalize_before = normalize_before
        self.dropout = dropout

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, d] -> queries, keys and values [T, 3 d] of this layer's attention."""
        return self.self_attn.project(self.norm1(x) if self.normalize_before else x)

    def forward(self, x, packing: Packing, cls_only: bool = False, projected=None) -> torch.Tensor:
        """x [T, d] packed -> [T, d], or [B, d] (the first row of each sequence) with ``cls_only``.

        projected: ``project(x)`` where it is known already.
        """
        normal = self.norm1(x) if self.normalize_before and (projected is None or cls_only) else x
        if cls_only:
            x, attended = x.index_select(0, packing.first), self.self_attn.first_rows(normal, packing)
        else:
            attended = self.self_attn(normal, packing, projected)
        return self.after_attention(x, attended)

    def after_attention(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The residual sums, norms and the feed-forward network, row by row: [n, d], [n, d] -> [n, d]."""
        on_cpu = not x.is_cuda and not torch.compiler.is_compiling()
        rows_at_a_time = CACHED_ROWS * 4 // self.linear1.weight.element_size()
        if on_cpu and not torch.is_grad_enabled() and len(x) > rows_at_a_time:
            # Several times as wide in the middle: in pieces it stays in the processor's cache.
            pieces = zip(x.split(rows_at_a_time), attended.split(rows_at_a_time))
            return torch.cat([self.after_attention(*piece) for piece in pieces])
        x = x + self._drop(attended).to(x.dtype)
        if self.normalize_before:
            return x + self.feedforward(self.norm2(x)).to(x.dtype)
        x = self.norm1(x)
        return self.norm2(x + self.feedforward(x).to(x.dtype))

    def feedforward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, d] -> [n, d], of rows that were normalised."""
        on_cpu = not x.is_cuda and not torch.compiler.is_compiling()
        if on_cpu and torch.is_grad_enabled() and self.activation is relu and not self.dropout:
            tensors = (x, self.linear1.weight, self.linear1.bias, self.linear2.weight, self.linear2.bias)
            if torch.is_autocast_enabled("cpu"):
                tensors = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors)
            return CachedFeedForward.apply(*tensors)
        return self._drop(self.linear2(self._drop(self.activation(self.linear1(x)))))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Encoder(nn.Module):
    """The stack of layers; pre-norm stacks end in one more LayerNorm."""

    def __init__(self, num_layers: int, dim: int, normalize_before: bool, **layer):
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, normalize_before=normalize_before, **layer) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim) if normalize_before else None

    def forward(self, x: torch.Tensor, packing: Packing, projected=None) -> torch.Tensor:
        """x [T, d] packed -> CLS outputs [B, d]. projected: the first layer's ``project(x)`` where it is known
        already."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x, packing, i == last, projected if i == 0 else None)
        return x if self.norm is None else self.norm(x)

    def all_rows(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        """x [T, d] packed -> the output of every token [T, d]."""
        for layer in self.layers:
            x = layer(x, packing)
        return x if self.norm is None else self.norm(x)


def check_architecture(settings: dict) -> None:
    """InputError for settings of an encoder that fit no network."""
    activation, layers, nhead, dim = (
        settings[name] for name in ("activation", "num_encoder_layers", "nhead", "num_local_features")
    )
    if activation not in ACTIVATIONS:
        raise InputError(f"model.activation={activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    if layers < 1:
        raise InputError(f"model.num_encoder_layers={layers}: at least one layer is needed")
    if nhead < 1 or dim % nhead:
        raise InputError(f"model.nhead={nhead}: the width {dim} (num_local_features) must be a multiple of it")


class RRT(nn.Module):
    """Reranking transformer; the defaults are the published network (docs/protocol.md 2; 2,243,201 parameters).

    ``num_local_features`` is also the width of the network. ``seq_len`` (2 L + 4) is a record of the longest sequence
    it was meant for; nothing depends on it. ``initialisation``: see ``rrt.network.initialisation``.
    """

    def __init__(
        self,
        num_global_features: int = 2048,
        num_local_features: int = 128,
        seq_len: int = 1004,
        dim_feedforward: int = 1024,
        nhead: int = 4,
        num_encoder_layers: int = 6,
        dropout: float = 0.0,
        activation: str = "relu",
        normalize_before: bool = False,
    ):
        values = locals()
        super().__init__()
        self.settings = {name: values[name] for name in DEFAULT_SETTINGS}
        dim = num_local_features
        check_architecture(self.settings)
        self.remap = nn.Linear(num_global_features, dim)
        self.scale_encoder = nn.Embedding(NUM_SCALES, dim)
        self.seg_encoder = nn.Embedding(6, dim)
        self.encoder = Encoder(
            num_encoder_layers,
            dim,
            normalize_before,
            num_heads=nhead,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
            activation=activation,
        )
        self.classifier = nn.Linear(dim, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def global_tokens(self, descriptors: torch.Tensor) -> torch.Tensor:
        """[..., Dg] -> [..., d], segment embedding not yet added."""
        return F.normalize(self.remap(descriptors), dim=-1, eps=1e-12)

    def local_tokens(self, descriptors: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Descriptors [..., Dl] and scale indices [...] in 0..6 -> [..., d], segment embedding not yet added."""
        return F.normalize(descriptors, dim=-1, eps=1e-12) + self.scale_encoder(scales)

    def image_bank(self, global_: torch.Tensor, local: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Tokens of n images with m local descriptors in all, [1 + n + m, d]: a zero row, the globals, the locals.

        The zero row is for CLS and SEP, which are pure segment embeddings (see
        ``rrt.network.pairs.lay_out_pairs``).
        """
        tokens = [self.global_tokens(global_), self.local_tokens(local, scales)]
        return torch.cat([tokens[0].new_zeros(1, tokens[0].shape[1]), *tokens])

    def score_packed(self, bank: torch.Tensor, rows: torch.Tensor, segments: torch.Tensor, lengths) -> torch.Tensor:
        """Logits [B] of pairs whose sequences are ``bank[rows] + seg_encoder(segments)``, ``lengths`` [B] (best on the
        host) rows each, end to end."""
        tokens = bank.index_select(0, rows) + self.seg_encoder(segments)
        return self._logits(tokens, Packing.of(lengths, tokens.device))

    def pair_logits(self, images: ImageBatch, query: np.ndarray, candidate: np.ndarray, device="cpu") -> torch.Tensor:
        """Logits [pairs] of the images (query[i], candidate[i]), each image embedded once."""
        layout = lay_out_pairs(images.offsets, query, candidate)
        arrays = (images.global_, images.descriptors, images.scales, layout.rows, layout.segments)
        global_, descriptors, scales, rows, segments = (
            torch.as_tensor(array).to(device, non_blocking=True) for array in arrays
        )
        bank = self.image_bank(global_, descriptors.float(), scales)
        return self.score_packed(bank, rows, segments, layout.lengths)

    def forward(
        self,
        src_global,
        src_local,
        src_mask,
        src_scales,
        src_positions,
        tgt_global,
        tgt_local,
        tgt_mask,
        tgt_scales,
        tgt_positions,
    ) -> torch.Tensor:
        """Logits [B] of padded pairs: query (src) and candidate (tgt).

        global [B, Dg]; local [B, L, Dl]; mask [B, L], True = padding; scales [B, L], index in 0..6; positions [B, L,
        2], accepted and unused as in the published model. Query and candidate may be padded to different L.
        """
        segment = self.seg_encoder.weight
        marks = src_mask.new_zeros(len(src_mask), 2)
        ones = src_global.new_ones(len(src_global), 1, 1)
        tokens = torch.cat(
            [
                ones * segment[Segment.CLS],
                (self.global_tokens(src_global) + segment[Segment.QUERY_GLOBAL])[:, None],
                self.local_tokens(src_local, src_scales) + segment[Segment.QUERY_LOCAL],
                ones * segment[Segment.SEP],
                (self.global_tokens(tgt_global) + segment[Segment.CANDIDATE_GLOBAL])[:, None],
                self.local_tokens(tgt_local, tgt_scales) + segment[Segment.CANDIDATE_LOCAL],
            ],
            dim=1,
        )
        is_token = ~torch.cat([marks, src_mask, marks, tgt_mask], dim=1)
        return self._logits(tokens[is_token], Packing.of(is_token.sum(1), tokens.device))

    def _logits(self, tokens: torch.Tensor, packing: Packing) -> torch.Tensor:
        return self.classifier(self.encoder(tokens, packing)).squeeze(1)


def halve(model: RRT, dtype: torch.dtype) -> None:
    """Have the encoder's products computed in half precision. Residual sums, norms and the classifier stay in float32,
    so that a token is not rounded between layers."""
    for layer in model.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        for linear in (layer.linear1, layer.linear2, layer.self_attn.out_proj):
            linear.to(dtype)
        for name in ("in_proj_weight", "in_proj_bias"):
            parameter = getattr(layer.self_attn, name)
            parameter.data = parameter.data.to(dtype)


DEFAULT_SETTINGS = {name: p.default for name, p in inspect.signature(RRT).parameters.items()}
