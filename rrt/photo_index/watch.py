"""An index that follows its folder while this program runs: after each change below it, once there is quiet, it is
brought up to date. Changes are told by the system (watchdog); as not all file systems tell of them, and to make up for
what was missed, the folder is looked through now and then in any case."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from rrt.errors import InputError
from rrt.files.names import is_left_out, shown
from rrt.photo_index.summary import Summary, lines_of_build
from rrt.photo_index.update import BuildSettings, update
from rrt.progress import warn

QUIET, LONGEST = 2.0, 60.0  # seconds without a change before an update, and from the first change to it at most
_ENDS_WITHIN = 10.0  # seconds for an update at work when all ends
AGAIN, ANYWAY = 30.0, 900.0  # seconds to the next try after an error, and to a look without any change
_CHANGES = ("created", "deleted", "modified", "moved", "closed")  # files that are only read tell of that, too


class Watch:
    """Follows ``photos`` with the index in ``folder``. settings: of updates after the first, whatever was asked for of
    the first; tell: takes each line about what was done. ``run`` follows until ``stop``, whatever happens."""

    def __init__(self, folder: str | Path, photos: str, settings: BuildSettings, tell: Callable[[str], object]):
        self.folder, self.photos, self.settings, self.tell = Path(folder), photos, settings, tell
        self._stopped, self._changed = threading.Event(), threading.Event()
        self._last = 0.0

    def stop(self) -> None:
        """Has run() end, once an update at work has ended."""
        self._stopped.set()
        self._changed.set()

    def run(self) -> None:
        """Brings the index up to date after changes. An error is told, and the update is tried again."""
        observer, watched, wait, told = None, None, ANYWAY, ""
        while not self._stopped.is_set():
            present = self._identity()
            if observer is None or not observer.is_alive() or present != watched:
                self._end(observer)
                observer, watched = self._observer(), present
            if self._changed.wait(wait):
                self._wait_for_quiet()
            if self._stopped.is_set():
                break
            self._changed.clear()
            wait, error = self._update()
            if error and error != told:  # a drive that is away is told of once
                warn(error)
            told = error
        self._end(observer)

    def _update(self) -> tuple[float, str]:
        """(Seconds until the next try, what went wrong)."""
        try:
            done = update(self.folder, self.photos, self.settings)
        except (InputError, OSError) as error:
            return AGAIN, str(error)
        if _did_something(done):
            for line in lines_of_build(self.folder, done):
                self.tell(line)
        return (ANYWAY if not done.postponed else QUIET), ""

    def _wait_for_quiet(self) -> None:
        began = time.monotonic()
        while not self._stopped.is_set():
            now = time.monotonic()
            rest = min(self._last + QUIET, began + LONGEST) - now
            if rest <= 0:
                return
            self._stopped.wait(rest)

    def _observer(self):
        observer, handler = Observer(), FileSystemEventHandler()
        handler.on_any_event = self._take  # type: ignore[method-assign]
        try:
            observer.schedule(handler, os.path.realpath(self.photos), recursive=True)
            observer.start()
        except OSError as error:  # no such folder now, or more folders than the system watches
            if os.path.isdir(self.photos):
                warn(f"{self.photos}: {error.strerror or error}; it is looked through every {ANYWAY:g} seconds instead")
            return None
        return observer

    @staticmethod
    def _end(observer) -> None:
        if observer is not None:
            observer.stop()
            observer.join()

    def _take(self, event: FileSystemEvent) -> None:
        if event.is_directory and event.event_type == "modified":
            return  # something in it has changed, of which it is told, too
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in _CHANGES and any(map(self._counts, paths)):
            self._last = time.monotonic()
            self._changed.set()

    def _counts(self, path: str) -> bool:
        """Whether a path may be a photograph's or a folder's of photographs."""
        name = os.path.relpath(path, os.path.realpath(self.photos))
        own = os.path.relpath(os.path.realpath(self.folder), os.path.realpath(self.photos))
        return not any(map(is_left_out, Path(name).parts)) and name != own and not name.startswith(own + os.sep)

    def _identity(self):
        try:
            status = os.stat(self.photos)
            return status.st_dev, status.st_ino
        except OSError:
            return None


def _did_something(done: Summary) -> bool:
    return bool(done.new or done.changed or done.renamed or done.removed or done.described)


def following(watch: Watch) -> None:
    """Follows until it is interrupted."""
    print(f"following {shown(watch.photos)} (Ctrl-C ends)", flush=True)
    try:
        watch.run()
    except KeyboardInterrupt:
        print()


@contextmanager
def followed(watch: Watch) -> Iterator[None]:
    """Follows beside what the block does."""
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stop()
        # Nobody waits for photographs that are being described; their parts are kept.
        for child in multiprocessing.active_children():
            child.terminate()
        thread.join(_ENDS_WITHIN)  # libraries at work in a thread would crash a process that ends
