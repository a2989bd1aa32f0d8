"""Learning from a teacher: the network learns to give the scores of another reranker, before it sees any label.

The teacher (rrt/training/teachers.py) may look at all descriptors of an image, the network sees few. A batch holds
lists of a query and K candidates. With the teacher's standardised score t and the network's logit z of each, the loss
of a list is

    regression * mean_j smooth_l1(z_j - t_j) + divergence * KL(softmax(t / T) | softmax(z / T))

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), over the candidates of a query instead
of classes, as Reddi et al., "RankDistil" (AISTATS 2021); smooth L1: Girshick, "Fast R-CNN" (ICCV 2015), section 2.3.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rrt.command_line.settings import setting, settings
from rrt.datasets.sets import TrainSet
from rrt.errors import InputError
from rrt.network.pairs import ImageBatch, normalised_positions, read_images
from rrt.training.pools import ITSELF, NEAR, RANDOM, VIEW, Lesson


@settings("distil.")
class DistilSettings:
    """How the network learns from a teacher; off by default."""

    steps: int = setting("batches of it, before planted pairs and labels; 0: none", default=0, ge=0)
    teacher: str = setting(
        "a method, the rank in a chain (maxsim+database_augmentation), global, checkpoint:FILE (a network trained"
        " before), or a blend (0.6*maxsim+0.4*global)",
        default="maxsim",
    )
    lists: str | None = setting(
        "image lists with commas between, the store beside each; labels are not looked at; None: dataset.train_txt",
        default=None,
    )
    view_lists: str | None = setting(
        "lists of made views (tools/make_views.py), whose labels say of which photograph they are", default=None
    )
    queries: int | None = setting("images of a list that are queries; None: all", default=None, ge=1)
    candidates: int = setting("of a query in a batch", default=8, ge=2)
    near: float = setting("share of them that are near by global similarity, the rest random", default=0.5, ge=0, le=1)
    nearest: int = setting("near ones are drawn from so many of the most similar", default=100, ge=1)
    itself: float = setting(
        "share of the lists with the query's image as a candidate, by descriptors it does not show as query",
        default=0.1,
        ge=0,
        le=1,
    )
    views: int = setting(
        "candidates that are views of the query's photograph, as far as there are any", default=1, ge=0
    )
    pool: int = setting("near and random candidates of a query that the teacher scores, to draw from", default=32, ge=2)
    local: int | None = setting("descriptors of an image; None: max_train_local", default=None, ge=1)
    min_local: int | None = setting("draw their number between this and local for every batch", default=None, ge=1)
    regression: float = setting("weight of the smooth L1 loss of the score", default=1.0, ge=0)
    divergence: float = setting("weight of the divergence of the softmax over a query's candidates", default=1.0, ge=0)
    temperature: float = setting("of that softmax", default=1.0, gt=0)
    lr: float = setting("learning rate", default=3e-4, gt=0)
    warmup_steps: int = setting("it rises from 0 over so many optimiser steps", default=0, ge=0)
    scheduler: Literal["cos", "constant"] = setting("cos (half a cosine down to 0) | constant", default="cos")

    def __post_init__(self):
        if self.regression + self.divergence <= 0:
            raise InputError("distil.regression and distil.divergence are both 0: nothing to learn from")
        if self.itself and self.views >= self.candidates - 1 or self.views >= self.candidates:
            raise InputError(
                f"distil.views={self.views}: leaves no other candidate of distil.candidates={self.candidates}"
            )

        if self.local is not None and self.min_local is not None and self.min_local > self.local:
            raise InputError(f"distil.min_local={self.min_local} must lie in 1..{self.local} (distil.local)")

    @property
    def images_per_list(self) -> int:
        """A query and its candidates."""
        return 1 + self.candidates


@dataclass(frozen=True)
class Lists:
    """Lists of queries with candidates from one image list. source: its number; rows int64 [n, 1 + K]: query and
    candidates, rows of the image list; targets float32 [n, K]."""

    source: int
    rows: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class TaughtLists:
    """Draws lists of a query and its candidates from the lessons of image lists. images: the lists, in the lessons'
    order."""

    images: tuple[TrainSet, ...]
    lessons: tuple[Lesson, ...]
    settings: DistilSettings

    def draw(self, steps: int, number: int, rng: np.random.Generator) -> list[Lists]:
        """``number`` lists for each step, all of a step from one image list, which is drawn by its number of queries;
        every query comes once before any comes again."""
        sizes = np.array([len(lesson.pool.queries) for lesson in self.lessons])
        source = rng.choice(len(sizes), steps, p=sizes / sizes.sum())
        drawn: list[Lists] = [Lists(0, np.empty(0), np.empty(0))] * steps
        for own, lesson in enumerate(self.lessons):
            own_steps = np.flatnonzero(source == own)
            wanted = len(own_steps) * number
            rounds = [rng.permutation(sizes[own]) for _ in range(-(-wanted // sizes[own]))]
            queries = np.concatenate([np.empty(0, np.int64), *rounds])[:wanted]
            columns = self._columns(lesson.pool, queries, rng)
            candidates = np.take_along_axis(lesson.pool.candidates[queries], columns, axis=1)
            rows = np.concatenate([lesson.pool.queries[queries, None], candidates], axis=1).astype(np.int64)
            targets = np.take_along_axis(lesson.targets[queries], columns, axis=1)
            for i, step in enumerate(own_steps):
                part = slice(i * number, (i + 1) * number)
                drawn[step] = Lists(own, rows[part], targets[part])
        return drawn

    def _columns(self, pool, queries, rng):
        """Columns of the pool [n, K] for each of ``queries``, rows of it: so many of each kind as the settings say.
        Where a query has too few of one, others stand in, and where it has too few at all, its own come again."""
        settings, there = self.settings, pool.candidates[queries] >= 0
        of_kind = {kind: there & (pool.kinds == kind) for kind in (NEAR, RANDOM, VIEW, ITSELF)}
        itself = (rng.random(len(queries)) < settings.itself).astype(np.int64)
        views = np.minimum(of_kind[VIEW].sum(1), settings.views)
        left = settings.candidates - itself - views
        near = np.floor(left * settings.near + rng.random(len(queries))).astype(np.int64)
        wanted = {NEAR: near, RANDOM: left - near, VIEW: views, ITSELF: itself}
        keys = rng.random(there.shape)
        # 0: chosen, 1: stands in, 2: not there; itself never stands in.
        order = np.full(there.shape, 2.0)
        order[there & (pool.kinds != ITSELF)] = 1
        for kind, own in of_kind.items():
            rank = np.argsort(np.argsort(np.where(own, keys, 2), axis=1), axis=1)
            order[own & (rank < wanted[kind][:, None])] = 0
        found = np.argsort(order + keys / 2, axis=1)
        usable = np.maximum(1, (order < 2).sum(1))
        return np.take_along_axis(found, np.arange(settings.candidates) % usable[:, None], axis=1)


def read_lists(
    store,
    index: np.ndarray,
    lists: np.ndarray,
    max_local: int,
    binning: str,
    seeds: np.ndarray,
    positions: bool = False,
) -> tuple[ImageBatch, np.ndarray, np.ndarray]:
    """The images of lists int64 [n, 1 + K] (positions in ``index`` [N], which are images of the store) as the network
    sees them, and query and candidate int64 [n K] of their pairs, list by list.

    An image shows its first ``max_local`` descriptors. As a candidate of its own it shows others, drawn by the list's
    seed (int64 [n]), and some of the same where it has too few.
    """
    rows, position = np.unique(lists, return_inverse=True)
    position = position.reshape(lists.shape)
    batch = read_images(store, index[rows], max_local, binning, positions)
    own, column = np.nonzero(lists[:, 1:] == lists[:, :1])
    if len(own):
        whole = read_images(store, index[lists[own, 0]], None, binning, positions)
        position[own, column + 1] = len(rows) + np.arange(len(own))
        pairs = zip(whole.counts, seeds[own])
        shown = [_other_rows(count, max_local, np.random.default_rng(seed)) for count, seed in pairs]
        batch = _with_images(batch, whole, shown)
    return batch, np.repeat(position[:, 0], lists.shape[1] - 1), position[:, 1:].ravel()


def _other_rows(count, max_local, rng):
    """Up to ``max_local`` of ``count`` descriptors, those behind the first ``max_local`` if there are enough."""
    order = np.concatenate([rng.permutation(np.arange(max_local, count)), rng.permutation(min(count, max_local))])
    return np.sort(order[:max_local]).astype(np.int64)


def _with_images(batch: ImageBatch, more: ImageBatch, shown: list[np.ndarray]) -> ImageBatch:
    """The batch and, behind it, images of another by the descriptors ``shown`` of each."""
    rows = np.concatenate([start + own for start, own in zip(more.offsets, shown)])
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in shown])])
    positions = batch.positions
    if len(more.positions):
        # Around the mean of what is shown.
        positions = np.concatenate([positions, normalised_positions(more.positions[rows], offsets)])
    return ImageBatch(
        np.concatenate([batch.global_, more.global_]),
        np.concatenate([batch.descriptors, more.descriptors[rows]]),
        np.concatenate([batch.scales, more.scales[rows]]),
        np.concatenate([batch.offsets, batch.offsets[-1] + offsets[1:]]),
        positions,
    )
