"""The one progress bar, on standard error; where that is a log rather than a terminal, a line every half minute.

Every command has --quiet (`rrt.command_line.parser`, `rrt.command_line.sacred`); RRT_QUIET=1 in the environment stands
for it in all commands of a script. What matters is printed as lines, which are the same with and without a terminal.
"""

import os
import sys
import threading
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

# Seconds after which a passing bar appears.
PATIENCE = 2
# Seconds between two looks at work in one piece.
TICK = 1
# Seconds between two lines about one work in a log, and before the first.
LINES_EVERY = 30

_asked_for = False


def set_quiet(quiet: bool) -> None:
    """What the command line says; RRT_QUIET holds beside it."""
    global _asked_for
    _asked_for = quiet


def is_quiet() -> bool:
    """True when neither bars nor lines about the progress are wanted."""
    return _asked_for or os.environ.get("RRT_QUIET", "0") not in ("", "0")


def lock_with_threads() -> None:
    """For a process that may be killed: the lock of bars is otherwise a semaphore of the system, which stays behind."""
    tqdm.set_lock(threading.RLock())


def bar(items=None, what="", unit="it", total=None, *, passing=False, shown=True, **options) -> tqdm:
    """A bar over `items`, or of a `total` that the caller moves with update(n): tqdm, whose other options are taken,
    too.

    what: said before the bar. unit: of the numbers and the rate; "B" counts in kB, MB and GB. passing: a step of
    something larger; it appears after PATIENCE seconds and goes when it is done. shown: False where another bar or
    process tells of it.
    """
    if unit == "B":
        options = {"unit_scale": True, "unit_divisor": 1024} | options
    if passing:
        options = {"leave": False, "delay": PATIENCE} | options
    kind = tqdm if sys.stderr.isatty() else _Lines
    if kind is _Lines:
        options |= {"mininterval": LINES_EVERY, "delay": LINES_EVERY}
    return kind(items, desc=what, unit=unit, total=total, disable=is_quiet() or not shown, **options)


class _Lines(tqdm):
    """A bar in a log: a line now and then, without a picture of the bar, and none at the end."""

    last_told = 0.0

    def display(self, msg=None, pos=None):
        if msg is None:
            told: dict[str, Any] = {**self.format_dict, "ncols": None}
            if not told["bar_format"]:
                # Bytes have kB or MB before them, a line for people the word for several.
                unit = "B" if told["unit"] == "B" else f" {_several(told['unit'])}"
                rest = "{n_fmt}" if not self.total else "{percentage:.0f} %, {n_fmt} of {total_fmt}"
                told["bar_format"] = "{desc}: " + rest + unit + " [{elapsed}" + ("<{remaining}]" if self.total else "]")
            told["bar_format"] = told["bar_format"].replace("|{bar}|", " ")
            self.fp.write(self.format_meter(**told).strip() + "\n")
            self.fp.flush()
        return True

    def clear(self, nolock=False):
        pass

    def refresh(self, nolock=False, lock_args=None):
        """Nothing between two lines, however often what stands behind the bar changes."""
        if self.disable:
            return
        now = self._time()  # pyright: ignore[reportAttributeAccessIssue]
        if now - max(self.last_told, self.start_t) >= LINES_EVERY:
            self.last_told = now
            super().refresh(nolock, lock_args)

    def close(self):
        if not self.disable:
            self.disable = True
            # What closing does beside printing the bar once more.
            self._decr_instances(self)  # pyright: ignore[reportAttributeAccessIssue]


def _several(unit: str) -> str:
    if unit.endswith("y"):
        return unit[:-1] + "ies"
    return unit + ("es" if unit.endswith("ch") else "s")


@contextmanager
def waiting(what, done=lambda: 0, **options):
    """A passing bar for work in one piece: the seconds that have passed, as `solving: 00:12`, or, with the options of
    bar(), how far done() says the work is; it is asked every second in another thread."""
    options = options or {"bar_format": "{desc}: {elapsed}"}
    with bar(what=what, passing=True, **options) as shown:
        if shown.disable:
            yield
            return
        ended = threading.Event()

        def tick():
            while not ended.wait(TICK):
                shown.update(done() - shown.n)

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            ended.set()
            clock.join()


def read_shown(file, what, shown=True, chunk=1 << 20):
    """The bytes of a file open for reading, chunk by chunk, with a passing bar."""
    with bar(what=what, unit="B", total=os.fstat(file.fileno()).st_size, passing=True, shown=shown) as read:
        while data := file.read(chunk):
            yield data
            read.update(len(data))


def say(text) -> None:
    """A line on standard output, above the bars."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def warn(text: str) -> None:
    """A line `warning: ...` on standard error, above the bars; with --quiet, too."""
    tqdm.write(f"warning: {text}", file=sys.stderr)
    sys.stderr.flush()


def report_progress(text) -> None:
    """The same, of how the work goes on; not with --quiet."""
    if not is_quiet():
        say(text)
