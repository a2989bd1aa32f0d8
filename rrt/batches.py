"""Batches of pairs for training: from labelled triplets and from planted correspondences."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rrt.datasets import TrainSet
from rrt.errors import InputError
from rrt.pairs import ImageBatch, lay_out_pairs, read_images
from rrt.planted import PlantedSource
from rrt.sampler import TripletSampler


@dataclass(frozen=True)
class PairBatch:
    """Pairs (query[i], candidate[i]) of the images of a batch, labels float32: 1 = same landmark."""

    images: ImageBatch
    query: np.ndarray
    candidate: np.ndarray
    labels: np.ndarray

    @staticmethod
    def of_triplets(images: ImageBatch, triplets: np.ndarray) -> "PairBatch":
        """triplets int64 [t, 3] of places in ``images``: pairs (anchor, positive) labelled 1, then (anchor, negative)
        labelled 0."""
        labels = np.repeat(np.array([1, 0], np.float32), len(triplets))
        return PairBatch(images, np.tile(triplets[:, 0], 2), np.concatenate([triplets[:, 1], triplets[:, 2]]), labels)

    def logits(self, model, device="cpu") -> torch.Tensor:
        """Logits [pairs], each image embedded once."""
        layout = lay_out_pairs(self.images.offsets, self.query, self.candidate)
        images = self.images
        arrays = (images.global_, images.descriptors, images.scales, layout.rows, layout.segments)
        global_, descriptors, scales, rows, segments = (torch.from_numpy(array).to(device) for array in arrays)
        return model.score_packed(model.image_bank(global_, descriptors, scales), rows, segments, layout.lengths)


@dataclass(frozen=True)
class BatchSource:
    """All batches of a run. batch_size: images (three a triplet); max_local: descriptors of an image in a triplet, and
    with min_local a random number between the two for every batch, so that one network serves short and long lists.

    sampler or planted may be None when a run uses only the other; max_steps caps an epoch.
    """

    train: TrainSet
    sampler: TripletSampler | None
    planted_source: PlantedSource | None
    batch_size: int = 36
    max_local: int = 500
    min_local: int | None = None
    binning: str = "published"
    max_steps: int | None = None

    def __post_init__(self):
        if self.batch_size < 3 or self.batch_size % 3:
            raise InputError(
                f"dataset.batch_size={self.batch_size}: must be a multiple of 3 (anchor, positive, negative)"
            )
        if self.min_local is not None and not 1 <= self.min_local <= self.max_local:
            raise InputError(f"min_train_local={self.min_local} must lie in 1..{self.max_local} (max_train_local)")

    @property
    def triplets_per_batch(self) -> int:
        return self.batch_size // 3

    @property
    def steps_per_epoch(self) -> int:
        available = 1 if self.sampler is None else -(-len(self.sampler.anchors) // self.triplets_per_batch)
        return min(available, self.max_steps or available)

    def epoch(self, rng: np.random.Generator, planted_fraction: float = 0.0) -> Iterator[PairBatch]:
        """One epoch of triplets; each batch is with probability ``planted_fraction`` a planted one instead."""
        size = self.triplets_per_batch
        triplets = self.sampler.epoch(rng)
        for step in range(self.steps_per_epoch):
            if planted_fraction and rng.random() < planted_fraction:
                yield self._planted_batch(rng)
            else:
                yield self._triplet_batch(triplets[step * size : (step + 1) * size], rng)

    def planted(self, num_steps: int, rng: np.random.Generator) -> Iterator[PairBatch]:
        for _ in range(num_steps):
            yield self._planted_batch(rng)

    def _planted_batch(self, rng):
        views = self.planted_source.triplets(self.triplets_per_batch, rng)
        return PairBatch.of_triplets(views, np.arange(self.batch_size).reshape(-1, 3))

    def _triplet_batch(self, triplets, rng):
        rows, place = np.unique(triplets, return_inverse=True)
        max_local = self.max_local
        if self.min_local is not None:
            max_local = int(rng.integers(self.min_local, self.max_local + 1))
        images = read_images(self.train.store, self.train.index[rows], max_local, self.binning)
        return PairBatch.of_triplets(images, place.reshape(-1, 3))
