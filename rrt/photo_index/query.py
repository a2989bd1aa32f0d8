"""An index opened for searching: exact search by global descriptors, then a reranking method."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import write_bytes
from rrt.files.images import Unreadable, small_jpeg
from rrt.photo_index.extraction import is_shipped
from rrt.photo_index.manifest import Manifest, read_manifest
from rrt.photo_index.scan import inside
from rrt.photo_index.segments import alive_rows, open_segments
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist
from rrt.rerankers.build import make_chain
from rrt.search.exact import search
from rrt.search.whitening import load_whitening
from rrt.store.checked import read_globals
from rrt.store.joined import JoinedStore
from rrt.store.linear import l2_normalize
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from rrt.store.store import Store

if TYPE_CHECKING:
    from rrt.rerankers.transformer import Transformer

# With lite0, chosen on held-out landmarks (docs/models.md 5).
SHIPPED_METHOD = "maxsim"
SETTINGS = {"maxsim": {"weight": 0.2, "symmetric": True, "query_local": 100, "gallery_local": 100}}
THUMBNAIL_SIDE = 256  # pixels
MAX_LOCAL = 100  # that rrt_scripts/ measure with; time grows with it
# What the score of a method means, where it means something to people.
_SCORES = {"rrt": "probability", "geometric": "inliers", "maxsim": "matching"}


class Entry(NamedTuple):
    """A content of the index: SHA-256 of its bytes, the paths of the photographs that have it, width and height
    (upright)."""

    content: str
    paths: list[str]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The first of its paths."""
        return self.paths[0]


class Hit(NamedTuple):
    """A result: cosine of the (whitened) global descriptors, and the method's score, None where it gave none."""

    entry: Entry
    similarity: float
    score: float | None

    @property
    def name(self) -> str:
        """The first path of the photograph, below the folder of the index."""
        return self.entry.name


@dataclass(frozen=True)
class Ranker:
    """How candidates are reranked. name: none, or methods joined by +; transformer: rrt, which is the first of them or
    none; method: all others; depth: candidates, None = the methods' own number; note: what a user should know of the
    choice."""

    name: str
    transformer: Transformer | None = None
    method: RerankMethod | None = None
    depth: int | None = None
    note: str = ""

    @property
    def score_name(self) -> str | None:
        """What the scores are, None where they mean nothing to people."""
        return _SCORES.get(self.name.rpartition("+")[2])

    @property
    def candidates(self) -> int | None:
        """How many are looked at, None: all."""
        own = self.method or self.transformer
        return self.depth or (own.depth if own else 0)


