"""Database augmentation (rrt/rerankers/database_augmentation.py) against augmented descriptors made in a loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from search_spaces import random_space, rankings, shuffled, slow_neighbours, unit

from rrt.rerankers import database_augmentation
from rrt.rerankers.database_augmentation import DatabaseAugmentation


def slow_augmented(vectors, image, method):
    total = vectors[image].astype(np.float64)
    for rank, other in enumerate(slow_neighbours(vectors, image, method.k), start=1):
        similarity = max(float(vectors[image] @ vectors[other]), 0)
        weight = (method.k + 1 - rank) / (method.k + 1) if method.weights == "rank" else similarity**method.alpha
        total += weight * vectors[other]
    return unit(total)


def slow_scores(space, shortlist, method):
    augmented = np.array([slow_augmented(space.gallery, image, method) for image in range(len(space.gallery))])
    query = space.queries[shortlist.query].astype(np.float64)
    expanded = query.copy()
    for candidate in shortlist.candidates[: method.query_k]:
        expanded += max(query @ augmented[candidate], 0) ** method.query_alpha * augmented[candidate]
    return augmented[shortlist.candidates] @ unit(expanded)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 20),
    st.integers(1, 15),
    st.sampled_from(["rank", "similarity"]),
    st.sampled_from([0, 0.5, 3]),
    st.integers(0, 5),
    st.sampled_from([0, 1]),
)
def test_scores_are_those_of_augmented_descriptors(seed, k, depth, weights, alpha, query_k, query_alpha):
    space = random_space(seed, images=15)
    shortlists = shuffled(rankings(space, depth), seed)
    method = DatabaseAugmentation(k, weights, alpha, query_k, query_alpha)
    for scores, shortlist in zip(method.scores(space, shortlists), shortlists):
        np.testing.assert_allclose(scores, slow_scores(space, shortlist, method), atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    space, method = random_space(1), DatabaseAugmentation(4)
    whole = method.scores(space, rankings(space))
    monkeypatch.setattr(database_augmentation, "_ROWS", 7)
    monkeypatch.setattr(database_augmentation, "_CELLS", 41)
    for one, other in zip(whole, method.scores(random_space(1), rankings(space))):
        np.testing.assert_allclose(one, other, atol=1e-6)
