"""Answers to queries: which photograph is meant, its descriptors, the search; for the web page also photographs and
small images of an index, and its searches in turn, one at a time after a short queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.files.images import Box, TooLarge, Unreadable, size_of
from rrt.files.names import shown
from rrt.photo_index.extraction import Describer
from rrt.photo_index.query import Hit, PhotoIndex
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.report import Answer, as_json, json_text

VIEW_SIDE = 1200  # pixels of a photograph that is shown large
LARGEST_PAGE = 200


def answer_photograph(
    index: PhotoIndex, number: int, ranker: Ranker, describer: Describer, k: int, box: Box | None = None
) -> Answer:
    """Photographs like one of the index, which is left out; its own descriptors serve unless a box is searched for."""
    file, entry = index.file_of(number), index.entries[number]
    if not box:
        return Answer(entry.name, index.search(number, ranker, k), number, number, file)
    if file is None:
        raise InputError(
            f"{shown(entry.name)}: the photograph is no longer there or has changed; run tools/search.py build again"
        )
    hits = [
        hit
        for hit in _described(index, file, entry.name, ranker, describer, k + 1, box)
        if hit.entry.content != entry.content
    ]
    return Answer(entry.name, hits[:k], number, number, file, box)


def answer_file(
    index: PhotoIndex, file: Path, name: str, ranker: Ranker, describer: Describer, k: int, box: Box | None = None
) -> Answer:
    """Photographs like an image from anywhere, called ``name``; one of the same bytes is found, too."""
    same = index.contents.get(sha256_of_file(file), -1)
    return Answer(name, _described(index, file, name, ranker, describer, k, box), -1, same, file, box)


def _described(
    index: PhotoIndex, file: Path, name: str, ranker: Ranker, describer: Describer, k: int, box: Box | None
) -> list[Hit]:
    try:
        record = describer.describe(file.absolute(), box)
    except InputError as error:
        raise InputError(f"{shown(name)}: {error}") from None
    return index.search(record, ranker, k)


class Refusal(Exception):
    """A request that is not answered: an HTTP status and a line for people."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass
class Service:
    """index: opened; it is opened again when it was updated. k: results. waiting: searches that may wait for the one at
    work."""

    index: PhotoIndex
    ranker: Ranker
    describer: Describer
    k: int = 30
    max_pixels: int = 80_000_000
    waiting: int = 4

    def __post_init__(self):
        self._queue = threading.BoundedSemaphore(1 + self.waiting)
        self._searching, self._opening = threading.Lock(), threading.Lock()
        self._drawing = threading.BoundedSemaphore(3)  # images decoded at a time, each of some megabytes

    def current(self) -> PhotoIndex:
        """The index as it is now; as it was, while an update leaves it without photographs."""
        with self._opening:
            if self.index.changed():
                try:
                    self.index = PhotoIndex(self.index.folder)
                except InputError:
                    pass
            return self.index

    def photographs(self, offset: int, limit: int, text: str) -> dict:
        """A page of the photographs whose names contain ``text``."""
        index, wanted = self.current(), text.casefold()
        found = (
            [entry for entry in index.entries if any(wanted in path.casefold() for path in entry.paths)]
            if text
            else index.entries
        )
        page = found[offset : offset + min(limit, LARGEST_PAGE)]
        entries = [
            {"id": entry.content, "name": json_text(entry.name), "more": len(entry.paths) - 1, "size": entry.size}
            for entry in page
        ]
        return {
            "total": len(found),
            "all": len(index.entries),
            "method": self.ranker.name,
            "note": self.ranker.note,
            "photographs": entries,
        }

    def jpeg(self, content: str, large: bool) -> bytes:
        """A photograph as a small JPEG, or a larger one. Raises Refusal."""
        index = self.current()
        number = index.contents.get(content)
        if number is None:
            raise Refusal(404, "no such photograph in the index")
        with self._drawing:
            made = index.jpeg(number, VIEW_SIDE) if large else index.thumbnail(number)
        if made is None:
            raise Refusal(404, "the photograph is no longer there, or has changed")
        return made

    def search_photograph(self, content: str, box: Box | None) -> dict:
        """Photographs like one of the index. Raises Refusal."""
        with self._turn() as index:
            number = index.contents.get(content)
            if number is None:
                raise Refusal(404, "no such photograph in the index")
            return self._answered(
                index, lambda: answer_photograph(index, number, self.ranker, self.describer, self.k, box)
            )

    def search_file(self, file: Path, name: str, box: Box | None) -> dict:
        """Photographs like an uploaded image. Raises Refusal."""
        self.check_image(file)
        with self._turn() as index:
            return self._answered(
                index, lambda: answer_file(index, file, name, self.ranker, self.describer, self.k, box)
            )

    def check_image(self, file: Path) -> None:
        """Refusal of what is no image or would take too much memory; its head alone is read."""
        try:
            width, height = size_of(file)
        except TooLarge:
            raise Refusal(413, f"the image has more than {self.max_pixels / 1e6:g} megapixels") from None
        except Unreadable:
            raise Refusal(415, "not an image that can be read; JPEG, PNG, WebP, TIFF, GIF and BMP can") from None
        if width * height > self.max_pixels:
            raise Refusal(
                413, f"the image has {width * height / 1e6:.0f} megapixels; at most {self.max_pixels / 1e6:g} are taken"
            )

    @contextmanager
    def _turn(self) -> Iterator[PhotoIndex]:
        if not self._queue.acquire(blocking=False):
            raise Refusal(503, "too many searches at a time; try again in a moment")
        try:
            with self._searching:
                yield self.current()
        finally:
            self._queue.release()

    def _answered(self, index: PhotoIndex, search: Callable[[], Answer]) -> dict:
        began = time.perf_counter()
        try:
            answer = search()
        except InputError as error:
            raise Refusal(422, str(error)) from None
        found = as_json(index, answer, self.ranker)
        for result in found["results"]:
            result["id"], result["more"] = result.pop("sha256"), len(result.pop("paths")) - 1
        return found | {"seconds": round(time.perf_counter() - began, 3)}
