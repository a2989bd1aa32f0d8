"""rrt/network/late.py and late_scorer.py: LATE begins as plain matching, however a pair is scored."""

import math

import numpy as np
import pytest
import torch
from builders import make_store

import rrt
from rrt import InputError, ScoringSettings
from rrt.network import late_scorer
from rrt.network.checkpoint import load_checkpoint, load_weights, save_checkpoint, strip_checkpoint
from rrt.network.late_scorer import LateScorer
from rrt.network.networks import make_network
from rrt.network.pairs import normalised_positions, read_images
from rrt.rerankers.maxsim import MaxSim
from rrt.store.checked import read_globals

COUNTS = [9, 0, 4, 4, 1, 12, 7, 0, 3, 20]
NETWORK = {"kind": "LATE", "num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24}


def network(**settings):
    torch.manual_seed(0)
    return make_network(NETWORK | settings).eval()


def moved(**settings):
    """A network as training leaves it: everything that begins at zero is something."""
    made = network(**settings)
    with torch.no_grad():
        for parameter in (*made.change.parameters(), *made.weigh.parameters()):
            parameter.normal_(std=0.3)
        made.log_temperature.fill_(0.02)
        made.bias.fill_(-0.01)
    made.standardise(0.3, 0.1, 0.2, 0.5)
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("a"), n=len(COUNTS), num_local=COUNTS, global_dim=12, local_dim=16)


ALL_PAIRS = np.array([(i, j) for i in range(len(COUNTS)) for j in range(len(COUNTS))])


def plain_logit(made, store, query, candidate, max_local=None):
    """Of one pair, its images encoded alone, every descriptor's best match looked for by itself."""
    sides = []
    for image in (query, candidate):
        with torch.no_grad():
            encoded = made.encode(read_images(store, np.array([image]), max_local, "published", True))
        sides.append((encoded.vectors.numpy(), encoded.weights.numpy(), encoded.globals_.numpy()[0]))

    def best(first, second):
        rows, weights, _ = first
        return sum(w * max(float(row @ other) for other in second[0]) for row, w in zip(rows, weights))

    found = 0.0
    if len(sides[0][0]) and len(sides[1][0]):
        found = best(*sides)
        if made.settings["symmetric"]:
            found = (found + best(*sides[::-1])) / 2
    with torch.no_grad():
        return float(made.combine(torch.tensor(found), torch.tensor(float(sides[0][2] @ sides[1][2]))))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("max_local", [None, 5])
def test_a_new_network_is_plain_matching_and_the_global_similarity(store, symmetric, max_local):
    made = network(symmetric=symmetric, global_weight=0.7)
    method = MaxSim(symmetric=symmetric, query_local=max_local, gallery_local=max_local, device="cpu")
    globals_ = read_globals(store, np.arange(len(COUNTS)))
    images = np.arange(len(COUNTS))
    logits = LateScorer(made, store, max_local).score(images, [images] * len(images))
    for query in images:
        expected = method.similarities(store, query, images) + 0.7 * globals_ @ globals_[query]
        np.testing.assert_allclose(logits[query], expected, atol=1e-5)


def test_a_network_that_has_learned_is_no_longer_matching(store):
    plain, learned = (LateScorer(made, store).score_pairs(ALL_PAIRS) for made in (network(), moved()))
    assert np.abs(plain - learned).max() > 0.1


@pytest.mark.parametrize("settings", [{}, {"symmetric": False, "positions": False}])
def test_many_pairs_at_a_time_are_scored_as_one_pair_after_the_other(store, settings):
    made = moved(**settings)
    expected = [plain_logit(made, store, *pair) for pair in ALL_PAIRS]
    np.testing.assert_allclose(LateScorer(made, store).score_pairs(ALL_PAIRS), expected, atol=2e-4)
    images = read_images(store, np.arange(len(COUNTS)), None, "published", True)
    with torch.no_grad():
        in_training = made.pair_logits(images, *ALL_PAIRS.T)
    np.testing.assert_allclose(in_training, expected, atol=2e-4)


def test_neither_the_order_of_candidates_nor_the_budget_changes_a_logit(store):
    made, shortlist = moved(), np.array([5, 9, 0, 1, 8, 2])
    scorer = LateScorer(made, store)
    forward, backward = scorer.score([3, 3], [shortlist, shortlist[::-1]])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    scorer._capacity_rows = 40  # of which two images of 20 fit
    np.testing.assert_allclose(scorer.score([3], [shortlist])[0], forward, atol=1e-5)
    assert scorer._rows <= 40


