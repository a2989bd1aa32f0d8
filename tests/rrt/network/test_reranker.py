"""rrt/network/reranker.py: the three lines of the README, against scoring one pair after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_store

import rrt
from rrt import InputError
from rrt.network.checkpoint import load_checkpoint, save_checkpoint
from rrt.network.pairs import scale_index

COUNTS = [9, 0, 4, 4, 1, 12, 7, 0, 3, 20]
NETWORK = {"num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24, "num_encoder_layers": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("a"), n=len(COUNTS), num_local=COUNTS, global_dim=12, local_dim=16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return rrt.RRT(**NETWORK).eval()


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    """A checkpoint that records nothing, as published ones do."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "published.pt", network)


@pytest.fixture
def reranker(path):
    return rrt.Reranker.from_checkpoint(path, device="cpu", model=NETWORK)


def plain_logit(network, *records, binning="published", max_local=None):
    """One padded pair through the network's own forward pass."""
    inputs = []
    for record in records:
        local = slice(max_local)
        inputs += [
            torch.tensor(record.global_)[None],
            torch.tensor(record.descriptors[local])[None],
            torch.zeros(1, len(record.scales[local]), dtype=torch.bool),
            torch.tensor(scale_index(record.scales[local], binning))[None],
            torch.zeros(1, len(record.scales[local]), 2),
        ]
    with torch.no_grad():
        return network(*inputs).item()


def test_three_lines(path, store):
    reranker = rrt.Reranker.from_checkpoint(path, model=NETWORK)
    logit = reranker.score(store["img_000"], store["img_002"])
    ranking = reranker.rerank(store["img_000"], store[["img_003", "img_002", "img_005"]])
    assert isinstance(logit, float) and np.isclose(logit, ranking.logits[ranking.order == 1], atol=1e-5)
    assert sorted(image.name for image in ranking.images) == [store.names[i] for i in (2, 3, 5)]


@pytest.mark.parametrize("a, b", [(0, 2), (2, 0), (1, 7), (1, 9), (5, 5)])
def test_the_score_is_the_logit_of_the_plain_network_with_or_without_local_descriptors(reranker, network, store, a, b):
    expected = plain_logit(network, store[a].record(), store[b].record())
    for pair in ((store[a], store[b]), (store[a].record(), store[b].record()), (store[a], store[b].record())):
        assert reranker.score(*pair) == pytest.approx(expected, abs=1e-5)


def test_images_of_one_store_are_scored_where_they_are(reranker, store, monkeypatch):
    monkeypatch.setattr("rrt.store.memory.MemoryStore.of", lambda *_: pytest.fail("copied"))
    assert len(reranker.logits(store[0], store[1:])) == 9 and reranker.scorer(store).store is store


def test_candidates_come_by_falling_logit_with_their_places(reranker, network, store):
    candidates = store[[4, 9, 1, 3]]
    ranking = reranker.rerank(store[0], iter(candidates))
    expected = np.array([plain_logit(network, store[0].record(), image.record()) for image in candidates])
    np.testing.assert_array_equal(ranking.order, np.argsort(-expected))
    np.testing.assert_allclose(ranking.logits, expected[ranking.order], atol=1e-5)
    assert ranking.images == [candidates[place] for place in ranking.order]
    np.testing.assert_allclose(ranking.probabilities, 1 / (1 + np.exp(-ranking.logits)), rtol=1e-5)


def test_equal_logits_keep_the_order_given(reranker, store, monkeypatch):
    monkeypatch.setattr(rrt.Scorer, "score", lambda *_: [np.float32([1, 2] * 50)])
    ranking = reranker.rerank(store[0], store[:] * 10)
    assert ranking.order.tolist() == [*range(1, 100, 2), *range(0, 100, 2)]


def test_images_of_two_stores_and_of_none_mix(reranker, network, store, tmp_path):
    other = make_store(tmp_path, n=3, seed=5, global_dim=12, local_dim=16)
    bare = replace(other[0].record(), **{name: [] for name in ("descriptors", "keypoints", "scales", "attention")})
    logits = reranker.logits(other[2], [store[1], other[1], bare])
    full = replace(bare, descriptors=np.zeros((0, 16), np.float32), scales=np.zeros(0, np.float32))
    candidates = store[1].record(), other[1].record(), full
    expected = [plain_logit(network, other[2].record(), candidate) for candidate in candidates]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert reranker.score(bare, bare) == pytest.approx(plain_logit(network, full, full), abs=1e-5)


def test_no_candidates_give_an_empty_ranking(reranker, store):
    ranking = reranker.rerank(store[0], [])
    assert ranking.images == [] and len(ranking.order) == len(ranking.logits) == 0


