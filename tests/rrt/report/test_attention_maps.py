"""Attention of a pair: against the plain network, links against a double loop, rollout against the product."""

import numpy as np
import pytest
from builders import make_store
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reranking import small_network

from rrt.errors import InputError
from rrt.network.reranker import Reranker
from rrt.report.attention_maps import PairAttention, pair_attention, strongest_links
from tools.benchmarks.plain_rrt import PlainRRT, plain_logits

DIM, GLOBAL_DIM = 16, 12


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    counts = [9, 0, 4, 14, 1]
    return make_store(tmp_path_factory.mktemp("pair"), n=5, num_local=counts, global_dim=GLOBAL_DIM, local_dim=DIM)


def plain_weights(model, store, query, candidate, max_local):
    """(weights [layers, heads, T, T], logit) of nn.MultiheadAttention's own, padding left out."""
    plain = PlainRRT(model.settings)
    plain.load_state_dict(model.state_dict())
    found = []
    for layer in plain.encoder.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, options: (args, options | {"average_attn_weights": False}), with_kwargs=True
        )
        layer.self_attn.register_forward_hook(lambda _, args, output: found.append(output[1][0].numpy()))
    logit = plain_logits(plain, store, [query], [candidate], max_local)[0]
    counts = store.local_counts(max_local)[[query, candidate]]
    real = np.concatenate([np.arange(2 + max_local) < 2 + count for count in counts])
    return np.stack(found)[:, :, real][..., real], logit


@pytest.mark.parametrize("query, candidate", [(0, 3), (3, 0), (1, 2), (4, 1), (2, 2)])
def test_the_weights_are_those_of_the_plain_network_and_the_logit_that_of_the_scorer(store, query, candidate):
    model = small_network()
    found = pair_attention(model, store, query, candidate, 10)
    expected, logit = plain_weights(model, store, query, candidate, 10)
    np.testing.assert_allclose(found.weights, expected, rtol=0, atol=1e-5)
    assert found.logit == pytest.approx(logit, abs=1e-5)
    assert found.logit == pytest.approx(
        Reranker(model, 10, device="cpu").score(store[query], store[candidate]), abs=1e-5
    )
    assert (found.query_locals, found.candidate_locals) == tuple(store.local_counts(10)[[query, candidate]])


@pytest.mark.parametrize(
    "settings",
    [{"normalize_before": True}, {"activation": "gelu"}, {"activation": "glu"}, {"num_encoder_layers": 1}],
    ids=str,
)
@pytest.mark.parametrize("binning", ["published", "exact"])
def test_every_architecture_and_binning_gives_the_logit_of_the_scorer(store, settings, binning):
    model = small_network(**settings)
    found = pair_attention(model, store, 0, 3, None, binning)
    expected = Reranker(model, None, binning, device="cpu").score(store[0], store[3])
    assert found.logit == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)


@pytest.fixture
def attention():
    weights = np.random.default_rng(3).dirichlet(np.ones(9), (3, 2, 9)).astype(np.float32)
    return PairAttention(weights, 0.5, 3, 2)


def test_links_are_the_mean_geometric_mean_of_both_directions(attention):
    def slow(layers, heads):
        found = np.zeros((3, 2))
        for layer in layers:
            for head in heads:
                for i in range(3):
                    for j in range(2):
                        there, back = (
                            attention.weights[layer, head, 2 + i, 7 + j],
                            attention.weights[layer, head, 7 + j, 2 + i],
                        )
                        found[i, j] += np.sqrt(there * back) / (len(layers) * len(heads))
        return found

    for chosen, layers, heads in (
        ({}, [0, 1], [0, 1]),
        ({"layer": 2}, [2], [0, 1]),
        ({"head": 1}, [0, 1], [1]),
        ({"layer": 0, "head": 0}, [0], [0]),
    ):
        np.testing.assert_allclose(attention.mutual(**chosen), slow(layers, heads), rtol=1e-5)
    single = PairAttention(attention.weights[:1], 0.5, 3, 2)
    np.testing.assert_allclose(single.mutual(), slow([0], [0, 1]), rtol=1e-5)


def test_attention_from_cls_is_its_row_and_the_rollout_the_product_over_the_layers(attention):
    np.testing.assert_allclose(attention.from_cls(), attention.weights[2].mean(0)[0])
    np.testing.assert_allclose(attention.from_cls(1, 0), attention.weights[1, 0, 0])
    product = np.eye(9)
    for weights in attention.weights:
        product = (weights.mean(0) + np.eye(9)) / 2 @ product
    np.testing.assert_allclose(attention.rollout(), product[0], rtol=1e-5)
    assert attention.rollout().sum() == pytest.approx(1)
    for wrong in ({"layer": 3}, {"layer": -1}, {"head": 2}):
        with pytest.raises(InputError, match="the network has"):
            attention.mutual(**wrong)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 6), st.integers(0, 6)),
        elements=st.sampled_from(np.float32([0, 0.1, 0.2, 0.3, 0.5])),
    ),
    st.integers(0, 8),
)
def test_the_strongest_links_are_those_a_double_loop_finds(mutual, number):
    left, links = mutual.copy(), []
    while len(links) < number:
        best = None
        for i in range(left.shape[0]):
            for j in range(left.shape[1]):
                if left[i, j] > 0 and (best is None or left[i, j] > left[best]):
                    best = i, j
        if best is None:
            break
        links.append(list(best))
        left[best[0]], left[:, best[1]] = 0, 0
    assert strongest_links(mutual, number).tolist() == links
