"""The photographs of an index as a list to look through: filtered by words of their names, folder and date, and
sorted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np

from rrt.files.names import same_text
from rrt.photo_index.dates import read_dates
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.report import json_text

SORTS = ("name", "newest", "oldest", "largest")


@dataclass(frozen=True)
class Wanted:
    """Filters of the list; an empty one passes everything. text: words that must all occur in one of the paths; folder:
    must contain one of the paths, at any depth; since, until: days such as 2024-05-31, both included."""

    text: str = ""
    folder: str = ""
    since: str = ""
    until: str = ""

    def __bool__(self):
        return bool(self.text.strip() or self.folder or self.since or self.until)


EVERY = Wanted()


class Listing:
    """The list of the photographs of an opened index."""

    def __init__(self, index: PhotoIndex):
        self.index = index

    @cached_property
    def dates(self) -> list[tuple[str, bool]]:
        """For each entry (time as ISO 8601, whether the photograph was taken then); otherwise its file was changed
        then."""
        return [self._date(number) for number in range(len(self.index.entries))]

    @cached_property
    def folders(self) -> list[tuple[str, int]]:
        """(Folder relative to the folder of photographs, number of photographs in it at any depth), by name."""
        direct = Counter(frozenset(path.rpartition("/")[0] for path in entry.paths) for entry in self.index.entries)
        counts = Counter[str]()
        for folders, number in direct.items():
            for folder in {above for own in folders for above in (own, *_above(own))} - {""}:
                counts[folder] += number
        return sorted(counts.items())

    def select(self, wanted: Wanted) -> np.ndarray:
        """Numbers int64 [n] of the entries that pass the filters, rising, and so by name."""
        numbers = range(len(self.index.entries))
        if words := same_text(wanted.text).casefold().split():
            numbers = [number for number in numbers if self._fits(number, words)]
        if wanted.folder:
            below = wanted.folder.rstrip("/") + "/"
            entries = self.index.entries
            numbers = [
                number for number in numbers if any(json_text(path).startswith(below) for path in entries[number].paths)
            ]
        if wanted.since or wanted.until:
            last = wanted.until or "9999-12-31"
            numbers = [number for number in numbers if wanted.since <= self.dates[number][0][:10] <= last]
        return np.array(numbers, np.int64)

    def ordered(self, numbers: np.ndarray, sort: str) -> np.ndarray:
        """The entries ``numbers`` [n] in the order ``sort``, one of SORTS; equal ones stay as they were."""
        if sort == "largest":
            return numbers[np.argsort(-self._pixels[numbers], kind="stable")]
        if sort in ("newest", "oldest"):
            ranks = self._ages[numbers]
            return numbers[np.argsort(-ranks if sort == "newest" else ranks, kind="stable")]
        return numbers

    def plain(self, number: int) -> dict:
        """What lists show of an entry, as plain values; `taken`: whether the photograph was taken at `date`, as in
        dates."""
        entry, (date, told) = self.index.entries[number], self._date(number)
        return {
            "id": entry.content,
            "name": json_text(entry.name),
            "more": len(entry.paths) - 1,
            "size": entry.size,
            "date": date,
            "taken": told,
        }

    @cached_property
    def _told(self) -> dict[str, str]:
        return read_dates(self.index.folder)

    def _date(self, number: int) -> tuple[str, bool]:
        entry = self.index.entries[number]
        if date := self._told.get(entry.content):
            return date, True
        changed = self.index.manifest.photographs[entry.name].mtime_ns // 10**9
        return datetime.fromtimestamp(changed).isoformat(), False

    def _fits(self, number: int, words: list[str]) -> bool:
        return any(all(word in text for word in words) for text in self._texts[number])

    @cached_property
    def _texts(self) -> list[list[str]]:
        return [[same_text(path).casefold() for path in entry.paths] for entry in self.index.entries]

    @cached_property
    def _ages(self) -> np.ndarray:
        """Rank of the date of each entry among all dates, int64 [N]."""
        return np.unique([date for date, _ in self.dates], return_inverse=True)[1]

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.array([width * height for width, height in (entry.size for entry in self.index.entries)])


def _above(folder: str) -> Iterator[str]:
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        yield folder
