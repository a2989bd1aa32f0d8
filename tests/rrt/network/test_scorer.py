"""rrt/network/scorer.py: every saving against the plain network, padded, one pair at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_store
from hypothesis import given
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.network.image_bank import ImageBank
from rrt.network.model import RRT
from rrt.network.pairs import scale_index
from rrt.network.precision import ScoringSettings, resolve_precision
from rrt.network.scorer import Budget, Scorer
from rrt.store.memory import MemoryStore
from tools.benchmarks.plain_rrt import PlainRRT, plain_logits

COUNTS = [9, 0, 4, 4, 1, 12, 7, 0, 3, 20]
SHORTLISTS = [[1, 2, 3, 4], [], [5, 0, 9, 9], [7], [6, 8, 1, 2, 3, 4, 5]]
QUERIES = [0, 5, 1, 7, 9]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("scorer"), n=len(COUNTS), num_local=COUNTS, global_dim=12, local_dim=16)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RRT(12, 16, dim_feedforward=24, num_encoder_layers=3).eval()


@pytest.fixture(scope="module")
def plain_network(model):
    network = PlainRRT(model.settings)
    network.load_state_dict(model.state_dict())
    return network


@pytest.fixture(scope="module")
def plain(plain_network, store):
    """plain(max_local, binning): logits [10, 10] of every pair of the store's images."""
    network = plain_network

    def score(max_local=20, binning="published"):
        pairs = np.indices((10, 10)).reshape(2, -1).T
        return np.array([plain_logits(network, store, [q], [c], max_local, binning)[0] for q, c in pairs]).reshape(
            10, 10
        )

    return score


@pytest.fixture(scope="module")
def expected(plain):
    return plain()


def assert_scores(scorer, expected, queries=QUERIES, shortlists=SHORTLISTS, tolerance=1e-4):
    scored = scorer.score(np.array(queries), [np.array(shortlist, np.int64) for shortlist in shortlists])
    assert [len(logits) for logits in scored] == [len(shortlist) for shortlist in shortlists]
    for query, shortlist, logits in zip(queries, shortlists, scored):
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected[query, shortlist], rtol=0, atol=tolerance * np.ptp(expected))


def test_ragged_shortlists_get_the_logits_of_plain_padded_pairs_in_their_order(model, store, expected):
    assert_scores(Scorer(model, store), expected)


def test_pairs_in_any_order_get_the_logits_of_shortlists(model, store, expected):
    pairs = np.random.default_rng(0).integers(0, 10, (40, 2))
    logits = Scorer(model, store).score_pairs(pairs)
    np.testing.assert_allclose(logits, expected[tuple(pairs.T)], rtol=0, atol=1e-4 * np.ptp(expected))
    assert Scorer(model, store).score_pairs(np.empty((0, 2), int)).shape == (0,)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=8)), max_size=6),
    batch_tokens=st.integers(1, 300),
    threads=st.integers(1, 3),
    rows=st.integers(42, 200),
    step=st.integers(42, 200),
)
def test_no_batch_size_budget_or_worker_changes_a_logit(
    model, store, expected, pairs, batch_tokens, threads, rows, step
):
    scorer = Scorer(model, store, settings=ScoringSettings(threads=threads, batch_tokens=batch_tokens))
    scorer.budget = lambda counts: Budget(rows, step, batch_tokens)
    queries, shortlists = zip(*pairs) if pairs else ((), ())
    assert_scores(scorer, expected, queries, shortlists)


@pytest.mark.parametrize("settings", [{"normalize_before": True}, {"activation": "gelu"}, {"activation": "glu"}])
def test_other_networks_score_as_their_own_forward_does(store, settings):
    torch.manual_seed(1)
    model = RRT(12, 16, dim_feedforward=24, num_encoder_layers=2, **settings).eval()
    scorer = Scorer(model, store)
    logits = scorer.score(np.array([9]), [np.arange(10)])[0]
    for candidate in range(10):
        inputs = []
        for image in (9, candidate):
            local = store.read(image)
            scales = torch.tensor(scale_index(local.scales))
            mask, positions = torch.zeros(1, len(scales), dtype=torch.bool), torch.zeros(1, len(scales), 2)
            inputs += [torch.tensor(store.global_descriptors[image])[None], torch.tensor(local.descriptors)[None]]
            inputs += [mask, scales[None], positions]
        assert logits[candidate] == pytest.approx(model(*inputs).item(), abs=1e-5)


