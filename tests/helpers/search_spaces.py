"""Made-up search spaces of global descriptors alone, for tests of rerankers."""

import numpy as np
from builders import unit_rows

from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.store.memory import MemoryStore


def make_space(queries, gallery):
    """The queries [Q, D] and the gallery [N, D] in a store without local descriptors."""
    rows = np.concatenate([queries, gallery])
    store = MemoryStore(rows, [np.empty((0, 4), np.float32)] * len(rows), local_dim=4)
    return SearchSpace(store, np.arange(len(queries)), len(queries) + np.arange(len(gallery)))


def random_space(seed, images=40, queries=3, landmarks=5, width=12):
    """Images scattered around landmarks, the queries around the first ones."""
    generator = np.random.default_rng(seed)
    centres = unit_rows(generator, landmarks, width)
    labels = np.concatenate([np.arange(queries) % landmarks, generator.integers(landmarks, size=images)])
    rows = centres[labels] + 0.8 * unit_rows(generator, len(labels), width)
    return make_space(rows[:queries], rows[queries:])


def rankings(space, depth=None):
    """Each query's gallery by falling similarity, the first ``depth`` of it."""
    found = []
    for row, query in enumerate(space.queries):
        cosines = space.gallery @ query
        order = np.argsort(-cosines, kind="stable")[:depth]
        found.append(Shortlist(row, order, cosines[order]))
    return found


def shuffled(shortlists, seed=0):
    """The shortlists in another order, as another method may have left them."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(each.candidates)) for each in shortlists]
    return [Shortlist(s.query, s.candidates[o], s.similarities[o]) for s, o in zip(shortlists, orders)]


def slow_neighbours(vectors, image, k):
    """The k other images most similar to one, by sorting all."""
    order = np.argsort(-(vectors @ vectors[image]), kind="stable")
    return [other for other in order.tolist() if other != image][:k]


def unit(vector):
    return vector / np.linalg.norm(vector)
