"""Making many pictures: worker processes with a progress bar, whole files only, and a guard on the settings."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2

from rrt.errors import InputError, atomic_path
from rrt.progress import bar


def default_workers() -> int:
    """Number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(function, jobs: list, num_workers: int, label: str, unit: str = "picture") -> list:
    """`function(job)` for every job, results in the order of the jobs; `function` must be importable (spawned workers).

    label, unit: of the progress bar, a job is one unit.

    An error in a job stops the rest and is raised here. With one worker or one job everything runs in this process.
    """
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}; give 1 or more")
    results = [None] * len(jobs)
    shown = bar(what=label, unit=unit, total=len(jobs))
    if num_workers == 1 or len(jobs) <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for i, job in enumerate(jobs):
                results[i] = function(job)
                shown.update()
        finally:
            cv2.setNumThreads(threads)
            shown.close()
        return results
    pool = ProcessPoolExecutor(min(num_workers, len(jobs)), multiprocessing.get_context("spawn"), _start_worker)
    try:
        futures = {pool.submit(function, job): i for i, job in enumerate(jobs)}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            shown.update()
    except BrokenProcessPool:
        raise InputError(f"{label}: a worker process died (out of memory?); run again with fewer workers, "
                         "finished pictures are kept") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        shown.close()
    return results


def _start_worker():
    # One process a core is enough, and the parent alone answers Ctrl-C.
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value) -> None:
    """Writes JSON that is there whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path):
    """The JSON value in a file, or None when the file is not there. Raises InputError when it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and run again") from None


def guard_settings(path: Path, settings: dict) -> None:
    """Writes `settings` to `path`, or checks that what stands there is the same, so that a folder never mixes settings.

    Raises InputError naming the first setting that differs.
    """
    there = read_json(path)
    settings = json.loads(json.dumps(settings))
    if there is None:
        write_json(path, settings)
        return
    if not isinstance(there, dict):
        raise InputError(f"{path}: not a table of settings; delete the folder or choose another one")
    for key in sorted(settings.keys() | there.keys()):
        if settings.get(key) != there.get(key):
            raise InputError(f"{path}: the folder was made with {key} = {there.get(key)!r}, now it is "
                             f"{settings.get(key)!r}; use the same settings, delete the folder or choose another one")
