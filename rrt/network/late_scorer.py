"""Scores shortlists by ``LATE``: an image is read and encoded once, a pair costs a matrix product.

What was encoded stays in memory for the next shortlist, within the budget ``memory_mb``.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.late import Encoded, matched
from rrt.network.pairs import read_images
from rrt.network.scoring import PairScorer
from rrt.store.checked import read_globals

# Cosines computed at a time, and tokens encoded at a time: few stay in a processor's cache, a GPU wants many.
_CELLS = {"cpu": 2**20, "cuda": 2**27}
_TOKENS = {"cpu": 2**12, "cuda": 2**18}


class LateScorer(PairScorer):
    """Logits of image pairs of one store by a ``LATE``, whose weights must not change meanwhile; see ``PairScorer``."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        row = self.model.settings["num_local_features"] * self.dtype.itemsize + 4
        self._capacity_rows = self.memory_mb * 2**20 // row
        self._forget()

    def over(self, store) -> "LateScorer":
        """The same scorer for another store."""
        other = super().over(store)
        other._forget()
        return other

    def _forget(self):
        # {store index: vectors [k, d] and weights [k]}
        self._encoded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._rows = 0

    def forget_image(self, image: int) -> None:
        """Encode this image anew when it is next needed."""
        if image in self._encoded:
            self._rows -= len(self._encoded.pop(image)[1])

    def _results(self, queries, shortlists):
        counts, start = self.store.local_counts(self.max_local), 0
        with self._workers() as run:
            for query, shortlist in zip(queries, shortlists):
                # Images of about equally many descriptors together.
                order = np.argsort(counts[shortlist], kind="stable")
                cells = _CELLS[self.device.type] // max(1, int(counts[query]))
                for part in self._parts(counts, query, shortlist, order):
                    self._encode(counts, np.unique(np.append(shortlist[part], query)), run)
                    blocks = np.split(part, _breaks(np.cumsum(counts[shortlist[part]]), cells))
                    logits = run(partial(self._logits, query), [shortlist[block] for block in blocks])
                    yield from zip([start + block for block in blocks], logits)
                start += len(shortlist)

    @contextmanager
    def _workers(self):
        """A ``map``, on a processor by worker threads: each computes its own, and waits for no other in between."""
        if self.threads == 1:
            yield map
            return
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield pool.map
        finally:
            # The worker threads' number of one would be that of every thread made from now on.
            torch.set_num_threads(threads)

    def _parts(self, counts, query, shortlist, order) -> list[np.ndarray]:
        """``order``, positions in the shortlist, in pieces whose images fit the budget beside the query."""
        largest = int(counts[np.append(shortlist, query)].max())
        if 2 * largest > self._capacity_rows:
            raise InputError(
                f"memory_mb={self.memory_mb}: two images of {largest} local descriptors do not fit; give more, or a"
                " smaller max_sequence_len"
            )
        # An image that straddles two pieces belongs to the second: a piece is at most one image larger.
        return np.split(
            order, _breaks(np.cumsum(counts[shortlist[order]]), self._capacity_rows - int(counts[query]) - largest)
        )

    def _encode(self, counts, images, run):
        """Have these images encoded in memory."""
        missing = np.array([image for image in images if image not in self._encoded], np.int64)
        if self._rows + counts[missing].sum() > self._capacity_rows:
            self._forget()
            missing = images
        if not len(missing):
            return
        batches = np.split(missing, _breaks(np.cumsum(counts[missing] + 1), _TOKENS[self.device.type]))
        for batch, encoded in zip(batches, run(self._encoded_batch, batches)):
            bounds = encoded.offsets
            for image, first, last in zip(batch.tolist(), bounds[:-1], bounds[1:]):
                self._encoded[image] = encoded.vectors[first:last], encoded.weights[first:last]
            self._rows += int(bounds[-1])

    @torch.inference_mode()
    def _encoded_batch(self, images) -> Encoded:
        positions = self.model.settings["positions"]
        batch = read_images(self.store, images, self.max_local, self.binning, positions)
        encoded = self.network.encode(batch, self.device)
        return Encoded(encoded.vectors.to(self.dtype), encoded.weights, encoded.globals_, encoded.offsets)

    @torch.inference_mode()
    def _logits(self, query, candidates) -> np.ndarray:
        vectors, weights = zip(*(self._encoded[image] for image in candidates.tolist()))
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in weights])])
        globals_ = read_globals(self.store, np.append(candidates, query))
        gallery = Encoded(torch.cat(vectors), torch.cat(weights), torch.empty(0), offsets)
        own, own_weights = self._encoded[int(query)]
        symmetric = self.model.settings["symmetric"]
        if len(own):
            found = matched(own, own_weights, *gallery.grid(np.arange(len(candidates))), symmetric)
        else:
            found = own_weights.new_zeros(len(candidates))
        cosine = torch.from_numpy(globals_[:-1] @ globals_[-1]).to(self.device)
        return self.network.combine(found, cosine).float().cpu().numpy()


def _breaks(ends: np.ndarray, size: int) -> np.ndarray:
    """Where to split things that end at ``ends`` [n] into pieces of about ``size``."""
    return np.flatnonzero(np.diff((ends - 1) // max(1, size))) + 1
