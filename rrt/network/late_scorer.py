"""Scores shortlists by ``LATE``: an image is read and encoded once, a pair costs a matrix product.

What was encoded stays in memory for the next shortlist, within the budget ``memory_mb``. Of a gallery that was encoded
before (``rrt.network.encoded_store``) the vectors are read instead.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.encoded_store import EncodedGallery
from rrt.network.late import Encoded, matched
from rrt.network.pairs import read_images
from rrt.network.scoring import PairScorer
from rrt.store.checked import read_globals
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord, StoredImage
from rrt.store.values import as_float32

# Cosines computed at a time, and tokens encoded at a time: few stay in a processor's cache, a GPU wants many.
_CELLS = {"cpu": 2**20, "cuda": 2**27}
_TOKENS = {"cpu": 2**12, "cuda": 2**18}
# Vectors [k, d] and weights [k] of an image.
_Image = tuple[torch.Tensor, torch.Tensor]


class LateScorer(PairScorer):
    """Logits of image pairs of one store by a ``LATE``, whose weights must not change meanwhile; see ``PairScorer``.

    gallery: images that were encoded before; of all images as many vectors are matched as it keeps.
    """

    def __init__(self, *arguments, gallery: EncodedGallery | None = None, **options):
        super().__init__(*arguments, **options)
        row = self.model.settings["num_local_features"] * self.dtype.itemsize + 4
        self._capacity_rows = self.memory_mb * 2**20 // row
        self.gallery = gallery
        self._keep = gallery.keep if gallery else None
        self._forget()

    def over(self, store) -> "LateScorer":
        """The same scorer for another store."""
        other = super().over(store)
        other._forget()
        return other

    def with_local(self, query_local, gallery_local) -> "LateScorer":
        """The same scorer for other numbers of local descriptors; None: as they are."""
        other = super().with_local(query_local, gallery_local)
        if other.gallery_local != self.gallery_local:
            other.gallery = None  # was encoded from as many as before
            other._forget()
        return other

    def _asking(self) -> "LateScorer":
        """What encodes queries."""
        return self if self.query_local == self.gallery_local else self.with_local(self.query_local, self.query_local)

    def _forget(self):
        # {store index: its image}
        self._encoded: dict[int, _Image] = {}
        self._rows = 0
        self._in_gallery = None if self.gallery is None else self.gallery.rows(self.store)

    def score_image(self, query: ImageRecord | StoredImage, candidates: np.ndarray) -> np.ndarray:
        """Logits float32 [n] of an image of any origin against images of the store, int64 [n] indices."""
        if isinstance(query, StoredImage) and query.store is self.store:
            return self.score(np.array([query.index]), [candidates])[0]
        logits = np.empty(len(candidates), np.float32)
        other = self._asking().over(MemoryStore.of([query], self.model.settings["num_local_features"]))
        with torch.inference_mode(), self._evaluating(), self._workers() as run:
            self._check(candidates, [])
            for positions, values in self._shortlist(other._query(0, run), candidates, run):
                logits[positions] = values
        return logits

    def encoded(self, images: np.ndarray) -> Iterator[_Image]:
        """Vectors and weights of each of these images, by the network itself; nothing of it is kept."""
        batches = self._batches(images)
        with torch.inference_mode(), self._evaluating(), self._workers() as run:
            for batch in run(self._by_network, batches):
                yield from _images(batch)

    def forget_image(self, image: int) -> None:
        """Encode this image anew when it is next needed."""
        if image in self._encoded:
            self._rows -= len(self._encoded.pop(image)[1])

    def _results(self, queries, shortlists):
        start, asking = 0, self._asking()
        with self._workers() as run:
            for query, shortlist in zip(queries, shortlists):
                for positions, logits in self._shortlist(asking._query(int(query), run), shortlist, run):
                    yield start + positions, logits
                start += len(shortlist)

    def _query(self, index, run) -> tuple[_Image, np.ndarray]:
        """The image and its global descriptor."""
        self._encode(np.array([index]), run)
        return self._encoded[index], read_globals(self.store, np.array([index]))[0]

    def _shortlist(self, query, shortlist, run):
        """(positions in the shortlist, logits) in pieces."""
        counts = self.store.local_counts(self.gallery_local)[shortlist]
        # Images of about equally many descriptors together.
        order = np.argsort(counts, kind="stable")
        cells = _CELLS[self.device.type] // max(1, len(query[0][1]))
        for part in np.split(order, _breaks(np.cumsum(counts[order]), self._capacity_rows // 2)):
            self._encode(np.unique(shortlist[part]), run)
            blocks = np.split(part, _breaks(np.cumsum(counts[part]), cells))
            yield from zip(blocks, run(partial(self._logits, query), [shortlist[block] for block in blocks]))

    @contextmanager
    def _workers(self) -> Iterator[Callable]:
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

    def _encode(self, images, run):
        """Have these images encoded in memory."""
        counts = self.store.local_counts(self.gallery_local)
        if counts[images].sum() > self._capacity_rows:
            raise InputError(
                f"memory_mb={self.memory_mb}: an image of {counts[images].max()} local descriptors does not fit; give"
                " more, or a smaller max_sequence_len"
            )
        missing = np.array([image for image in images.tolist() if image not in self._encoded], np.int64)
        if self._rows + counts[missing].sum() > self._capacity_rows:
            self._encoded.clear()
            self._rows, missing = 0, images
        if not len(missing):
            return
        batches = self._batches(missing)
        for batch, encoded in zip(batches, run(self._encoded_batch, batches)):
            self._encoded |= zip(batch.tolist(), _images(encoded))
            self._rows += int(encoded.offsets[-1])

    def _batches(self, images) -> list[np.ndarray]:
        ends = np.cumsum(self.store.local_counts(self.gallery_local)[images] + 1)
        return np.split(images, _breaks(ends, _TOKENS[self.device.type]))

    @torch.inference_mode()
    def _encoded_batch(self, images) -> Encoded:
        if self._in_gallery is None or (self._in_gallery[images] < 0).any():
            return self._by_network(images).strongest(self._keep)
        assert self.gallery is not None
        packed = self.gallery.store.read_packed(self._in_gallery[images], None, ("descriptors", "attention"))
        vectors = torch.from_numpy(as_float32(packed.descriptors)).to(self.device, self.dtype)
        return Encoded(vectors, torch.from_numpy(packed.attention).to(self.device), vectors[:0], packed.offsets)

    @torch.inference_mode()
    def _by_network(self, images) -> Encoded:
        positions = self.model.settings["positions"]
        batch = read_images(self.store, images, self.gallery_local, self.binning, positions)
        encoded = self.network.encode(batch, self.device)
        return Encoded(encoded.vectors.to(self.dtype), encoded.weights, encoded.globals_, encoded.offsets)

    @torch.inference_mode()
    def _logits(self, query, candidates) -> np.ndarray:
        (own, own_weights), own_global = query
        vectors, weights = zip(*(self._encoded[image] for image in candidates.tolist()))
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in weights])])
        gallery = Encoded(torch.cat(vectors), torch.cat(weights), own[:0], offsets)
        if len(own):
            grid = gallery.grid(np.arange(len(candidates)))
            found = matched(own, own_weights, *grid, self.model.settings["symmetric"])
        else:
            found = own_weights.new_zeros(len(candidates))
        cosine = torch.from_numpy(read_globals(self.store, candidates) @ own_global).to(self.device)
        return self.network.combine(found, cosine).float().cpu().numpy()


def _images(encoded: Encoded) -> list[_Image]:
    bounds = encoded.offsets
    return [(encoded.vectors[a:b], encoded.weights[a:b]) for a, b in zip(bounds[:-1], bounds[1:])]


def _breaks(ends: np.ndarray, size: int) -> np.ndarray:
    """Where to split things that end at ``ends`` [n] into pieces of about ``size``."""
    return np.flatnonzero(np.diff((ends - 1) // max(1, size))) + 1
