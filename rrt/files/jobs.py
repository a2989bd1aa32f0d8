"""Work on many images, shared among worker processes, with one progress bar."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import cv2

from rrt.errors import InputError
from rrt.files.machine import begin_worker
from rrt.progress import bar


def run_jobs(function, jobs: list, num_workers: int, label: str, unit: str = "image") -> list:
    """`function(job)` for every job, results in the order of the jobs; `function` must be importable (spawned workers).

    label, unit: of the progress bar, a job is one unit.

    An error in a job stops the rest and is raised here. With one worker or one job everything runs in this process.
    """
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}; give 1 or more")
    results = [None] * len(jobs)
    with bar(what=label, unit=unit, total=len(jobs)) as shown:
        if num_workers == 1 or len(jobs) <= 1:
            threads = cv2.getNumThreads()
            cv2.setNumThreads(1)
            try:
                for i, job in enumerate(jobs):
                    results[i] = function(job)
                    shown.update()
            finally:
                cv2.setNumThreads(threads)
            return results
        died = (
            f"{label}: a worker process died (out of memory?); run again with fewer workers, finished images are kept"
        )
        with worker_processes(min(num_workers, len(jobs)), _start_worker, (), died) as pool:
            futures = {pool.submit(function, job): i for i, job in enumerate(jobs)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                shown.update()
    return results


@contextmanager
def worker_processes(count: int, start: Callable, arguments: tuple, died: str) -> Iterator[ProcessPoolExecutor]:
    """An executor of ``count`` spawned processes, each begun by start(*arguments). InputError ``died`` where one dies;
    any other error does not wait for the work that nobody wants any more."""
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), start, arguments)
    try:
        yield pool
    except BrokenProcessPool:
        raise InputError(died) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    cv2.setNumThreads(1)  # one process a core is enough
    begin_worker()


def in_order_ahead(function: Callable, items: Iterable, ahead: int, threads: int) -> Iterator:
    """``function(item)`` for each item, in order, computed by threads ahead of who takes them.

    At most ``ahead`` results wait. Pillow decodes and resizes outside the interpreter's lock, so that threads keep a
    network fed.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
