"""Query expansion (rrt/rerankers/aqe.py) against the formula in a loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from search_spaces import random_space, rankings, shuffled, unit

from rrt.rerankers.aqe import AlphaQueryExpansion, AverageQueryExpansion
from rrt.search.exact import query_expansion


def slow_scores(space, shortlist, k, alpha):
    query = space.queries[shortlist.query].astype(np.float64)
    expanded = query.copy()
    for candidate in shortlist.candidates[:k]:
        row = space.gallery[candidate]
        expanded += row if alpha is None else max(query @ row, 0) ** alpha * row
    return [unit(expanded) @ space.gallery[candidate] for candidate in shortlist.candidates]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 999), st.integers(1, 20), st.integers(1, 15), st.floats(0.1, 4))
def test_scores_are_those_of_the_mean_of_the_query_and_the_first_candidates(seed, k, depth, alpha):
    space = random_space(seed, images=15)
    shortlists = shuffled(rankings(space, depth), seed)
    for method, exponent in (AverageQueryExpansion(k), None), (AlphaQueryExpansion(k, alpha), alpha):
        for scores, shortlist in zip(method.scores(space, shortlists), shortlists):
            np.testing.assert_allclose(scores, slow_scores(space, shortlist, k, exponent), atol=1e-5)


def test_a_whole_ranking_is_expanded_as_by_searching_twice():
    space = random_space(1)
    expanded = query_expansion(space.queries, space.gallery, 4, 0.3)
    for row, (scores, shortlist) in enumerate(
        zip(AlphaQueryExpansion(4, 0.3).scores(space, rankings(space)), rankings(space))
    ):
        np.testing.assert_allclose(scores, space.gallery[shortlist.candidates] @ expanded[row], atol=1e-6)


def test_alpha_zero_is_average_query_expansion():
    space = random_space(2)
    pairs = (method.scores(space, rankings(space)) for method in (AverageQueryExpansion(7), AlphaQueryExpansion(7, 0)))
    for average, alpha in zip(*pairs):
        np.testing.assert_array_equal(average, alpha)


def test_the_published_settings_are_the_defaults():
    assert (AlphaQueryExpansion().k, AlphaQueryExpansion().alpha) == (50, 3)
