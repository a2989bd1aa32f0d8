"""What every reranking method is: a score for each candidate of each query, the higher the better."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rrt.errors import InputError
from rrt.search.whitening import Whitening
from rrt.store.checked import read_globals
from rrt.store.joined import JoinedStore
from rrt.store.linear import l2_normalize
from rrt.store.local_counts import check_locals, warn_without_locals
from rrt.store.memory import Image, as_store, checked_images
from rrt.store.store import Store


@dataclass(frozen=True)
class SearchSpace:
    """The queries and the gallery that a method works on.

    store: ``rrt.Store`` or a ``JoinedStore``; query_index int64 [Q], gallery_index int64 [N]: indices in it (a gallery
    position is a number below N, not an index in the store); whitening: of all global descriptors, None = as stored.
    """

    store: Store | JoinedStore
    query_index: np.ndarray
    gallery_index: np.ndarray
    whitening: Whitening | None = None

    @cached_property
    def queries(self) -> np.ndarray:
        """Global descriptors of the queries, float32 [Q, D] of unit length, whitened."""
        return unit_globals(self.store, self.query_index, self.whitening)

    @cached_property
    def gallery(self) -> np.ndarray:
        """Global descriptors of the whole gallery, float32 [N, D] of unit length, whitened."""
        return unit_globals(self.store, self.gallery_index, self.whitening)


def unit_globals(store, index: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Global descriptors of the images ``index`` of a store, float32 [n, D] of unit length, whitened where there is a
    whitening."""
    rows = l2_normalize(read_globals(store, index))
    return whitening.apply(rows) if whitening else rows


@dataclass(frozen=True)
class Shortlist:
    """Candidates of one query. query: its row in ``SearchSpace.query_index``; candidates int64 [n]: gallery positions,
    the best first; similarities float32 [n]: cosines of their global descriptors with the query's, which fall where no
    other method ordered them.
    """

    query: int
    candidates: np.ndarray
    similarities: np.ndarray

    def __getitem__(self, rows) -> "Shortlist":
        """The candidates of a slice, or of positions [n] in their order."""
        return Shortlist(self.query, self.candidates[rows], self.similarities[rows])


@dataclass(frozen=True)
class Ranked:
    """Candidates by falling score, equal ones in the order given; all fields begin with the best.

    images: the candidates; order int64 [n]: where each was in the list given; scores float [n].
    """

    images: list[Image]
    order: np.ndarray
    scores: np.ndarray

    def __repr__(self):
        first = ", ".join(f"{image.name} {score:.4g}" for image, score in zip(self.images[:5], self.scores))
        return f"<{len(self.images)} images: {first}{', ...' * (len(self.images) > 5)}>"


class RerankMethod(ABC):
    """A method; its settings are the fields of its dataclass.

    depth: candidates it reorders unless told otherwise, None = the whole ranking. pairwise: the score of a candidate
    depends on query and candidate alone, not on the other candidates nor their order. of_locals: it compares local
    descriptors, without which it has nothing to say.
    """

    depth: ClassVar[int | None] = None
    pairwise: ClassVar[bool] = False
    of_locals: ClassVar[bool] = False

    def prepare(self, space: SearchSpace) -> None:  # noqa: B027  (not every method has something to prepare)
        """Make what is made once for a gallery (a graph, a codebook's assignments); scores work without it being
        called, too. Raises InputError when the store lacks what the method needs."""

    def remark(self, space: SearchSpace) -> str:
        """What a reader of its figures on this space must know; mostly nothing."""
        return ""

    @abstractmethod
    def scores(self, space: SearchSpace, shortlists: list[Shortlist]) -> list[np.ndarray]:
        """For each shortlist float [n], in the order of its candidates. Equal scores keep the order they had."""

    def checked_scores(self, space: SearchSpace, shortlists: list[Shortlist]) -> list[np.ndarray]:
        """``scores``; InputError, which names the method, unless there is a number for each candidate of each."""
        found = self.scores(space, shortlists)
        found = [np.asarray(each) for each in found] if np.iterable(found) else []
        shapes, wanted = [each.shape for each in found], [each.candidates.shape for each in shortlists]
        name = type(self).__name__
        if shapes != wanted:
            raise InputError(f"reranker {name}: scores of shapes {shapes[:3]} for candidates {wanted[:3]}")
        if any(np.isnan(each).any() for each in found):
            raise InputError(f"reranker {name}: a score is not a number")
        return found

    def rerank(self, query: Image, candidates: Iterable[Image]) -> Ranked:
        """The candidates by falling score for a query: images of stores (``store["x.jpg"]``) or ImageRecords.

        What a method learns of a gallery (neighbours, a graph) it learns of the candidates. Raises InputError for
        images whose descriptors do not fit together or lack what the method needs.
        """
        candidates = checked_images(candidates)
        if not candidates:
            return Ranked([], np.empty(0, np.int64), np.empty(0, np.float32))
        store, index = as_store([*checked_images([query]), *candidates])
        space = SearchSpace(store, index[:1], index[1:])
        self.prepare(space)
        similarities = space.gallery @ space.queries[0]
        first = np.argsort(-similarities, kind="stable")  # methods read the best first
        (found,) = self.checked_scores(space, [Shortlist(0, first, similarities[first])])
        scores = np.empty(len(candidates), found.dtype)
        scores[first] = found
        order = np.argsort(-scores, kind="stable")
        return Ranked([candidates[i] for i in order], order, scores[order])

    def score(self, query: Image, candidate: Image) -> float:
        """Of one candidate alone."""
        return float(self.rerank(query, [candidate]).scores[0])

    def score_settings(self) -> dict[str, Any]:
        """The settings that a score depends on, plain values; where and how fast it is computed does not count."""
        named = {field.name: getattr(self, field.name) for field in fields(self)} if is_dataclass(self) else {}
        return {name: value for name, value in named.items() if name not in ("device", "threads")}

    def bytes_per_image(self, space: SearchSpace) -> float:
        """What the method must hold of a gallery image to score it, in bytes: its global descriptor, if no more."""
        return 4.0 * space.gallery.shape[1]


def check_local_space(space: SearchSpace, name: str) -> None:
    """InputError when the gallery, or all of the queries, have no local descriptor for the method ``name``; a warning
    where some images have none."""
    wanted_by = f"the reranker '{name}'"
    check_locals(space.store, space.gallery_index, wanted_by)
    check_locals(space.store, space.query_index, wanted_by)
    searched = np.concatenate([space.query_index, space.gallery_index])
    warn_without_locals(space.store, searched, wanted_by)


def local_bytes(space: SearchSpace, max_local: int | None, columns: int) -> float:
    """Bytes of the local descriptors of a gallery image on average, the first max_local of it (None: all), as they are
    stored, with ``columns`` more bytes of each (scale: 4, keypoint: 8)."""
    return bytes_of_locals(space.store, space.store.local_counts(max_local)[space.gallery_index], columns)


def bytes_of_locals(store, counts: np.ndarray, columns: int) -> float:
    """The same of images of a store that have ``counts`` [n] local descriptors."""
    if store.local_dtype == "bits":
        codes = (store if isinstance(store, Store) else store.first).codes
        assert codes is not None  # as local_dtype says
        descriptor = len(codes.axes) // 8
    else:
        descriptor = store.local_dim * np.dtype(store.local_dtype).itemsize
    return float(counts.mean()) * (descriptor + columns)
