"""What scores shortlists has in common, whatever the network: the logit of every (query, candidate) pair."""

import copy
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.int8 import quantise
from rrt.network.model import halve
from rrt.network.pairs import check_binning
from rrt.network.precision import DTYPES, ScoringSettings, default_memory_mb, resolve_precision
from rrt.progress import bar


class PairScorer(ABC):
    """Logits of image pairs of one store.

    store: ``rrt.store.store.Store``, or anything with its ``path``, ``names``, ``global_descriptors``, ``local_counts``
    and ``read_packed``. max_local: local descriptors used of each image, the first in stored order (query_local,
    gallery_local: of a query and of a candidate, where ``with_local`` tells them apart); binning: the scale index the
    model was trained with (``rrt.network.pairs.scale_index``). In half precision or compiled, a copy of the model as it
    is now. precision: what ``settings.precision`` came to.
    """

    def __init__(
        self,
        model: Any,
        store,
        max_local: int | None = 500,
        binning="published",
        device="cpu",
        settings: ScoringSettings | None = None,
    ):
        check_binning(binning)
        self.settings = settings = settings or ScoringSettings()
        self.device = torch.device(device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.dtype = DTYPES.get(self.precision, torch.bfloat16)
        self.store = store
        self.query_local = self.gallery_local = max_local
        self.binning = binning
        self.model = self.network = model.to(device)
        if self.dtype != torch.float32 or settings.compile:
            self.network = copy.deepcopy(self.model).eval()
            if self.precision == "int8":
                quantise(self.network)
            else:
                halve(self.network, self.dtype)
        if settings.compile:
            if self.precision == "int8":
                raise InputError("precision=int8 compile=True: int8 is not compiled; leave compile out")
            for layer in self.network.encoder.layers:
                layer.after_attention = torch.compile(layer.after_attention, dynamic=True)
        self.threads = 1 if self.device.type == "cuda" else settings.threads or torch.get_num_threads()
        self.memory_mb = settings.memory_mb or default_memory_mb(self.device)

    def over(self, store) -> Self:
        """The same scorer for another store; what was compiled or halved is shared."""
        other = copy.copy(self)
        other.store = store
        return other

    def with_local(self, query_local: int | None, gallery_local: int | None) -> Self:
        """The same scorer for other numbers of local descriptors; None: as they are."""
        other = copy.copy(self)
        other.query_local = self.query_local if query_local is None else query_local
        other.gallery_local = self.gallery_local if gallery_local is None else gallery_local
        return other

    def score(self, query_indices: np.ndarray, shortlists: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits float32 [len(shortlists[i])] for query i against each image of its shortlist; all are store
        indices. InputError for an index the store does not have, and for what is no index."""
        queries = _indices(query_indices, "queries")
        shortlists = [_indices(shortlist, "shortlist") for shortlist in shortlists]
        if len(queries) != len(shortlists):
            raise InputError(f"{len(shortlists)} shortlists for {len(queries)} queries; give one for each")
        sizes = np.array([len(shortlist) for shortlist in shortlists], np.int64)
        logits = np.empty(sizes.sum(), np.float32)
        shown = bar(what="rerank", unit="pair", total=len(logits), passing=True)
        with shown, torch.inference_mode(), self._evaluating():
            if len(logits):
                self._check(queries, shortlists)
                for positions, values in self._results(queries, shortlists):
                    logits[positions] = values
                    shown.update(len(positions))
        return np.split(logits, np.cumsum(sizes)[:-1]) if len(sizes) else []

    def score_pairs(self, pairs: np.ndarray) -> np.ndarray:
        """Logits float32 [P] of pairs int64 [P, 2] (query, candidate), store indices."""
        pairs = _indices(pairs, "pairs", 2)
        # Sorted by query, because what a query's pairs share is computed once for a shortlist.
        order = np.argsort(pairs[:, 0], kind="stable")
        queries, starts = np.unique(pairs[order, 0], return_index=True)
        shortlists = np.split(pairs[order, 1], starts[1:]) if len(pairs) else []
        logits = np.empty(len(pairs), np.float32)
        logits[order] = np.concatenate([*self.score(queries, shortlists), np.empty(0, np.float32)])
        return logits

    @abstractmethod
    def _results(self, queries, shortlists) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions in the flat result, logits) of all pairs, in pieces."""

    def _check(self, queries, shortlists):
        everything = np.concatenate([queries, *shortlists])
        outside = (everything < 0) | (everything >= len(self.store.names))
        if outside.any():
            raise InputError(
                f"{self.store.path}: there is no image {everything[outside][0]}, the store holds"
                f" {len(self.store.names)}; were lists or neighbours made for another store?"
            )

    @contextmanager
    def _evaluating(self):
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)


def _indices(values, name: str, columns: int | None = None) -> np.ndarray:
    """int64 [n], or [n, columns]. InputError for anything but whole numbers of that shape."""
    try:
        found = np.asarray(values)
    except ValueError:  # lists of different lengths
        found = np.empty(0, object)
    if not found.size and found.dtype != object:
        found = np.empty((0, columns) if columns else 0, np.int64)
    if found.dtype.kind not in "iu" or found.shape[1:] != ((columns,) if columns else ()) or not found.ndim:
        expected = f"{columns} indices each" if columns else "indices"
        raise InputError(
            f"{name} {reprlib.repr(values)}: expected {expected}, whole numbers; names become indices by"
            " store.indices(names)"
        )
    return found.astype(np.int64)
