"""`maxsim`: plain matching of local descriptors, nothing learned.

The late interaction of ColBERT (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via
Contextualized Late Interaction over BERT", SIGIR 2020, section 3.3), with the mean instead of the sum. With local
descriptors d of unit length of a query q and a candidate x

    m(q, x)     = mean_i max_j <d_i^q, d_j^x>
    score(q, x) = w s(q, x) + (1 - w) m(q, x)

where s is the cosine of the global descriptors and w the weight. Symmetric: m is the mean of m(q, x) and m(x, q).
"""

from typing import ClassVar

import numpy as np

from rrt.command_line.settings import Count, Share, settings
from rrt.files.machine import visible_gpus
from rrt.progress import bar
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist, check_local_space, local_bytes
from rrt.store.checked import read_descriptors
from rrt.store.linear import l2_normalize
from rrt.store.local_counts import check_locals
from rrt.store.values import as_float32

# Cosines held at a time: few stay in a processor's cache, a GPU wants many.
_CELLS = {"cpu": 2**22, "cuda": 2**27}


@settings("maxsim.")
class MaxSim(RerankMethod):
    """weight: of the global similarity, 0 = the local descriptors alone; symmetric: matches from the candidate to the
    query count as much as those from the query to the candidate; query_local, gallery_local: local descriptors used of
    a query and of a candidate, those of highest attention, None = all; device: None = a GPU where there is one.

    An image without local descriptors matches nothing: m = 0.
    """

    weight: Share = 0.0
    symmetric: bool = False
    query_local: Count | None = None
    gallery_local: Count | None = None
    device: str | None = None

    of_locals: ClassVar[bool] = True
    depth: ClassVar[int | None] = 100
    pairwise: ClassVar[bool] = True

    def __post_init__(self):
        self._device()

    def _device(self) -> str:
        if self.device == "cpu" or (self.device is None and not visible_gpus()):
            return "cpu"
        from rrt.devices import choose_device  # loads PyTorch, for which a query from the shell has no time

        return choose_device(self.device, "setting maxsim.device")

    def prepare(self, space: SearchSpace) -> None:
        """Raises InputError for a store without local descriptors."""
        check_local_space(space, "maxsim")

    def scores(self, space: SearchSpace, shortlists: list[Shortlist]) -> list[np.ndarray]:
        """float32 [n] for each shortlist: cosines, so between -1 and 1."""
        check_locals(space.store, space.gallery_index, "the reranker 'maxsim'")
        total = sum(len(each.candidates) for each in shortlists)
        results = []
        with bar(what="maxsim", unit="pair", total=total, passing=True) as shown:
            for each in shortlists:
                matched = self.similarities(
                    space.store, space.query_index[each.query], space.gallery_index[each.candidates]
                )
                results.append(np.float32(self.weight) * each.similarities + np.float32(1 - self.weight) * matched)
                shown.update(len(matched))
        return results

    def bytes_per_image(self, space: SearchSpace) -> float:
        """Local descriptors as stored, at most ``gallery_local`` of an image, and the global one where it counts."""
        own = super().bytes_per_image(space) if self.weight else 0.0
        return own + local_bytes(space, self.gallery_local, columns=0)

    def similarities(self, store, query: int, candidates: np.ndarray) -> np.ndarray:
        """m of the image ``query`` with each of the images ``candidates`` (indices in the store), float32 [n]."""
        first = _rows(store, np.array([query]), self.query_local)
        device, results = self._device(), np.zeros(len(candidates), np.float32)
        counts = store.local_counts(self.gallery_local)[candidates]
        if not len(first):
            return results
        step = max(1, _CELLS[device.partition(":")[0]] // (len(first) * max(1, counts.max(initial=0))))
        matched = _matched if device == "cpu" else _gpu_matcher(device)
        there = counts > 0
        for start in range(0, len(candidates), step):
            block = np.arange(start, min(start + step, len(candidates)))[there[start : start + step]]
            if len(block):
                rows = _rows(store, candidates[block], self.gallery_local)
                results[block] = matched(first, rows, counts[block], self.symmetric)
        return results


def _rows(store, images, most):
    return l2_normalize(as_float32(read_descriptors(store, images, most).descriptors))


def _matched(first, rows, counts, symmetric):
    """m of the descriptors ``first`` [q, D] with each image, whose ``rows`` [counts.sum(), D] are end to end; no
    count is 0."""
    starts = np.cumsum(counts) - counts
    cosines = rows @ first.T
    found = np.maximum.reduceat(cosines, starts, axis=0).mean(axis=1)
    if symmetric:
        found = (found + np.add.reduceat(cosines.max(axis=1), starts) / counts) / 2
    return found


def _gpu_matcher(device):
    import torch

    def matched(first, rows, counts, symmetric):
        sizes = torch.from_numpy(counts).to(device)
        there = torch.arange(int(counts.max()), device=device) < sizes[:, None]  # [n, longest]
        cosines = torch.full((*there.shape, len(first)), -torch.inf, device=device)
        cosines[there] = torch.from_numpy(rows).to(device) @ torch.from_numpy(first).to(device).T
        found = cosines.amax(1).mean(1)
        if symmetric:
            found = (found + torch.where(there, cosines.amax(2), 0).sum(1) / sizes) / 2
        return found.cpu().numpy()

    return matched
