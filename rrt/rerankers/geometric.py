"""Geometric verification: candidates by the number of local matches that one plane transform explains.

Cao, Araujo and Sim, "Unifying Deep Local and Global Features for Image Search" (DELG, ECCV 2020), after Philbin et al.,
"Object retrieval with large vocabularies and fast spatial matching" (CVPR 2007). With local descriptors d and keypoints
p of a query q and a candidate x of the shortlist

    M(q, x)     = {(i, j): j = argmin_j |d_i^q - d_j^x|, |d_i^q - d_j^x| < max_distance}
    score(q, x) = max_T |{(i, j) in M(q, x): |p_i^q - T p_j^x| <= threshold}|

where T is an affine transform or a homography, estimated by MAGSAC++ (rrt/matching/matches.py). docs/delg.md 6.2 has
the published settings: mode one_way, max_distance 0.9 or 1.0, threshold 10 or 20, max_trials 1000, border 0. The
defaults here were chosen on held-out training landmarks in images of 640 pixels, where a border of 0 ranks worse than
global search.
"""

import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rrt.command_line.settings import Expected, Positive, settings
from rrt.matching.images import is_inner
from rrt.matching.matches import Verification, half_squares, match_in, verify
from rrt.progress import bar
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist, check_local_space, local_bytes
from rrt.store.checked import not_finite
from rrt.store.local_counts import check_locals
from rrt.store.values import all_finite, as_float32

if TYPE_CHECKING:
    import torch  # takes seconds to load, and whoever names the method need not wait for it

_NAME = "the reranker 'geometric'"
# OpenCV and torch take 32 bits.
_Count = Annotated[int, Field(ge=1, le=10**9)]
# Cells of a matrix product: small ones stay in a core's cache, a GPU wants large ones.
_CELLS = {"cpu": 2**21, "cuda": 2**26}


class _Images(NamedTuple):
    """Local descriptors float32 [m, D] and keypoints [m, 2] of images end to end, image i's from offsets[i]."""

    offsets: np.ndarray
    descriptors: np.ndarray
    keypoints: np.ndarray


class Correspondences(NamedTuple):
    """Matches of two images: points of the query and of the candidate float32 [k, 2] (x, y in pixels of their
    images), inliers bool [k], transform from candidate to query ([2, 3] or [3, 3]; None: there is none)."""

    query_points: np.ndarray
    candidate_points: np.ndarray
    inliers: np.ndarray
    transform: np.ndarray | None


