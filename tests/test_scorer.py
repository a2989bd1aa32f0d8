"""rrt/scorer.py: every saving against scoring one padded pair at a time."""

import numpy as np
import pytest
import torch

from rrt.errors import InputError
from rrt.model import RRT
from rrt.pairs import scale_index
from rrt.scorer import Scorer

COUNTS = [9, 0, 4, 4, 1, 12, 7, 0, 3, 20]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from builders import make_store

    return make_store(tmp_path_factory.mktemp("scorer"), n=len(COUNTS), num_local=COUNTS, global_dim=12, local_dim=16)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RRT(12, 16, dim_feedforward=24, num_encoder_layers=3).eval()


def plain_score(model, store, query, candidate, max_local=None, binning="published"):
    inputs = []
    for image in (query, candidate):
        local = store.read(image, max_local)
        inputs += [
            torch.tensor(store.global_descriptors[image])[None],
            torch.tensor(local.descriptors)[None],
            torch.zeros(1, len(local.scales), dtype=torch.bool),
            torch.tensor(scale_index(local.scales, binning))[None],
            torch.zeros(1, len(local.scales), 2),
        ]
    with torch.no_grad():
        return model(*inputs).item()


def assert_scores(scorer, model, store, queries, shortlists, **plain):
    scored = scorer.score(np.array(queries), [np.array(shortlist, np.int64) for shortlist in shortlists])
    assert [len(logits) for logits in scored] == [len(shortlist) for shortlist in shortlists]
    for query, shortlist, logits in zip(queries, shortlists, scored):
        expected = np.array([plain_score(model, store, query, candidate, **plain) for candidate in shortlist])
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert logits.dtype == np.float32


SHORTLISTS = [[1, 2, 3, 4], [], [5, 0, 9, 9], [7], [6, 8, 1, 2, 3, 4, 5]]
QUERIES = [0, 5, 1, 7, 9]


def test_ragged_shortlists_get_the_logits_of_single_pairs_in_their_order(model, store):
    assert_scores(Scorer(model, store), model, store, QUERIES, SHORTLISTS)


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_the_batch_size_changes_nothing(model, store, batch_tokens):
    assert_scores(Scorer(model, store, batch_tokens=batch_tokens), model, store, QUERIES, SHORTLISTS)


@pytest.mark.parametrize("cache_tokens", [1, 45, 10_000])
def test_the_memory_budget_changes_nothing(model, store, cache_tokens):
    assert_scores(Scorer(model, store, cache_tokens=cache_tokens), model, store, QUERIES, SHORTLISTS)


def test_only_the_first_descriptors_count_when_cut(model, store):
    assert_scores(Scorer(model, store, max_local=4), model, store, QUERIES, SHORTLISTS, max_local=4)


def test_the_scale_binning_is_used(model, store):
    assert_scores(Scorer(model, store, binning="exact"), model, store, QUERIES, SHORTLISTS, binning="exact")
    with pytest.raises(InputError, match="scale_binning"):
        Scorer(model, store, binning="nearest")


def test_each_image_is_read_once_while_the_budget_holds(model, store, monkeypatch):
    read = []
    original = type(store).read_packed
    monkeypatch.setattr(
        type(store), "read_packed", lambda self, indices, *rest: read.extend(indices) or original(self, indices, *rest)
    )
    Scorer(model, store).score(np.array(QUERIES), [np.array(shortlist, np.int64) for shortlist in SHORTLISTS])
    assert sorted(read) == sorted(set(read))


def test_the_budget_bounds_the_images_held_at_a_time(model, store, monkeypatch):
    held = []
    original = Scorer._embed

    def embed(self, images):
        held.append(int((store.local_counts()[images] + 1).sum()))
        return original(self, images)

    monkeypatch.setattr(Scorer, "_embed", embed)
    Scorer(model, store, cache_tokens=50).score(
        np.array([0, 1, 2, 3]), [np.array([4]), np.array([5, 6]), np.array([9]), np.array([8])]
    )
    assert len(held) > 1 and max(held) <= 50


def test_no_queries_give_no_scores(model, store):
    assert Scorer(model, store).score(np.empty(0, np.int64), []) == []


def test_a_model_in_training_stays_in_training(store):
    model = RRT(12, 16, dim_feedforward=24, num_encoder_layers=1, dropout=0.5).train()
    scorer = Scorer(model, store)
    first, second = (scorer.score(np.array([0]), [np.arange(9)])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training


def test_an_image_the_store_does_not_have_is_an_error(model, store):
    with pytest.raises((InputError, IndexError)):
        Scorer(model, store).score(np.array([0]), [np.array([99])])
