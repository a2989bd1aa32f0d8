"""Plain matching (rrt/rerankers/maxsim.py) against a double loop."""

import numpy as np
import pytest
from builders import unit_rows
from hypothesis import given
from hypothesis import strategies as st
from search_spaces import rankings, shuffled

from rrt.errors import InputError
from rrt.rerankers import maxsim
from rrt.rerankers.base import SearchSpace
from rrt.rerankers.maxsim import MaxSim
from rrt.store.memory import MemoryStore


def local_space(seed, most=9, images=12, queries=3):
    """Images with 0 to ``most`` local descriptors each."""
    generator = np.random.default_rng(seed)
    rows = [unit_rows(generator, n, 6) for n in generator.integers(0, most + 1, size=queries + images)]
    store = MemoryStore(unit_rows(generator, queries + images, 5), rows, local_dim=6)
    return SearchSpace(store, np.arange(queries), queries + np.arange(images))


def best_of(rows, others):
    """Mean over rows of the best cosine among the others, by a double loop."""
    if not len(rows) or not len(others):
        return 0.0
    return np.mean([max(float(row @ other) for other in others) for row in rows])


def slow_scores(space, shortlist, weight, symmetric, query_local, gallery_local):
    def read(index, most):
        return space.store.read(int(index), most).descriptors.astype(np.float64)

    own = space.query_index[shortlist.query]
    for candidate, similarity in zip(shortlist.candidates, shortlist.similarities):
        query, other = read(own, query_local), read(space.gallery_index[candidate], gallery_local)
        matched = best_of(query, other)
        if symmetric:
            matched = (matched + best_of(other, query)) / 2
        yield weight * similarity + (1 - weight) * matched


limits = st.none() | st.integers(1, 5)


@given(st.integers(0, 999), st.floats(0, 1), st.booleans(), limits, limits, st.sampled_from([1, 40, 2**22]))
def test_scores_are_those_of_a_double_loop_in_blocks_of_any_size(
    seed, weight, symmetric, query_local, gallery_local, cells
):
    space = local_space(seed)
    method = MaxSim(weight, symmetric, query_local, gallery_local, "cpu")
    shortlists = shuffled(rankings(space, 8), seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(maxsim._CELLS, "cpu", cells)
        found = method.scores(space, shortlists)
    for scores, shortlist in zip(found, shortlists, strict=True):
        expected = list(slow_scores(space, shortlist, weight, symmetric, query_local, gallery_local))
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert scores.dtype == np.float32


def test_an_image_matches_itself_fully_and_what_has_no_descriptors_matches_nothing():
    rows = unit_rows(np.random.default_rng(0), 4, 6)
    store = MemoryStore(np.eye(3, dtype=np.float32), [rows, rows[::-1], rows[:0]], local_dim=6)
    for symmetric in (False, True):
        method = MaxSim(symmetric=symmetric, device="cpu")
        np.testing.assert_allclose(method.similarities(store, 0, np.array([1, 2, 0])), [1, 0, 1], atol=1e-6)
        np.testing.assert_array_equal(method.similarities(store, 2, np.array([0, 1])), 0)
        assert method.similarities(store, 0, np.array([], np.int64)).shape == (0,)


def test_a_candidate_counts_half_where_only_half_of_it_is_in_the_query():
    rows = np.eye(4, dtype=np.float32)
    store = MemoryStore(np.eye(2, dtype=np.float32), [rows[:2], rows], local_dim=4)
    assert MaxSim(device="cpu").similarities(store, 0, np.array([1])) == [1.0]
    assert MaxSim(symmetric=True, device="cpu").similarities(store, 0, np.array([1])) == [0.75]


def test_settings_that_cannot_be_and_stores_without_local_descriptors_are_refused():
    for wrong in ({"weight": 1.5}, {"weight": "much"}, {"query_local": 0}, {"symmetric": 1}, {"device": "abacus"}):
        with pytest.raises(InputError, match=f"maxsim.{next(iter(wrong))}="):
            MaxSim(**wrong)
    store = MemoryStore(np.eye(2, dtype=np.float32), [np.empty((0, 0), np.float32)] * 2, local_dim=0)
    with pytest.raises(InputError, match="no local descriptors"):
        MaxSim().prepare(SearchSpace(store, np.arange(1), np.arange(2)))
