"""Queries scored in blocks by the workers of a Ray cluster (rrt.files.cluster)."""

from collections.abc import Callable

import numpy as np

from rrt.errors import InputError
from rrt.files.cluster import ATTEMPTS, run_on_ray
from rrt.progress import bar
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist

# Queries of a task: what a lost worker costs. The same on every cluster, so that its size changes no result.
BLOCK = 8


class OnRay(RerankMethod):
    """A method whose scores are computed by the cluster at an address; a worker prepares the gallery when it begins.

    Scores are those of one process that is given as many queries at a time, as many threads for each worker provided.
    """

    def __init__(self, method: RerankMethod, address: str):
        self.method, self.address = method, address
        self.depth, self.pairwise = method.depth, method.pairwise  # pyright: ignore[reportAttributeAccessIssue]

    def scores(self, space, shortlists):
        """Those of the method."""
        blocks = {start: shortlists[start : start + BLOCK] for start in range(0, len(shortlists), BLOCK)}
        found: dict[int, list[np.ndarray]] = {}
        shared = self.method, space.store, space.query_index, space.gallery_index, space.whitening
        with bar(what="on Ray", unit="query", total=len(shortlists), passing=True) as shown:

            def take(part, scores):
                found[part[0]] = scores
                shown.update(len(scores))

            run_on_ray(_open, shared, blocks.items(), self.address, take, _gave_up)
        return [scores for start in blocks for scores in found[start]]


def _open(shared) -> Callable[[tuple[int, list[Shortlist]]], list[np.ndarray]]:
    method, *space = shared
    space = SearchSpace(*space)
    method.prepare(space)
    return lambda part: method.checked_scores(space, part[1])


def _gave_up(part, reason: str) -> InputError:
    return InputError(f"the queries from row {part[0]} failed {ATTEMPTS} times: {reason}; run again")