@pytest.mark.parametrize("precision, tolerance", [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_is_near_and_leaves_the_model_alone(model, store, expected, precision, tolerance):
    scorer = Scorer(model, store, settings=ScoringSettings(precision=precision))
    assert scorer.precision == precision
    assert_scores(scorer, expected, tolerance=tolerance)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_auto_takes_what_multiplies_faster_here(monkeypatch, model, store):
    monkeypatch.setattr("rrt.devices.multiplication_rate", lambda dtype, *_: {torch.bfloat16: 2.0}.get(dtype, 1))
    assert Scorer(model, store, settings=ScoringSettings(precision="auto")).precision == "bfloat16"
    monkeypatch.setattr("rrt.devices.multiplication_rate", lambda dtype, *_: 1.0)
    assert Scorer(model, store, settings=ScoringSettings(precision="auto")).precision == "float32"


def test_a_precision_that_is_named_is_taken():
    assert resolve_precision("float16", torch.device("cpu")) == "float16"


def test_compiled_it_scores_the_same(model, store, expected, monkeypatch):
    compile_ = torch.compile
    # The tracing is torch.compile's own; the backend that calls a C++ compiler would take a minute.
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend="eager", **options))
    assert_scores(Scorer(model, store, settings=ScoringSettings(compile=True, threads=2, batch_tokens=30)), expected)


def test_only_the_first_descriptors_count_when_cut(model, store, plain):
    assert_scores(Scorer(model, store, max_local=4), plain(max_local=4))


@pytest.mark.parametrize("most", [(3, 9), (20, 2)])
def test_query_and_candidate_may_use_other_numbers_of_descriptors(model, store, plain_network, most):
    def cut(image, number):
        record = store[image].record()
        columns = ("descriptors", "keypoints", "scales", "attention")
        return replace(record, **{name: getattr(record, name)[:number] for name in columns})

    # The images as queries, then the same as candidates, each cut before anything sees it.
    images = MemoryStore.of([cut(image, number) for number in most for image in range(10)])
    pairs = np.indices((10, 10)).reshape(2, -1).T
    wanted = [plain_logits(plain_network, images, [q], [10 + c], 20, "published")[0] for q, c in pairs]
    scorer = Scorer(model, store).with_local(*most)
    assert_scores(scorer, np.reshape(wanted, (10, 10)))
    scorer.budget = lambda counts: Budget(45, 45, 60)
    assert_scores(scorer.with_local(None, most[1]), np.reshape(wanted, (10, 10)))


def test_the_scale_binning_is_used(model, store, plain):
    assert_scores(Scorer(model, store, binning="exact"), plain(binning="exact"))
    with pytest.raises(InputError, match="scale_binning"):
        Scorer(model, store, binning="nearest")


def test_each_image_is_read_and_embedded_once_while_the_budget_holds(model, store, monkeypatch):
    read = []
    original = type(store).read_packed
    monkeypatch.setattr(
        type(store), "read_packed", lambda self, indices, *rest: read.extend(indices) or original(self, indices, *rest)
    )
    Scorer(model, store).score(np.array(QUERIES), [np.array(shortlist, np.int64) for shortlist in SHORTLISTS])
    assert sorted(read) == sorted(set(read)) and len(read) == len(COUNTS)


def test_the_first_layers_projection_of_a_query_is_computed_once(model, store, monkeypatch):
    rows = []
    layer = type(model.encoder.layers[0])
    original = layer.project
    monkeypatch.setattr(layer, "project", lambda self, x: rows.append(len(x)) or original(self, x))
    settings = ScoringSettings(batch_tokens=1, threads=1)
    Scorer(model, store, settings=settings).score(np.array([9]), [np.array([0, 2, 5])])
    assert rows == [20 + 3, 5, 10, 13]


