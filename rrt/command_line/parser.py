"""The command line of the commands that are not on Sacred (`rrt.command_line.sacred`): argparse with what all of them
have."""

import argparse
import io
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from math import inf

from rrt.command_line.output import flush_output
from rrt.errors import LARGEST_COUNT, LARGEST_NUMBER, InputError, describe_error, disk_full
from rrt.extras import describe_missing
from rrt.progress import set_quiet

QUIET_HELP = (
    "no progress bars nor lines about the progress; results, warnings and errors are printed (also: RRT_QUIET=1)"
)


# {fronts of a clone: what they are without one}; tools/benchmark.py is in clones alone, and torchrun needs the file.
_FRONTS = {
    r"(?:python )?\btools/(?!benchmark\b)(\w+)\.py": r"rrt \1",
    r"(?:python )?(?<!\d )\bexperiment\.py": "rrt train",
    r"(?:python )?\bevaluate_revisited\.py": "rrt evaluate",
    r"(?:python )?\bdelg_extract/(\w+)\.py": r"python -m delg_extract.\1",
}


class _Quiet(argparse.Action):
    """Leaves nothing in the namespace: whoever draws a bar asks rrt.progress."""

    def __init__(self, option_strings, dest, **options):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser, namespace, values, option_string=None):
        set_quiet(True)


class CommandParser(argparse.ArgumentParser):
    """argparse's, with --quiet and the description printed as it is written; sub-parsers are of this kind, too."""

    def __init__(
        self,
        description=None,
        *,
        formatter_class: type[argparse.HelpFormatter] = argparse.RawDescriptionHelpFormatter,
        **options,
    ):
        super().__init__(description=description, formatter_class=formatter_class, **options)
        self.register("type", float, _finite)
        self.register("type", int, _counted)
        self.add_argument("--quiet", action=_Quiet, help=QUIET_HELP)

    def add_fields(self, settings: type, meanings: dict[str, str]) -> None:
        """An option --NAME for each field of a dataclass, of the type of its default and with its meaning."""
        for field in fields(settings):
            of_field = {"type": type(field.default), "default": field.default, "help": meanings[field.name]}
            self.add_argument(f"--{field.name}", **of_field)

    def error(self, message):
        """One line and status 2: the usage of some commands fills a screen."""
        command = called_as(sys.argv[0]) + self.prog.removeprefix(os.path.basename(sys.argv[0]))
        self.exit(2, f"error: {' '.join(message.splitlines())}; {command} --help says what it takes\n")

    def format_help(self):
        """argparse's, in the words of the caller."""
        return as_called(super().format_help())

    def parse_args(self, args=None, namespace=None):
        """argparse's; what an earlier command of this process asked for with --quiet is forgotten."""
        set_quiet(False)  # of an earlier command of this process
        return super().parse_args(expand_home(list(sys.argv[1:] if args is None else args)), namespace)


def _finite(text):
    value = float(text)
    if not abs(value) <= LARGEST_NUMBER:
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return value


def _counted(text):
    value = int(text)
    if abs(value) > LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is larger than anything that can be counted")
    return value


# What argparse calls a type in `invalid float value`.
_finite.__name__, _counted.__name__ = "float", "int"


def called_as(script: str) -> str:
    """What stands before the arguments of a command whose sys.argv[0] is ``script``: `python tools/NAME.py`, or
    `rrt NAME` as rrt.commands.__main__ leaves it there."""
    return script if script.startswith(("rrt ", "python -m rrt.commands ")) else f"python {shlex.quote(script)}"


def as_called(text: str, script: str | None = None) -> str:
    """Help or an error as people can use it who called `rrt NAME` (``script``, by default sys.argv[0]) and may have no
    clone: commands, which these texts name as `tools/NAME.py`, are `rrt NAME` in it."""
    script = sys.argv[0] if script is None else script
    if called_as(script) != script:
        return text
    for front, name in _FRONTS.items():
        text = re.sub(front, name, text)
    return text


def expand_home(arguments: list[str]) -> list[str]:
    """Command-line arguments in which `--name=~/x` means what `--name ~/x` does, where the shell sees to it."""
    return [
        argument[: match.end()] + os.path.expanduser(argument[match.end() :])
        if (match := re.match(r"--[\w-]+=(?=~(/|$))", argument))
        else argument
        for argument in arguments
    ]


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever cleans up after an interrupt does so after this, too."""


# Seconds within which another SIGTERM is the same order: schedulers send several, which would end the cleaning up.
_SAME_ORDER = 10
_told = 0.0


@contextmanager
def ended_in_a_line() -> Iterator[None]:
    """For a command: an interrupt (SIGINT) ends it with one line and status 130, an order to end (SIGTERM), as
    schedulers send it, with status 143; what it was writing is removed. What it prints is handed over a line at a time,
    also into a log, which is how far a long training is seen to be (``flush_output``)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    takes_over = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if takes_over:
        global _told
        _told = -inf
        signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _tell_unraisable
    try:
        try:
            yield
        finally:
            flush_output()
    except KeyboardInterrupt as error:
        word, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        print(f"error: {word}", file=sys.stderr)
        sys.exit(status)
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        if takes_over:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tell_unraisable(unraisable):
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        # The signal came in a finaliser or a callback of Python, which no exception leaves: once more, out of it.
        global _told
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        for pause in (0.01, 0.1, 1):
            _told = -inf
            try:
                threading.Timer(pause, _send_again, (number,)).start()
                break
            except KeyboardInterrupt:  # on a busy machine it comes before start() has returned
                continue
    # HDF5 tries again to write what a full disk has not taken, after the error was told.
    elif not disk_full(error):
        sys.__unraisablehook__(unraisable)


def _send_again(number):
    # Not to a command that has ended meanwhile, which would end by the signal itself.
    if number == signal.SIGINT or signal.getsignal(signal.SIGTERM) is _terminate:
        os.kill(os.getpid(), number)


def _terminate(*_):
    global _told
    if time.monotonic() - _told > _SAME_ORDER:
        _told = time.monotonic()
        raise Terminated


@contextmanager
def missing_extra_in_a_line() -> Iterator[None]:
    """A package of an extra that is not installed becomes one line `error: ...` and exit status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        remedy = describe_missing(error)
        if not remedy:
            raise
        print(f"error: {remedy}", file=sys.stderr)
        sys.exit(1)


def run_command(main):
    """Run `main()` as a command: its return value (None = 0) is the exit status.

    InputError, OSError and a package of an extra that is not installed become one line `error: ...` on standard error
    and exit status 1; an interrupt becomes 130, SIGTERM 143.
    """
    with ended_in_a_line(), missing_extra_in_a_line():
        try:
            status = main()
        except (InputError, OSError) as error:
            flush_output(error)
            print(as_called(f"error: {describe_error(error)}"), file=sys.stderr)
            sys.exit(1)
    sys.exit(status or 0)