@pytest.mark.parametrize("threads", [1, 2])
def test_many_small_pieces_by_several_threads_give_the_same(store, monkeypatch, threads):
    made, before = moved(), torch.get_num_threads()
    expected = LateScorer(made, store).score_pairs(ALL_PAIRS)
    for name, size in (("_CELLS", 30), ("_TOKENS", 12)):
        monkeypatch.setitem(getattr(late_scorer, name), "cpu", size)
    pieces = LateScorer(made, store, settings=ScoringSettings(threads=threads)).score_pairs(ALL_PAIRS)
    np.testing.assert_allclose(pieces, expected, atol=1e-4)
    assert torch.get_num_threads() == before


def test_an_image_is_encoded_once_for_all_shortlists(store, monkeypatch):
    made, seen = moved(), []
    encode = made.encode
    monkeypatch.setattr(
        made, "encode", lambda images, device: seen.append(len(images.offsets) - 1) or encode(images, device)
    )
    scorer = LateScorer(made, store)
    scorer.score([0, 2], [np.arange(5), np.arange(5)])
    scorer.score([4], [np.arange(6)])
    assert sum(seen) == 6


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near(store, precision):
    made = moved()
    exact = LateScorer(made, store).score_pairs(ALL_PAIRS)
    halved = LateScorer(made, store, settings=ScoringSettings(precision=precision)).score_pairs(ALL_PAIRS)
    assert 0 < np.abs(exact - halved).max() < 0.05 * np.ptp(exact)


def test_positions_are_those_of_the_object_wherever_it_is_and_however_large():
    points = np.random.default_rng(0).uniform(0, 100, (7, 2))
    offsets = np.array([0, 4, 4, 7])
    found = normalised_positions(points, offsets)
    np.testing.assert_allclose(normalised_positions(3 * points + [50, -20], offsets), found, atol=1e-5)
    np.testing.assert_allclose(found[:4].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.square(found[4:]).sum(1).mean(), 1, atol=1e-5)
    assert not normalised_positions(np.full((3, 2), 5.0), np.array([0, 3])).any()


def test_positions_matter_only_to_a_network_that_sees_them(store):
    for positions in (True, False):
        made = moved(positions=positions)
        images = read_images(store, np.array([9, 5]), None, "published", True)
        turned = read_images(store, np.array([9, 5]), None, "published", True)
        turned.positions[:] = turned.positions[:, ::-1]
        with torch.no_grad():
            same = torch.allclose(made.encode(images).vectors, made.encode(turned).vectors, atol=1e-4)
        assert same != positions
    bare = read_images(store, np.array([9, 5]), None)
    with pytest.raises(InputError, match="without positions"):
        moved().encode(bare)


def test_every_parameter_has_a_gradient_after_the_first_step_even_without_descriptors(store):
    made = moved(learn_global_weight=True).train()
    images = read_images(store, np.array([9, 5, 2]), None, "published", True)
    made.pair_logits(images, np.array([0, 1]), np.array([1, 2])).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())
    bare = read_images(store, np.array([1, 7]), None, "published", True)
    torch.autograd.grad(made.pair_logits(bare, np.array([0]), np.array([1])).sum(), list(made.parameters()))


def test_a_checkpoint_opens_as_the_network_it_holds(store, tmp_path):
    made = moved(symmetric=False)
    path = save_checkpoint(tmp_path / "late.pt", made, settings={"model": made.settings, "max_sequence_len": 6})
    expected = [plain_logit(made, store, 5, image, 6) for image in range(len(COUNTS))]
    for given in (None, {"num_encoder_layers": 6}, {"kind": "LATE"}):  # a default, though not of LATE
        reranker = rrt.Reranker.from_checkpoint(path, device="cpu", model=given)
        assert isinstance(reranker.model, rrt.LATE) and reranker.model.settings == made.settings
        np.testing.assert_allclose(reranker.logits(store[5], store[:]), expected, atol=2e-4)
    strip_checkpoint(path, tmp_path / "half.pt", half=True)
    halved = rrt.Reranker.from_checkpoint(tmp_path / "half.pt", device="cpu").logits(store[5], store[:])
    np.testing.assert_allclose(halved, expected, atol=0.02)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"kind": "LATE", "symmetric": True, "nhead": 8}, "made with model.nhead=4, the settings say 8"),
        ({"num_encoder_layers": 3}, "made with model.num_encoder_layers=2"),
        ({"kind": "EARLY"}, "model.kind='EARLY': choose one of RRT, LATE"),
    ],
)
def test_what_a_checkpoint_contradicts_is_one_line(tmp_path, given, said):
    path = save_checkpoint(tmp_path / "late.pt", network(), settings={"model": network().settings})
    with pytest.raises(InputError, match=said):
        rrt.Reranker.from_checkpoint(path, model=given)


