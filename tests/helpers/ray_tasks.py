"""Tasks of a Ray cluster in tests; a module of its own, because the workers import it."""

import os
import signal
from pathlib import Path

from rrt.errors import InputError


def work_or_die(*task):
    """What a worker does, but the one that finds the file of RRT_TEST_DIE, and takes it away, is killed."""
    from rrt.files import cluster

    try:
        Path(os.environ["RRT_TEST_DIE"]).unlink()
    except FileNotFoundError:
        return cluster._work(*task)
    os.kill(os.getpid(), signal.SIGKILL)


def open_failing(kind):
    def work(part):
        raise InputError(f"{part} is bad") if kind == "bad" else OSError(5, "Input/output error", part)

    return work
