"""The near-duplicates of an index for its page. A thread searches for them when someone asks for the first time, and
again when the index was updated."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from rrt.photo_index.duplicates import Group, find_groups
from rrt.photo_index.duplicates_report import plain
from rrt.photo_index.query import PhotoIndex

LARGEST_PAGE = 100  # groups
_NICE = 10  # a lower priority, so that searches of the page go first
_ENDS_WITHIN = 10.0  # seconds


class _Outdated(Exception):
    """The index was updated during the search."""


class Duplicates:
    """The search for near-duplicates and its result. index: a function that returns the index as it is now."""

    def __init__(self, index: Callable[[], PhotoIndex]):
        self._index = index
        self._lock = threading.Lock()
        self._searched: PhotoIndex | None = None  # by the search that was started last
        self._thread: threading.Thread | None = None
        self._found: list[Group] | None = None
        self._compared, self._pairs, self._error = 0, 0, ""

    def page(self, offset: int, limit: int) -> dict:
        """{"done", "compared", "pairs", "error", "total", "files", "spare", "groups"}: whether the search has ended,
        how many of how many pairs are compared, its error or "", the counts of all groups, and at most ``limit`` groups
        from ``offset`` on, as rrt.photo_index.duplicates_report.plain() gives them."""
        index = self._index()
        with self._lock:
            if self._searched is not index:
                self._searched, self._found = index, None
                self._compared, self._pairs, self._error = 0, 0, ""
                self._thread = threading.Thread(target=self._search, args=(index,), daemon=True)
                self._thread.start()
            found = self._found or []
            state = {
                "done": self._found is not None,
                "compared": self._compared,
                "pairs": self._pairs,
                "error": self._error,
            }
        groups = found[offset : offset + min(limit, LARGEST_PAGE)]
        return state | {
            "total": len(found),
            "files": sum(len(group.members) for group in found),
            "spare": sum(group.spare for group in found),
            "groups": [plain(index, group) for group in groups],
        }

    def close(self) -> None:
        """Ends a running search: a thread inside OpenCV would crash a process that exits."""
        with self._lock:
            self._searched, thread = None, self._thread
        if thread:
            thread.join(_ENDS_WITHIN)

    def _search(self, index: PhotoIndex) -> None:
        def tell(compared: int, pairs: int) -> None:
            if self._searched is not index:
                raise _Outdated
            self._compared, self._pairs = compared, pairs

        try:
            if sys.platform == "linux":  # elsewhere it would slow the whole process
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            found = find_groups(index, tell)
        except _Outdated:
            return
        except Exception as error:
            print(f"error: near-duplicates: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            found, self._error = [], "the search for near-duplicates failed; the console it was started on says more"
        with self._lock:
            if self._searched is index:
                self._found = found
