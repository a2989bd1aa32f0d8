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
from rrt.photo_index.manifest import MANIFEST, read_manifest
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.scan import inside
from rrt.photo_index.segments import alive_rows, open_segments
from rrt.rerankers.base import SearchSpace, Shortlist, unit_globals
from rrt.rerankers.chain import reorder_scored
from rrt.search.exact import search
from rrt.search.whitening import load_whitening
from rrt.store.joined import JoinedStore
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from rrt.store.store import Store

THUMBNAIL_SIDE = 256  # pixels


class Entry(NamedTuple):
    """An image of the index. content: SHA-256 of its file's bytes; paths: of all photographs with these bytes, relative
    to the folder of photographs; size: (width, height), upright."""

    content: str
    paths: list[str]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The first of its paths."""
        return self.paths[0]


class Hit(NamedTuple):
    """A result. similarity: cosine of the (whitened) global descriptors; score: of the reranking method, None where it
    gave none; probability: that both images show the same; group: one of ``rrt.calibration.GROUPS``, None like the
    probability where there is no calibration; shared: points in common with the query, where a second look
    (rrt/photo_index/second_look.py) decided by them, else 0."""

    entry: Entry
    similarity: float
    score: float | None
    probability: float | None = None
    group: str | None = None
    shared: int = 0

    @property
    def name(self) -> str:
        """The first path of the photograph, relative to the folder of photographs."""
        return self.entry.name


class Hits(list[Hit]):
    """Results, the best first."""

    @property
    def found(self) -> bool | None:
        """Whether the first result may show the same as the query. False: nothing like the query is in these
        photographs; None: not known, because there is no calibration."""
        if self and self[0].group is None:
            return None
        return bool(self) and self[0].group != GROUPS[-1]

    def first(self, k: int | None) -> Hits:
        """The k best, None = all."""
        return Hits(self[:k])


class PhotoIndex:
    """An index as it was when it was opened; ``changed()`` says whether it was updated since.

    entries: the N images with descriptors, in the order of their first paths; rows: int64 [N], theirs in ``store``.
    Raises InputError when there is no index or it is damaged.
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
        """A text that is different after each update of the index."""
        return "-".join(map(str, self._seen))

    @cached_property
    def gallery(self) -> np.ndarray:
        """Global descriptors of the entries, float32 [N, D] of unit length, whitened."""
        return unit_globals(self.store, self.rows, self.whitening)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """{path of a photograph: number of its entry}."""
        return {path: number for number, entry in enumerate(self.entries) for path in entry.paths}

    @cached_property
    def contents(self) -> dict[str, int]:
        """{SHA-256: number of the entry}."""
        return {entry.content: number for number, entry in enumerate(self.entries)}

    def find(self, image: str) -> int | None:
        """The number of the entry that a user means by the name of a photograph, or by the path of a file in the folder
        of photographs; None where there is none. Raises InputError for a photograph without descriptors."""
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
        """Whether ``image``, the name by which the entry ``number`` was found, is also the path of a different file."""
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
        """The file of an entry, which has not changed since it was indexed and is not behind a link that leads out of
        the folder; None when there is none."""
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
            kept = path.read_bytes()
            if kept.startswith(b"\xff\xd8") and kept.endswith(b"\xff\xd9"):  # whole
                return kept
        except OSError:
            pass
        made = self.jpeg(number, THUMBNAIL_SIDE)
        if made and (self.folder / MANIFEST).exists():  # or a folder that was deleted would come back with these alone
            try:
                write_bytes(path, made)
            except OSError:
                pass  # a read-only index
        return made

    def jpeg(self, number: int, side: int) -> bytes | None:
        """An entry as an upright JPEG whose longer side has at most ``side`` pixels; None as in thumbnail()."""
        file = self.file_of(number)
        try:
            return small_jpeg(file, side, turned=True) if file else None
        except Unreadable:
            return None

    def search(
        self, query: int | ImageRecord, ranker: Ranker, k: int | None = 20, among: np.ndarray | None = None
    ) -> Hits:
        """The k best entries (None: all) for the entry ``query``, which is left out, or for the descriptors of another
        image. among: numbers of the entries to search, None = all."""
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
        ``store``, whose first rows must be those of the index.

        k: number of entries wanted, None = all; own: entry that is the query and is left out, -1 = none; among: numbers
        of the entries to search, None = all.
        """
        gallery = self.gallery if among is None else self.gallery[among]
        depth = ranker.candidates
        wanted = None if k is None or depth is None else max(k, depth) + (own >= 0)
        similarities, found = search(gallery, unit_globals(store, np.array([row]), self.whitening), wanted)
        found = found[0] if among is None else np.asarray(among)[found[0]]
        keep = found != own
        candidates, similarities = found[keep], similarities[0][keep]
        listed = Shortlist(0, candidates, similarities)
        scores = np.full(len(candidates), np.nan)
        if ranker.method:
            space = SearchSpace(store, np.array([row]), self.rows, self.whitening)
            vars(space)["gallery"] = self.gallery  # computed already
            for method, depth in ranker.stages:
                ((listed, found),) = reorder_scored(space, method, [listed], depth)
            scores[: len(found)] = found
        return listed, scores


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
