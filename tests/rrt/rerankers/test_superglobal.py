"""SuperGlobal reranking (rrt/rerankers/superglobal.py) against its formulas in loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from search_spaces import random_space, rankings, shuffled, slow_neighbours, unit

from rrt.rerankers import superglobal
from rrt.rerankers.superglobal import SuperGlobal


def slow_scores(space, shortlist, method):
    query, rows = space.queries[shortlist.query], space.gallery[shortlist.candidates].astype(np.float64)
    pooled = query.copy()
    for row in rows[: method.k]:
        pooled = np.maximum(pooled, row)
    scores = []
    for own, row in enumerate(rows):
        refined = row.copy()
        for other in slow_neighbours(rows, own, method.k):
            refined += method.beta * max(row @ rows[other], 0) * rows[other]
        scores.append((query @ unit(refined) + unit(pooled) @ row) / 2)
    return scores


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 999), st.integers(1, 20), st.floats(0, 2), st.integers(1, 15))
def test_scores_are_the_mean_of_those_of_refined_candidates_and_of_the_refined_query(seed, k, beta, depth):
    space = random_space(seed, images=15)
    shortlists = shuffled(rankings(space, depth), seed)
    for scores, shortlist in zip(SuperGlobal(k, beta).scores(space, shortlists), shortlists):
        np.testing.assert_allclose(scores, slow_scores(space, shortlist, SuperGlobal(k, beta)), atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    space, method = random_space(1), SuperGlobal(4)
    whole = method.scores(space, rankings(space))
    monkeypatch.setattr(superglobal, "_CELLS", 41 * 3)
    for one, other in zip(whole, method.scores(space, rankings(space))):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_published_settings_are_the_defaults():
    assert SuperGlobal() == SuperGlobal(9, 0.15) and SuperGlobal.depth == 400
