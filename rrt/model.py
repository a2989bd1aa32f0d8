"""The reranking transformer (Tan, Yuan, Ordonez, "Instance-level Image Retrieval using Reranking Transformers", ICCV
2021).

A pair of images is one sequence ``[CLS, Gq, Lq_1.., SEP, Gc, Lc_1..]`` of global and local descriptors; the classifier
reads the encoder's CLS output as a logit "same object". No token carries a position, so the order of an image's local
tokens does not matter, and only CLS is read, so the last layer computes that row alone. Sequences are kept *packed*:
the rows of all pairs end to end without padding; only the attention itself sees a padded grid, and only when lengths
differ.
"""

import inspect
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from rrt.errors import InputError

NUM_SCALES = 7
(
    SEGMENT_QUERY_LOCAL,
    SEGMENT_CANDIDATE_LOCAL,
    SEGMENT_CLS,
    SEGMENT_SEP,
    SEGMENT_QUERY_GLOBAL,
    SEGMENT_CANDIDATE_GLOBAL,
) = range(6)
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "glu": F.glu}


@dataclass(frozen=True)
class Packing:
    """Where the rows of packed sequences lie in the padded grid ``[batch, longest]`` that attention works on.

    lengths: int64 [B]; first: int64 [B], packed row of each sequence's first token; rows: int64 [T], place of each
    packed row in the flattened grid, None when all lengths are equal; mask: bool [B, 1, 1, longest], True = token, None
    likewise.
    """

    batch: int
    longest: int
    first: torch.Tensor
    rows: torch.Tensor | None
    mask: torch.Tensor | None

    @staticmethod
    def of(lengths: torch.Tensor) -> "Packing":
        batch, longest = len(lengths), int(lengths.max())
        first = torch.cumsum(lengths, 0) - lengths
        if int(lengths.min()) == longest:
            return Packing(batch, longest, first, None, None)
        mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
        return Packing(batch, longest, first, mask.flatten().nonzero().squeeze(1), mask[:, None, None, :])

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """[T, C] -> [B, longest, C]; places without a token are zero."""
        if self.rows is not None:
            x = x.new_zeros(self.batch * self.longest, x.shape[1]).index_copy(0, self.rows, x)
        return x.view(self.batch, self.longest, x.shape[1])

    def unpad(self, x: torch.Tensor) -> torch.Tensor:
        """[B, longest, C] -> [T, C]"""
        x = x.reshape(self.batch * self.longest, x.shape[2])
        return x if self.rows is None else x.index_select(0, self.rows)


class SelfAttention(nn.Module):
    """Multi-head self-attention with the parameter names of ``nn.MultiheadAttention``; no attention matrix is
    stored."""

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: torch.Tensor, packing: Packing, cls_only: bool = False) -> torch.Tensor:
        """x [T, d] packed -> [T, d], or [B, d] (the first row of each sequence) with ``cls_only``."""
        dim = x.shape[1]
        if cls_only:
            query = F.linear(x.index_select(0, packing.first), self.in_proj_weight[:dim], self.in_proj_bias[:dim])[
                :, None
            ]
            key_value = packing.pad(F.linear(x, self.in_proj_weight[dim:], self.in_proj_bias[dim:]))
            key, value = key_value.split(dim, dim=-1)
        else:
            query, key, value = packing.pad(F.linear(x, self.in_proj_weight, self.in_proj_bias)).split(dim, dim=-1)
        out = F.scaled_dot_product_attention(
            self._heads(query),
            self._heads(key),
            self._heads(value),
            attn_mask=packing.mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out = out.transpose(1, 2).flatten(2)
        return self.out_proj(out[:, 0] if cls_only else packing.unpad(out))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """One transformer layer, post-norm (normalise after the residual sum) or pre-norm."""

    def __init__(
        self, dim: int, num_heads: int, dim_feedforward: int, dropout: float, activation: str, normalize_before: bool
    ):
        super().__init__()
        # A gated unit halves its input: half of linear1 is the gate.
        inner = dim_feedforward * 2 if activation == "glu" else dim_feedforward
        self.self_attn = SelfAttention(dim, num_heads, dropout)
        self.linear1 = nn.Linear(dim, inner)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.activation = ACTIVATIONS[activation]
        self.normalize_before = normalize_before
        self.dropout = dropout

    def forward(self, x: torch.Tensor, packing: Packing, cls_only: bool = False) -> torch.Tensor:
        residual = x.index_select(0, packing.first) if cls_only else x
        if self.normalize_before:
            x = residual + self._drop(self.self_attn(self.norm1(x), packing, cls_only))
            return x + self._feedforward(self.norm2(x))
        x = self.norm1(residual + self._drop(self.self_attn(x, packing, cls_only)))
        return self.norm2(x + self._feedforward(x))

    def _feedforward(self, x: torch.Tensor) -> torch.Tensor:
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

    def forward(self, x: torch.Tensor, packing: Packing, cls_only: bool = True) -> torch.Tensor:
        """x [T, d] packed -> CLS outputs [B, d]. ``cls_only=False`` computes every row of the last layer: same result,
        slower."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x, packing, cls_only and i == last)
        if not cls_only:
            x = x.index_select(0, packing.first)
        return x if self.norm is None else self.norm(x)


class RRT(nn.Module):
    """Reranking transformer; the defaults are the published network (2,243,201 parameters, names of RRT_SPEC section
    2).

    ``num_local_features`` is also the width of the network. ``seq_len`` (2 L + 4) is a record of the longest sequence
    it was meant for; nothing depends on it. ``initialisation``: see ``rrt.initialisation``.
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
        if activation not in ACTIVATIONS:
            raise InputError(f"model.activation={activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if num_encoder_layers < 1:
            raise InputError(f"model.num_encoder_layers={num_encoder_layers}: at least one layer is needed")
        if nhead < 1 or dim % nhead:
            raise InputError(f"model.nhead={nhead}: the width {dim} (num_local_features) must be a multiple of it")
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

        The zero row stands under CLS and SEP, which are pure segment embeddings (see ``rrt.pairs.lay_out_pairs``).
        """
        tokens = [self.global_tokens(global_), self.local_tokens(local, scales)]
        return torch.cat([tokens[0].new_zeros(1, tokens[0].shape[1]), *tokens])

    def score_packed(
        self, bank: torch.Tensor, rows: torch.Tensor, segments: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Logits [B] of pairs whose sequences are ``bank[rows] + seg_encoder(segments)``, ``lengths`` rows each, end to
        end."""
        tokens = bank.index_select(0, rows) + self.seg_encoder(segments)
        return self._logits(tokens, Packing.of(lengths))

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
                ones * segment[SEGMENT_CLS],
                (self.global_tokens(src_global) + segment[SEGMENT_QUERY_GLOBAL])[:, None],
                self.local_tokens(src_local, src_scales) + segment[SEGMENT_QUERY_LOCAL],
                ones * segment[SEGMENT_SEP],
                (self.global_tokens(tgt_global) + segment[SEGMENT_CANDIDATE_GLOBAL])[:, None],
                self.local_tokens(tgt_local, tgt_scales) + segment[SEGMENT_CANDIDATE_LOCAL],
            ],
            dim=1,
        )
        is_token = ~torch.cat([marks, src_mask, marks, tgt_mask], dim=1)
        return self._logits(tokens[is_token], Packing.of(is_token.sum(1)))

    def _logits(self, tokens: torch.Tensor, packing: Packing) -> torch.Tensor:
        return self.classifier(self.encoder(tokens, packing)).squeeze(1)


DEFAULT_SETTINGS = {name: p.default for name, p in inspect.signature(RRT).parameters.items()}
