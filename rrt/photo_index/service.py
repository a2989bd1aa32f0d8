"""Answers to queries: finds the photograph that is meant, its descriptors, and what is like it. For the web page also
the photographs and small images of an index, and searches one at a time, after a short queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.files.images import Box, TooLarge, Unreadable, kind_of, size_of
from rrt.files.names import shown
from rrt.photo_index.deadline import is_given_up
from rrt.photo_index.duplicates_view import Duplicates
from rrt.photo_index.extraction import Describer
from rrt.photo_index.kept import VIEW_SIDE, Kept, Recalling, Upload
from rrt.photo_index.listing import EVERY, Listing, Wanted
from rrt.photo_index.query import Hits, PhotoIndex
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.report import Answer, as_json, json_text
from rrt.photo_index.second_look import LOOKED_AT, look_again
from rrt.photo_index.segments import under_way
from rrt.photo_index.why import shared_details
from rrt.store.records import ImageRecord

LARGEST_PAGE = 200
MOST_FOLDERS = 5000  # that the page offers as filters
MOST_UPLOADS, UPLOADED_BYTES = 32, 128e6
MOST_RECORDS = 64  # descriptors of queries, about 0.3 MB each
NOT_THERE = "no such photograph in the index"
GONE = "the photograph is no longer there, or has changed"


def answer_photograph(
    index: PhotoIndex,
    number: int,
    ranker: Ranker,
    describer: Describer | Recalling,
    k: int,
    box: Box | None = None,
    among: np.ndarray | None = None,
) -> Answer:
    """Photographs like entry ``number``, which is left out. Its own descriptors are used unless a box is searched for.
    among: numbers of the entries to search, None = all. Raises InputError."""
    file, entry = index.file_of(number), index.entries[number]
    if box:
        file = there(index, number)
        found = _described(index, file, entry.name, ranker, describer, k + 1, box, among)
        hits = Hits(hit for hit in found if hit.entry.content != entry.content)
    else:
        hits = index.search(number, ranker, max(k, LOOKED_AT), among)
    return Answer(entry.name, look_again(index, hits, ranker, file, box).first(k), number, number, file, box)


def there(index: PhotoIndex, number: int) -> Path:
    """The file of an entry. Raises InputError where it is gone or has changed."""
    file = index.file_of(number)
    if file is None:
        raise InputError(
            f"{shown(index.entries[number].name)}: the photograph is no longer there or has changed; run "
            "tools/search.py build again"
        )
    return file


def answer_file(
    index: PhotoIndex,
    file: Path,
    name: str,
    ranker: Ranker,
    describer: Describer | Recalling,
    k: int,
    box: Box | None = None,
    among: np.ndarray | None = None,
) -> Answer:
    """Photographs like an image from anywhere, called ``name``; one with the same bytes is not left out. among: as in
    answer_photograph(). Raises InputError."""
    same = index.contents.get(sha256_of_file(file), -1)
    hits = _described(index, file, name, ranker, describer, k, box, among)
    return Answer(name, look_again(index, hits, ranker, file, box).first(k), -1, same, file, box)


def _described(index, file, name, ranker, describer, k, box, among) -> Hits:
    try:
        record = describer.describe(file.absolute(), box)
    except InputError as error:
        raise InputError(f"{shown(name)}: {error}") from None
    return index.search(record, ranker, max(k, LOOKED_AT + 1), among)


class Refusal(Exception):
    """A request that is refused, with an HTTP status and a line for people."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Query(NamedTuple):
    """What a search of the page is for. content: SHA-256 of a photograph of the index, or of an upload; box: the part
    that is searched for, None = the whole."""

    content: str
    uploaded: bool
    box: Box | None = None


