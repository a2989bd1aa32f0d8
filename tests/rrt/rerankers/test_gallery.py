"""What rerankers of global descriptors share (rrt/rerankers/gallery.py), and what holds for every one of them."""

import numpy as np
import pytest
from builders import unit_rows
from search_spaces import make_space, random_space, rankings, shuffled, slow_neighbours

from rrt.errors import InputError
from rrt.rerankers import gallery, make_method
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.gallery import gallery_neighbours, nearest_others, similarities
from rrt.search.whitening import Whitening
from rrt.store.memory import MemoryStore

METHODS = ("aqe", "alpha_qe", "database_augmentation", "diffusion", "k_reciprocal", "superglobal")
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.mark.parametrize("depth", [3, 40])
def test_similarities_of_short_and_of_whole_rankings_are_inner_products(depth, monkeypatch):
    monkeypatch.setattr(gallery, "_CELLS", 50)  # several blocks
    space = random_space(0)
    shortlists = shuffled(rankings(space, depth))
    for row, shortlist in zip(similarities(space, space.queries, shortlists), shortlists):
        expected = [space.queries[shortlist.query] @ space.gallery[c] for c in shortlist.candidates]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_neighbours_are_those_of_sorting_all_whatever_was_asked_before():
    space = random_space(1)
    for rows, k in ([5, 2], 3), ([2, 2, 7], 3), ([2, 30], 9), (range(40), 4), ([0], 100):
        sims, inds = gallery_neighbours(space, np.array(rows), k)
        assert inds.tolist() == [slow_neighbours(space.gallery, row, k) for row in rows]
        expected = [[space.gallery[row] @ space.gallery[i] for i in found] for row, found in zip(rows, inds)]
        np.testing.assert_allclose(sims, expected, atol=1e-6)


@pytest.mark.slow
def test_neighbours_by_a_fast_first_pass_are_the_same(monkeypatch):
    one = gallery_neighbours(random_space(1), np.arange(40), 4)
    monkeypatch.setattr(gallery, "_MANY_PAIRS", 0)
    other = gallery_neighbours(random_space(1), np.arange(40), 4)
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_allclose(one[0], other[0], atol=1e-6)


def test_an_image_is_no_neighbour_of_itself_among_any_number_of_duplicates():
    table = np.tile(np.float32([[1, 0]]), (6, 1))
    for k in (2, 5):
        _, inds = nearest_others(table, np.arange(6), k)
        assert inds.shape == (6, k) and all(row not in found for row, found in enumerate(inds))


@every_method
def test_scores_are_the_same_with_and_without_preparation(name):
    method = make_method(name)
    for depth in (None, 12):
        fresh, ready = random_space(2), random_space(2)
        method.prepare(ready)
        for one, other in zip(*(method.scores(space, rankings(space, depth)) for space in (fresh, ready))):
            np.testing.assert_allclose(one, other, atol=1e-5)


@every_method
def test_the_score_of_a_query_does_not_hang_on_the_other_queries(name):
    space = random_space(3)
    together = make_method(name).scores(space, rankings(space, 15))
    for shortlist, scores in zip(rankings(space, 15), together):
        np.testing.assert_allclose(make_method(name).scores(space, [shortlist])[0], scores, atol=1e-5)


@every_method
@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_gallery_smaller_than_any_k_is_scored(name, images):
    space = random_space(4, images)
    scores = make_method(name).scores(space, rankings(space))
    assert [row.shape for row in scores] == [(images,)] * 3 and np.isfinite(scores).all()


@every_method
def test_empty_shortlists_have_empty_scores(name):
    space, method = random_space(5), make_method(name)
    empty = Shortlist(1, np.empty(0, np.int64), np.empty(0, np.float32))
    one = rankings(space, 6)[0]
    alone = method.scores(space, [one])[0]
    assert method.scores(space, []) == [] and [len(row) for row in method.scores(space, [empty])] == [0]
    first, second, third = method.scores(space, [empty, one, empty])
    assert len(first) == len(third) == 0
    np.testing.assert_allclose(second, alone, atol=1e-6)


@every_method
def test_duplicates_opposites_and_the_query_itself_in_the_gallery_break_nothing(name):
    generator = np.random.default_rng(6)
    query, others = unit_rows(generator, 1, 8), unit_rows(generator, 6, 8)
    gallery_rows = np.concatenate([np.tile(query, (30, 1)), -query, np.tile(others, (4, 1))])
    space = make_space(query, gallery_rows)
    scores = make_method(name).scores(space, rankings(space))[0]
    assert np.isfinite(scores).all()
    order = rankings(space)[0].candidates[np.argsort(-scores, kind="stable")]
    assert set(order[:30].tolist()) == set(range(30))


@every_method
def test_a_store_without_global_descriptors_is_refused(name):
    store = MemoryStore(np.empty((3, 0)), [np.eye(4)] * 3)
    space = SearchSpace(store, np.array([0]), np.array([1, 2]))
    shortlists = [Shortlist(0, np.array([1, 0]), np.zeros(2, np.float32))]
    with pytest.raises(InputError, match="memory: holds no global descriptors; import or extract them too"):
        make_method(name).scores(space, shortlists)


@every_method
def test_whitened_descriptors_are_compared_where_a_whitening_is_given(name):
    raw = random_space(7)
    whitening = Whitening(np.full(12, 0.1, np.float32), np.diag(np.arange(1, 13)).astype(np.float32))
    whitened = SearchSpace(raw.store, raw.query_index, raw.gallery_index, whitening)
    same = make_space(whitened.queries, whitened.gallery)
    for one, other in zip(*(make_method(name).scores(space, rankings(whitened)) for space in (whitened, same))):
        np.testing.assert_allclose(one, other, atol=1e-4)


@every_method
def test_an_image_needs_at_least_its_descriptor(name):
    assert 48 <= make_method(name).bytes_per_image(random_space(8)) < 1000


@pytest.mark.parametrize(
    "name, settings",
    [
        *((name, {"k": value}) for name in METHODS if name != "k_reciprocal" for value in (0, 2.5, "3", True)),
        ("alpha_qe", {"alpha": -1}),
        ("alpha_qe", {"alpha": float("nan")}),
        ("alpha_qe", {"alpha": float("inf")}),
        ("alpha_qe", {"alpha": "x"}),
        ("database_augmentation", {"weights": "all"}),
        ("database_augmentation", {"alpha": -0.1}),
        ("database_augmentation", {"query_k": -1}),
        ("database_augmentation", {"query_alpha": float("inf")}),
        ("diffusion", {"query_k": 0}),
        ("diffusion", {"exponent": -1}),
        ("diffusion", {"damping": 1}),
        ("diffusion", {"damping": -0.1}),
        ("diffusion", {"truncation": 0}),
        ("diffusion", {"iterations": 0}),
        ("k_reciprocal", {"k1": 0}),
        ("k_reciprocal", {"k2": 0}),
        ("k_reciprocal", {"weight": 1.1}),
        ("superglobal", {"beta": -0.1}),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(name, settings):
    with pytest.raises(InputError, match=rf"^setting {next(iter(settings))}="):
        make_method(name, settings)
