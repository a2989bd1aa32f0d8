"""Embedded images for the scorer: read once, kept in one tensor on the device, within a budget of rows."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from rrt.network.pairs import read_images


class ImageBank:
    """Tokens of images (a global, then its locals; no segment embedding yet) in ``rows`` [capacity, d].

    first_rows, counts: int64 [N] of the whole store: an image's first row (-1: not here), and its number of rows.
    """

    def __init__(self, model, store, max_local, binning, capacity: int, dtype, device, overlap: bool = True):
        self.model = model
        self.store = store
        self.max_local = max_local
        self.binning = binning
        self.device = device
        self.rows = torch.empty(capacity, model.seg_encoder.embedding_dim, dtype=dtype, device=device)
        self.counts = store.local_counts(max_local) + 1
        self.first_rows = np.full(len(self.counts), -1)
        self._used = 0
        self._reader = ThreadPoolExecutor(1) if overlap else _AtOnce()

    def read(self, images: np.ndarray) -> Future:
        """Start reading images of the store; ``add`` takes the result."""
        return self._reader.submit(self._read, images)

    def _read(self, images):
        batch = read_images(self.store, images, self.max_local, self.binning)
        arrays = (batch.global_, batch.descriptors, batch.scales)
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        # Only from pinned memory does a copy to a GPU run beside its computing.
        return images, [tensor.pin_memory() if self.device.type == "cuda" else tensor for tensor in tensors]

    def add(self, reading: Future) -> None:
        """Embed what was read and keep it; it must fit (``forget`` first where it does not)."""
        images, tensors = reading.result()
        if not len(images):
            return
        global_, descriptors, scales = (tensor.to(self.device, non_blocking=True) for tensor in tensors)
        counts = self.counts[images]
        starts = self._used + np.cumsum(counts) - counts
        end = self._used + int(counts.sum())
        is_local = np.ones(int(counts.sum()), bool)
        is_local[starts - self._used] = False
        block = self.rows[self._used : end]
        tokens = (self.model.global_tokens(global_), self.model.local_tokens(descriptors.float(), scales))
        for rows, kind in zip(tokens, (~is_local, is_local)):
            positions = torch.from_numpy(np.flatnonzero(kind)).to(self.device, non_blocking=True)
            block.index_copy_(0, positions, rows.to(block.dtype))
        self.first_rows[images] = starts
        self._used = end

    def forget(self) -> None:
        """Make all rows free. Whoever still computes with them must be done."""
        self.first_rows.fill(-1)
        self._used = 0

    def close(self) -> None:
        """Wait for what is being read, and read no more."""
        self._reader.shutdown()


class _AtOnce:
    """An executor that does its work when it is given."""

    def submit(self, function, *arguments) -> Future:
        done = Future()
        done.set_result(function(*arguments))
        return done

    def shutdown(self):
        pass
