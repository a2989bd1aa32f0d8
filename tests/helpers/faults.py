"""A run that is killed at each change of the file system in turn, in forks of this process, and what the next run makes
of what is left."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback

import cv2
import pytest
from places import ROOT

from rrt.command_line.parser import CommandParser

# What every change of files and folders comes down to; pathlib, shutil and atomic_path call these by their names.
OPERATIONS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "fsync", "symlink", "link")


# How long tools/fault_campaign.py kills in each test.
_SECONDS = "RRT_KILL_SECONDS"
# The tests that kill_everywhere runs in, which share the time.
_RUNS = 11


def every(operations):
    """How many operations lie between two kills; in a campaign none, as far as its time suffices."""
    return 1 if _SECONDS in os.environ else operations


def fork_workers(monkeypatch):
    """Have pools of worker processes fork, so that they start at once and their operations are counted, too."""
    cv2.setNumThreads(1)  # a fork has none of the threads that earlier tests made OpenCV start, and waits for them
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _kind: fork)


def forked(work):
    """Runs ``work`` in a fork -> (exit status, negative for a signal; the text that it returned), when its workers have
    ended, too."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if not process:
        status = 1
        try:
            os.close(reading)
            os.fsync = lambda _descriptor: None  # a kill, unlike a power cut, loses nothing that was written
            os.write(writing, str(work() or "").encode())
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


def counting(work, kill_at=None):
    """What runs ``work`` and returns how many operations it and its workers made; the process that comes to operation
    ``kill_at``, from 0, is killed before it."""

    def run():
        done = multiprocessing.Value("q", 0)

        def counted(operation):
            def call(*args, **options):
                with done.get_lock():
                    place, done.value = done.value, done.value + 1
                if place == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*args, **options)

            return call

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        work()
        return done.value

    return run


def kill_everywhere(folder, work, state, step):
    """Kills ``work()``, which changes ``folder``, before every ``step``-th operation, and lets it run again to its end:
    ``state()`` must then be what it is after a run that was not killed -> the number of kills. Before each run the
    folder is as it is now."""
    before = folder.with_name(f"{folder.name}.before")
    shutil.copytree(folder, before, symlinks=True)

    def fresh():
        shutil.rmtree(folder)
        shutil.copytree(before, folder, symlinks=True)

    status, total = forked(counting(work))
    assert status == 0, total
    status, wanted = forked(state)
    assert status == 0, wanted
    places = list(range(min(3, step - 1), int(total), step))
    random.Random(0).shuffle(places)  # where the time does not suffice for all, some of every part
    end, killed = time.monotonic() + float(os.environ.get(_SECONDS, "inf")), 0
    for place in places:
        if time.monotonic() > end:
            break
        killed += 1
        fresh()
        status, text = forked(counting(work, place))
        assert status == -signal.SIGKILL or "InputError" in text and "a worker process died" in text, (place, text)
        status, text = forked(lambda: (work(), state())[1])
        assert status == 0, f"killed before operation {place} of {total}: {text}"
        assert text == wanted, f"killed before operation {place} of {total}"
    print(f"killed at {killed} of {total} operations")
    return killed


def campaign():
    """Kills builds, extractions, trainings and reports at every file operation in turn (docs/faults.md).

    python tools/fault_campaign.py                 all of them, in an hour or so
    python tools/fault_campaign.py --minutes 10    as many as fit into ten minutes, some of every run
    """
    parser = CommandParser(campaign.__doc__)
    parser.add_argument("--minutes", type=float, help="for all kills together (default: as long as it takes)")
    minutes = parser.parse_args().minutes or 1e9
    os.environ[_SECONDS] = str(60 * minutes / _RUNS)
    return pytest.main(["-rP", "-q", "--timeout=0", *map(str, sorted(ROOT.glob("tests/rrt/*/test_kills.py")))])
