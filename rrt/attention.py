"""Attention within sequences that are kept packed: the rows of all sequences end to end, without padding.

The attention matrix is never stored: every path is one of PyTorch's fused kernels.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
import torch.nn.functional as F

# Sequences of this many different lengths are still taken length by length on a GPU, where every call costs a launch.
_FEW_RUNS = 8
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Packing:
    """Where packed sequences lie. lengths: rows of each, in order; first: int64 [B] on the rows' device, the row of
    each sequence's first token."""

    lengths: tuple[int, ...]
    first: torch.Tensor

    @staticmethod
    def of(lengths, device="cpu") -> "Packing":
        """lengths: integers as a sequence, an array or a tensor (one on a GPU is waited for)."""
        lengths = torch.as_tensor(lengths, dtype=torch.int64).cpu()
        first = torch.cumsum(lengths, 0) - lengths
        return Packing(tuple(lengths.tolist()), first.to(device, non_blocking=True))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(number of sequences, their length) of consecutive sequences of one length."""
        return [(sum(1 for _ in group), length) for length, group in groupby(self.lengths)]


def attend(query, key, value, packing: Packing, queries: int | None = None, scale=None, dropout: float = 0.0):
    """softmax(query key^T scale) value within each sequence, head by head.

    key, value [T, h, e]; query [T, h, e], or [B * queries, h, e] with another, fixed number of rows a sequence -> the
    query's shape. scale: None = e ** -0.5.
    """
    if query.is_cuda and len(packing.runs) > _FEW_RUNS:
        if query.dtype in _HALF and not dropout:
            return _attend_varlen(query, key, value, packing, queries, scale)
        return _attend_padded(query, key, value, packing, queries, scale, dropout)
    dtype = query.dtype
    if not query.is_cuda and dtype in _HALF:
        # PyTorch's kernel for processors is no faster in half precision, and much slower where there is no unit for it.
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast("cpu", enabled=False):
        return _attend_runs(query, key, value, packing, queries, scale, dropout).to(dtype)


def _attend_runs(query, key, value, packing, queries, scale, dropout):
    """A call for every run of sequences of one length."""
    parts, query_row, row = [], 0, 0
    for count, length in packing.runs:
        query_end, end = query_row + count * (queries or length), row + count * length
        part = F.scaled_dot_product_attention(
            _grid(query[query_row:query_end], count),
            _grid(key[row:end], count),
            _grid(value[row:end], count),
            dropout_p=dropout,
            scale=scale,
        )
        parts.append(part.transpose(1, 2).flatten(0, 1))
        query_row, row = query_end, end
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _grid(x, count):
    """[count * n, h, e] -> [count, h, n, e], a view."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


def _attend_varlen(query, key, value, packing, queries, scale):
    """Flash attention over packed rows: no padding for any number of lengths. GPU, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    longest, batch = max(packing.lengths), len(packing.lengths)
    ends = F.pad(packing.first, (0, 1), value=len(key)).int()
    query_ends = ends if queries is None else ends.new_tensor(range(0, queries * batch + 1, queries))
    return varlen_attn(query, key, value, query_ends, ends, queries or longest, longest, scale=scale)


def _attend_padded(query, key, value, packing, queries, scale, dropout):
    """Attention over a padded and masked grid: for a GPU's float32, where PyTorch has no kernel for packed rows."""
    longest, batch = max(packing.lengths), len(packing.lengths)
    lengths = torch.tensor(packing.lengths, device=key.device)
    mask = torch.arange(longest, device=key.device) < lengths[:, None]
    places = mask.flatten().nonzero().squeeze(1)

    def pad(x):
        return _grid(x.new_zeros(batch * longest, *x.shape[1:]).index_copy(0, places, x), batch)

    out = F.scaled_dot_product_attention(
        pad(query) if queries is None else _grid(query, batch),
        pad(key),
        pad(value),
        attn_mask=mask[:, None, None, :],
        dropout_p=dropout,
        scale=scale,
    )
    out = out.transpose(1, 2).flatten(0, 1)
    return out.index_select(0, places) if queries is None else out
