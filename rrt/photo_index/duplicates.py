"""Near-duplicates in an index: photographs that are the same file, or changed copies of each other.

1. Candidates are pairs of photographs with similar global descriptors, found by exact search over all of them.
2. The images of each pair are compared (rrt/matching/copies.py), unless both photographs are already in one group. The
   results are kept in a file of the index, one line a pair, so that a later search compares only new pairs.
3. Photographs that are connected by copies form a group. Its first is the largest; the others say how they differ from
   it.

Only that file of the index is written; no photograph is changed or removed.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rrt.files.images import Unreadable, decode
from rrt.matching.copies import METHOD, UNFRAMED, Look, compare
from rrt.photo_index.listing import Listing
from rrt.photo_index.query import PhotoIndex
from rrt.progress import bar
from rrt.search.exact import search
from rrt.store.checked import read_globals
from rrt.store.linear import l2_normalize

KEPT = "duplicates.jsonl"
SAME_FILE, CHANGED = "the same file", "changed in several ways"
NEIGHBOURS = 24  # most photographs that one is compared with
SIMILAR = 0.35  # least cosine of the global descriptors of a candidate pair
_LOOKS = 512  # small images held at a time
_BLOCK = 1024  # photographs whose neighbours are searched at a time


class Member(NamedTuple):
    """A file of a group. number: of its entry in the index; path: relative to the folder of photographs; size: (width,
    height) in pixels; bytes: of the file; date: when it was taken, or else when the file last changed, as ISO 8601;
    changes: how it differs from the first file of the group (words of rrt.matching.copies, SAME_FILE, CHANGED), () for
    the first itself."""

    number: int
    path: str
    size: tuple[int, int]
    bytes: int
    date: str
    changes: tuple[str, ...]


class Group(NamedTuple):
    """Files that are copies of one image. The first is the largest, if possible one without a frame."""

    members: list[Member]

    @property
    def spare(self) -> int:
        """Bytes of all files but the first."""
        return sum(member.bytes for member in self.members[1:])


def find_groups(index: PhotoIndex, told: Callable[[int, int], None] = lambda done, all: None) -> list[Group]:
    """The groups of near-duplicates of an index, those with most spare bytes first. told(done, all): is called with the
    number of pairs that are compared, and of all pairs."""
    pairs = candidates(index)
    with Comparisons(index) as comparisons:
        together = _connected(index, comparisons, pairs, told)
        groups = [_group(index, numbers, comparisons) for numbers in together]
    dates = Listing(index).dates
    found = [Group(list(_members(index, group, dates))) for group in groups]
    return sorted(found, key=lambda group: (-group.spare, group.members[0].path))


def candidates(index: PhotoIndex) -> np.ndarray:
    """Pairs of entries to compare: int64 [n, 2], the smaller number first, each pair once. Pairs that share a
    photograph are near each other in the list, so that each small image is read few times."""
    table = index.gallery if index.whitening is None else l2_normalize(read_globals(index.store, index.rows))
    count, parts = len(table), []
    for start in bar(range(0, count, _BLOCK), "near photographs", "block", passing=True):
        similarities, found = search(table, table[start : start + _BLOCK], min(NEIGHBOURS + 1, count))
        row, place = np.nonzero(similarities >= SIMILAR)
        parts.append(np.stack([row + start, found[row, place]], 1))
    pairs = np.unique(np.sort(np.concatenate(parts), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    # Late, as this takes a fifth of a second to load and a query imports this module.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    graph = coo_array((np.ones(len(pairs), np.int8), pairs.T), (count, count)).tocsr()
    place = np.argsort(reverse_cuthill_mckee(graph + graph.T, symmetric_mode=True))
    return pairs[np.lexsort(np.sort(place[pairs], axis=1).T[::-1])]


class Comparisons:
    """Compares photographs of an index, and keeps what was found; a context manager."""

    def __init__(self, index: PhotoIndex):
        self.index = index
        self.path = index.folder / KEPT
        self.known = dict(_read_kept(self.path))
        self.look = lru_cache(_LOOKS)(self._look)

    def __enter__(self):
        try:
            self._file = open(self.path, "ab")
        except OSError:  # a read-only index
            self._file = None
        return self

    def __exit__(self, *exception):
        if self._file:
            self._file.close()

    def changes(self, first: int, second: int) -> tuple[str, ...] | None:
        """As rrt.matching.copies.compare(), for two entries; also None where a file is gone or cannot be read."""
        key = self.index.entries[first].content, self.index.entries[second].content
        if key not in self.known:
            look, other = self.look(first), self.look(second)
            if look is None or other is None:
                return None
            self.known[key] = compare(look, other)
            if self._file:
                line = json.dumps([METHOD, *key, self.known[key]])
                # One call writes the whole line, because another process may append to the file, too.
                os.write(self._file.fileno(), f"{line}\n".encode())
        return self.known[key]

    def _look(self, number: int) -> Look | None:
        content = self.index.thumbnail(number)
        try:
            return Look(decode(BytesIO(content)).pixels, self.index.entries[number].size) if content else None
        except Unreadable:
            return None


def _read_kept(path: Path) -> Iterator[tuple[tuple[str, str], tuple[str, ...] | None]]:
    """The comparisons that an index keeps, made by the present METHOD; a line that was cut short is skipped."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            method, first, second, changes = json.loads(line)
            if method == METHOD:
                yield (str(first), str(second)), None if changes is None else tuple(map(str, changes))
        except (ValueError, TypeError):
            continue


def _connected(index: PhotoIndex, comparisons: Comparisons, pairs: np.ndarray, told) -> list[list[int]]:
    """Groups of connected entries: two or more entries, or one entry with several files."""
    group_of = list(range(len(index.entries)))

    def top(number: int) -> int:
        while group_of[number] != number:
            number = group_of[number]
        return number

    for done, (a, b) in enumerate(bar(pairs.tolist(), "comparing", "pair")):
        told(done, len(pairs))
        if top(a) != top(b) and comparisons.changes(*_larger_first(index, (a, b))) is not None:
            group_of[top(b)] = top(a)
    told(len(pairs), len(pairs))
    groups = defaultdict(list)
    for number in range(len(group_of)):
        groups[top(number)].append(number)
    return [group for group in groups.values() if len(group) > 1 or len(index.entries[group[0]].paths) > 1]


def _larger_first(index: PhotoIndex, numbers) -> list[int]:
    """The entries by falling number of pixels, then of bytes."""

    def rank(number: int):
        entry = index.entries[number]
        return -entry.size[0] * entry.size[1], -index.manifest.photographs[entry.name].size, entry.name

    return sorted(numbers, key=rank)


def _group(index: PhotoIndex, numbers: list[int], comparisons: Comparisons) -> list[tuple[int, tuple[str, ...]]]:
    """(Entry, how it differs from the first) for each entry of a group; the first is the largest without a frame."""
    first, *others = _larger_first(index, numbers)
    changes = {other: comparisons.changes(first, other) for other in others}
    bare = next((other for other in others if UNFRAMED in (changes[other] or ())), None)
    if bare is not None:
        first, others = bare, [first, *(other for other in others if other != bare)]
        changes = {other: comparisons.changes(first, other) for other in others}
    return [(first, ()), *((other, changes[other] or (CHANGED,)) for other in others)]


def _members(index: PhotoIndex, group, dates) -> Iterator[Member]:
    for number, changes in group:
        entry = index.entries[number]
        for path in entry.paths:
            kept = index.manifest.photographs[path]
            yield Member(number, path, entry.size, kept.size, dates[number][0], changes)
            changes = changes or (SAME_FILE,)
