"""rrt/sampler.py: triplets as RRT_SPEC section 5 says."""

from collections import Counter

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.sampler import TripletSampler

# Images 0-3 are of landmark 0, 4-6 of landmark 1, 7 alone.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])


def ring_neighbors(columns=5):
    """Each image's neighbours are those that follow it in a ring."""
    return (np.arange(8)[:, None] + 1 + np.arange(columns)) % 8


def test_anchors_have_enough_positives_and_a_negative_among_their_candidates():
    # Within 5 places: 0 has 1, 2, 3; 1 has 2, 3; 2 has 3; 3 has 0 (after 7); 4 has 5, 6; 5 has 6; 6 and 7 have none.
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=2)
    assert sampler.anchors.tolist() == [0, 1, 4]


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


def test_positives_and_negatives_are_uniform_over_the_candidates():
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=2)
    rng = np.random.default_rng(1)
    draws = np.concatenate([sampler.epoch(rng) for _ in range(6000)])
    of_first = draws[draws[:, 0] == 0]
    positives, negatives = Counter(of_first[:, 1].tolist()), Counter(of_first[:, 2].tolist())
    assert positives.keys() == {1, 2, 3} and negatives.keys() == {4, 5}
    for counts in (positives, negatives):
        # 6,000 draws: five standard deviations of a fair share are below 0.035.
        np.testing.assert_allclose(np.array(list(counts.values())) / 6000, 1 / len(counts), atol=0.035)


def test_positive_and_negative_are_drawn_independently():
    sampler = TripletSampler(LABELS, ring_neighbors(), min_positives=2)
    rng = np.random.default_rng(2)
    draws = np.concatenate([sampler.epoch(rng) for _ in range(6000)])
    pairs = Counter(map(tuple, draws[draws[:, 0] == 0][:, 1:].tolist()))
    np.testing.assert_allclose(np.array(list(pairs.values())) / 6000, 1 / 6, atol=0.03)


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
    monkeypatch.setattr("rrt.sampler._ROWS_PER_BLOCK", 3)
    parts = TripletSampler(LABELS, ring_neighbors(), min_positives=1)
    assert parts.anchors.tolist() == whole.anchors.tolist()
    for anchor, positive, negative in parts.epoch(np.random.default_rng(0)):
        assert LABELS[anchor] == LABELS[positive] != LABELS[negative]


def test_no_anchor_at_all_is_an_error_that_says_what_to_change():
    with pytest.raises(InputError, match="lower min_positives"):
        TripletSampler(LABELS, ring_neighbors(), min_positives=5)


def test_an_unknown_order_is_named():
    with pytest.raises(InputError, match="triplet, random"):
        TripletSampler(LABELS, ring_neighbors(), order="hard")
