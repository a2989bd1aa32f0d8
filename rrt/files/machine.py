"""What this process may use of the machine, also within a container's limits: cores, GPUs, memory; and its parent."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
from collections.abc import Iterator
from multiprocessing import parent_process
from pathlib import Path

import psutil

from rrt.files.atomic import end_at_once
from rrt.progress import lock_with_threads

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Number of processor cores this process may use: those it may run on, and no more than its container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups():
        # Microseconds of every period, in one file (cgroup v2) or two (v1); without a limit `max` or -1.
        share = _text(group / "cpu.max") or f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        if re.fullmatch(r"\d+ [1-9]\d*", share):
            quota, period = map(int, share.split())
            cores = min(cores, max(1, math.ceil(quota / period)))
    return cores


def free_memory() -> int:
    """Bytes that this process can still take without swapping, of the machine and within its container's limit."""
    free = psutil.virtual_memory().available
    for group in _control_groups():
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            # Files read a while ago count as used, and give way.
            idle = re.findall(r"^(?:total_)?inactive_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
            # In version 1 the total, which comes last, includes the groups below, as the use does.
            free = min(free, max(0, int(limit) - int(used) + sum(map(int, idle[-1:]))))
    return free


def visible_gpus() -> list[str]:
    """The GPUs that CUDA programs would see, as CUDA_VISIBLE_DEVICES names them; found without loading a library."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def end_with_parent(_worker: int | None = None) -> None:
    """Have this worker process end when its parent has: a parent that is killed tells nobody, and a worker without one
    would wait for work for ever. ``_worker`` is what torch's DataLoader gives a ``worker_init_fn``."""
    parent = parent_process()
    assert parent is not None, "called in a worker process alone"

    def wait():
        parent.join()
        end_at_once()

    threading.Thread(target=wait, daemon=True).start()


def begin_worker() -> None:
    """Initialiser of a worker process: the parent alone answers Ctrl-C, SIGTERM ends the worker at once without
    anything half-written, and so does the end of its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_at_once)
    lock_with_threads()
    end_with_parent()


def _control_groups() -> Iterator[Path]:
    """The folders of the control groups that this process is in, each with those above it, whose limits bind too."""
    for line in _text(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        root = _GROUPS / controllers
        group = root / path.strip("/")
        # In a container the first of them may exist under their names outside alone.
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
