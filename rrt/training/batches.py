"""Batches of pairs for training: from labelled triplets, planted correspondences, and lists that a teacher scored.

A batch depends on (seed, epoch, step) alone, so that any process can make any of them and a run can go on at any step.
"""

from dataclasses import dataclass

import numpy as np
import torch

from rrt.datasets.sets import TrainSet
from rrt.errors import InputError, check_count
from rrt.network.pairs import ImageBatch, read_images
from rrt.store.store import Store
from rrt.training.distillation import Lists, TaughtLists, read_lists
from rrt.training.planted import PlantedSource
from rrt.training.sampler import TripletSampler

# Where the arrays of a packed batch begin (rrt/training/loader.py), so that every type and copy finds them aligned.
ALIGNMENT = 64


@dataclass(frozen=True)
class PairBatch:
    """Pairs (query[i], candidate[i]) of the images of a batch, labels float32: 1 = same landmark.

    list_size K above 0: every K pairs in turn are a list, of one query; the labels of a batch made so are a teacher's
    scores.
    joined_pairs: pairs of the whole step, over all processes that share it; a process' share may be smaller than the
    others', in an epoch's last step even empty, so the mean loss of a step is the sum over all shares by this number.
    """

    images: ImageBatch
    query: np.ndarray
    candidate: np.ndarray
    labels: np.ndarray
    joined_pairs: int
    list_size: int = 0

    @staticmethod
    def of_triplets(images: ImageBatch, triplets: np.ndarray, joined_triplets: int | None = None) -> "PairBatch":
        """triplets int64 [t, 2 + k] of positions in ``images``: pairs (anchor, positive) labelled 1, then (anchor,
        negative) labelled 0, those of all first negatives first. joined_triplets: of the whole step; None: t."""
        anchors, others = triplets[:, 0], triplets[:, 1:]
        labels = np.zeros(others.size, np.float32)
        labels[: len(triplets)] = 1
        joined = len(triplets) if joined_triplets is None else joined_triplets
        return PairBatch(images, np.tile(anchors, others.shape[1]), others.T.ravel(), labels, joined * others.shape[1])

    def by_anchor(self) -> "PairBatch":
        """The pairs of triplets, positives first, as lists: an anchor's positive and its negatives."""
        number = int(self.labels.sum())
        order = np.arange(len(self.labels)).reshape(-1, number).T.ravel()
        pairs = self.query[order], self.candidate[order], self.labels[order]
        return PairBatch(self.images, *pairs, self.joined_pairs, len(order) // number)

    def logits(self, model, device="cpu") -> torch.Tensor:
        """Logits [pairs], each image embedded once."""
        return model.pair_logits(self.images, self.query, self.candidate, device)


@dataclass(frozen=True)
class EpochPlan:
    """What is drawn ahead for an epoch. triplets: int64 [n, 2 + k] rows of the training list, None when all steps are
    planted; lists: of every step, where a teacher's are learned; len() is the number of steps."""

    seed: int
    epoch: int
    num_steps: int
    triplets: np.ndarray | None
    lists: list[Lists] | None = None

    def __len__(self):
        return self.num_steps


@dataclass(frozen=True)
class BatchSource:
    """All batches of a run. batch_size: images (2 + the sampler's negatives for each anchor); max_local: descriptors of
    an image in a triplet, and with min_local a random number between the two for every batch, so that one network
    serves short and long lists; apart: one for the anchors, another for the other images.

    sampler or planted_source may be None when a run uses only the other; num_steps: of an epoch, None = every anchor
    once. planted_steps: steps of epoch 0, all planted; planted_fraction: probability that a step of a later epoch is
    planted. taught: lists of which epoch -1 has as many steps as its settings say. positions: the network wants those
    of the descriptors.
    """

    train: TrainSet
    sampler: TripletSampler | None
    planted_source: PlantedSource | None
    batch_size: int = 36
    max_local: int = 500
    min_local: int | None = None
    binning: str = "published"
    num_steps: int | None = None
    planted_steps: int = 0
    planted_fraction: float = 0.0
    taught: TaughtLists | None = None
    positions: bool = False
    apart: bool = False

    def __post_init__(self):
        size = self._images_per_anchor
        check_count("dataset.batch_size", self.batch_size)
        check_count("max_train_local", self.max_local)
        if self._has_triplets and self.batch_size % size:
            negatives = "negative" if size == 3 else f"{size - 2} negatives"
            raise InputError(
                f"dataset.batch_size={self.batch_size}: must be a multiple of {size} (anchor, positive, {negatives})"
            )
        if self.min_local is not None:
            check_count("min_train_local", self.min_local)
            if self.min_local > self.max_local:
                raise InputError(f"min_train_local={self.min_local} must lie in 1..{self.max_local} (max_train_local)")
        if self.taught and self.batch_size < self.taught.settings.images_per_list:
            raise InputError(
                f"dataset.batch_size={self.batch_size}: must hold a query and its distil.candidates="
                f"{self.taught.settings.candidates}"
            )

    @property
    def _has_triplets(self) -> bool:
        return self.sampler is not None or self.planted_source is not None

    @property
    def _images_per_anchor(self) -> int:
        return 3 if self.sampler is None else 2 + self.sampler.negatives

    @property
    def triplets_per_batch(self) -> int:
        """Anchors of a full batch."""
        return self.batch_size // self._images_per_anchor

    @property
    def lists_per_batch(self) -> int:
        """Queries of a batch that a teacher has scored."""
        assert self.taught is not None
        return self.batch_size // self.taught.settings.images_per_list

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of triplets."""
        if self.num_steps is not None:
            return self.num_steps
        return 1 if self.sampler is None else -(-len(self.sampler.anchors) // self.triplets_per_batch)

    def plan(self, seed: int, epoch: int) -> EpochPlan:
        """The steps of an epoch; epoch 0 are the planted steps, epoch -1 those of a teacher. Raises InputError for a
        negative seed."""
        if seed < 0:
            raise InputError(f"seed={seed}: must not be negative")
        if epoch < 0:
            assert self.taught is not None
            steps = self.taught.settings.steps
            # Apart from the generators of batches, see below.
            lists = self.taught.draw(steps, self.lists_per_batch, np.random.default_rng([seed, 0, 0, 2]))
            return EpochPlan(seed, epoch, steps, None, lists)
        if epoch == 0:
            return EpochPlan(seed, epoch, self.planted_steps, None)
        assert self.sampler is not None, "a run without a sampler has planted steps alone"
        # The 1 keeps it apart from the generators of batches: [a, b] and [a, b, 0] start the same stream.
        rng = np.random.default_rng([seed, epoch, 0, 1])
        steps = self.steps_per_epoch
        wanted = steps * self.triplets_per_batch
        rounds = [self.sampler.epoch(rng)]
        # More steps than anchors fill: all of them again, in another order and with other positives and negatives.
        while self.num_steps is not None and sum(map(len, rounds)) < wanted:
            rounds.append(self.sampler.epoch(rng))
        return EpochPlan(seed, epoch, steps, np.concatenate(rounds)[:wanted])

    def task(self, plan: EpochPlan, step: int, rank: int = 0, world_size: int = 1) -> "BatchTask":
        """What ``maker`` must be told to make step 0.. len(plan) - 1 of an epoch, or the share of process ``rank`` of
        ``world_size`` in it, whole triplets."""
        size = self.triplets_per_batch
        triplets = None if plan.triplets is None else plan.triplets[step * size : (step + 1) * size]
        if plan.lists is not None:
            return BatchTask((plan.seed, 0, step, 3), None, rank, world_size, plan.lists[step])
        return BatchTask((plan.seed, plan.epoch, step), triplets, rank, world_size)

    @property
    def maker(self) -> "BatchMaker":
        """Makes the batches; the same whichever process asks, and whenever."""
        train = self.train
        sizes = (self.batch_size, self.max_local, self.min_local)
        planted = (self.planted_source, *sizes, self.binning, self.planted_fraction, self.positions)
        if self.taught is None:
            return BatchMaker(train.store, train.index, *planted, apart=self.apart)
        settings, images = self.taught.settings, self.taught.images
        most = settings.local or self.max_local
        range_ = (settings.min_local or (None if settings.local else self.min_local) or most, most)
        taught = tuple((each.store, each.index) for each in images)
        return BatchMaker(train.store, train.index, *planted, taught, range_, self.apart)

    def check_world(self, world_size: int) -> None:
        """InputError when a full batch cannot be divided among that many processes."""
        if self._has_triplets and self.triplets_per_batch % world_size:
            fitting = world_size * self._images_per_anchor
            raise InputError(
                f"dataset.batch_size={self.batch_size}: its {self.triplets_per_batch} triplets cannot be shared evenly"
                f" by {world_size} processes; give dataset.batch_size a multiple of {fitting}"
            )
        if self.taught and self.lists_per_batch % world_size:
            size = self.taught.settings.images_per_list
            raise InputError(
                f"dataset.batch_size={self.batch_size}: its {self.lists_per_batch} lists of {size} images cannot be"
                f" shared evenly by {world_size} processes; give dataset.batch_size a multiple of {world_size * size}"
            )


@dataclass(frozen=True)
class BatchTask:
    """A batch to make. seed: of its generator; triplets int64 [t, 2 + k] of the whole step, None: planted, or lists."""

    seed: tuple
    triplets: np.ndarray | None
    rank: int
    world_size: int
    lists: Lists | None = None


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batches of a ``BatchSource``, without the tables its triplets are drawn from: what a worker process
    needs of it."""

    store: Store
    index: np.ndarray
    planted_source: PlantedSource | None
    batch_size: int
    max_local: int
    min_local: int | None
    binning: str
    planted_fraction: float
    positions: bool = False
    taught: tuple[tuple[Store, np.ndarray], ...] = ()
    taught_local: tuple[int, int] = (1, 1)
    apart: bool = False

    def largest_batch(self) -> int:
        """Bytes that no batch of these exceeds, each of its arrays at a multiple of ``ALIGNMENT`` bytes."""
        store, images = self.store, self.batch_size
        itemsize = 2 if store.local_dtype == "float16" else 4
        rows = images * min(self.max_local, int(store.local_counts().max(initial=0)))
        beside = 16 if self.positions else 8
        size = rows * (store.local_dim * itemsize + beside)
        if self.planted_source is not None:
            # Views are float32 and may be larger than the images they are cut from are in training.
            views = images * self.planted_source.settings.max_local
            size = max(size, views * (store.local_dim * 4 + beside))
        for store, _ in self.taught:
            rows = images * min(self.taught_local[1], int(store.local_counts().max(initial=0)))
            size = max(size, rows * (store.local_dim * 4 + beside))
        # Globals and offsets of the images; query, candidate and label of the pairs, which are fewer than images.
        return size + images * (self.store.global_dim * 4 + 8 + 20) + 8 + 9 * ALIGNMENT

    def make(self, task: BatchTask) -> PairBatch:
        """Raises InputError for what cannot be read."""
        rng = np.random.default_rng(task.seed)
        if task.lists is not None:
            return self._taught(task, task.lists, rng)
        if task.triplets is None or (self.planted_fraction and rng.random() < self.planted_fraction):
            return self._planted(task, rng)
        anchors = others = self._number(rng)
        if self.apart:
            others = self._number(rng)
        share = task.triplets[_share(len(task.triplets), task)]
        # Where numbers differ, an image that is both an anchor and one of the others is two images.
        first = len(self.index) if anchors != others else 0
        roles, position = np.unique(share + first * (np.arange(share.shape[1]) > 0), return_inverse=True)
        sides = [(roles[roles >= first] - first, others)]
        if first:
            sides.insert(0, (roles[roles < first], anchors))
        images = ImageBatch.joined(
            [read_images(self.store, self.index[rows], most, self.binning, self.positions) for rows, most in sides]
        )
        return PairBatch.of_triplets(images, position.reshape(share.shape), len(task.triplets))

    def _number(self, rng) -> int:
        return self.max_local if self.min_local is None else int(rng.integers(self.min_local, self.max_local + 1))

    def _taught(self, task, lists: Lists, rng):
        store, index = self.taught[lists.source]
        low, high = self.taught_local
        # Whatever the share: the same number and the same descriptors in the whole step.
        max_local, seeds = int(rng.integers(low, high + 1)), rng.integers(2**63, size=len(lists.rows))
        share = _share(len(lists.rows), task)
        images, query, candidate = read_lists(
            store, index, lists.rows[share], max_local, self.binning, seeds[share], self.positions
        )
        targets = lists.targets[share].astype(np.float32).ravel()
        return PairBatch(images, query, candidate, targets, lists.targets.size, lists.targets.shape[1])

    def _planted(self, task, rng):
        assert self.planted_source is not None, "a planted step needs a planted source"
        # Every process plants the whole step, because its pairs borrow descriptors from each other.
        number = self.batch_size // 3
        views = self.planted_source.triplets(number, rng)
        share = _share(number, task)
        views = views.part(3 * share.start, 3 * share.stop)
        return PairBatch.of_triplets(views, np.arange(len(views.global_)).reshape(-1, 3), number)


def _share(number, task):
    """The slice of ``number`` things that is a process' own; all shares together are everything, in order."""
    return slice(number * task.rank // task.world_size, number * (task.rank + 1) // task.world_size)
