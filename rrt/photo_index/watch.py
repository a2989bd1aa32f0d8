"""Keeps an index up to date while this program runs: after changes below its folder it is updated, once no more changes
come for a while. The system reports changes (watchdog). Because some file systems report none, and reports may be
missed, the folder is also scanned every ANYWAY seconds."""

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

QUIET, LONGEST = 2.0, 60.0  # seconds without a change before an update; most seconds from the first change to it
_ENDS_WITHIN = 10.0  # seconds for a running update when the program ends
AGAIN, ANYWAY = 30.0, 900.0  # seconds to the next try after an error; to a scan without any report
_CHANGES = ("created", "deleted", "modified", "moved", "closed")  # not "opened": reading is no change


class Watch:
    """Updates the index ``folder`` when the photographs in ``photos`` change. settings: of these updates, not of the
    first build; tell: is called with each line about what was done. ``run`` continues until ``stop``, whatever
    happens."""

    def __init__(self, folder: str | Path, photos: str, settings: BuildSettings, tell: Callable[[str], object]):
        self.folder, self.photos, self.settings, self.tell = Path(folder), photos, settings, tell
        self._stopped, self._changed = threading.Event(), threading.Event()
        self._last = 0.0

    def stop(self) -> None:
        """Makes run() end, after a running update."""
        self._stopped.set()
        self._changed.set()

    def run(self) -> None:
        """Updates the index after changes. An error is shown as a warning, and the update is tried again."""
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
            if error and error != told:  # the same error, such as a missing drive, is shown once
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
        except OSError as error:  # the folder is gone, or has more folders than the system can watch
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
            return  # what changed in the folder is reported, too
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in _CHANGES and any(map(self._counts, paths)):
            self._last = time.monotonic()
            self._changed.set()

    def _counts(self, path: str) -> bool:
        """Whether a path may be that of a photograph or of a folder of photographs."""
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
    """Follows the folder until it is interrupted."""
    print(f"following {shown(watch.photos)} (Ctrl-C ends)", flush=True)
    try:
        watch.run()
    except KeyboardInterrupt:
        print()


@contextmanager
def followed(watch: Watch) -> Iterator[None]:
    """Follows the folder in a thread, as long as the block runs."""
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stop()
        # Do not wait for photographs that are being described; finished parts are kept.
        for child in multiprocessing.active_children():
            child.terminate()
        thread.join(_ENDS_WITHIN)  # a thread inside a library would crash a process that exits
