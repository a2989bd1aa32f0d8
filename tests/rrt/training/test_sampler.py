"""rrt/training/sampler.py: triplets as docs/protocol.md 5 says."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chi2

from rrt.errors import InputError
from rrt.training.sampler import TripletSampler

# Images 0-3 are of landmark 0, 4-6 of landmark 1, 7 alone.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])


def ring_neighbors(columns=5):
    """Each image's neighbours are those that follow it in a ring."""
    return (np.arange(8)[:, None] + 1 + np.arange(columns)) % 8


def test_anchors_have_enough_positives_and_a_negative_among_their_candidates():
    # Within 5 places: 0 has 1, 2, 3; 1 has 2, 3; 2 has 3; 3 has 0 (after 7); 4 has 5, 6; 5 has 6; 6 and 7 have none.
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=2)
    assert sampler.anchors.tolist() == [0, 1, 4]


def test_five_positives_among_a_hundred_candidates_and_one_negative_are_the_published_choice():
    # Image i of landmark 0 has i positives listed before its negatives.
    labels = np.repeat([0, 1], [8, 200])
    neighbors = np.tile(np.arange(8, 208), (208, 1))
    for image in range(8):
        neighbors[image, :image] = (image + 1 + np.arange(image)) % 8
    neighbors[8:] = np.arange(8, 208)
    neighbors[7, :100] = np.resize(np.arange(7), 100)
    sampler = TripletSampler(labels, neighbors)
    assert sampler.anchors.tolist() == [5, 6]
    drawn = sampler.epoch(np.random.default_rng(0))
    assert drawn.shape == (2, 3) and sorted(drawn[:, 0].tolist()) == [5, 6]


def test_candidates_past_num_candidates_do_not_count():
    sampler = TripletSampler(LABELS, ring_neighbors(), num_candidates=3, min_positives=2)
    # Image 0's first three are all its own: no negative to draw.
    assert sampler.anchors.tolist() == [1, 4]


def test_every_epoch_visits_every_anchor_once_in_another_order():
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=1)
    rng = np.random.default_rng(0)
    epochs = [sampler.epoch(rng)[:, 0] for _ in range(5)]
    assert all(sorted(anchors) == sampler.anchors.tolist() for anchors in epochs)
    assert len({tuple(anchors) for anchors in epochs}) > 1


def triplets_of(sampler, anchor):
    """Every outcome that the specification gives an anchor, by its words: all equally likely."""
    listed = sampler.neighbors[anchor, : sampler.num_candidates].tolist()
    positives = [image for image in listed if LABELS[image] == LABELS[anchor]]
    negatives = [image for image in listed if LABELS[image] != LABELS[anchor]]
    if sampler.hard_negatives:
        negatives = negatives[: sampler.hard_negatives]
    number = min(sampler.negatives, len(negatives))
    return [(anchor, positive, *drawn) for positive in positives for drawn in permutations(negatives, number)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_candidates": 4},
        {"order": "random"},
        {"hard_negatives": 1},
        {"hard_negatives": 2, "num_candidates": 6},
        {"negatives": 2},
        {"negatives": 2, "hard_negatives": 3, "num_candidates": 6},
    ],
)
def test_triplets_are_distributed_as_specified(settings):
    sampler = TripletSampler(LABELS, ring_neighbors(7), **{"num_candidates": 5, "min_positives": 2} | settings)
    rng = np.random.default_rng(1)
    epochs = 4000
    drawn = Counter(map(tuple, np.concatenate([sampler.epoch(rng) for _ in range(epochs)]).tolist()))
    outcomes = [triplets_of(sampler, anchor) for anchor in sampler.anchors.tolist()]
    expected = {outcome: epochs / len(of_anchor) for of_anchor in outcomes for outcome in of_anchor}
    assert drawn.keys() == expected.keys()
    observed, wanted = (np.array([counts[outcome] for outcome in expected]) for counts in (drawn, expected))
    # Pearson's statistic; one in ten thousand fair samplers would fail, and the seed is fixed.
    freedom = len(expected) - (1 if sampler.order == "random" else len(outcomes))
    assert ((observed - wanted) ** 2 / wanted).sum() < chi2.isf(1e-4, freedom)


def test_an_anchor_with_too_few_negatives_repeats_those_it_has():
    sampler = TripletSampler(LABELS, ring_neighbors(4), min_positives=2, negatives=3)
    has = {0: {4}, 1: {4, 5}, 4: {7, 0}}
    for epoch in range(5):
        drawn = {anchor: set(others) for anchor, _, *others in sampler.epoch(np.random.default_rng(epoch)).tolist()}
        assert drawn == has


def test_the_same_seed_gives_the_same_epoch():
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=1)
    first, second = (sampler.epoch(np.random.default_rng([3, 7])) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_random_order_draws_anchors_with_replacement():
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=1, order="random")
    epochs = [sampler.epoch(np.random.default_rng(seed))[:, 0] for seed in range(20)]
    assert any(len(set(anchors)) < len(anchors) for anchors in epochs)


def test_blocks_of_rows_do_not_change_what_is_drawn_from(monkeypatch):
    whole = TripletSampler(LABELS, ring_neighbors(), min_positives=1)
    monkeypatch.setattr("rrt.training.sampler._ROWS_PER_BLOCK", 3)
    parts = TripletSampler(LABELS, ring_neighbors(), min_positives=1)
    assert parts.anchors.tolist() == whole.anchors.tolist()
    for anchor, positive, negative in parts.epoch(np.random.default_rng(0)):
        assert LABELS[anchor] == LABELS[positive] != LABELS[negative]


def test_no_anchor_at_all_is_an_error_that_says_what_to_change():
    with pytest.raises(InputError, match="lower min_positives"):
        TripletSampler(LABELS, ring_neighbors(), min_positives=5)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"order": "hard"}, "triplet, random"),
        ({"min_positives": 0}, "min_positives=0"),
        ({"num_candidates": 1}, "num_candidates=1"),
        ({"num_candidates": "all"}, "num_candidates='all'"),
        ({"negatives": 0}, "negatives=0"),
        ({"negatives": 1.5}, "negatives=1.5"),
        ({"hard_negatives": -1}, "hard_negatives=-1"),
        ({"hard_negatives": None}, "hard_negatives=None"),
        ({"negatives": 3, "hard_negatives": 2}, "hard_negatives=2: fewer than the negatives=3"),
    ],
)
def test_impossible_settings_are_named(settings, said):
    with pytest.raises(InputError, match=said):
        TripletSampler(LABELS, ring_neighbors(), **{"min_positives": 1} | settings)
