"""From store records to the network's input: scale indices, packed batches of images, layouts of pairs."""

from dataclasses import dataclass, field

import numpy as np

from rrt.errors import InputError
from rrt.store.checked import read_descriptors, read_globals
from rrt.store.ranges import concatenated_ranges

SCALE_BINNINGS = ("published", "exact")
# The seven DELG scales as stored (1 / image scale), ascending.
SCALES = (0.5, 0.70710677, 1.0, 1.41421354, 2.0, 2.82842708, 4.0)
# Of LATE, for its forms with and without PyTorch. Periods of the Fourier features of positions, in units of the spread
# of an image's keypoints:
POSITION_PERIODS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
# Temperature and bias are single numbers that must travel further than a weight at the same learning rate.
LOGIT_GAIN = 50.0
# Tokens of a pair beside its local descriptors: CLS, SEP and two globals.
TOKENS_BESIDE_LOCALS = 4


def scale_index(scales: np.ndarray, binning: str = "published") -> np.ndarray:
    """Index 0..6 of each stored scale [...] -> int64 [...].

    ``published``: bisection from the right, minus one, as the published checkpoints were trained: rounding of the
    stored float32 puts three of the seven scales one bin too low (docs/protocol.md 1.1). ``exact``: nearest of the
    seven in log scale.
    """
    check_binning(binning)
    values = np.asarray(scales, dtype=np.float32).astype(np.float64)
    if binning == "published":
        index = np.searchsorted(np.array(SCALES), values, side="right") - 1
    else:
        index = np.rint(2 * np.log2(np.maximum(values, 1e-6) / SCALES[0])).astype(np.int64)
    return np.clip(index, 0, len(SCALES) - 1).astype(np.int64)


def check_binning(binning: str) -> None:
    """InputError unless it is one of ``SCALE_BINNINGS``."""
    if binning not in SCALE_BINNINGS:
        raise InputError(f"scale_binning={binning!r}: choose one of {', '.join(SCALE_BINNINGS)}")


def no_positions() -> np.ndarray:
    """Of descriptors whose positions were not asked for."""
    return np.empty((0, 2), np.float32)


@dataclass(frozen=True)
class ImageBatch:
    """Some images' descriptors as the network takes them.

    global_: float32 [n, Dg]; descriptors: [m, Dl], the images' locals end to end, float32 or, as a store keeps them,
    float16 (half as much to copy; they become float32 on the device); scales: int64 [m], index in 0..6; positions:
    float32 [m, 2], see ``normalised_positions``, or [0, 2] where they were not asked for; these four may be tensors of
    the host; offsets: int64 [n + 1], image i owns rows offsets[i] to offsets[i + 1].
    """

    global_: np.ndarray
    descriptors: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray
    positions: np.ndarray = field(default_factory=no_positions)

    @property
    def counts(self) -> np.ndarray:
        """Local descriptors of each image, int64 [n]."""
        return np.diff(self.offsets)

    def part(self, start: int, end: int) -> "ImageBatch":
        """Images start to end alone."""
        first, last = self.offsets[start], self.offsets[end]
        rows = (self.descriptors[first:last], self.scales[first:last])
        offsets = self.offsets[start : end + 1] - first
        return ImageBatch(self.global_[start:end], *rows, offsets, self.positions[first:last])

    @staticmethod
    def joined(parts: "list[ImageBatch]") -> "ImageBatch":
        """The images of all parts, in their order; a part may hold none."""
        if len(parts) == 1:
            return parts[0]
        columns = ("global_", "descriptors", "scales", "positions")
        rows = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        counts = np.concatenate([part.counts for part in parts])
        return ImageBatch(offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), **rows)

    def take(self, images: np.ndarray) -> "ImageBatch":
        """These images alone, in this order."""
        counts = self.counts[images]
        rows = concatenated_ranges(self.offsets[images], counts)
        positions = self.positions[rows] if len(self.positions) else self.positions
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return ImageBatch(self.global_[images], self.descriptors[rows], self.scales[rows], offsets, positions)


@dataclass(frozen=True)
class PairLayout:
    """Packed sequences of pairs over an image bank (``RRT.image_bank``): row of the bank and segment of every token."""

    rows: np.ndarray
    segments: np.ndarray
    lengths: np.ndarray


def read_images(
    store, indices: np.ndarray, max_local: int | None, binning: str = "published", positions: bool = False
) -> ImageBatch:
    """The images ``indices`` of a store, in that order, each with its first ``max_local`` local descriptors, and with
    their positions if asked for."""
    packed = read_descriptors(store, indices, max_local, ("keypoints",) if positions else ())
    scales, offsets = scale_index(packed.scales, binning), np.asarray(packed.offsets)
    where = normalised_positions(packed.keypoints, offsets) if positions else no_positions()
    return ImageBatch(read_globals(store, indices), packed.descriptors, scales, offsets, where)


def normalised_positions(keypoints: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Keypoints [m, 2] in pixels -> float32 [m, 2] around their image's mean in units of its spread (root mean square
    distance from it): the same wherever in the image and however large the object is. All at one point: 0."""
    counts = np.diff(offsets)
    owner, number, shares = np.repeat(np.arange(len(counts)), counts), len(counts), np.maximum(counts, 1)
    points = np.asarray(keypoints, np.float64)
    means = np.stack([np.bincount(owner, column, number) / shares for column in points.T], axis=1)
    points = points - means[owner]
    spread = np.sqrt(np.bincount(owner, np.square(points).sum(1), number) / shares)
    return (points / np.maximum(spread, 1e-6)[owner, None]).astype(np.float32)


def lay_out_pairs(offsets: np.ndarray, query: np.ndarray, candidate: np.ndarray) -> PairLayout:
    """Sequences ``[CLS, Gq, Lq.., SEP, Gc, Lc..]`` of pairs (query[i], candidate[i]) of images of one bank, end to end.

    offsets: int64 [n + 1] of the images' locals; the bank's rows are 0 (zero), 1.. n (globals), then the locals.
    """
    counts = np.diff(offsets)
    num_images = len(counts)
    # A pair is six runs of consecutive bank rows; each run has a first row, a length and a segment.
    zero, one = np.zeros_like(query), np.ones_like(query)
    first_local = 1 + num_images + offsets[:-1]
    starts = np.stack([zero, 1 + query, first_local[query], zero, 1 + candidate, first_local[candidate]], axis=1)
    sizes = np.stack([one, one, counts[query], one, one, counts[candidate]], axis=1)
    segments = np.tile(np.array([2, 4, 0, 3, 5, 1]), (len(query), 1))
    return PairLayout(
        rows=concatenated_ranges(starts.ravel(), sizes.ravel()),
        segments=np.repeat(segments.ravel(), sizes.ravel()),
        lengths=sizes.sum(1),
    )
