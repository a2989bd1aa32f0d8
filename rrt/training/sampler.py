"""Triplets of training images from a table of global neighbours (docs/protocol.md 5)."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from rrt.errors import InputError, check_count

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
    anchors: np.ndarray = field(init=False, repr=False)
    # Whether each candidate has the anchor's label, a bit for each, kept for all epochs: comparing labels takes long.
    _same_label: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        if self.order not in SAMPLERS:
            raise InputError(f"dataset.sampler={self.order!r}: choose one of {', '.join(SAMPLERS)}")
        check_count("min_positives", self.min_positives)
        check_count("negatives", self.negatives)
        check_count("dataset.num_candidates", self.num_candidates)
        if self.num_candidates < 2:
            raise InputError("dataset.num_candidates=1: a triplet takes two of them, a positive and a negative")
        if not isinstance(self.hard_negatives, int) or self.hard_negatives < 0:
            raise InputError(f"hard_negatives={self.hard_negatives!r}: expected a number of neighbours, or 0 for all")
        if 0 < self.hard_negatives < self.negatives:
            raise InputError(
                f"hard_negatives={self.hard_negatives}: fewer than the negatives={self.negatives} drawn of an anchor;"
                " give at least as many, or 0 to draw from all"
            )
        candidates = self.neighbors[:, : self.num_candidates]
        positives = np.empty(len(candidates), np.int64)
        bits = np.empty((len(candidates), -(-candidates.shape[1] // 8)), np.uint8)
        for rows in _blocks(len(candidates)):
            same = self.labels[candidates[rows]] == self.labels[rows, None]
            positives[rows] = same.sum(1)
            bits[rows] = np.packbits(same, axis=1)
        anchors = np.flatnonzero((positives >= self.min_positives) & (positives < candidates.shape[1]))
        if len(anchors) == 0:
            raise InputError(
                f"no training image has {self.min_positives} neighbours of its own label and one of another among its "
                f"{candidates.shape[1]} nearest; lower min_positives or check that list and neighbours belong together"
            )
        object.__setattr__(self, "anchors", anchors)
        object.__setattr__(self, "_same_label", bits)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """One epoch's triplets, int64 [number of anchors, 2 + negatives]: anchor, positive, negatives."""
        if self.order == "triplet":
            anchors = rng.permutation(self.anchors)
        else:
            anchors = rng.choice(self.anchors, len(self.anchors))
        triplets = np.empty((len(anchors), 2 + self.negatives), np.int64)
        triplets[:, 0] = anchors
        count = min(self.num_candidates, self.neighbors.shape[1])
        for rows in _blocks(len(anchors)):
            same = np.unpackbits(self._same_label[anchors[rows]], axis=1, count=count).view(bool)
            other = ~same
            if self.hard_negatives:
                other &= np.cumsum(other, axis=1, dtype=np.int32) <= self.hard_negatives
            draw = _draw_one if self.negatives == 1 else partial(_draw_several, number=self.negatives)
            columns = np.concatenate([_draw_one(same, rng), draw(other, rng)], axis=1)
            triplets[rows, 1:] = self.neighbors[anchors[rows, None], columns]
        return triplets


def _blocks(n):
    return (slice(i, i + _ROWS_PER_BLOCK) for i in range(0, n, _ROWS_PER_BLOCK))


def _draw_one(allowed, rng):
    """The column [rows, 1] of one of each row's allowed, uniformly; every row has at least one."""
    before = np.cumsum(allowed, axis=1, dtype=np.int32)
    wanted = rng.integers(0, before[:, -1])
    return np.argmax(before > wanted[:, None], axis=1)[:, None]


def _draw_several(allowed, rng, number):
    """Columns [rows, number] of each row's allowed, without replacement; a row with fewer repeats its own in turn."""
    keys = np.where(allowed, rng.random(allowed.shape, np.float32), np.float32(2))
    order = np.argsort(keys, axis=1)
    return np.take_along_axis(order, np.arange(number) % allowed.sum(1)[:, None], axis=1)
