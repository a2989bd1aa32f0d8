"""Diffusion (rrt/rerankers/diffusion.py) against a dense system made in loops and solved exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_spaces import make_space, random_space, rankings, shuffled, slow_neighbours

from rrt.rerankers.diffusion import Diffusion


def slow_scores(space, shortlist, method):
    """Scores of the candidates that are diffused over, by candidate."""
    count = len(space.gallery)
    images = list(range(count))
    if method.truncation and count > method.truncation:
        images = shortlist.candidates[: method.truncation].tolist()
    near = [slow_neighbours(space.gallery, image, method.k) for image in range(count)]
    affinity = np.zeros((len(images), len(images)))
    for i, image in enumerate(images):
        for j, other in enumerate(images):
            if other in near[image] and image in near[other]:
                affinity[i, j] = max(float(space.gallery[image] @ space.gallery[other]), 0) ** method.exponent
    for i, j in np.argwhere(affinity):
        assert affinity[i, j] == pytest.approx(affinity[j, i])
    degree = affinity.sum(axis=1)
    transition = np.zeros_like(affinity)
    for i, j in np.argwhere(affinity):
        transition[i, j] = affinity[i, j] / np.sqrt(degree[i] * degree[j])
    start = np.zeros(len(images))
    for candidate in shortlist.candidates[: method.query_k]:
        cosine = float(space.gallery[candidate] @ space.queries[shortlist.query])
        if candidate in images:
            start[images.index(candidate)] = max(cosine, 0) ** method.exponent
    spread = np.linalg.solve(np.eye(len(images)) - method.damping * transition, start)
    return dict(zip(images, spread))


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 20),
    st.integers(1, 6),
    st.floats(0.5, 4),
    st.sampled_from([0, 0.5, 0.9]),
    st.sampled_from([None, 5, 9]),
    st.integers(1, 15),
    st.booleans(),
)
def test_scores_solve_the_system(seed, k, query_k, exponent, damping, truncation, depth, prepared):
    space = random_space(seed, images=15)
    shortlists = shuffled(rankings(space, depth), seed)
    method = Diffusion(k, query_k, exponent, damping, truncation, iterations=200)
    if prepared:
        method.prepare(space)
    for scores, shortlist in zip(method.scores(space, shortlists), shortlists):
        expected = slow_scores(space, shortlist, method)
        inside = np.array([candidate in expected for candidate in shortlist.candidates])
        values = [expected[candidate] for candidate in shortlist.candidates[inside]]
        np.testing.assert_allclose(scores[inside], values, atol=1e-4)
        # Those beyond the truncation stay behind, in their order.
        assert len(set(scores[~inside])) <= 1 and (not inside.any() or (scores[~inside] < scores[inside].min()).all())


def test_what_similarity_alone_misses_is_found_along_a_chain_of_images():
    """Images every 20 degrees around an object, and one at 65 degrees on the other side that is none of it."""
    angles = np.deg2rad([20, 40, 60, 80, -65])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    space = make_space(np.float32([[1, 0]]), gallery)
    shortlist = rankings(space)[0]
    assert shortlist.candidates.tolist() == [0, 1, 2, 4, 3]
    scores = Diffusion(k=2, query_k=1).scores(space, [shortlist])[0]
    assert shortlist.candidates[np.argsort(-scores, kind="stable")].tolist()[-1] == 4


def test_images_out_of_reach_have_equal_scores_and_keep_their_order():
    gallery = np.repeat(np.eye(3), 4, axis=0) + 0.01 * np.random.default_rng(0).standard_normal((12, 3))
    space = make_space(np.float32([[1, 0, 0]]), gallery)
    scores = Diffusion(k=3, query_k=2).scores(space, rankings(space))[0]
    assert (scores[:4] > 0).all() and (scores[4:] == 0).all()
