"""Methods one after the other, as `superglobal+rrt`: each reorders the beginning of the ranking of the one before."""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist


@dataclass(frozen=True)
class Chain(RerankMethod):
    """methods: at least one; depths: candidates that each of them reorders, None = the method's own number."""

    methods: tuple[RerankMethod, ...]
    depths: tuple[int | None, ...] | None = None

    def __post_init__(self):
        if not self.methods or (self.depths is not None and len(self.depths) != len(self.methods)):
            raise InputError(f"a chain of {len(self.methods)} methods with {self.depths} depths; give one for each")

    def prepare(self, space):
        """What each method prepares."""
        for method in self.methods:
            method.prepare(space)

    def remark(self, space):
        """What the methods remark."""
        return "; ".join(filter(None, (method.remark(space) for method in self.methods)))

    def scores(self, space, shortlists):
        """The rank of each candidate in the final order, negative: the first has the largest score."""
        lists = shortlists
        for method, depth in self.stages:
            lists = reorder(space, method, lists, depth)
        found = []
        for given, ordered in zip(shortlists, lists):
            rank = np.empty(len(given.candidates))
            rank[np.argsort(given.candidates, kind="stable")] = -np.argsort(ordered.candidates, kind="stable")
            found.append(rank)
        return found

    @property
    def stages(self) -> list[tuple[RerankMethod, int | None]]:
        """(Method, candidates that it reorders, None = all) of each."""
        return [
            (method, (self.depths[i] if self.depths else None) or method.depth) for i, method in enumerate(self.methods)
        ]

    def bytes_per_image(self, space):
        """Of the method that holds most; what they share is held once."""
        return max(method.bytes_per_image(space) for method in self.methods)


def stages_of(method: RerankMethod) -> list[tuple[RerankMethod, int | None]]:
    """(Method, candidates that it reorders, None = all) of each member of a chain, or of a method alone."""
    return method.stages if isinstance(method, Chain) else [(method, method.depth)]


def reorder(
    space: SearchSpace, method: RerankMethod, shortlists: list[Shortlist], depth: int | None = None
) -> list[Shortlist]:
    """The shortlists with their first ``depth`` candidates (None: the method's own number, which may be all) by falling
    score, equal ones as they were, and the rest behind them."""
    return [ordered for ordered, _ in reorder_scored(space, method, shortlists, depth)]


def reorder_scored(
    space: SearchSpace, method: RerankMethod, shortlists: list[Shortlist], depth: int | None = None
) -> list[tuple[Shortlist, np.ndarray]]:
    """As reorder(), each shortlist with the scores of its first candidates, falling."""
    depth = method.depth if depth is None else depth
    lists = []
    for each, found in zip(shortlists, method.checked_scores(space, [each[:depth] for each in shortlists])):
        order = np.arange(len(each.candidates))
        order[: len(found)] = best = np.argsort(-found, kind="stable")
        lists.append((each[order], found[best]))
    return lists
