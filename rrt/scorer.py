"""Scores shortlists: the logit of every (query, candidate) pair, with as little computing as the result allows.

Pairs are packed without padding and grouped by length; attention is fused (no attention matrix is stored) and the last
layer computes the CLS row alone; an image is read and embedded once for all pairs it is in, within a memory budget.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from rrt.pairs import check_binning, lay_out_pairs, read_images

# Tokens computed at a time: measured on two cores, 4,000 to 32,000 run equally fast, below that calls begin to cost.
BATCH_TOKENS = {"cpu": 8192, "cuda": 262144}


class Scorer:
    """Logits of image pairs of one store.

    max_local: local descriptors used of each image, the first in stored order; binning: the scale index the model was
    trained with (``rrt.pairs.scale_index``); batch_tokens: tokens computed at a time, None = by device; cache_tokens:
    embedded tokens kept at a time (512 bytes each at width 128), which bounds memory for any number of queries.
    """

    def __init__(
        self, model, store, max_local=500, binning="published", device="cpu", batch_tokens=None, cache_tokens=4_000_000
    ):
        check_binning(binning)
        self.model = model.to(device)
        self.store = store
        self.max_local = max_local
        self.binning = binning
        self.device = torch.device(device)
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])
        self.cache_tokens = cache_tokens

    def score(
        self, query_indices: np.ndarray, shortlists: Sequence[np.ndarray], progress: bool = False
    ) -> list[np.ndarray]:
        """Logits float32 [len(shortlists[i])] for query i against each image of its shortlist; all are store
        indices."""
        training = self.model.training
        self.model.eval()
        logits: list[np.ndarray] = []
        bar = tqdm(total=sum(map(len, shortlists)), desc="rerank", unit="pair", disable=None if progress else True)
        try:
            with torch.inference_mode(), bar:
                for group in self._groups(query_indices, shortlists):
                    logits += self._score_group(query_indices[group], shortlists[group], bar)
        finally:
            self.model.train(training)
        return logits

    def _groups(self, query_indices, shortlists):
        """Slices of consecutive queries whose images fit the cache together (one query at least)."""
        tokens = self.store.local_counts(self.max_local) + 1
        start, used, seen = 0, 0, set()
        for i, (query, shortlist) in enumerate(zip(query_indices, shortlists)):
            new = [image for image in {int(query), *map(int, shortlist)} if image not in seen]
            used += int(tokens[new].sum())
            if used > self.cache_tokens and i > start:
                yield slice(start, i)
                start, seen = i, set()
                new = list({int(query), *map(int, shortlist)})
                used = int(tokens[new].sum())
            seen.update(new)
        if start < len(shortlists):
            yield slice(start, len(shortlists))

    def _score_group(self, query_indices, shortlists, bar):
        sizes = np.array([len(shortlist) for shortlist in shortlists])
        stacked = np.concatenate([query_indices, *shortlists]).astype(np.int64)
        images, place = np.unique(stacked, return_inverse=True)
        query = np.repeat(place[: len(sizes)], sizes)
        candidate = place[len(sizes) :]
        bank, offsets = self._embed(images)
        counts = np.diff(offsets)
        lengths = counts[query] + counts[candidate]
        order = np.argsort(lengths, kind="stable")
        logits = np.empty(len(order), np.float32)
        # Equal token budgets rather than equal pair counts: a batch of short pairs is as worthwhile as one of long
        # pairs.
        batch_of = np.cumsum(lengths[order] + 4) // self.batch_tokens
        for pairs in np.split(order, np.flatnonzero(np.diff(batch_of)) + 1):
            if len(pairs):
                logits[pairs] = self._score_pairs(bank, offsets, query[pairs], candidate[pairs])
                bar.update(len(pairs))
        return np.split(logits, np.cumsum(sizes)[:-1])

    def _embed(self, images):
        batch = read_images(self.store, images, self.max_local, self.binning)
        return self.model.image_bank(
            *map(self._tensor, (batch.global_, batch.descriptors, batch.scales))
        ), batch.offsets

    def _score_pairs(self, bank, offsets, query, candidate):
        layout = lay_out_pairs(offsets, query, candidate)
        return (
            self.model.score_packed(bank, *map(self._tensor, (layout.rows, layout.segments, layout.lengths)))
            .float()
            .cpu()
            .numpy()
        )

    def _tensor(self, array):
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
