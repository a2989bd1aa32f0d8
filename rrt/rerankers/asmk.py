"""Aggregated selective match kernel, ASMK, and its binary form, ASMK* (Tolias, Avrithis and Jegou, "To aggregate or not
to aggregate: selective match kernels for image search", ICCV 2013; "Image search with selective match kernels", IJCV
2016).

X_c are the local descriptors of image X whose nearest visual word is c. They become one unit vector, or its signs:

    V(X_c) = sum over x in X_c of (x - word c)       ASMK:  V^(X_c) = V(X_c) / |V(X_c)|
                                                     ASMK*: V^(X_c) = sign(V(X_c)) / sqrt(D)

The similarity of query X and gallery image Y adds up over the visual words that both hold, under the selectivity

    sigma(u) = sign(u) |u|^alpha  where u > tau, else 0
    S(X, Y) = g(X) g(Y)  sum over c of w_c sigma( V^(X_c) . V^(Y_c) ),    g(X) = (sum over words c of X of w_c)^(-1/2)

so that S(X, X) = 1 without multiple assignment. w_c = 1, or with ``idf`` log(1 + N / N_c)^2 where N_c of the N gallery
images hold word c. Images without words are 0 to all others.
"""

from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from rrt.command_line.settings import Count, FilePath, NotNegative, settings
from rrt.errors import InputError
from rrt.progress import bar, warn
from rrt.rerankers.base import RerankMethod, SearchSpace, check_local_space
from rrt.rerankers.codebook import MAKE, Aggregated, Codebook, aggregate, load_codebook
from rrt.store.checked import read_descriptors
from rrt.store.ranges import concatenated_ranges
from rrt.store.values import as_float32

_IMAGES_PER_BLOCK = 64
_CANDIDATES_PER_BLOCK = 128
# From this share of the gallery on, a pass over the inverted file costs less than looking up image after image.
_WIDE = 0.25


class InvertedFile:
    """V^ of all gallery images, sorted by visual word: starts int64 [K + 1], word c has rows starts[c] to starts[c + 1]
    of vectors and of images int32 [E], rising. Image i has the rows row_of[offsets[i]:offsets[i + 1]] and those
    words."""

    def __init__(self, method: "Asmk", space: SearchSpace):
        self.size = len(space.gallery_index)
        starts = bar(range(0, self.size, _IMAGES_PER_BLOCK), "visual words", "block", passing=True)
        parts = (space.gallery_index[start : start + _IMAGES_PER_BLOCK] for start in starts)
        blocks = [method.aggregated(space.store, part) for part in parts]
        counts = np.concatenate([np.diff(block.offsets) for block in blocks])
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self.words = np.concatenate([block.words for block in blocks])
        order = np.argsort(self.words, kind="stable")
        self.row_of = np.empty(len(order), np.int32)
        self.row_of[order] = np.arange(len(order), dtype=np.int32)
        self.images = np.repeat(np.arange(self.size, dtype=np.int32), counts)[order]
        self.starts = np.searchsorted(self.words[order], np.arange(len(method.words) + 1))
        self.vectors = np.empty((len(order), *blocks[0].vectors.shape[1:]), blocks[0].vectors.dtype)
        row = 0
        while blocks:
            block = blocks.pop(0)  # so that all is held once, and not twice
            self.vectors[self.row_of[row : row + len(block.words)]] = block.vectors
            row += len(block.words)
        held = np.diff(self.starts)
        idf = np.log1p(self.size / np.maximum(held, 1)) if method.idf else np.ones(len(held))
        self.weights = np.square(idf).astype(np.float32)
        self.norms = self.norms_of(self.offsets, self.words)

    def norms_of(self, offsets, words) -> np.ndarray:
        """g of images, float32 [n], 0 for those without words."""
        total = np.concatenate([[0], np.cumsum(self.weights[words], dtype=np.float64)])
        total = total[offsets[1:]] - total[offsets[:-1]]
        return np.where(np.diff(offsets) > 0, 1 / np.sqrt(np.maximum(total, 1e-30)), 0).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        tables = (self.vectors, self.images, self.words, self.row_of, self.offsets, self.norms)
        return sum(table.nbytes for table in tables)

    def score_gallery(self, method: "Asmk", queries: Aggregated) -> np.ndarray:
        """S of each query with all gallery images, float32 [Q, N], word after word."""
        scores = np.zeros((len(queries.offsets) - 1, self.size), np.float32)
        owners = np.repeat(np.arange(len(scores)), np.diff(queries.offsets))
        order = np.argsort(queries.words, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(queries.words[order])) + 1) if len(order) else ():
            word = queries.words[rows[0]]
            entries = slice(self.starts[word], self.starts[word + 1])
            found = method.similarities(queries.vectors[rows][:, None], self.vectors[entries][None])
            scores[np.ix_(owners[rows], self.images[entries])] += self.weights[word] * method.selectivity(found)
        return scores * self.norms_of(queries.offsets, queries.words)[:, None] * self.norms

    def score_candidates(self, method: "Asmk", queries: Aggregated, query: int, candidates: np.ndarray) -> np.ndarray:
        """S of one query with some gallery images [n], float32 [n]."""
        own = slice(*queries.offsets[query : query + 2])
        row_of = np.full(len(self.weights), -1)
        row_of[queries.words[own]] = np.arange(own.start, own.stop)
        scores = [np.empty(0)]
        for start in range(0, len(candidates), _CANDIDATES_PER_BLOCK):
            block = candidates[start : start + _CANDIDATES_PER_BLOCK]
            counts = np.diff(self.offsets)[block]
            entries = concatenated_ranges(self.offsets[block], counts)
            rows = row_of[self.words[entries]]
            shared = rows >= 0
            entries, rows, owners = entries[shared], rows[shared], np.repeat(np.arange(len(block)), counts)[shared]
            found = method.similarities(queries.vectors[rows], self.vectors[self.row_of[entries]])
            weighted = self.weights[self.words[entries]] * method.selectivity(found)
            scores.append(np.bincount(owners, weighted, len(block)).astype(np.float64, copy=False))
        norm = self.norms_of(queries.offsets[query : query + 2] - own.start, queries.words[own])
        return (np.concatenate(scores) * norm * self.norms[candidates]).astype(np.float32)


