"""rrt/retriever.py: search and reranking over a store, against sorting all similarities."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_records, make_store, unit_rows
from hypothesis import given
from hypothesis import strategies as st

from rrt import RRT, Fusion, InputError, MemoryStore, Reranker, Retriever
from rrt.rerankers import make_chain, make_method
from rrt.search.whitening import fit_pca_whitening

SIZES = {"global_dim": 12, "local_dim": 16}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("a"), n=30, num_local=[i % 6 for i in range(30)], **SIZES)


@pytest.fixture(scope="module")
def reranker():
    torch.manual_seed(0)
    return Reranker(RRT(12, 16, dim_feedforward=24, num_encoder_layers=2), device="cpu")


def slow_search(descriptors, query, left_out=()):
    return [i for i in np.argsort(-(descriptors @ query), kind="stable") if i not in left_out]


def test_an_image_of_the_store_finds_the_others(store):
    retriever, descriptors = Retriever(store), store.global_descriptors
    for query in (7, "img_007", store[7]):
        found = retriever.search(query, k=5)
        assert found.indices.tolist() == slow_search(descriptors, descriptors[7], [7])[:5]
        assert found.names == [store.names[i] for i in found.indices] and np.isnan(found.logits).all()
        np.testing.assert_allclose(found.similarities, descriptors[found.indices] @ descriptors[7], atol=1e-6)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_exact_duplicates_of_a_query_are_found_and_only_itself_is_not(n, k, seed):
    generator = np.random.default_rng(seed)
    rows = unit_rows(generator, 3, 4)[generator.integers(0, 3, n)]
    retriever = Retriever(MemoryStore(rows, [np.zeros((0, 8))] * n))
    for query, found in enumerate(retriever.search(range(n), k)):
        others = np.setdiff1d(np.arange(n), query)
        assert query not in found.indices and len(set(found.indices.tolist())) == len(found.indices) == min(k, n - 1)
        best = np.sort(rows[others] @ rows[query])[::-1][:k]
        np.testing.assert_allclose(found.similarities, best, atol=1e-6)


def test_an_image_from_elsewhere_finds_everything(store, tmp_path):
    record = make_records(["new.jpg"], seed=9, **SIZES)[0]
    other = MemoryStore.of([record])
    expected = slow_search(store.global_descriptors, record.global_)
    for query in (record, other[0], replace(record, global_=3 * record.global_)):
        assert Retriever(store).search(query, k=30).indices.tolist() == expected
    assert 7 in Retriever(store).search(store[7].record(), k=30).indices


@pytest.mark.parametrize("num_rerank, k", [(8, 5), (8, 12), (100, 5), (1, 3)])
def test_the_first_candidates_come_by_falling_logit_and_the_rest_follow_as_searched(store, reranker, num_rerank, k):
    found = Retriever(store, reranker).retrieve(4, k, num_rerank)
    ranked = slow_search(store.global_descriptors, store.global_descriptors[4], [4])
    reranked = reranker.rerank(store[4], store[ranked[:num_rerank]])
    expected = [image.index for image in reranked.images] + ranked[num_rerank:]
    assert found.indices.tolist() == expected[:k]
    logits = np.append(reranked.logits, [np.nan] * len(ranked[num_rerank:]))[:k]
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    np.testing.assert_allclose(
        found.similarities, store.global_descriptors[found.indices] @ store.global_descriptors[4], atol=1e-6
    )


def test_equal_logits_keep_the_order_of_search(store, reranker, monkeypatch):
    monkeypatch.setattr(
        "rrt.network.scorer.Scorer.score", lambda self, _, shortlists, *rest: [np.zeros(len(shortlists[0]))]
    )
    assert Retriever(store, reranker).retrieve(4, k=29).names == Retriever(store).search(4, k=29).names


@pytest.mark.parametrize("gallery", [[20, 7, 3, 11], ["img_020", "img_007", "img_003", "img_011"]])
def test_a_part_of_the_store_can_be_searched(store, reranker, gallery):
    retriever, descriptors = Retriever(store, reranker, gallery=gallery), store.global_descriptors
    for query, expected in ((0, [3, 7, 11, 20]), (7, [3, 11, 20])):
        found = retriever.search(query)
        assert sorted(found.indices.tolist()) == expected and found.names == [store.names[i] for i in found.indices]
        similarities = np.sort(descriptors[expected] @ descriptors[query])[::-1]
        np.testing.assert_allclose(found.similarities, similarities, atol=1e-6)
        ranking = reranker.rerank(store[query], store[expected])
        assert retriever.retrieve(query).names == [image.name for image in ranking.images]


def test_several_queries_at_once_give_the_results_of_each(store, reranker):
    retriever = Retriever(store, reranker)
    record = make_records(["new.jpg"], seed=9, **SIZES)[0]
    for queries in ([3, "img_008", store[11]], [record, 3], []):
        together = retriever.retrieve(queries, k=6, num_rerank=10)
        assert len(together) == len(queries)
        for query, found in zip(queries, together):
            alone = retriever.retrieve(query, k=6, num_rerank=10)
            assert found.names == alone.names
            np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)


@pytest.mark.parametrize("name", ["geometric", "maxsim", "aqe+maxsim", "aqe"])
def test_any_method_reranks(store, name):
    method, record = make_chain(name), make_records(["new.jpg"], seed=9, num_local=5, **SIZES)[0]
    for query in (5, record):
        found, first = Retriever(store, method).retrieve(query, k=10, num_rerank=6), Retriever(store).search(query, 10)
        ranked = method.rerank(store[5] if query == 5 else record, store[first.indices[:6]])
        assert found.names == [image.name for image in ranked.images] + first.names[6:]
        np.testing.assert_allclose(found.logits[:6], ranked.scores, rtol=1e-6)
        assert np.isnan(found.logits[6:]).all() and sorted(found.similarities) == sorted(first.similarities)


def test_fusion_of_weight_one_is_the_order_of_search(store, reranker):
    blended = Retriever(store, reranker, fusion=Fusion(1.0)).retrieve(2, k=20, num_rerank=20)
    assert blended.names == Retriever(store).search(2, k=20).names and not np.isnan(blended.logits).any()


def test_whitened_descriptors_are_searched(store, tmp_path):
    whitening = fit_pca_whitening(store.global_descriptors, 4)
    whitened = whitening.apply(store.global_descriptors)
    for given_as in (whitening, whitening.save(tmp_path / "w.npz")):
        found = Retriever(store, whitening=given_as).search(5, k=29)
        assert found.indices.tolist() == slow_search(whitened, whitened[5], [5])
        np.testing.assert_allclose(found.similarities, whitened[found.indices] @ whitened[5], atol=1e-6)


def test_a_path_opens_the_store(store):
    assert Retriever(store.path).search("img_003", k=2).names == Retriever(store).search(3, k=2).names


@pytest.mark.parametrize(
    "query, arguments, what",
    [
        ("x.jpg", {}, "no descriptors for 'x.jpg'"),
        (30, {}, "there is no image 30"),
        (-1, {}, "there is no image -1"),
        ([2, 30], {}, "there is no image 30"),
        (0, {"k": 0}, "k=0"),
        (0, {"k": 2.5}, "k=2.5"),
        (0, {"num_rerank": -1}, "num_rerank=-1"),
        (None, {}, "None is neither a name nor an index"),
        (make_records(["wide.jpg"], global_dim=13, local_dim=16)[0], {}, "'wide.jpg': its global descriptor has 13"),
        (
            replace(make_records(["nan.jpg"], **SIZES)[0], global_=np.full(12, np.nan)),
            {},
            "'nan.jpg' has global values",
        ),
    ],
)
def test_wrong_queries_are_refused(store, reranker, query, arguments, what):
    with pytest.raises(InputError, match=what):
        Retriever(store, reranker).retrieve(query, **arguments)


def test_parts_that_do_not_fit_together_are_refused_at_once(store, reranker, tmp_path):
    other = make_store(tmp_path, n=3, global_dim=7, local_dim=16)
    with pytest.raises(InputError, match="7 dimensions, model.num_global_features is 12"):
        Retriever(other, reranker)
    with pytest.raises(InputError, match="learned for 12 dimensions"):
        Retriever(other, whitening=fit_pca_whitening(store.global_descriptors, 4))
    with pytest.raises(InputError, match="missing.npz"):
        Retriever(store, whitening="missing.npz")
    with pytest.raises(InputError, match="missing.h5"):
        Retriever("missing.h5")
    for gallery, what in ((["x.jpg"], "for 'x.jpg'"), ([], "no images"), ([3, "img_003"], "1 images are named")):
        with pytest.raises(InputError, match=what):
            Retriever(store, gallery=gallery)
    with pytest.raises(InputError, match="give one"):
        Retriever(store, fusion=Fusion(0.5))
    with pytest.raises(InputError, match="leave it out with other methods"):
        Retriever(store, make_method("maxsim"), fusion=Fusion(0.5))
    with pytest.raises(InputError, match="reranker 'geometric': expected an rrt.Reranker, a method of"):
        Retriever(store, "geometric")


def test_a_damaged_store_is_refused_before_anything_is_searched(tmp_path):
    import h5py

    store = make_store(tmp_path, n=4)
    with h5py.File(store.path, "r+") as file:
        file["global"][2, 3] = np.nan
    with pytest.raises(InputError, match="'jpg/img_002.jpg' hold NaN"):
        Retriever(store)