class PhotoIndex:
    """An index as it was when it was opened; ``changed()`` tells of an update since.

    entries: contents with descriptors, by their first paths. Raises InputError when there is no index or it is damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        for attempt in range(5):
            self.manifest, self._seen = read_manifest(self.folder), self._state()
            try:
                self._open()
                break
            except InputError:  # an update may have merged the segments a moment ago
                if attempt == 4 or not self.changed():
                    raise
                time.sleep(0.05)

    def _open(self) -> None:
        manifest = self.manifest
        store = open_segments(self.folder, manifest.segments)
        if store is None:
            raise InputError(
                f"{self.folder}: no photograph of this index has descriptors yet; run tools/search.py build again"
            )
        self.store = store
        self.whitening = load_whitening(self.folder / manifest.whitening["file"]) if manifest.whitening else None
        names, contents = self.store.names, manifest.contents()
        row_of = {names[row]: row for row in alive_rows(self.store, manifest).tolist()}
        described = [(content, paths) for content, paths in contents.items() if content in row_of]
        if not described:
            raise InputError(f"{self.folder}: no photograph of this index has descriptors; run tools/search.py build")
        self.rows = np.array([row_of[content] for content, _ in described], np.int64)
        sizes = np.asarray(self.store.image_size)[self.rows].tolist()
        self.entries = [Entry(content, paths, tuple(size)) for (content, paths), size in zip(described, sizes)]

    def _state(self):
        status = os.stat(self.folder / "index.json")
        return status.st_ino, status.st_mtime_ns, status.st_size

    def changed(self) -> bool:
        """Whether the index was updated since it was opened."""
        try:
            return self._state() != self._seen
        except OSError:
            return False

    @cached_property
    def gallery(self) -> np.ndarray:
        """Global descriptors of the entries, float32 [N, D] of unit length, whitened."""
        return self._globals(self.store, self.rows)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """{path of a photograph: number of its entry}."""
        return {path: number for number, entry in enumerate(self.entries) for path in entry.paths}

    @cached_property
    def contents(self) -> dict[str, int]:
        """{SHA-256: number of the entry}."""
        return {entry.content: number for number, entry in enumerate(self.entries)}

    def find(self, image: str) -> int | None:
        """The entry that a user means by the name of a photograph, or by the path of a file below the index's folder;
        None for others. InputError for a photograph of the index that has no descriptors."""
        for name in (image, self._below_root(image)):
            name = self.manifest.path_called(name) or name
            if name is None:
                continue
            if name in self.numbers:
                return self.numbers[name]
            reason = self.manifest.skipped().get(name)
            if reason:
                raise InputError(f"{image}: this photograph of the index has no descriptors: {reason}")
        return None

    def is_another_file(self, image: str, number: int) -> bool:
        """Whether ``image``, by which the entry ``number`` was found, is also the path of a file that is not it."""
        if not os.path.isfile(image):
            return False
        path = self._below_root(image)
        return path is None or self.numbers.get(path) != number

    def _below_root(self, image: str) -> str | None:
        try:
            return os.path.relpath(os.path.realpath(image, strict=True), self.manifest.root)
        except (OSError, ValueError):
            return None

    def file_of(self, number: int) -> Path | None:
        """The file of an entry, unchanged since it was indexed and not behind a link that leads out; None when there is
        none."""
        root = self.manifest.root
        for path in self.entries[number].paths:
            file = Path(root) / path
            try:
                status = os.stat(file)
                if (status.st_size, status.st_mtime_ns) == self.manifest.photographs[path][:2]:
                    if self.manifest.follow_links or inside(file, root):
                        return file
            except OSError:
                continue
        return None

    def thumbnail(self, number: int) -> bytes | None:
        """A small upright JPEG of an entry, kept in the index; None when its file is gone or cannot be read."""
        path = self.folder / "thumbnails" / f"{self.entries[number].content}.jpg"
        try:
            return path.read_bytes()
        except OSError:
            pass
        made = self.jpeg(number, THUMBNAIL_SIDE)
        if made:
            try:
                write_bytes(path, made)
            except OSError:
                pass  # an index that may only be read
        return made

    def jpeg(self, number: int, side: int) -> bytes | None:
        """An entry as an upright JPEG of at most ``side`` pixels a side; None as for thumbnail()."""
        file = self.file_of(number)
        try:
            return small_jpeg(file, side, turned=True) if file else None
        except Unreadable:
            return None

    def search(self, query: int | ImageRecord, ranker: Ranker, k: int | None = 20) -> list[Hit]:
        """The k best entries (None: all) for an entry, which is left out, or for an image from anywhere."""
        if isinstance(query, ImageRecord):
            joined = JoinedStore(self.store, MemoryStore.of([query], self.store.local_dim))
            found, scores = self.ranked(joined, len(self.store), ranker, k)
        else:
            found, scores = self.ranked(self.store, int(self.rows[query]), ranker, k, own=query)
        return [
            Hit(self.entries[number], float(similarity), None if np.isnan(score) else float(score))
            for number, similarity, score in zip(found.candidates[:k], found.similarities[:k], scores[:k])
        ]

    def ranked(
        self,
        store: Store | JoinedStore,
        row: int,
        ranker: Ranker,
        k: int | None,
        own: int = -1,
        among: np.ndarray | None = None,
    ) -> tuple[Shortlist, np.ndarray]:
        """(Entries, the best first; their scores float [n], NaN where the method gave none) for the image in ``row`` of
        a store that begins with the images of the index.

        k: entries wanted, None = all; own: the entry that is the query and is left out, -1 = none; among: entries
        searched, None = all.
        """
        gallery = self.gallery if among is None else self.gallery[among]
        depth = ranker.candidates
        wanted = None if k is None or depth is None else max(k, depth) + (own >= 0)
        similarities, found = search(gallery, self._globals(store, np.array([row])), wanted)
        found = found[0] if among is None else np.asarray(among)[found[0]]
        keep = found != own
        candidates, similarities = found[keep], similarities[0][keep]
        scores = np.full(len(candidates), np.nan)
        if ranker.name != "none":
            order, values = self._reranked(store, row, ranker, Shortlist(0, candidates[:depth], similarities[:depth]))
            scores[: len(order)] = values[order]
            order = np.concatenate([order, np.arange(len(order), len(scores))])
            candidates, similarities = candidates[order], similarities[order]
        return Shortlist(0, candidates, similarities), scores

    def _reranked(self, store, row: int, ranker: Ranker, head: Shortlist) -> tuple[np.ndarray, np.ndarray]:
        """(Positions in the shortlist ``head``, the best first; the scores of its candidates as people see them), both
        [n]. The transformer reorders the shortlist first, the method then what the transformer made of it; candidates
        of equal scores keep their order."""
        order = np.arange(len(head.candidates))
        shown = -order.astype(np.float64)
        space = SearchSpace(store, np.array([row]), self.rows, self.whitening)
        vars(space)["gallery"] = self.gallery  # known already
        if ranker.transformer:
            from scipy.special import expit

            (logits,) = ranker.transformer.logits(space, [head])
            keys = ranker.transformer.fusion.scores(head.similarities, logits)
            order, shown = np.argsort(-keys, kind="stable"), expit(logits)
        if ranker.method:
            shortlist = Shortlist(0, head.candidates[order], head.similarities[order])
            (scores,) = ranker.method.scores(space, [shortlist])
            shown = np.empty(len(order))
            shown[order] = scores
            order = order[np.argsort(-np.asarray(scores), kind="stable")]
        return order, shown

    def _globals(self, store, rows) -> np.ndarray:
        vectors = l2_normalize(read_globals(store, rows))
        return self.whitening.apply(vectors) if self.whitening else vectors


def ranker_of(manifest: Manifest, args) -> Ranker:
    """The method that the options of tools/search.py ask for."""
    return make_ranker(manifest, args.method, args.reranker, args.fusion, args.num_rerank, args.max_local)


def make_ranker(
    manifest: Manifest,
    method: str | None = None,
    checkpoint: str | None = None,
    fusion: str | None = None,
    num_rerank: int | None = None,
    max_local: int = MAX_LOCAL,
) -> Ranker:
    """The method asked for; without one the transformer where a checkpoint is given, SHIPPED_METHOD for the shipped
    model, else search alone.

    fusion: a fusion.json of tools/tune_fusion.py; max_local: local descriptors that the transformer reads of an image.
    Raises InputError for what does not go together.
    """
    if checkpoint and method and method.split("+")[0] != "rrt":
        raise InputError(
            f"--reranker {checkpoint}: a checkpoint is for --method rrt or rrt+..., not {method}; leave one of the "
            "two out"
        )
    for option, value in (("num_rerank", num_rerank), ("max_local", max_local)):
        if value is not None and value < 1:
            search_alone = "; --method none is search alone" if option == "num_rerank" else ""
            raise InputError(f"--{option} {value}: expected 1 or more{search_alone}")
    shipped = is_shipped(manifest.extraction["flags"])
    method = method or ("rrt" if checkpoint else SHIPPED_METHOD if shipped else None)
    if method is None:
        return Ranker(
            "none",
            note="no reranker: there is no checkpoint for this model, give one by --reranker; global search alone",
        )
    if method == "none":
        return Ranker("none")
    first, _, others = method.partition("+")
    if "rrt" in others.split("+"):
        raise InputError(f"--method {method}: rrt can only be the first of a chain here")
    if first != "rrt":
        if fusion:
            raise InputError(f"--fusion {fusion}: fusion is for --method rrt, not {method}; leave it out")
        return Ranker(method, method=make_chain(method, SETTINGS), depth=num_rerank)
    if not checkpoint:
        raise InputError(f"--method {method}: no checkpoint; train one with experiment.py and give it by --reranker")
    from rrt.network.reranker import Reranker
    from rrt.rerankers.fusion import read_fusion
    from rrt.rerankers.transformer import Transformer

    verified = make_chain(others, SETTINGS) if others else None
    transformer = Transformer(Reranker.from_checkpoint(checkpoint, max_local=max_local), read_fusion(fusion))
    return Ranker(method, transformer, verified, num_rerank)