@settings(of="reranker 'asmk': ")
class Asmk(RerankMethod):
    """codebook: file of tools/train_codebook.py. binary: ASMK* instead of ASMK. multiple_assignment: words that a
    query's descriptor counts for, as in the paper; gallery descriptors count for one. max_local: descriptors used of an
    image, those of highest attention (None: all).

    Vectors are held in half precision, ASMK* holds bits. Memory: ``bytes_per_image`` for each gallery image (about
    2 D + 12, or D / 8 + 12, bytes for each of its words) and 4 bytes for each of 64 queries at a time.
    """

    of_locals: ClassVar[bool] = True
    pairwise: ClassVar[bool] = True

    codebook: FilePath | None = None
    binary: bool = False
    alpha: NotNegative = 3.0
    tau: Annotated[float, Field(ge=-1, lt=1)] = 0.0
    idf: bool = False
    multiple_assignment: Count = 5
    max_local: Count | None = None

    def __post_init__(self):
        if not self.codebook:
            raise InputError(f"reranker 'asmk': setting codebook is not set; {MAKE}")
        _ = self.words  # a file that is missing or damaged is found now

    @cached_property
    def words(self) -> Codebook:
        """The codebook of the file."""
        return load_codebook(self.codebook)

    def prepare(self, space: SearchSpace) -> None:
        """The inverted file."""
        self.inverted_file(space)

    def remark(self, space: SearchSpace) -> str:
        """That the codebook was learned on images of the gallery, where it was."""
        seen = self.words.count_seen(space.store, space.gallery_index)
        if not seen:
            return ""
        return (
            f"{self.words.path}: the codebook was learned on {seen} of the {len(space.gallery_index)} images of the"
            " gallery, so that the figures are too good; learn one on training images"
        )

    def inverted_file(self, space: SearchSpace) -> InvertedFile:
        """That of the space's gallery, made at the first call and kept until one with another space."""
        known, inverted = vars(self).get("_inverted", (None, None))
        if known is not space:
            check_local_space(space, "asmk")
            self.words.check_fits(space.store)
            if told := self.remark(space):
                warn(told)
            inverted = InvertedFile(self, space)
            vars(self)["_inverted"] = space, inverted
        return inverted

    def aggregated(self, store, index, assignments: int = 1) -> Aggregated:
        """V^ of images of a store."""
        packed = read_descriptors(store, index, self.max_local)
        return aggregate(self.words, packed.descriptors, packed.offsets, assignments, self.binary)

    def similarities(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """V^ . V^ of rows of vectors: paired, [p, .] and [p, .] -> float32 [p]; all, [q, 1, .] and [1, n, .] -> [q,
        n]."""
        if self.binary:
            differing = np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.int32)
            return 1 - differing * np.float32(2 / self.words.dim)
        if first.ndim == 3:
            return as_float32(first[:, 0]) @ as_float32(second[0]).T
        return np.vecdot(as_float32(first), as_float32(second))

    def selectivity(self, similarities: np.ndarray) -> np.ndarray:
        """sigma of similarities, an array of the same shape."""
        powers = np.sign(similarities) * np.abs(similarities) ** np.float32(self.alpha)
        return np.where(similarities > self.tau, powers, np.float32(0))

    def scores(self, space: SearchSpace, shortlists) -> list[np.ndarray]:
        """S of each query with its candidates, float32."""
        inverted = self.inverted_file(space)
        queries, rows = np.unique([each.query for each in shortlists], return_inverse=True)
        wide = sum(len(each.candidates) for each in shortlists) > _WIDE * len(queries) * inverted.size
        scores = [np.empty(0, np.float32)] * len(shortlists)
        for start in bar(range(0, len(queries), _IMAGES_PER_BLOCK), "asmk", "block", passing=True):
            block = queries[start : start + _IMAGES_PER_BLOCK]
            vectors = self.aggregated(space.store, space.query_index[block], self.multiple_assignment)
            table = inverted.score_gallery(self, vectors) if wide else None
            for number in np.flatnonzero((rows >= start) & (rows < start + len(block))):
                query, candidates = rows[number] - start, shortlists[number].candidates
                scores[number] = (
                    inverted.score_candidates(self, vectors, query, candidates)
                    if table is None
                    else table[query][candidates]
                )
        return scores

    def bytes_per_image(self, space: SearchSpace) -> float:
        """Of the inverted file; asmk needs no global descriptors."""
        inverted = self.inverted_file(space)
        return inverted.nbytes / max(1, inverted.size)
