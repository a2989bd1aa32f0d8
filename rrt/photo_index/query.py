"""An index opened for searching: exact search by global descriptors, then a reranking method."""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rrt.calibration import GROUPS
from rrt.errors import InputError
from rrt.files.atomic import write_bytes
from rrt.files.images import Unreadable, small_jpeg
from rrt.photo_index.manifest import read_manifest
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.scan import inside
from rrt.photo_index.segments import alive_rows, open_segments
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.chain import reorder
from rrt.search.exact import search
from rrt.search.whitening import load_whitening
from rrt.store.checked import read_globals
from rrt.store.joined import JoinedStore
from rrt.store.linear import l2_normalize
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from rrt.store.store import Store

THUMBNAIL_SIDE = 256  # pixels


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
    """A result: cosine of the (whitened) global descriptors; the method's score, None where it gave none; the
    probability that both show the same, and its group of ``rrt.calibration.GROUPS``, None where there is no
    calibration; shared: points in common with the query that made it sure (rrt/photo_index/second_look.py), 0: none
    did."""

    entry: Entry
    similarity: float
    score: float | None
    probability: float | None = None
    group: str | None = None
    shared: int = 0

    @property
    def name(self) -> str:
        """The first path of the photograph, below the folder of the index."""
        return self.entry.name


class Hits(list[Hit]):
    """Results, the best first."""

    @property
    def found(self) -> bool | None:
        """Whether the first result at least may show the same; False: nothing like it is in these photographs; None:
        without a calibration nobody knows."""
        if self and self[0].group is None:
            return None
        return bool(self) and self[0].group != GROUPS[-1]

    def first(self, k: int | None) -> Hits:
        """The k best, None = all."""
        return Hits(self[:k])


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

    @property
    def version(self) -> str:
        """A text of its own for each update of the index."""
        return "-".join(map(str, self._seen))

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

    def search(
        self, query: int | ImageRecord, ranker: Ranker, k: int | None = 20, among: np.ndarray | None = None
    ) -> Hits:
        """The k best entries (None: all) for an entry, which is left out, or for an image from anywhere. among: entries
        searched, None = all."""
        if isinstance(query, ImageRecord):
            store = JoinedStore(self.store, MemoryStore.of([query], self.store.local_dim))
            row, own = len(self.store), -1
        else:
            store, row, own = self.store, int(self.rows[query]), query
        found, scores = self.ranked(store, row, ranker, k, own, among)
        probabilities, groups = (
            ranker.probabilities(scores, found.similarities),
            ranker.groups(scores, found.similarities),
        )
        local = store.read_packed(np.array([row]), None, ("descriptors",)).descriptors
        if local is not None and ranker.shows_nothing(local):
            probabilities, groups = np.zeros(len(scores)), [GROUPS[-1]] * len(scores)
        columns = found.candidates, found.similarities, scores, probabilities, groups
        return Hits(
            Hit(self.entries[number], float(similarity), _known(score), _known(probability), group)
            for number, similarity, score, probability, group in zip(*(column[:k] for column in columns))
        )

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
        listed = Shortlist(0, candidates, similarities)
        scores = np.full(len(candidates), np.nan)
        if ranker.method:
            space = SearchSpace(store, np.array([row]), self.rows, self.whitening)
            vars(space)["gallery"] = self.gallery  # known already
            *before, (last, most) = ranker.stages
            for method, depth in before:
                (listed,) = reorder(space, method, [listed], depth)
            head = Shortlist(0, listed.candidates[:most], listed.similarities[:most])
            (found,) = last.scores(space, [head])
            order = np.arange(len(candidates))
            order[: len(found)] = np.argsort(-np.asarray(found), kind="stable")
            scores[: len(found)] = np.asarray(found)[order[: len(found)]]
            listed = Shortlist(0, listed.candidates[order], listed.similarities[order])
        return listed, scores

    def _globals(self, store, rows) -> np.ndarray:
        vectors = l2_normalize(read_globals(store, rows))
        return self.whitening.apply(vectors) if self.whitening else vectors


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
