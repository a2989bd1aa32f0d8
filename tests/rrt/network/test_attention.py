"""rrt/network/attention.py: every path against the softmax written out, sequence by sequence."""

import math
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rrt.network import attention
from rrt.network.attention import Packing, _attend_padded, attend

HEADS, WIDTH = 2, 4


def plain(query, key, value, lengths, queries, scale):
    """softmax(query key^T scale) value with the matrix of every sequence and head."""
    out, row, query_row = [], 0, 0
    for length in lengths:
        q = query[query_row : (query_row := query_row + (queries or length))]
        k, v = (x[row : row + length] for x in (key, value))
        row += length
        weights = torch.softmax(torch.einsum("qhe,khe->hqk", q, k) * scale, dim=-1)
        out.append(torch.einsum("hqk,khe->qhe", weights, v))
    return torch.cat(out)


def draw(lengths, queries):
    generator = torch.Generator().manual_seed(sum(lengths))
    rows = (len(lengths) * queries if queries else sum(lengths), sum(lengths), sum(lengths))
    return [torch.randn(count, HEADS, WIDTH, generator=generator) for count in rows]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=9), st.sampled_from([None, 1, 3]))
def test_packed_and_padded_attention_equal_the_formula(lengths, queries):
    inputs, packing = draw(lengths, queries), Packing.of(lengths)
    expected = plain(*inputs, lengths, queries, WIDTH**-0.5)
    torch.testing.assert_close(attend(*inputs, packing, queries), expected, atol=1e-5, rtol=1e-5)
    # The way of a GPU's float32, which is the same code on a processor.
    padded = _attend_padded(*inputs, packing, queries, None, 0.0)
    torch.testing.assert_close(padded, expected, atol=1e-5, rtol=1e-5)


def test_another_scale_is_used():
    inputs, lengths = draw([3, 2], None), [3, 2]
    expected = plain(*inputs, lengths, None, 2.0)
    torch.testing.assert_close(attend(*inputs, Packing.of(lengths), scale=2.0), expected)


def test_consecutive_sequences_of_one_length_are_one_run():
    packing = Packing.of(torch.tensor([3, 3, 5, 3]))
    assert packing.runs == [(2, 3), (1, 5), (1, 3)]
    assert packing.first.tolist() == [0, 3, 6, 11]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_went_in(dtype):
    inputs = [x.to(dtype) for x in draw([4, 2], None)]
    out = attend(*inputs, Packing.of([4, 2]))
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), attend(*(x.float() for x in inputs), Packing.of([4, 2])), atol=0.02, rtol=0.02
    )


@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize("matrix_elements", [1, 150, 2**20])
def test_bfloat16_by_matrix_products_has_the_values_and_gradients_of_the_formula(monkeypatch, queries, matrix_elements):
    monkeypatch.setattr(attention, "_bfloat16_pays", lambda: True)
    monkeypatch.setattr(attention, "_FEWEST_ELEMENTS", 100)
    monkeypatch.setattr(attention, "_MATRIX_ELEMENTS", matrix_elements)
    by_matrices = MagicMock(wraps=attention._attend_by_matrices)
    monkeypatch.setattr(attention, "_attend_by_matrices", by_matrices)
    lengths = [30, 30, 25, 2]  # the last is too small for matrix products
    exact = [x.bfloat16().float().requires_grad_() for x in draw(lengths, queries)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    expected = plain(*exact, lengths, queries, WIDTH**-0.5)
    found = attend(*rounded, Packing.of(lengths), queries)
    assert by_matrices.call_count == 2 and found.dtype == torch.bfloat16
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = zip(
        torch.autograd.grad((found.float() * weights).sum(), rounded),
        torch.autograd.grad((expected * weights).sum(), exact),
    )
    for one, other in [(found, expected), *gradients]:
        assert (one.float() - other).norm() < 0.015 * other.norm()
    with torch.no_grad():
        assert (attend(*rounded, Packing.of(lengths), queries).float() - expected).norm() < 0.015 * expected.norm()
    assert by_matrices.call_count == 4
    for name, value in {"_LARGEST_MATRIX": 1, "_bfloat16_pays": lambda: False}.items():
        with monkeypatch.context() as patch:
            patch.setattr(attention, name, value)
            torch.testing.assert_close(attend(*rounded, Packing.of(lengths), queries), found, atol=0.02, rtol=0.02)
    assert by_matrices.call_count == 4


@pytest.mark.parametrize("shift", [-300, -90, 0, 90, 300])
def test_powers_of_two_are_left_where_they_leave_the_range(shift):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 20, WIDTH, generator=generator).bfloat16() for _ in range(3))
    query[..., 0], key[..., 0] = 1.0, shift  # the same added to every score
    expected = torch.softmax((query.float() @ key.float().transpose(1, 2)) * math.log(2), -1) @ value.float()
    with torch.no_grad():
        found = attention._mix_by_powers_of_two([query], [key], [value])
    # Scores about 300 are even numbers in bfloat16, those about 90 halves of whole ones.
    torch.testing.assert_close(found.float(), expected, atol=0.02 if abs(shift) < 2 else 0.5, rtol=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.01)])
@pytest.mark.parametrize("queries", [None, 3])
def test_a_gpu_gives_the_same_for_few_and_for_many_lengths(dtype, tolerance, queries):
    for lengths in ([5, 5, 5, 2], list(range(1, 20))):
        generator = torch.Generator().manual_seed(0)
        rows = (len(lengths) * queries if queries else sum(lengths), sum(lengths), sum(lengths))
        inputs = [torch.randn(count, HEADS, 32, generator=generator) for count in rows]
        expected = plain(*inputs, lengths, queries, 32**-0.5)
        found = attend(*(x.to("cuda", dtype) for x in inputs), Packing.of(lengths, "cuda"), queries)
        torch.testing.assert_close(found.float().cpu(), expected, atol=tolerance, rtol=tolerance)
