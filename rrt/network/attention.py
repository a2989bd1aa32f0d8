"""Attention within sequences that are kept packed: the rows of all sequences end to end, without padding.

The attention matrix is not stored: every path is one of PyTorch's fused kernels, but for bfloat16 on a processor that
multiplies it faster than float32. There plain matrix products are faster, because PyTorch's kernel for processors gains
nothing by it.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby

import torch
import torch.nn.functional as F

from rrt.network.precision import resolve_precision

# Sequences of this many different lengths are still taken length by length on a GPU, where every call costs a launch.
_FEW_RUNS = 8
_HALF = (torch.float16, torch.bfloat16)
# Elements of the attention matrices computed at a time by matrix products: one for 1,000 tokens (2 MB, of which a
# core's cache keeps the most). PyTorch's kernel takes runs of fewer than the second number, where it is faster, and
# matrices of more than the third, which would take too much memory.
_MATRIX_ELEMENTS = 2**20
_FEWEST_ELEMENTS = 100_000
_LARGEST_MATRIX = 2**22
# Base-2 logarithms of the weights that ``coarse`` can do: those of bfloat16 end at 127, and weights are added.
LARGEST_POWER = 100


@dataclass(frozen=True)
class Packing:
    """Which rows belong to which of B packed sequences. lengths: rows of each, in order; first: int64 [B] on the rows'
    device, the row of each sequence's first token."""

    lengths: tuple[int, ...]
    first: torch.Tensor

    @staticmethod
    def of(lengths, device: torch.device | str = "cpu") -> "Packing":
        """lengths: integers as a sequence, an array or a tensor (one on a GPU is waited for)."""
        lengths = torch.as_tensor(lengths, dtype=torch.int64).cpu()
        first = torch.cumsum(lengths, 0) - lengths
        return Packing(tuple(lengths.tolist()), first.to(device, non_blocking=True))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(number of sequences, their length) of consecutive sequences of one length."""
        return [(sum(1 for _ in group), length) for length, group in groupby(self.lengths)]


def attend(
    query,
    key,
    value,
    packing: Packing,
    queries: int | None = None,
    scale=None,
    dropout: float = 0.0,
    coarse: bool = False,
) -> torch.Tensor:
    """softmax(query key^T scale) value within each sequence, head by head.

    key, value [T, h, e]; query [T, h, e], or [B * queries, h, e] with another, fixed number of rows a sequence -> the
    query's shape. scale: None = e ** -0.5. coarse: the weights may be 3 % off where that is faster, and no
    score is beyond ``LARGEST_POWER`` ln 2.
    """
    if query.is_cuda and len(packing.runs) > _FEW_RUNS:
        if query.dtype in _HALF and not dropout:
            return _attend_varlen(query, key, value, packing, queries, scale)
        return _attend_padded(query, key, value, packing, queries, scale, dropout)
    with torch.autocast("cpu", enabled=False):
        return _attend_runs(query, key, value, packing, queries, scale, dropout, coarse)


def _attend_runs(query, key, value, packing, queries, scale, dropout, coarse):
    """A call for every run of sequences of one length."""
    by_matrices = query.dtype == torch.bfloat16 and not query.is_cuda and not dropout and _bfloat16_pays()
    parts, query_row, row = [], 0, 0
    for count, length in packing.runs:
        query_end, end = query_row + count * (queries or length), row + count * length
        grids = [_grid(x, count) for x in (query[query_row:query_end], key[row:end], value[row:end])]
        matrix = (queries or length) * length
        if by_matrices and matrix <= _LARGEST_MATRIX and count * query.shape[1] * matrix >= _FEWEST_ELEMENTS:
            part = _attend_by_matrices(grids, scale, coarse)
        elif not query.is_cuda and query.dtype in _HALF:
            # The kernel for processors is no faster in half precision, and much slower where there is no unit for it.
            grids = [grid.float() for grid in grids]
            part = F.scaled_dot_product_attention(*grids, dropout_p=dropout, scale=scale).to(query.dtype)
        else:
            part = F.scaled_dot_product_attention(*grids, dropout_p=dropout, scale=scale)
        parts.append(part.transpose(1, 2).flatten(0, 1))
        query_row, row = query_end, end
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend_by_matrices(grids, scale, coarse):
    """Query [n, h, q, e], key and value [n, h, k, e] -> [n, h, q, e], a few attention matrices at a time; in training
    autograd keeps them."""
    query, key, value = grids
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    mix = _mix if torch.is_grad_enabled() else _mix_by_bits if coarse else _mix_by_powers_of_two
    scaled = query * (scale * {_mix: 1, _mix_by_powers_of_two: 1 / math.log(2), _mix_by_bits: 128 / math.log(2)}[mix])
    at_a_time = max(1, _MATRIX_ELEMENTS // (query.shape[2] * key.shape[2]))
    # Products of rows that lie apart are slower.
    flat = (x.flatten(0, 1).contiguous() for x in (scaled, key, value))
    return mix(*(x.split(at_a_time) for x in flat)).view(query.shape)


def _mix(queries, keys, values):
    """softmax(query key^T) value of groups of [m, q, e], [m, k, e], [m, k, e] -> [sum of m, q, e]."""
    return torch.cat([torch.softmax(q @ k.transpose(1, 2), -1) @ v for q, k, v in zip(queries, keys, values)])


def _mix_by_powers_of_two(queries, keys, values):
    """The same for queries that were divided by ln 2, without gradient. Powers are as exact without subtracting the
    greatest first, as long as they keep clear of the ends of the type's range, and powers of two are computed
    quickest."""
    space, out = None, []
    for query, key, value in zip(queries, keys, values):
        # The first group is the largest; memory that was just used is still in the cache.
        weights = torch.bmm(query, key.transpose(1, 2), out=None if space is None else space[: len(query)])
        space = weights if space is None else space
        sums = weights.exp2_().sum(-1, keepdim=True)
        smallest, largest = (bound.item() for bound in torch.aminmax(sums))
        if smallest > 2**-100 and largest < 2**100:
            out.append(torch.bmm(weights, value).div_(sums))
        else:
            out += [_mix([query * math.log(2)], [key], [value])]
    return torch.cat(out)


def _mix_by_bits(queries, keys, values):
    """The same with powers of two read off a number's bits: as an integer, the bfloat16 2^e (1 + m / 128) is 128 (127 +
    e) + m, so that 128 (127 + s) is about 2^s (Schraudolph, "A fast, compact approximation of the exponential
    function", Neural Computation 11, 1999). Between whole s it is up to 6 % too large, so that weights, whose sum is
    one, are 3 % off."""
    shape, out = (len(queries[0]), queries[0].shape[1], keys[0].shape[1]), []
    scores, bits = queries[0].new_empty(shape), queries[0].new_empty(shape, dtype=torch.int16)
    for query, key, value in zip(queries, keys, values):
        torch.bmm(query, key.transpose(1, 2), out=scores[: len(query)])
        weights = bits[: len(query)].copy_(scores[: len(query)]).add_(127 * 128).view(query.dtype)
        out.append(torch.bmm(weights, value).div_(weights.sum(-1, keepdim=True)))
    return torch.cat(out)


@cache
def _bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32. Measured: some have the instructions, but slow
    ones."""
    return resolve_precision("auto", torch.device("cpu")) == "bfloat16"


def _grid(x, count):
    """[count * n, h, e] -> [count, h, n, e], a view."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


def _attend_varlen(query, key, value, packing, queries, scale):
    """Flash attention over packed rows: no padding for any number of lengths. GPU, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    longest, batch = max(packing.lengths), len(packing.lengths)
    ends = F.pad(packing.first, (0, 1), value=len(key)).int()
    query_ends = ends if queries is None else ends.new_tensor(range(0, queries * batch + 1, queries))
    out = varlen_attn(query, key, value, query_ends, ends, queries or longest, longest, scale=scale)
    assert isinstance(out, torch.Tensor), "without auxiliary outputs"
    return out


def _attend_padded(query, key, value, packing, queries, scale, dropout):
    """Attention over a padded and masked grid: for a GPU's float32, where PyTorch has no kernel for packed rows."""
    longest, batch = max(packing.lengths), len(packing.lengths)
    lengths = torch.tensor(packing.lengths, device=key.device)
    mask = torch.arange(longest, device=key.device) < lengths[:, None]
    positions = mask.flatten().nonzero().squeeze(1)

    def pad(x):
        return _grid(x.new_zeros(batch * longest, *x.shape[1:]).index_copy(0, positions, x), batch)

    out = F.scaled_dot_product_attention(
        pad(query) if queries is None else _grid(query, batch),
        pad(key),
        pad(value),
        attn_mask=mask[:, None, None, :],
        dropout_p=dropout,
        scale=scale,
    )
    out = out.transpose(1, 2).flatten(0, 1)
    return out.index_select(0, positions) if queries is None else out