def test_what_a_checkpoint_records_is_used(network, store, tmp_path):
    recorded = {"model": network.settings, "scale_binning": "exact", "max_sequence_len": 3}
    path = save_checkpoint(tmp_path / "ours.pt", network, settings=recorded)
    records = store[5].record(), store[9].record()
    reranker = rrt.Reranker.from_checkpoint(path)
    assert (reranker.binning, reranker.max_local) == ("exact", 3)
    expected = plain_logit(network, *records, binning="exact", max_local=3)
    assert reranker.score(*records) == pytest.approx(expected, abs=1e-5)
    assert rrt.Reranker.from_checkpoint(path, all_local=True).max_local is None
    told = rrt.Reranker.from_checkpoint(path, binning="published", max_local=5)
    assert told.score(*records) == pytest.approx(plain_logit(network, *records, max_local=5), abs=1e-5)


def test_settings_of_the_scorer_are_passed_on(path, store, monkeypatch):
    reranker = rrt.Reranker.from_checkpoint(path, model=NETWORK, precision="float16", memory_mb=300)
    scorer = reranker.scorer(store)
    assert (scorer.precision, scorer.memory_mb) == ("float16", 300)
    assert reranker.scorer(rrt.MemoryStore.of(store[:2])).network is scorer.network


def test_the_published_network_is_what_a_file_without_settings_is_taken_for(shared_golden):
    reranker = rrt.Reranker.from_checkpoint(shared_golden / "rrt_full.pt")
    assert (reranker.binning, reranker.max_local) == ("published", 500)
    state = load_checkpoint(shared_golden / "rrt_full.pt").state
    assert all(torch.equal(tensor.cpu(), state[name]) for name, tensor in reranker.model.state_dict().items())


@pytest.mark.parametrize(
    "settings, what",
    [
        ({"device": "cpu"}, "published.pt: another architecture"),
        ({"model": NETWORK | {"depth": 3}}, "unknown setting 'depth'"),
        ({"model": NETWORK, "binning": "nearest"}, "scale_binning='nearest'"),
        ({"model": NETWORK, "max_local": -1}, "max_local=-1"),
        ({"model": NETWORK, "max_local": "all"}, "max_local='all'"),
    ],
)
def test_wrong_settings_are_refused(path, settings, what):
    with pytest.raises(InputError, match=what):
        rrt.Reranker.from_checkpoint(path, **settings)


def test_a_missing_checkpoint_is_named():
    with pytest.raises(InputError, match="missing.pt: no such checkpoint"):
        rrt.Reranker.from_checkpoint("missing.pt")


@pytest.mark.parametrize(
    "sizes, what",
    [
        ({"global_dim": 7, "local_dim": 16}, "global descriptors have 7 dim.*, .*published.pt was trained on 12; take"),
        (
            {"global_dim": 12, "local_dim": 8},
            "local descriptors have 8 dimensions, .*published.pt was trained on 16; take",
        ),
    ],
)
def test_a_store_of_other_sizes_is_refused(reranker, tmp_path, sizes, what):
    other = make_store(tmp_path, n=2, **sizes)
    for images in (other[:], [image.record() for image in other]):
        with pytest.raises(InputError, match=what):
            reranker.score(*images)


@pytest.mark.parametrize("column", ["global_", "descriptors", "scales"])
def test_values_that_are_not_finite_are_refused_naming_the_image(reranker, store, column):
    record = store[0].record()
    broken = replace(record, name="broken.jpg", **{column: np.full_like(getattr(record, column), np.nan)})
    with pytest.raises(InputError, match="memory: 'broken.jpg' has .* not finite"):
        reranker.score(record, broken)


def test_a_damaged_store_is_refused_naming_the_image(reranker, tmp_path):
    import h5py

    store = make_store(tmp_path, n=4, global_dim=12, local_dim=16)
    with h5py.File(store.path, "r+") as file:
        file["global"][2, 3] = np.inf
    with pytest.raises(InputError, match="global descriptor of 'jpg/img_002.jpg' hold NaN or infinity"):
        reranker.rerank(store[0], store[1:])


@pytest.mark.parametrize(
    "candidates, what",
    [
        ("jpg/img_001.jpg", "expected a list of candidates"),
        (["jpg/img_001.jpg"], "'jpg/img_001.jpg' is no image: give store"),
        ([np.zeros(3)], "a ndarray is no image"),
        (3, "3: expected a list"),
    ],
)
def test_what_is_no_image_is_answered_with_what_is(reranker, store, candidates, what):
    with pytest.raises(InputError, match=what):
        reranker.rerank(store[0], candidates)
    with pytest.raises(InputError, match="is no image"):
        reranker.score("a.jpg", store[0])


def test_one_image_is_no_list_of_candidates(reranker, store):
    with pytest.raises(InputError, match=r"score\(a, b\)"):
        reranker.rerank(store[0], store[1])