def test_kinds_are_not_taken_for_each_other(tmp_path):
    rrt_network = make_network({"num_global_features": 12, "num_local_features": 16})
    path = save_checkpoint(tmp_path / "rrt.pt", rrt_network, settings={"model": rrt_network.settings})
    with pytest.raises(InputError, match="made with model.kind=RRT, the settings say LATE"):
        rrt.Reranker.from_checkpoint(path, model={"kind": "LATE"})
    with pytest.raises(InputError, match="rrt.pt: holds a network of model.RRT, these settings say model.LATE"):
        load_weights(network(), load_checkpoint(path))
    other = save_checkpoint(tmp_path / "late.pt", network(), settings={"model": network().settings})
    with pytest.raises(InputError, match="trained with model.symmetric=True, these settings say False"):
        load_weights(network(symmetric=False), load_checkpoint(other))


@pytest.mark.parametrize("dims, what", [((12, 8), "local descriptors have 8"), ((7, 16), "global descriptors have 7")])
def test_a_query_of_another_width_than_its_candidates_is_refused(store, tmp_path, dims, what):
    query = make_store(tmp_path, n=1, global_dim=dims[0], local_dim=dims[1])[0]
    for asked in (query, query.record()):
        with pytest.raises(InputError, match=what):
            rrt.Reranker(network(), device="cpu").rerank(asked, store[:3])


def test_the_scorer_of_the_other_network_says_which_to_take(store):
    with pytest.raises(InputError, match="a LATE is no rrt.RRT; take rrt.Reranker.model.\\.scorer"):
        rrt.Scorer(network(), store)


def test_a_shortlist_belongs_to_each_query(store):
    with pytest.raises(InputError, match="1 shortlists for 2 queries"):
        LateScorer(network(), store).score([0, 1], [[2]])


def test_wrong_sizes_and_settings_are_one_line(store, tmp_path):
    wide = make_store(tmp_path, n=2, global_dim=12, local_dim=8)
    with pytest.raises(InputError, match="local descriptors have 8 dimensions, model.num_local_features is 16"):
        rrt.Reranker(network()).scorer(wide)
    with pytest.raises(InputError, match="memory_mb=1: an image of 20 local descriptors does not fit"):
        scorer = LateScorer(network(), store, settings=ScoringSettings(memory_mb=1))
        scorer._capacity_rows = 10
        scorer.score([0], [[9]])
    for settings, said in [
        ({"nhead": 3}, "model.nhead=3"),
        ({"global_weight": -1.0}, "model.global_weight=-1"),
        ({"seq_len": 5}, "unknown setting 'seq_len'"),
    ]:
        with pytest.raises(InputError, match=said):
            network(**settings)
    with pytest.raises(InputError, match="model.initialisation=matching: is of model.RRT"):
        make_network(NETWORK, "matching")


def test_no_descriptor_weighs_more_than_the_range_allows_and_a_range_of_0_weighs_all_alike(store):
    images = read_images(store, np.arange(4), None, positions=True)
    for most in (0.0, 0.5, 2.0):
        made = network(weight_range=most)
        for std in (0.1, 100.0):
            with torch.no_grad():
                made.weigh.weight.normal_(std=std)
                weights = made.encode(images).weights
            own = [weights[start:end] for start, end in zip(images.offsets, images.offsets[1:]) if end > start]
            ratios = torch.stack([each.max() / each.min() for each in own])
            assert (ratios <= math.exp(2 * most) * 1.001).all()
            assert most == 0 or std == 100 or (ratios > 1.01).all()


def test_without_vectors_the_descriptors_stay_as_they_are(store):
    images = read_images(store, np.arange(4), None, positions=True)
    made = network(vectors=False)
    assert not any(parameter.requires_grad for parameter in made.change.parameters())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
        found = made.encode(images).vectors
    unit = torch.nn.functional.normalize(torch.as_tensor(images.descriptors).float(), dim=1)
    torch.testing.assert_close(found, unit)
