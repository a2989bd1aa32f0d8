"""Planted correspondences: pairs whose answer is known because both sides are cut from one image's own descriptors.

Trained from random weights on labelled triplets, the network stays at chance for long (docs/protocol.md 8): what it
must find first is that *matching local descriptors* decide. Here a positive pair is two random, overlapping subsets of
one image's descriptors, each disturbed by itself; a negative pair is a subset of the same image against a subset of
another one. Every image is thus an identity of its own, and labels only keep true matches out of the negatives.
"""

from dataclasses import dataclass, field

import numpy as np

from rrt.command_line.settings import setting, settings
from rrt.errors import InputError
from rrt.network.pairs import SCALES, ImageBatch, no_positions, normalised_positions, scale_index
from rrt.store.checked import read_descriptors
from rrt.store.linear import l2_normalize
from rrt.store.ranges import concatenated_ranges
from rrt.store.store import Store
from rrt.store.values import as_float32


@settings("planted.")
class PlantedSettings:
    """How pairs are planted. Ranges are drawn uniformly per view (one side of a pair) or, where said, per pair."""

    min_local: int = setting("descriptors in a view, at least", default=16)
    max_local: int = setting("descriptors in a view, at most", default=48)
    min_overlap: float = setting(
        "share of a positive's descriptors that the anchor has too, at least; drawn per pair; more where an image has"
        " too few descriptors",
        default=0.3,
    )
    max_overlap: float = setting("the same, at most", default=1.0)
    noise: float = setting(
        "largest length of the random vector added to a unit descriptor before it is normalised again",
        default=0.6,
        ge=0,
    )
    mixing: float = setting(
        "largest weight of another image's descriptor added likewise, which disturbs along the directions in which real"
        " descriptors differ",
        default=0.0,
        ge=0,
    )
    distractors: float = setting("largest share of a view replaced by descriptors of other images", default=0.3)
    scale_shift: int = setting(
        "largest shift of all scales of a view, in steps of the image pyramid (half octaves)", default=2, ge=0
    )
    global_noise: float = setting("like noise, for the global descriptor", default=0.8, ge=0)
    lookalike: float = setting(
        "probability (per triplet) that positive and negative swap their globals, so that the global tells nothing",
        default=0.4,
    )
    hard_negatives: int = setting(
        "a negative is one of this many nearest global neighbours with another label, where neighbours are known",
        default=20,
        ge=0,
    )

    def __post_init__(self):
        if not 1 <= self.min_local <= self.max_local:
            raise InputError(
                f"planted: 1 <= min_local <= max_local must hold, got {self.min_local} and {self.max_local}"
            )
        if not 0 <= self.min_overlap <= self.max_overlap <= 1:
            raise InputError("planted: 0 <= min_overlap <= max_overlap <= 1 must hold")
        for name in ("distractors", "lookalike"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"planted: {name} must lie in 0..1, got {getattr(self, name)}")


