"""What the web page asks of an index: photographs, small images, searches; one search at a time, a short queue before
it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from rrt.errors import InputError
from rrt.photo_index.engine import Box, answer_file, answer_photograph
from rrt.photo_index.extraction import Describer
from rrt.photo_index.query import PhotoIndex, Ranker
from rrt.photo_index.report import as_json, json_text

VIEW_SIDE = 1200  # pixels of a photograph that is shown large
LARGEST_PAGE = 200
# What is taken as an image; Pillow knows more kinds, some of which start other programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


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
    _places: threading.Semaphore = field(init=False)

    def __post_init__(self):
        self._places = threading.BoundedSemaphore(1 + self.waiting)
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
        shown = [
            {"id": entry.content, "name": json_text(entry.name), "more": len(entry.paths) - 1, "size": entry.size}
            for entry in page
        ]
        return {
            "total": len(found),
            "all": len(index.entries),
            "method": self.ranker.name,
            "note": self.ranker.note,
            "photographs": shown,
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
        self.check_picture(file)
        with self._turn() as index:
            return self._answered(
                index, lambda: answer_file(index, file, name, self.ranker, self.describer, self.k, box)
            )

    def check_picture(self, file: Path) -> None:
        """Refusal of what is no image or would take too much memory; its head alone is read."""
        try:
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            raise Refusal(413, f"the image has more than {self.max_pixels / 1e6:g} megapixels") from None
        except Exception:  # Pillow raises many kinds; each means the same
            raise Refusal(415, "not an image that can be read; JPEG, PNG, WebP, TIFF, GIF and BMP can") from None
        if width * height > self.max_pixels:
            raise Refusal(
                413, f"the image has {width * height / 1e6:.0f} megapixels; at most {self.max_pixels / 1e6:g} are taken"
            )

    @contextmanager
    def _turn(self):
        if not self._places.acquire(blocking=False):
            raise Refusal(503, "too many searches at a time; try again in a moment")
        try:
            with self._searching:
                yield self.current()
        finally:
            self._places.release()

    def _answered(self, index, search) -> dict:
        began = time.perf_counter()
        try:
            answer = search()
        except InputError as error:
            raise Refusal(422, str(error)) from None
        found = as_json(index, answer, self.ranker)
        for result in found["results"]:
            result["id"], result["more"] = result.pop("sha256"), len(result.pop("paths")) - 1
        return found | {"seconds": round(time.perf_counter() - began, 3)}


def parse_json_box(text: str) -> Box | None:
    """``[x1, y1, x2, y2]`` or nothing. Raises Refusal."""
    if not text:
        return None
    try:
        box = json.loads(text)
        x1, y1, x2, y2 = box
        if all(type(value) is int for value in box) and 0 <= x1 < x2 <= 10**6 and 0 <= y1 < y2 <= 10**6:
            return x1, y1, x2, y2
    except (ValueError, TypeError, RecursionError):
        pass
    raise Refusal(400, "the box is not of the form [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
