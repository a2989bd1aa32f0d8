"""Embedded images for the scorer: read once, kept in one tensor on the device, within a budget of rows."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from rrt.network.pairs import ImageBatch, read_images


def images_in_roles(store, gallery_local: int | None, query_local: int | None) -> tuple[np.ndarray, int]:
    """(Rows of each image, int64; what a query's number is above that of its image in the store). An image that is read
    with more or fewer local descriptors as a query than as a candidate is two images: 0..N - 1 are the candidates, then
    come the queries."""
    counts = store.local_counts(gallery_local) + 1
    if gallery_local == query_local:
        return counts, 0
    return np.concatenate([counts, store.local_counts(query_local) + 1]), len(counts)


class ImageBank:
    """Tokens of images (a global, then its locals; no segment embedding yet) in ``rows`` [capacity, d].

    first_rows, counts: int64 of the images in their roles (``images_in_roles``): an image's first row (-1: not here),
    and its number of rows.
    """

    def __init__(self, model, store, gallery_local, query_local, binning, capacity: int, dtype, device):
        self.model = model
        self.store = store
        self.limits = gallery_local, query_local
        self.binning = binning
        self.device = device
        self.rows = torch.empty(capacity, model.seg_encoder.embedding_dim, dtype=dtype, device=device)
        self.counts, self.first_query = images_in_roles(store, gallery_local, query_local)
        self.first_rows = np.full(len(self.counts), -1)
        self._used = 0
        self._reader = ThreadPoolExecutor(1)

    def read(self, images: np.ndarray) -> Future:
        """Start reading images, rising numbers in their roles; ``add`` takes the result."""
        return self._reader.submit(self._read, images)

    def _read(self, images):
        arrays = [(batch.global_, batch.descriptors, batch.scales) for batch in self._batches(images)]
        arrays = arrays[0] if len(arrays) == 1 else map(np.concatenate, zip(*arrays))
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        # Only from pinned memory does a copy to a GPU run beside its computing.
        return images, [tensor.pin_memory() if self.device.type == "cuda" else tensor for tensor in tensors]

    def _batches(self, images: np.ndarray) -> list[ImageBatch]:
        if not self.first_query:
            return [read_images(self.store, images, self.limits[0], self.binning)]
        roles = np.split(images, [np.searchsorted(images, self.first_query)])
        return [
            read_images(self.store, of_role % self.first_query, most, self.binning)
            for of_role, most in zip(roles, self.limits)
        ]

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
