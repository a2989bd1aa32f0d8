"""Extracting the parts of a store with many workers, processes of this machine (a Ray cluster: rrt/files/cluster.py).

A part is the unit of work. A worker that dies costs the part it was at: the part is tried again by a fresh worker, and
after ``ATTEMPTS`` failures the run ends and says which part it was. The workers share nothing but the folder of parts,
which must lie on a file system that all machines see.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from delg_extract.extraction.parts import PartExtractor, Plan
from rrt.errors import describe_error
from rrt.files.cluster import ATTEMPTS, gave_up
from rrt.files.machine import begin_worker, free_memory, usable_cores, visible_gpus

state: dict = {}


def default_workers(bytes_a_worker: float = 2.5e9) -> int:
    """A worker for each GPU; without one, for each core, as many as two thirds of the free memory feed."""
    if visible_gpus():
        return len(visible_gpus())
    fed = int(free_memory() * 2 / 3 / bytes_a_worker)
    return max(1, min(usable_cores(), fed))


def default_batch() -> int:
    """Images of one size that go through the network together: more than one pays on a GPU alone."""
    return 8 if visible_gpus() else 1


# ---- inside a worker -------------------------------------------------------------------------------------------------


def _start(plan: Plan, gpu: str | None, threads: int) -> None:
    begin_worker()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # TensorFlow reads these when it is first imported; operators side by side would only take cores from each other.
    os.environ.update(TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS="1")
    state["plan"] = plan


def extract_part(part: int) -> int:
    """Extracts and writes a part of the plan of this process -> how many images it has."""
    # The network is loaded by the first part, not by the initialiser, whose errors an executor does not tell.
    if "extractor" not in state:
        state["extractor"] = PartExtractor(state["plan"], threads=1)
    extractor = state["extractor"]
    extractor.run([part])
    return len(extractor.writer.block_names(part))


def open_for_one(plan: Plan) -> Callable[[int], int]:
    """extract_part() for the parts of a plan, with one thread, in this process."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    state.clear()
    state["plan"] = plan
    return extract_part


# ---- processes of this machine ---------------------------------------------------------------------------------------


class LocalWorkers:
    """Worker processes of this machine, each with its share of the cores, or a GPU each. A context manager.

    ``task(part)``: what a worker does with a part, and how many images that were; a function of a module.
    """

    def __init__(self, plan: Plan, num_workers: int, task: Callable[[int], int] = extract_part):
        self.plan, self.num_workers, self.task = plan, num_workers, task
        self.threads = max(1, usable_cores() // num_workers)
        self.gpus = visible_gpus()
        self.executors = [self._executor(i) for i in range(num_workers)]

    def _executor(self, index: int) -> ProcessPoolExecutor:
        # An executor for each worker: one that breaks leaves the others at work.
        gpu = self.gpus[index % len(self.gpus)] if self.gpus else None
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (self.plan, gpu, self.threads))

    def run(self, parts: list[int], on_images: Callable[[int], object]) -> None:
        """Extracts the parts in any order. Raises InputError when one fails ``ATTEMPTS`` times."""
        todo, failures, running = deque(parts), Counter(), {}
        idle = list(range(self.num_workers))
        while todo or running:
            while idle and todo:
                index, part = idle.pop(), todo.popleft()
                running[self._submit(index, part)] = index, part
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index, part = running.pop(future)
                idle.append(index)
                try:
                    on_images(future.result())
                    continue
                except BrokenProcessPool:
                    reason = "its worker died (out of memory? use fewer workers or a smaller --max_image_size)"
                except OSError as error:  # a file system may come back
                    reason = describe_error(error)
                failures[part] += 1
                if failures[part] == ATTEMPTS:
                    raise gave_up(self.plan, part, reason)
                todo.append(part)

    def _submit(self, index: int, part: int):
        try:
            return self.executors[index].submit(self.task, part)
        except BrokenProcessPool:  # its worker died
            self.executors[index].shutdown(wait=False)
            self.executors[index] = self._executor(index)
            return self.executors[index].submit(self.task, part)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:  # do not wait for parts that nobody wants any more
            for child in multiprocessing.active_children():
                child.terminate()
        for executor in self.executors:
            executor.shutdown(cancel_futures=True)
