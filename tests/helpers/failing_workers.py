"""Tasks of worker processes that fail; in a module of its own, because every worker process imports it."""

import os
import signal
import sys
import time
from pathlib import Path

from rrt.errors import InputError


def die(part):
    os.kill(os.getpid(), signal.SIGKILL)


def lose_the_disk(part):
    raise OSError(5, "Input/output error", "images")


def fail_the_first_time(part):
    marker = Path(os.environ["RRT_TEST_MARKERS"]) / str(part)
    if not marker.exists():
        marker.touch()
        die(part)
    return 2


def describe_or_fail(words, path, box):
    """Stands for describe_image(): (process, whether it has loaded PyTorch), or what the name of the image says."""
    if path.endswith("deadly"):
        die(0)
    if path.endswith("once") and not Path(path).exists():
        Path(path).touch()
        die(0)
    if path.endswith("bad"):
        raise InputError("is bad")
    if path.endswith("slow"):
        time.sleep(60)
    return os.getpid(), int("torch" in sys.modules)
