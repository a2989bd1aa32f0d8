"""Scores shortlists: the logit of every (query, candidate) pair, with as little computing as the result allows.

Pairs are packed without padding; attention is fused (no attention matrix is stored) and the last layer computes the CLS
row alone; an image is read and embedded once for all pairs it is in, within a memory budget, and the next query's
images are read while this one's pairs are computed. On a processor each worker thread computes batches of its own:
small ones stay in a core's cache, and nobody waits for the other after every operation.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.attention import Packing
from rrt.network.budget import Budget, budget_of
from rrt.network.image_bank import ImageBank, images_in_roles
from rrt.network.model import RRT, Segment
from rrt.network.scoring import PairScorer


class Scorer(PairScorer):
    """Logits of image pairs of one store by an ``RRT``; see ``PairScorer``."""

    def __init__(self, model: RRT, *store_and_settings, **settings):
        if not isinstance(model, RRT):
            raise InputError(
                f"a {type(model).__name__} is no rrt.RRT; take rrt.Reranker(model).scorer(store), which knows all"
            )
        super().__init__(model, *store_and_settings, **settings)

    def _results(self, queries, shortlists):
        threads, sizes = torch.get_num_threads(), [len(shortlist) for shortlist in shortlists]
        try:
            yield from _Run(self, queries, shortlists, np.cumsum(sizes) - sizes).results()
        finally:
            # The worker threads' number of one would be that of every thread made from now on.
            torch.set_num_threads(threads)

    def budget(self, counts: np.ndarray) -> Budget:
        """Of a call that scores images of ``counts`` rows. InputError when memory_mb does not hold a single pair."""
        return budget_of(self, counts)


@dataclass(frozen=True)
class _Step:
    """One query against a part of its shortlist. candidates: store indices; positions: of their logits in the flat
    result; new: store indices of the images to read first; forget: whether the bank drops all others before that."""

    query: int
    candidates: np.ndarray
    positions: np.ndarray
    new: np.ndarray
    forget: bool


@dataclass(frozen=True)
class _Prepared:
    """What all pairs of a query share: tokens ``[CLS, Gq, Lq_1.., SEP]`` [n, d], and their projection [n, 3 d] in the
    first layer."""

    tokens: torch.Tensor
    projected: torch.Tensor


class _Run:
    """One call of ``Scorer.score``: steps, their batches, and the results in any order."""

    def __init__(self, scorer: Scorer, queries, shortlists, starts):
        self.scorer, self.network = scorer, scorer.network
        limits = scorer.gallery_local, scorer.query_local
        counts, first_query = images_in_roles(scorer.store, *limits)
        queries = queries + first_query
        self.queries, self.shortlists, self.starts = queries, shortlists, starts
        everything = np.unique(np.concatenate([queries, *shortlists]))
        budget = scorer.budget(counts[everything])
        self.batch_tokens, self.step_rows = budget.batch, budget.step
        self.capacity = min(budget.rows, int(counts[everything].sum()))
        images = (scorer.store, *limits, scorer.binning)
        self.bank = ImageBank(scorer.model, *images, self.capacity, scorer.dtype, scorer.device)
        self.counts = counts
        self.segments = self.network.seg_encoder.weight
        self.waiting: deque = deque()
        # Few pairs are computed by all threads together, many by each thread alone.
        many = scorer.threads > 1 and sum(map(len, shortlists)) * counts.mean() > self.batch_tokens
        self.pool = (
            ThreadPoolExecutor(scorer.threads, initializer=torch.set_num_threads, initargs=(1,)) if many else None
        )

    def results(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions in the flat result, their logits) batch by batch."""
        try:
            gathered, tokens = [], 0
            steps = self._steps()
            step = next(steps, None)
            reading = self.bank.read(step.new) if step else None
            while step and reading:
                if step.forget:
                    yield from self._compute(gathered)
                    yield from self._finished(keep=0)
                    gathered, tokens = [], 0
                    self.bank.forget()
                self.bank.add(reading)
                gathered.append((step, self._prepare(step.query)))
                tokens += int(self.counts[step.candidates].sum()) + len(step.candidates) * len(gathered[-1][1].tokens)
                step = next(steps, None)
                # Read while the pairs gathered so far are computed.
                reading = self.bank.read(step.new) if step else None
                if tokens >= self.batch_tokens * self.scorer.threads or not step:
                    yield from self._compute(gathered)
                    gathered, tokens = [], 0
            yield from self._finished(keep=0)
        finally:
            self.bank.close()
            if self.pool:
                self.pool.shutdown(cancel_futures=True)

    def _steps(self) -> Iterator[_Step]:
        is_here, used = np.zeros(len(self.counts), bool), 0
        for query, shortlist, start in zip(self.queries, self.shortlists, self.starts):
            for part in self._parts(query, shortlist):
                images = np.unique(np.append(shortlist[part], query))
                new = images[~is_here[images]]
                forget = used > 0 and used + self.counts[new].sum() > self.capacity
                if forget:
                    is_here[:], used, new = False, 0, images
                is_here[new] = True
                used += int(self.counts[new].sum())
                yield _Step(query, shortlist[part], start + part, new, forget)

    def _parts(self, query, shortlist):
        """Positions in the shortlist, in pieces that can be read at a time and fit the bank beside the query."""
        if not len(shortlist):
            return []
        room = min(self.capacity, self.step_rows)
        if self.counts[np.unique(np.append(shortlist, query))].sum() <= room:
            return [np.arange(len(shortlist))]
        sizes = self.counts[shortlist]
        # An image that straddles two pieces belongs to the second: a piece is at most one image larger than `width`.
        width = max(1, room - self.counts[query] - sizes.max())
        piece = (np.cumsum(sizes) - 1) // width
        return np.split(np.arange(len(shortlist)), np.flatnonzero(np.diff(piece)) + 1)

    def _prepare(self, query) -> _Prepared:
        segments, first = self.segments, self.bank.first_rows[query]
        image = self.bank.rows[first : first + self.counts[query]]
        tokens = torch.cat(
            [
                segments[Segment.CLS, None],
                image[:1] + segments[Segment.QUERY_GLOBAL],
                image[1:] + segments[Segment.QUERY_LOCAL],
                segments[Segment.SEP, None],
            ]
        )
        return _Prepared(tokens, self.network.encoder.layers[0].project(tokens))

    def _compute(self, gathered) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the pairs of these steps in batches, pairs of about equal length together; yields what is done."""
        if not gathered:
            return
        steps, prepared = zip(*gathered)
        query = np.repeat(np.arange(len(steps)), [len(step.candidates) for step in steps])
        candidates, positions = map(np.concatenate, zip(*((step.candidates, step.positions) for step in steps)))
        lengths = np.array([len(p.tokens) for p in prepared])[query] + self.counts[candidates]
        order = np.argsort(lengths, kind="stable")
        # Every batch has about as many tokens, so one of short pairs holds more of them and pays as well.
        total, workers = int(lengths.sum()), self.scorer.threads if self.pool else 1
        batches = workers * -(-total // (workers * self.batch_tokens))
        batch_of = (np.cumsum(lengths[order]) - 1) * batches // total
        for batch in np.split(order, np.flatnonzero(np.diff(batch_of)) + 1):
            needed, row = np.unique(query[batch], return_inverse=True)
            # Rows are looked up now: the bank may have moved on when a worker comes to it.
            work = (
                [prepared[i] for i in needed],
                row,
                self.bank.first_rows[candidates[batch]],
                self.counts[candidates[batch]],
            )
            result = self.pool.submit(self._logits, *work) if self.pool else self._logits(*work)
            self.waiting.append((positions[batch], result))
            yield from self._finished(keep=4 * self.scorer.threads)

    def _finished(self, keep: int):
        """Wait until no more than ``keep`` batches are under way."""
        while len(self.waiting) > keep:
            positions, result = self.waiting.popleft()
            yield positions, (result.result() if self.pool else result).float().cpu().numpy()

    def _logits(self, prepared: list[_Prepared], query, candidate_rows, candidate_counts) -> torch.Tensor:
        """Logits of pairs (prepared[query[i]], the image of ``candidate_counts[i]`` rows from
        ``candidate_rows[i]``)."""
        try:
            with torch.inference_mode():
                return self._forward(prepared, query, candidate_rows, candidate_counts)
        except torch.cuda.OutOfMemoryError:
            if len(query) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(query) // 2
        parts = (slice(half), slice(half, None))
        return torch.cat([self._logits(prepared, query[p], candidate_rows[p], candidate_counts[p]) for p in parts])

    def _forward(self, prepared, query, candidate_rows, candidate_counts):
        network, device = self.network, self.scorer.device
        sizes = np.array([len(p.tokens) for p in prepared])
        query_counts, query_rows = sizes[query], (np.cumsum(sizes) - sizes)[query]
        lengths = query_counts + candidate_counts
        first = np.cumsum(lengths) - lengths
        source = _ranges(candidate_rows, candidate_counts, device)
        target = _ranges(first + query_counts, candidate_counts, device)
        candidates = self.bank.rows.index_select(0, source).float().add_(self.segments[Segment.CANDIDATE_LOCAL])
        globals_ = _on(candidate_rows, device)
        heads = _on(np.cumsum(candidate_counts) - candidate_counts, device)
        candidates[heads] = self.bank.rows[globals_] + self.segments[Segment.CANDIDATE_GLOBAL]
        query_source, query_target = _ranges(query_rows, query_counts, device), _ranges(first, query_counts, device)

        def join(query_part, candidate_part):
            joined = candidate_part.new_empty(int(lengths.sum()), candidate_part.shape[1])
            joined.index_copy_(0, query_target, query_part.index_select(0, query_source))
            return joined.index_copy_(0, target, candidate_part)

        tokens = join(torch.cat([p.tokens for p in prepared]), candidates)
        own = network.encoder.layers[0].project(candidates)
        projected = join(torch.cat([p.projected for p in prepared]), own)
        return network.classifier(network.encoder(tokens, Packing.of(lengths, device), projected)).squeeze(1)


def _ranges(starts, sizes, device):
    """``rrt.store.ranges.concatenated_ranges`` made on the device: only a number a range travels there."""
    ends = np.cumsum(sizes)
    shift, total = _on(starts - (ends - sizes), device), int(ends[-1])
    return torch.arange(total, device=device) + torch.repeat_interleave(shift, _on(sizes, device), output_size=total)


def _on(array, device):
    return torch.from_numpy(array).to(device, non_blocking=True)
