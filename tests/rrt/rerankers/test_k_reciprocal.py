"""k-reciprocal encoding (rrt/rerankers/k_reciprocal.py) against the equations over Python sets."""

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from search_spaces import random_space, rankings, shuffled, slow_neighbours

from rrt.rerankers import k_reciprocal
from rrt.rerankers.k_reciprocal import KReciprocal


def slow_scores(space, shortlist, method):
    vectors, query = space.gallery, space.queries[shortlist.query]

    def distance(a, b):
        return 2 - 2 * float(a @ b)

    near = cache(lambda image, k: {image, *slow_neighbours(vectors, image, k)})
    mutual = cache(lambda image, k: {other for other in near(image, k) if image in near(other, k)})

    def query_is_near(image, k):
        nearer = [
            other
            for other in range(len(vectors))
            if other != image and vectors[image] @ vectors[other] > vectors[image] @ query
        ]
        return len(nearer) < k

    def enlarged(members):
        result = set(members)
        for member in members:
            half = mutual(member, method.k1 // 2)
            if 3 * len(half & members) >= 2 * len(half):
                result |= half
        return result

    def encode(vector, members):
        return {member: np.exp(-distance(vector, vectors[member])) for member in enlarged(members)}

    def mean(encodings):
        keys = set().union(*encodings)
        return {key: sum(each.get(key, 0) for each in encodings) / len(encodings) for key in keys}

    plain = cache(lambda image: encode(vectors[image], mutual(image, method.k1)))
    first = shortlist.candidates[: method.k1].tolist()
    own = encode(query, {image for image in first if query_is_near(image, method.k1)})
    own = mean([own, *(plain(image) for image in first[: method.k2])])
    scores = []
    for candidate in shortlist.candidates.tolist():
        other = mean([plain(image) for image in near(candidate, method.k2)])
        keys = own.keys() | other.keys()
        smaller = sum(min(own.get(key, 0), other.get(key, 0)) for key in keys)
        larger = sum(max(own.get(key, 0), other.get(key, 0)) for key in keys)
        jaccard = 1 - smaller / larger
        scores.append(-((1 - method.weight) * jaccard + method.weight * distance(query, vectors[candidate])))
    return scores


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 999), st.integers(1, 16), st.integers(1, 6), st.floats(0, 1), st.integers(1, 14), st.booleans())
def test_scores_are_those_of_the_equations(seed, k1, k2, weight, depth, ranked):
    space = random_space(seed, images=14, queries=2, landmarks=3)
    # k2 counts from the k1 first, as a list that holds more would be of no use.
    method = KReciprocal(k1, min(k2, k1), weight)
    shortlists = rankings(space, depth)
    shortlists = shortlists if ranked else shuffled(shortlists, seed)
    for scores, shortlist in zip(method.scores(space, shortlists), shortlists):
        np.testing.assert_allclose(scores, slow_scores(space, shortlist, method), atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    space, method = random_space(1), KReciprocal(8, 3)
    whole = method.scores(space, rankings(space))
    monkeypatch.setattr(k_reciprocal, "_ROWS", 7)
    for one, other in zip(whole, method.scores(random_space(1), rankings(space))):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_published_settings_are_the_defaults():
    assert KReciprocal() == KReciprocal(20, 6, 0.3)
