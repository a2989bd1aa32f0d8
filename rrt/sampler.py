"""Triplets of training images from a table of global neighbours (RRT_SPEC section 5)."""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError

SAMPLERS = ("triplet", "random")
_ROWS_PER_BLOCK = 16384


@dataclass(frozen=True)
class TripletSampler:
    """Draws (anchor, positive, negative) from each anchor's nearest ``num_candidates`` neighbours.

    labels: int64 [N]; neighbors: int64 [N, k], by falling global similarity, the image itself left out. An image is an
    anchor when at least ``min_positives`` of its candidates share its label and at least one does not. ``order``:
    ``triplet`` visits every anchor once an epoch in random order, ``random`` draws as many anchors with replacement.
    ``negatives``: of an anchor, different ones as far as it has them. ``hard_negatives``: draw them from this many of
    its candidates of another label, the most similar; 0 = from all.
    """

    labels: np.ndarray
    neighbors: np.ndarray
    num_candidates: int = 100
    min_positives: int = 5
    order: str = "triplet"
    negatives: int = 1
    hard_negatives: int = 0

    def __post_init__(self):
        if self.order not in SAMPLERS:
            raise InputError(f"dataset.sampler={self.order!r}: choose one of {', '.join(SAMPLERS)}")
        if self.min_positives < 1 or self.num_candidates < 2:
            raise InputError("min_positives must be at least 1 and dataset.num_candidates at least 2")
        if self.negatives < 1 or self.hard_negatives < 0:
            raise InputError("negatives must be at least 1 and hard_negatives not negative")
        if 0 < self.hard_negatives < self.negatives:
            raise InputError(
                f"hard_negatives={self.hard_negatives}: fewer than the negatives={self.negatives} drawn of an anchor;"
                " give at least as many, or 0 to draw from all"
            )
        candidates = self.neighbors[:, : self.num_candidates]
        positives = np.empty(len(candidates), np.int64)
        for rows in _blocks(len(candidates)):
            positives[rows] = (self.labels[candidates[rows]] == self.labels[rows, None]).sum(1)
        anchors = np.flatnonzero((positives >= self.min_positives) & (positives < candidates.shape[1]))
        if len(anchors) == 0:
            raise InputError(
                f"no training image has {self.min_positives} neighbours of its own label and one of another among its "
                f"{candidates.shape[1]} nearest; lower min_positives or check that list and neighbours belong together"
            )
        object.__setattr__(self, "anchors", anchors)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """One epoch's triplets, int64 [number of anchors, 2 + negatives]: anchor, positive, negatives."""
        if self.order == "triplet":
            anchors = rng.permutation(self.anchors)
        else:
            anchors = rng.choice(self.anchors, len(self.anchors))
        triplets = np.empty((len(anchors), 2 + self.negatives), np.int64)
        triplets[:, 0] = anchors
        for rows in _blocks(len(anchors)):
            candidates = self.neighbors[anchors[rows], : self.num_candidates]
            same = self.labels[candidates] == self.labels[anchors[rows], None]
            triplets[rows, 1] = _draw_one(candidates, same, rng)
            other = ~same
            if self.hard_negatives:
                other &= np.cumsum(other, axis=1) <= self.hard_negatives
            if self.negatives == 1:
                triplets[rows, 2] = _draw_one(candidates, other, rng)
            else:
                triplets[rows, 2:] = _draw_several(candidates, other, self.negatives, rng)
        return triplets


def _blocks(n):
    return (slice(i, i + _ROWS_PER_BLOCK) for i in range(0, n, _ROWS_PER_BLOCK))


def _draw_one(candidates, allowed, rng):
    """One of each row's allowed candidates, uniformly; every row has at least one."""
    wanted = rng.integers(0, allowed.sum(1))
    column = np.argmax(np.cumsum(allowed, axis=1) > wanted[:, None], axis=1)
    return candidates[np.arange(len(candidates)), column]


def _draw_several(candidates, allowed, number, rng):
    """``number`` of each row's allowed candidates without replacement, [rows, number]; a row with fewer repeats its
    own in turn."""
    keys = np.where(allowed, rng.random(allowed.shape), 2.0)
    order = np.argsort(keys, axis=1)
    columns = np.arange(number) % allowed.sum(1)[:, None]
    return np.take_along_axis(candidates, np.take_along_axis(order, columns, axis=1), axis=1)