def test_the_budget_bounds_the_rows_held_at_a_time(model, store, monkeypatch, expected):
    held = []
    original = ImageBank.add
    monkeypatch.setattr(ImageBank, "add", lambda self, reading: original(self, reading) or held.append(self._used))
    scorer = Scorer(model, store)
    scorer.budget = lambda counts: Budget(50, 10**6, 10**6)
    assert_scores(scorer, expected, [0, 1, 2, 3], [[4], [5, 6], [9], [8]])
    assert len(held) == 4 and max(held) <= 50 and sum(held) > 50


def test_a_shortlist_larger_than_the_budget_is_scored_in_parts(model, store, expected):
    scorer = Scorer(model, store)
    scorer.budget = lambda counts: Budget(42, 10**6, 10**6)
    assert_scores(scorer, expected, [9], [list(range(10)) * 3])


def test_memory_is_shared_between_reading_embedded_images_and_workers(model, store):
    counts = store.local_counts() + 1
    small, large = (
        Scorer(model, store, settings=ScoringSettings(memory_mb=mb, threads=2)).budget(counts) for mb in (1, 64)
    )
    assert small.rows < large.rows and small.step < large.step and small.batch < large.batch == 2048
    assert large.rows * 16 * 4 + large.step * 2 * 16 * 14 + 2 * 2048 * 12 * 16 * 4 <= 64 * 2**20
    with pytest.raises(InputError, match="memory_mb=1: a pair of 40002 tokens .* MiB; give more"):
        Scorer(model, store, settings=ScoringSettings(memory_mb=1)).budget(np.array([20_000]))


def test_no_queries_give_no_scores(model, store):
    assert Scorer(model, store).score(np.empty(0, np.int64), []) == []


def test_a_model_in_training_stays_in_training_and_threads_stay_as_they_were(store):
    model = RRT(12, 16, dim_feedforward=24, num_encoder_layers=1, dropout=0.5).train()
    threads = torch.get_num_threads()
    scorer = Scorer(model, store, settings=ScoringSettings(threads=2, batch_tokens=20))
    first, second = (scorer.score(np.array([0]), [np.arange(9)])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training and torch.get_num_threads() == threads


@pytest.mark.parametrize("query, candidate", [(0, 99), (-1, 0)])
def test_an_image_the_store_does_not_have_is_an_error(model, store, query, candidate):
    with pytest.raises(InputError, match=f"there is no image {query or candidate}, the store holds 10"):
        Scorer(model, store).score(np.array([query]), [np.array([candidate])])


@pytest.mark.parametrize("wrong", [["img_000"], [0.5], [True], [[1]], [[1], [2, 3]], [None], 3, "12"])
def test_what_is_no_index_is_one_line(model, store, wrong):
    scorer = Scorer(model, store)
    for queries, shortlists in ((wrong, [[1]]), ([0], [wrong])):
        with pytest.raises(InputError, match="expected indices, whole numbers"):
            scorer.score(queries, shortlists)


@pytest.mark.parametrize("wrong", [[(0, 1, 2)], [0, 1], [("img_000", "img_001")], [(0, 0.5)], [(0, 1), (2,)]])
def test_what_is_no_pair_is_one_line(model, store, wrong):
    with pytest.raises(InputError, match="pairs .*: expected 2 indices each, whole numbers"):
        Scorer(model, store).score_pairs(wrong)
    assert Scorer(model, store).score_pairs([]).shape == (0,)


@pytest.mark.parametrize("settings", [{"precision": "int4"}, {"memory_mb": 0}, {"batch_tokens": 1.5}, {"threads": -1}])
def test_settings_that_cannot_be_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        ScoringSettings(**settings)


@pytest.mark.gpu
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.1), ("float16", 0.02)])
def test_a_gpu_gives_the_same_logits(model, store, expected, precision, tolerance):
    settings = ScoringSettings(precision=precision)
    assert_scores(Scorer(model, store, device="cuda", settings=settings), expected, tolerance=tolerance)
    model.to("cpu")
