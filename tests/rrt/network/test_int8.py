"""rrt/network/int8.py: against the same in float32, and a pair's score against what it is computed with."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import make_store
from reranking import save_late, small_network

import rrt
from rrt.errors import InputError
from rrt.network import attention, int8
from rrt.network.attention import LARGEST_POWER, Packing
from rrt.network.int8 import Int8FeedForward, Int8Linear, Int8Product, largest_score, quantise
from rrt.network.late_scorer import LateScorer
from rrt.network.precision import ScoringSettings
from rrt.network.scorer import Scorer

COUNTS = [9, 0, 4, 4, 1, 30, 7, 0, 3, 40]
INT8 = ScoringSettings(precision="int8")
needs_int8 = pytest.mark.skipif(not int8.multiplies_exactly(), reason="needs a processor that multiplies int8")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("int8"), n=len(COUNTS), num_local=COUNTS, global_dim=12, local_dim=16)


@pytest.fixture
def by_matrices(monkeypatch):
    """Attention by matrix products, however small, as in sequences of some length."""
    monkeypatch.setattr(attention, "_bfloat16_pays", lambda: True)
    monkeypatch.setattr(attention, "_FEWEST_ELEMENTS", 1)


@needs_int8
def test_a_product_is_that_of_the_rounded_numbers():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 16, generator=generator), torch.randn(24, generator=generator)
    weight[3] = 0
    x = torch.randint(0, 256, (7, 16), generator=generator, dtype=torch.uint8)
    steps = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    expected = 0.1 * (x.float() - 128) @ ((weight / steps).round() * steps).t() + bias
    torch.testing.assert_close(Int8Product(weight, bias, 0.1, 128)(x), expected)


@needs_int8
@pytest.mark.parametrize("activation", ["relu", "gelu", "glu"])
def test_layers_are_near_those_of_float32_even_for_rows_of_a_single_number(activation):
    layer = small_network(activation=activation).encoder.layers[0].requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    for rows in (torch.randn(500, 16, generator=generator), 100 * torch.eye(16), -100 * torch.eye(16)):
        x = layer.norm1(rows)
        found = Int8FeedForward(layer)(x), Int8Linear(weight, bias, layer.norm1)(x)
        for one, exact in zip(found, (layer.feedforward(x), F.linear(x, weight, bias))):
            assert 0 < (one - exact).norm() < 0.03 * exact.norm()


@needs_int8
@pytest.mark.parametrize("settings", [{}, {"normalize_before": True}, {"activation": "gelu"}, {"activation": "glu"}])
def test_networks_score_near_float32_and_are_left_alone(store, by_matrices, settings):
    model = small_network(**settings)
    rounded = copy.deepcopy(model)
    quantise(rounded)
    assert isinstance(rounded.encoder.layers[1].self_attn.project, Int8Linear)
    pairs = np.indices((10, 10)).reshape(2, -1).T
    expected = Scorer(model, store).score_pairs(pairs)
    found = Scorer(model, store, settings=INT8).score_pairs(pairs)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)
    np.testing.assert_array_equal(Scorer(model, store).score_pairs(pairs), expected)


@needs_int8
def test_a_pair_scores_the_same_alone_and_in_any_company(store, by_matrices):
    scorer = Scorer(small_network(), store, settings=INT8)
    together = scorer.score(np.array([9, 5]), [np.arange(10), np.arange(10)])
    spread = np.ptp(together[0])
    for query, logits in zip((9, 5), together):
        alone = np.concatenate([scorer.score_pairs(np.array([[query, candidate]])) for candidate in range(10)])
        np.testing.assert_allclose(alone, logits, atol=0.01 * spread)


@needs_int8
def test_late_scores_near_float32(tmp_path, store):
    model = rrt.Reranker.from_checkpoint(save_late(tmp_path), device="cpu").model
    pairs = np.indices((10, 10)).reshape(2, -1).T
    exact, found = (LateScorer(model, store, settings=each).score_pairs(pairs) for each in (None, INT8))
    assert 0 < np.abs(found - exact).max() < 0.05 * np.ptp(exact)


def test_no_score_of_attention_is_above_its_bound():
    layer = small_network().encoder.layers[0].requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in (*layer.norm1.parameters(), *layer.self_attn.parameters()):
        parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    query, key, _ = (
        layer.self_attn.project(layer.norm1(torch.randn(3000, 16, generator=generator)))
        .unflatten(1, (3, 4, -1))
        .unbind(1)
    )
    largest = torch.einsum("qhe,khe->hqk", query, key).abs().max().item() / 2
    assert largest <= largest_score(layer.self_attn, layer.norm1) < 3 * largest


@needs_int8
def test_exponentials_are_exact_where_scores_may_leave_the_range_of_the_fast_ones():
    model = small_network(num_encoder_layers=4)
    with torch.no_grad():
        model.encoder.layers[2].self_attn.in_proj_weight[:16] *= 1000
    assert largest_score(model.encoder.layers[2].self_attn, model.encoder.layers[1].norm2) > LARGEST_POWER
    quantise(model)
    assert [layer.self_attn.coarse for layer in model.encoder.layers] == [False, True, False, False]


def test_coarse_weights_are_at_most_3_percent_off(by_matrices):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.zeros(3, 50, 1, 50).bfloat16()
    # Scores of one bit each, so that bfloat16 rounds none.
    query[:, 0, 0] = math.log(2)
    key[:, 0, 0] = torch.randint(-64, 64, (50,), generator=generator) / 16
    value[:, 0] = torch.eye(50)
    with torch.no_grad():
        exact, coarse = (
            attention.attend(query, key, value, Packing.of([50]), scale=1.0, coarse=c) for c in (False, True)
        )
    off = (coarse.float() / exact.float() - 1).abs()
    assert 0.01 < off.max() < 0.045 and off.mean() < 0.025
    torch.testing.assert_close(coarse.float().sum(-1), torch.ones(50, 1), atol=0.01, rtol=0)


def test_what_cannot_be_is_refused_in_one_line(store, monkeypatch):
    model = small_network()
    monkeypatch.setattr(int8, "multiplies_exactly", lambda: True)  # on whatever processor
    with pytest.raises(InputError, match="int8 is not compiled; leave compile out"):
        Scorer(model, store, settings=ScoringSettings(precision="int8", compile=True))
    with pytest.raises(InputError, match="precision=int8: is for processors; on a GPU take precision=bfloat16"):
        quantise(copy.deepcopy(model).to("meta"))
    monkeypatch.setattr(int8, "multiplies_exactly", lambda: False)
    with pytest.raises(InputError, match="precision=int8: this processor, or this PyTorch, does not .* take precision"):
        Scorer(model, store, settings=INT8)


def test_a_processor_that_adds_in_16_bits_is_found_out(monkeypatch):
    monkeypatch.setattr(Int8Product, "__call__", lambda *_: torch.tensor([[32767.0, -32768.0]]))
    assert not int8.multiplies_exactly.__wrapped__()