@dataclass(frozen=True)
class PlantedSource:
    """Planted triplets from the images ``indices`` of a store.

    labels: int64 [len(indices)], or None: every image has its own; neighbors: int64 [len(indices), k] rows of
    ``indices``, or None: negatives are any images. binning: of the scale index; max_read: local descriptors read of an
    image, None = all; positions: views have those of their descriptors. Images with fewer than two local descriptors
    are left out. Raises InputError when fewer than two images of different labels are left.
    """

    store: Store
    indices: np.ndarray
    settings: PlantedSettings
    labels: np.ndarray | None = None
    neighbors: np.ndarray | None = None
    binning: str = "published"
    max_read: int | None = None
    positions: bool = False
    anchors: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        counts = self.store.local_counts(self.max_read)[self.indices]
        anchors = np.flatnonzero(counts >= 2)
        labels = np.arange(len(self.indices)) if self.labels is None else self.labels
        if len(anchors) < 2 or len(np.unique(labels)) < 2:
            raise InputError(
                f"{self.store.path}: planted pairs need two images of different labels with local descriptors"
            )
        object.__setattr__(self, "anchors", anchors)
        object.__setattr__(self, "labels", labels)

    def triplets(self, num_triplets: int, rng: np.random.Generator) -> ImageBatch:
        """3 * num_triplets views: view 3 i is an anchor, 3 i + 1 its positive, 3 i + 2 its negative."""
        anchor = rng.choice(self.anchors, num_triplets)
        negative = self._negatives(anchor, rng)
        images, position = np.unique(np.stack([anchor, negative], axis=1), return_inverse=True)
        position = position.reshape(-1, 2)
        packed = read_descriptors(
            self.store, self.indices[images], self.max_read, ("keypoints",) if self.positions else ()
        )
        assert packed.descriptors is not None and packed.scales is not None
        bounds = np.asarray(packed.offsets)
        rows, offsets, owner = self._views(bounds, position, rng)
        share = self._per_view(rng, self.settings.distractors, offsets)
        replaced = np.flatnonzero(rng.random(len(rows)) < share)
        rows[replaced] = self._of_other_images(replaced, bounds, owner, offsets, rng)
        views = l2_normalize(as_float32(packed.descriptors[rows]))
        if self.settings.mixing:
            others = self._of_other_images(np.arange(len(rows)), bounds, owner, offsets, rng)
            mixed = l2_normalize(as_float32(packed.descriptors[others]))
            views += self._per_view(rng, self.settings.mixing, offsets)[:, None] * mixed
        return ImageBatch(
            self._globals(self.store.global_descriptors[self.indices[images]], position, rng),
            disturbed(views, self._per_view(rng, self.settings.noise, offsets), rng),
            self._shifted_scales(np.asarray(packed.scales)[rows], offsets, rng),
            offsets,
            no_positions() if packed.keypoints is None else normalised_positions(packed.keypoints[rows], offsets),
        )

    def _negatives(self, anchor, rng):
        """For each anchor an image with another label: one of its nearest global neighbours, else any."""
        labels = self.labels
        assert labels is not None
        negative = self.anchors[rng.integers(0, len(self.anchors), len(anchor))]
        for _ in range(100):
            wrong = labels[negative] == labels[anchor]
            if not wrong.any():
                break
            negative[wrong] = rng.choice(self.anchors, int(wrong.sum()))
        if self.neighbors is None or self.settings.hard_negatives < 1:
            return negative
        candidates = self.neighbors[anchor]
        other = labels[candidates] != labels[anchor][:, None]
        other &= np.cumsum(other, axis=1) <= self.settings.hard_negatives
        has_other = other.any(1)
        keys = np.where(other, rng.random(other.shape), -1.0)
        return np.where(has_other, candidates[np.arange(len(anchor)), keys.argmax(1)], negative)

    def _views(self, bounds, position, rng):
        """Which rows of the pool, the images read, each view holds. position: int64 [T, 2], anchor and negative in the
        pool, whose image i has the rows bounds[i] to bounds[i + 1].

        Returns rows int64 [m], offsets int64 [3 T + 1] of the views in them, and owner int64 [3 T], the pool's image
        that each view is cut from.
        """
        counts = np.diff(bounds)[position]
        size_anchor, size_positive, size_negative = (self._sizes(counts[:, column], rng) for column in (0, 0, 1))
        overlap = rng.uniform(self.settings.min_overlap, self.settings.max_overlap, len(position))
        shared = np.minimum(np.rint(overlap * size_positive).astype(np.int64), size_anchor)
        shared = np.maximum(shared, size_anchor + size_positive - counts[:, 0])
        # Each triplet shuffles its two images' rows once; anchor and positive are overlapping slices of one shuffle.
        shuffled = _shuffle_within(bounds[position].ravel(), counts.ravel(), rng)
        first = (np.cumsum(counts.ravel()) - counts.ravel()).reshape(-1, 2)
        starts = np.stack([first[:, 0], first[:, 0] + size_anchor - shared, first[:, 1]], axis=1).ravel()
        sizes = np.stack([size_anchor, size_positive, size_negative], axis=1).ravel()
        rows = shuffled[concatenated_ranges(starts, sizes)]
        return rows, np.concatenate([[0], np.cumsum(sizes)]), position[:, [0, 0, 1]].ravel()

    def _sizes(self, counts, rng):
        low = np.minimum(self.settings.min_local, (counts + 1) // 2)
        high = np.minimum(self.settings.max_local, counts)
        return rng.integers(low, high + 1)

    @staticmethod
    def _of_other_images(rows, bounds, owner, offsets, rng):
        """For each of these rows of the views, a random row of the pool that belongs to another image than its view."""
        image = np.repeat(owner, np.diff(offsets))[rows]
        others = bounds[-1] - (bounds[image + 1] - bounds[image])
        return (bounds[image + 1] + rng.integers(0, np.maximum(others, 1))) % bounds[-1]

    def _shifted_scales(self, scales, offsets, rng):
        steps = rng.integers(-self.settings.scale_shift, self.settings.scale_shift + 1, len(offsets) - 1)
        shifted = scales * np.repeat(2.0 ** (steps / 2), np.diff(offsets)).astype(np.float32)
        return scale_index(np.clip(shifted, SCALES[0], SCALES[-1]), self.binning)

    def _globals(self, pool, position, rng):
        """Disturbed globals [3 T, Dg] of the views; in some triplets those of positive and negative are exchanged."""
        source = position[:, [0, 0, 1]]
        swapped = rng.random(len(position)) < self.settings.lookalike
        source[swapped] = position[swapped][:, [0, 1, 0]]
        length = rng.uniform(0, self.settings.global_noise, source.size).astype(np.float32)
        return disturbed(pool[source.ravel()].astype(np.float32), length, rng)

    @staticmethod
    def _per_view(rng, largest, offsets):
        """A number in 0..largest per view, repeated for each of its rows, float32 [m]."""
        return np.repeat(rng.uniform(0, largest, len(offsets) - 1).astype(np.float32), np.diff(offsets))


def disturbed(x: np.ndarray, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each row x[i] of x [m, D] plus a random vector about length[i] times as long, normalised to length 1 again; its
    cosine to x[i] is about 1 / sqrt(1 + length[i]^2)."""
    noise = rng.standard_normal(x.shape, dtype=np.float32)
    noise *= (length * np.linalg.norm(x, axis=1) / np.float32(np.sqrt(x.shape[1])))[:, None]
    noise += x
    return l2_normalize(noise)


def _shuffle_within(starts, sizes, rng):
    """The rows of each range starts[i].. starts[i] + sizes[i] - 1 in a random order, the ranges end to end."""
    rows = concatenated_ranges(starts, sizes)
    return rows[np.lexsort((rng.random(len(rows)), np.repeat(np.arange(len(sizes)), sizes)))]
