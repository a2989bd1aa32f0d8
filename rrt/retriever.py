"""Search and reranking over a store in Python:

retriever = rrt.Retriever(store, rrt.Reranker.from_checkpoint("rrt_gld_ckpts/r50_gldv2.pt"))
retriever.retrieve("all_souls_000013", k=10).names
"""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError, check_count
from rrt.network.reranker import Image, Reranker
from rrt.progress import bar
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.fusion import Fusion
from rrt.search.exact import search
from rrt.search.whitening import Whitening, load_whitening
from rrt.store.checked import read_globals
from rrt.store.local_counts import check_locals
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord, StoredImage
from rrt.store.store import Store

_ROWS_PER_BLOCK = 8192


@dataclass(frozen=True)
class Retrieved:
    """What was found for one query, the best first.

    names; indices int64 [k] in the store; similarities float32 [k]: cosines of the (whitened) global
    descriptors; logits float32 [k] of the reranker, or scores of the method: NaN for images that were not reranked.
    """

    names: list[str]
    indices: np.ndarray
    similarities: np.ndarray
    logits: np.ndarray


class Retriever:
    """Finds the images of a store most similar to a query: exact search by global descriptors, then reranking.

    store: ``rrt.Store`` or the path of one. reranker: ``rrt.Reranker`` or a method of ``rrt.rerankers.make_method``,
    which learns what it learns of a gallery from the images it reranks; None = search alone. whitening:
    ``rrt.search.whitening.Whitening`` or the path of an .npz of tools/learn_whitening.py. fusion: ``rrt.Fusion`` of
    similarity and ``rrt.Reranker``, None = the reranker alone. gallery: names or indices of the images to search among,
    None = all (the store of a test set holds its queries, too: ``gallery=read_image_list(path).names``). Raises
    InputError when the parts do not fit together.
    """

    def __init__(
        self,
        store,
        reranker: Reranker | RerankMethod | None = None,
        whitening=None,
        fusion: Fusion | None = None,
        gallery=None,
    ):
        if not isinstance(reranker, Reranker | RerankMethod | None):
            raise InputError(
                f"reranker {reranker!r}: expected an rrt.Reranker, a method of make_method, or None for search alone"
            )
        self.store = store if isinstance(store, Store) else Store(store)
        self.reranker = reranker
        self.fusion = fusion or Fusion()
        if fusion and not reranker:
            raise InputError("fusion blends similarities with the logits of a reranker; give one")
        if fusion and isinstance(reranker, RerankMethod):
            raise InputError("fusion blends logits of an rrt.Reranker; leave it out with other methods")
        if not self.store.global_dim:
            raise InputError(f"{self.store.path}: holds no global descriptors; import or extract them too")
        if isinstance(reranker, Reranker):
            reranker.scorer(self.store)  # refuses another size of descriptors
            check_locals(self.store, None, "the reranker")
        known = whitening is None or isinstance(whitening, Whitening)
        self.whitening = whitening if known else load_whitening(whitening)
        self.searched = np.arange(len(self.store)) if gallery is None else self._indices(gallery)
        for start in bar(range(0, len(self.searched), _ROWS_PER_BLOCK), "reading descriptors", "block", passing=True):
            read_globals(self.store, self.searched[start : start + _ROWS_PER_BLOCK])
        # The whole column stays mapped from the file; a selection of it is a copy.
        rows = self.store.global_descriptors
        self._gallery = self._whitened(rows if gallery is None else rows[self.searched])

    def search(self, query, k=10) -> Retrieved | list[Retrieved]:
        """The k most similar images by global descriptors alone; see ``retrieve``."""
        return self.retrieve(query, k, num_rerank=0)

    def retrieve(self, query, k=10, num_rerank=100) -> Retrieved | list[Retrieved]:
        """The k best images for a query (fewer in a smaller gallery), of which the first num_rerank were reranked.

        query: a name or index in the store or ``store[...]``, which is left out of its own result; an image of another
        store, or an ImageRecord; or a list of queries, for a list of results. Raises InputError for an image that is
        not there or has descriptors of another size.
        """
        check_count("k", k)
        if num_rerank != 0:
            check_count("num_rerank", num_rerank)
        if isinstance(query, str | StoredImage | ImageRecord) or not np.iterable(query):
            return self._retrieve([self._image(query)], k, num_rerank)[0]
        images = [self._image(each) for each in query]
        return self._retrieve(images, k, num_rerank) if images else []

    def _retrieve(self, images: list[Image], k: int, num_rerank: int) -> list[Retrieved]:
        inds, sims = self._ranked(images, max(k, num_rerank))
        logits = [np.full(len(row), np.nan, np.float32) for row in inds]
        if self.reranker and num_rerank:
            heads = [row[:num_rerank] for row in inds]
            for i, found in enumerate(self._logits(self.reranker, images, heads)):
                head = slice(len(found))
                order = np.argsort(-self.fusion.scores(sims[i][head], found), kind="stable")
                inds[i][head], sims[i][head], logits[i][head] = inds[i][order], sims[i][order], found[order]
        return [
            Retrieved([self.store.names[index] for index in row[:k]], row[:k], similarities[:k], scored[:k])
            for row, similarities, scored in zip(inds, sims, logits)
        ]

    def _indices(self, gallery) -> np.ndarray:
        found = np.array([image.index for image in self.store[list(gallery)]], dtype=np.int64)
        if not len(found):
            raise InputError("gallery: no images to search among")
        repeated = len(found) - len(np.unique(found))
        if repeated:
            raise InputError(f"gallery: {repeated} images are named more than once; name each once")
        return found

    def _image(self, query):
        return query if isinstance(query, StoredImage | ImageRecord) else self.store[query]

    def _ranked(self, images, depth):
        """Lists of indices and similarities of the ``depth`` nearest images of each query, itself left out."""
        own = self._own(images)
        sims, inds = search(self._gallery, self._whitened(self._globals(images)), depth + bool((own >= 0).any()))
        inds = self.searched[inds]
        # By its index, not its rank: exact duplicates of the query stay, and may push it off its own list.
        others = [(row != index).nonzero()[0][:depth] for row, index in zip(inds, own)]
        return [row[keep] for row, keep in zip(inds, others)], [row[keep] for row, keep in zip(sims, others)]

    def _own(self, images):
        """Index of each query in this store, -1 for others."""
        return np.array([image.index if getattr(image, "store", None) is self.store else -1 for image in images])

    def _globals(self, images):
        rows = []
        for image in images:
            if isinstance(image, StoredImage):
                row = read_globals(image.store, np.array([image.index]))[0]
            else:
                row = MemoryStore.of([image]).global_descriptors[0]
            if len(row) != self.store.global_dim:
                raise InputError(
                    f"'{image.name}': its global descriptor has {len(row)} dimensions, those of {self.store.path} have"
                    f" {self.store.global_dim}; extract both with the same model"
                )
            rows.append(row)
        return np.stack(rows)

    def _logits(self, reranker: Reranker | RerankMethod, images: list[Image], shortlists) -> list[np.ndarray]:
        if isinstance(reranker, RerankMethod):
            return [self._scores(reranker, image, row) for image, row in zip(images, shortlists)]
        own = self._own(images)
        if (own >= 0).all():
            return reranker.scorer(self.store).score(own, shortlists)
        return [reranker.logits(image, self.store[row]) for image, row in zip(images, shortlists)]

    def _scores(self, method: RerankMethod, image: Image, row) -> np.ndarray:
        ranked = method.rerank(image, self.store[row])
        scores = np.empty(len(row), ranked.scores.dtype)
        scores[ranked.order] = ranked.scores
        return scores

    def _whitened(self, rows):
        return self.whitening.apply(rows) if self.whitening else rows