@settings(of="reranker 'geometric': ")
class Geometric(RerankMethod):
    """mode: "one_way" (the nearest of the candidate for each of the query) or "mutual" (each the nearest of the other).

    max_distance: L2 distance matches stay below (unit vectors: 1.0 is a cosine of 0.5), ratio: part of the distance
    to the second nearest that they stay below; None: any. geometry: "affine" or "homography"; threshold: largest
    residual of an inlier, pixels of the query's image; max_trials, confidence: when the search for a transform ends.
    seed: of its random trials, mixed with the names of the two images, so that a pair has the same score in every
    shortlist. max_local: local descriptors of an image, the first in stored order, None = all; border: those nearer to
    the border than this part of the shorter side are left out, because a network sees its own padding there. device: of
    the matrix products, None = a GPU if there is one; threads: None = torch's number.
    """

    mode: Annotated[Literal["one_way", "mutual"], Expected("one_way or mutual")] = "one_way"
    max_distance: Positive | None = 1.0
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    geometry: Annotated[Literal["affine", "homography"], Expected("affine or homography")] = "affine"
    threshold: Positive = 30.0
    max_trials: _Count = 1000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    seed: int = 0
    max_local: _Count | None = 1000
    border: Annotated[float, Field(ge=0, lt=0.5)] = 0.15
    device: str | None = None
    threads: _Count | None = None

    of_locals: ClassVar[bool] = True
    depth: ClassVar[int | None] = 100
    pairwise: ClassVar[bool] = True

    def __post_init__(self):
        self._device()

    def _device(self) -> "torch.device":
        import torch

        from rrt.devices import choose_device

        return torch.device(choose_device(self.device, "reranker 'geometric': setting device"))

    def prepare(self, space: SearchSpace) -> None:
        """Raises InputError for a store without local descriptors."""
        check_local_space(space, "geometric")

    def scores(self, space: SearchSpace, shortlists: list[Shortlist]) -> list[np.ndarray]:
        """Inliers of each candidate, float32. Verification runs in threads, each with matrix products of its own."""
        check_locals(space.store, space.gallery_index, _NAME)
        results = [np.zeros(len(shortlist.candidates), np.float32) for shortlist in shortlists]
        waiting: deque = deque()
        shown = bar(what="geometric", unit="pair", total=sum(map(len, results)), passing=True)

        def finish(keep):
            while len(waiting) > keep:
                target, work = waiting.popleft()
                target[:] = work.result()
                shown.update(len(target))

        with shown, self._workers() as (pool, threads):
            for shortlist, scores in zip(shortlists, results):
                own = space.query_index[shortlist.query]
                query, others = self._read(space.store, [own]), space.gallery_index[shortlist.candidates]
                for block in self._blocks(space.store, own, others):
                    images = self._read(space.store, others[block])
                    seeds = [self._seed(space.store.names, own, other) for other in others[block]]
                    waiting.append((scores[block], pool.submit(self._inliers, query, images, seeds)))
                    finish(keep=2 * threads)
            finish(keep=0)
        return results

    def bytes_per_image(self, space: SearchSpace) -> float:
        """Local descriptors as stored and their keypoints, at most ``max_local`` of an image."""
        check_locals(space.store, space.gallery_index, _NAME)
        return local_bytes(space, self.max_local, columns=8)

    @contextmanager
    def _workers(self):
        import torch

        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.threads or threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool, self.threads or threads
        finally:
            pool.shutdown(cancel_futures=True)
            # The worker threads' number of one would be that of every thread made from now on.
            torch.set_num_threads(threads)

    def _blocks(self, store, query, index):
        """Slices of ``index`` that are computed at a time."""
        counts = store.local_counts(self.max_local)
        ends = np.cumsum(counts[index])
        width = max(1, _CELLS[self._device().type] // max(1, int(counts[query])))
        edges = np.flatnonzero(np.diff((ends - 1) // width)) + 1
        return map(slice, [0, *edges], [*edges, len(index)]) if len(index) else []

    def _read(self, store, index) -> _Images:
        index = np.asarray(index, np.int64)
        packed = store.read_packed(index, self.max_local, ("descriptors", "keypoints"))
        image = np.repeat(np.arange(len(index)), np.diff(packed.offsets))
        keep = is_inner(packed.keypoints, store.image_size[index][image], self.border)
        descriptors, image = as_float32(packed.descriptors[keep]), image[keep]
        if not all_finite(descriptors):
            row = int(np.argmin(np.isfinite(descriptors).all(axis=1)))
            raise not_finite(store, int(index[image[row]]), "local descriptors")
        return _Images(np.searchsorted(image, np.arange(len(index) + 1)), descriptors, packed.keypoints[keep])

    def _seed(self, names, query, candidate):
        return zlib.crc32(f"{self.seed}\n{names[query]}\n{names[candidate]}".encode())

    def correspondences(self, store, query: int, candidate: int) -> Correspondences:
        """What the score of a pair of images, given by index, counts: its matches, and which of them are inliers."""
        check_locals(store, None, _NAME)
        first, second = self._read(store, [query]), self._read(store, [candidate])
        rows, own = self.match(first, second)[0].T
        points = first.keypoints[rows], second.keypoints[own]
        return Correspondences(*points, *self._verify(*points, self._seed(store.names, query, candidate)))

    def _inliers(self, query: _Images, images: _Images, seeds) -> list[int]:
        return [
            int(self._verify(query.keypoints[rows], images.keypoints[first:][own], seed).inliers.sum())
            for (rows, own), first, seed in zip(map(np.transpose, self.match(query, images)), images.offsets, seeds)
        ]

    def _verify(self, query_points, candidate_points, seed) -> Verification:
        settings = self.geometry, self.threshold, self.max_trials, self.confidence
        return verify(candidate_points, query_points, *settings, seed)

    def match(self, query: _Images, images: _Images) -> list[np.ndarray]:
        """Matches (row of the query, row of the image) int64 [k, 2] with each image, by one matrix product for all."""
        import torch

        device = self._device()
        if device.type == "cuda":
            # Fewer bits than rrt.matching.matches.rounding() reckons with.
            torch.backends.cuda.matmul.allow_tf32 = False
        rows = torch.from_numpy(images.descriptors).to(device)
        halves = torch.from_numpy(half_squares(images.descriptors)).to(device)
        table = torch.addmm(halves[:, None], rows, torch.from_numpy(query.descriptors).to(device).T, alpha=-1)
        if device.type == "cpu":
            table = table.numpy()
        parts = [slice(start, end) for start, end in zip(images.offsets[:-1], images.offsets[1:])]
        settings = self.mode, self.max_distance, self.ratio
        return [match_in(table[part], query.descriptors, images.descriptors[part], *settings) for part in parts]