@dataclass
class Service:
    """index: is opened again when it was updated. k: number of results. max_pixels: of an upload. waiting: searches
    that may wait for the running one. uploads: images searched for, which are kept for a while."""

    index: PhotoIndex
    ranker: Ranker
    describer: Describer
    k: int = 30
    max_pixels: int = 80_000_000
    waiting: int = 4
    uploads: Kept[Upload] = field(
        default_factory=lambda: Kept(MOST_UPLOADS, UPLOADED_BYTES, lambda upload: len(upload.content))
    )

    def __post_init__(self):
        self._places = threading.BoundedSemaphore(1 + self.waiting)
        self._searching, self._opening = threading.Lock(), threading.Lock()
        self._drawing = threading.BoundedSemaphore(3)  # images decoded at a time; each takes some megabytes
        self._records = Kept[ImageRecord](MOST_RECORDS)
        self._listing = Listing(self.index)
        self.duplicates = Duplicates(self.current)
        self._doing, self._asked = "", 0

    def current(self) -> PhotoIndex:
        """The index as it is now; the previous one while an update leaves it without photographs."""
        with self._opening:
            if self.index.changed():
                try:
                    self.index = PhotoIndex(self.index.folder)
                except InputError:
                    pass
            return self.index

    def listing(self) -> Listing:
        """The list of the index as it is now."""
        return self._listing_of(self.current())

    def _listing_of(self, index: PhotoIndex) -> Listing:
        if self._listing.index is not index:
            self._listing = Listing(index)
        return self._listing

    def about(self) -> dict:
        """What the page needs to know of the index and of its search."""
        listing = self.listing()
        return {
            "all": len(listing.index.entries),
            "method": self.ranker.name,
            "note": self.ranker.note,
            "max_pixels": self.max_pixels,
            "folders": [[json_text(folder), count] for folder, count in listing.folders[:MOST_FOLDERS]],
        }

    def photographs(self, offset: int, limit: int, wanted: Wanted = EVERY, sort: str = "name") -> dict:
        """Photographs that pass the filters ``wanted``, in an order of rrt.photo_index.listing.SORTS."""
        listing = self.listing()
        found = listing.ordered(listing.select(wanted), sort)
        page = found[offset : offset + min(limit, LARGEST_PAGE)].tolist()
        return {"total": len(found), "photographs": [listing.plain(number) for number in page]}

    def photograph(self, content: str = "", name: str = "") -> dict:
        """All that is known of a photograph, given by its SHA-256 or by one of its paths. Raises Refusal."""
        listing = self.listing()
        index = listing.index
        number = index.numbers.get(name) if name else index.contents.get(content)
        if number is None:
            raise Refusal(404, NOT_THERE)
        entry, root = index.entries[number], Path(index.manifest.root)
        return listing.plain(number) | {
            "paths": [json_text(str(root / path)) for path in entry.paths],
            "bytes": index.manifest.photographs[entry.name].size,
        }

    def jpeg(self, content: str, large: bool) -> bytes:
        """A photograph as a small or a larger JPEG. Raises Refusal."""
        index = self.current()
        number = _number(index, content)
        with self._drawing:
            made = index.jpeg(number, VIEW_SIDE) if large else index.thumbnail(number)
        if made is None:
            raise Refusal(404, GONE)
        return made

    def original(self, content: str) -> tuple[Path, str, str]:
        """(File, name, image format by its header) of a photograph. Raises Refusal."""
        index = self.current()
        number = _number(index, content)
        file = index.file_of(number)
        try:
            if file:
                return file, json_text(file.name), kind_of(file)
        except Unreadable:
            pass
        raise Refusal(404, GONE)

    def upload(self, content: str) -> Upload:
        """An image that was searched for. Raises Refusal where it is not kept any more."""
        kept = self.uploads.get(content)
        if kept is None:
            raise Refusal(404, "this picture is kept no longer; choose it again")
        return kept

    def search(self, query: Query, wanted: Wanted = EVERY) -> dict:
        """Photographs like one of the index or like an upload, among those that pass the filters. Raises Refusal."""
        with self._turn() as index:
            if query.uploaded:
                return self._search_upload(index, self.upload(query.content), query, wanted)
            number = _number(index, query.content)
            describer = self._recalling(query)
            return self._answered(
                index,
                lambda among: answer_photograph(index, number, self.ranker, describer, self.k, query.box, among),
                wanted,
            )

    def search_file(self, file: Path, name: str, box: Box | None = None, wanted: Wanted = EVERY) -> dict:
        """As search(), for an image that is uploaded now, and kept. Raises Refusal."""
        size = self.check_image(file)
        with self._turn() as index:
            content = sha256_of_file(file)
            upload = self.uploads.get(content)
            if upload is None:
                try:
                    with self._drawing:
                        upload = Upload.of(file, name, size)
                except Unreadable as error:
                    raise Refusal(422, f"{shown(name)}: {error}") from None
                self.uploads.put(content, upload)
            return self._search_upload(index, upload, Query(content, True, box), wanted)

    def check_image(self, file: Path) -> tuple[int, int]:
        """(Width, height) of an image, by its header. Raises Refusal where it is no image or would take too much
        memory."""
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
        return width, height

    def details(self, query: Query, content: str) -> dict:
        """What a query shares with a photograph, as rrt.photo_index.why.shared_details() gives it. Raises Refusal."""
        with self._turn() as index:
            number = _number(index, content)
            try:
                describer = self._recalling(query)
                if query.uploaded:
                    upload = self.upload(query.content)
                    with upload.as_file() as file:
                        record, whole = describer.describe(file, query.box), upload.size
                else:
                    record = own = _number(index, query.content)
                    whole = index.entries[own].size
                    if query.box:
                        record = describer.describe(there(index, own), query.box)
                return shared_details(index, record, number, whole, query.box)
            except InputError as error:
                raise Refusal(422, str(error)) from None

    def progress(self) -> dict:
        """doing: what the running search does, "" without one; waiting: how many searches wait for it; version: changes
        with the index; describing: how many of how many new photographs are described, None without a build."""
        index = self.current()
        waiting, describing = max(0, self._asked - 1), under_way(index.folder)
        return {"doing": self._doing, "waiting": waiting, "version": index.version, "describing": describing}

    @contextmanager
    def _turn(self) -> Iterator[PhotoIndex]:
        if not self._places.acquire(blocking=False):
            raise Refusal(503, "too many searches at a time; try again in a moment")
        try:
            with self._counted(), self._searching:
                if is_given_up():
                    raise Refusal(503, "this search waited too long for others; try again in a moment")
                self._tell("comparing")
                yield self.current()
        finally:
            self._tell("")
            self._places.release()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._opening:
            self._asked += 1
        try:
            yield
        finally:
            with self._opening:
                self._asked -= 1

    def _tell(self, doing: str) -> None:
        self._doing = doing

    def _recalling(self, query: Query) -> Recalling:
        return Recalling(self.describer, self._records, query.content, self._tell)

    def _search_upload(self, index: PhotoIndex, upload: Upload, query: Query, wanted: Wanted) -> dict:
        describer = self._recalling(query)
        with upload.as_file() as file:
            found = self._answered(
                index,
                lambda among: answer_file(index, file, upload.name, self.ranker, describer, self.k, query.box, among),
                wanted,
            )
        return found | {"upload": query.content, "size": upload.size}

    def _answered(self, index: PhotoIndex, search: Callable[[np.ndarray | None], Answer], wanted: Wanted) -> dict:
        began, listing = time.perf_counter(), self._listing_of(index)
        among = listing.select(wanted) if wanted else None
        if among is not None and not len(among):
            raise Refusal(422, "no photograph passes the filters; change them")
        try:
            answer = search(among)
        except InputError as error:
            raise Refusal(422, str(error)) from None
        found = as_json(index, answer, self.ranker)
        for result in found["results"]:
            result |= listing.plain(index.contents[result.pop("sha256")])
            del result["paths"]
        return found | {"seconds": round(time.perf_counter() - began, 3)}


def _number(index: PhotoIndex, content: str) -> int:
    number = index.contents.get(content)
    if number is None:
        raise Refusal(404, NOT_THERE)
    return number
