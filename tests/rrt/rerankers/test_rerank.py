"""Every reranking method as an object: rerank(query, candidates)."""

import numpy as np
import pytest
from builders import make_records, make_store
from reranking import save_late

from rrt.errors import InputError
from rrt.network.checkpoint import strip_checkpoint
from rrt.rerankers import METHODS, make_chain, make_method
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist
from rrt.rerankers.chain import Chain
from rrt.rerankers.codebook import train_codebook

NAMES = [name for name in METHODS if name not in ("rrt", "asmk")] + ["superglobal+maxsim"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"), n=12, num_local=6)


def method_of(name, store):
    if name == "asmk":
        path = store.path.with_name("words.npz")
        train_codebook(store, 4).save(path)
        return make_method(name, {"codebook": str(path)})
    if name == "late":  # the network that comes with the package is of larger descriptors
        path = store.path.with_name("late.safetensors")
        checkpoint = save_late(path.parent, num_global_features=store.global_dim, num_local_features=store.local_dim)
        return make_method(name, {"model": str(strip_checkpoint(checkpoint, path))})
    return make_chain(name)


@pytest.mark.parametrize("name", [*NAMES, "asmk"])
def test_the_order_is_that_of_the_scores_of_the_shortlist(store, name):
    method, candidates = method_of(name, store), np.array([7, 3, 11, 5, 2, 9])
    ranked = method.rerank(store[0], store[candidates])
    space = SearchSpace(store, np.array([0]), candidates)
    similarities = space.gallery @ space.queries[0]
    first = np.argsort(-similarities, kind="stable")
    scores = np.empty(6)
    (scores[first],) = method.scores(space, [Shortlist(0, first, similarities[first])])
    expected = sorted(range(6), key=lambda position: -scores[position])  # equal ones as they stood
    assert ranked.order.tolist() == expected
    assert [image.index for image in ranked.images] == candidates[expected].tolist()
    assert (np.diff(ranked.scores) <= 0).all() and len(ranked.scores) == 6


def test_records_and_images_of_a_store_give_the_same(store):
    method = make_method("maxsim", {"weight": 0.3})
    records = [image.record() for image in store[:5]]
    mixed = method.rerank(records[0], [store[1], *records[2:]])
    whole = method.rerank(store[0], store[1:5])
    np.testing.assert_allclose(mixed.scores, whole.scores, atol=1e-3)
    assert mixed.order.tolist() == whole.order.tolist()
    assert method.score(store[0], store[1]) == pytest.approx(float(whole.scores[whole.order == 0][0]), abs=1e-6)


def test_equal_scores_keep_the_order_given_and_nothing_gives_nothing(store):
    ranked = make_method("maxsim").rerank(store[0], [store[4], store[2], store[4]])
    places = [image.index for image in ranked.images]
    assert sorted(places) == [2, 4, 4] and [o for o, i in zip(ranked.order, places) if i == 4] == [0, 2]
    assert make_method("aqe").rerank(store[0], []).images == []


def test_what_is_no_image_is_refused(store):
    for candidates in ("a.jpg", store[1], ["a.jpg"], [make_records("a")[0], 3]):
        with pytest.raises(InputError, match="image|candidates"):
            make_method("maxsim").rerank(store[0], candidates)


def test_what_was_ranked_prints_its_beginning(store):
    text = repr(make_method("maxsim").rerank(store[0], store[1:9]))
    assert text.startswith("<8 images: jpg/img_") and text.endswith(", ...>")


def test_a_store_and_its_images_print_what_they_are(store):
    assert repr(store) == f"<test of 12 images: global 16, 6 local of 8 an image (float16), {store.path}>"
    assert repr(store[3]) == f"<image 'jpg/img_003.jpg' of {store.path}, 640 x 480, 6 local>"


@pytest.mark.parametrize(
    "scores, said",
    [
        (lambda each: each.similarities[:1], r"reranker Own: scores of shapes \[\(1,\)\] for candidates \[\(4,\)\]"),
        (lambda each: each.similarities[:, None], "reranker Own: scores of shapes"),
        (lambda each: each.similarities * np.nan, "reranker Own: a score is not a number"),
    ],
)
def test_a_method_of_ones_own_must_score_every_candidate(store, scores, said):
    class Own(RerankMethod):
        def scores(self, space, shortlists):
            return [scores(each) for each in shortlists]

    class Nothing(RerankMethod):
        def scores(self, space, shortlists):
            return None

    with pytest.raises(InputError, match=said):
        Own().rerank(store[0], store[1:5])
    with pytest.raises(InputError, match=said):
        Chain((Own(), Own()), (None, None)).rerank(store[0], store[1:5])
    with pytest.raises(InputError, match=r"reranker Nothing: scores of shapes \[\]"):
        Nothing().rerank(store[0], store[1:5])
