"""The batches of an epoch in order, made ahead of the training loop in worker processes.

    for batch in load_batches(source, source.plan(seed, epoch), num_workers=2): ...

Workers get the store's path and open it themselves; what they make comes back through shared memory. A batch hangs on
its task alone (rrt/batches.py), so their number changes nothing but the speed.
"""

import os
import pickle
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context, parent_process

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rrt.batches import BatchMaker, BatchSource, BatchTask, EpochPlan, PairBatch
from rrt.errors import InputError, describe_error
from rrt.pairs import ImageBatch

# Where arrays begin in a packed batch, so that every type and copy finds them aligned.
_ALIGNMENT = 64
# What DataLoader says of a worker that is no more.
_SIGNS_OF_DEATH = ("exited unexpectedly", "killed by signal")


def load_batches(
    source: BatchSource,
    plan: EpochPlan,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> Iterator[PairBatch]:
    """The batches of the steps first_step.. of an epoch; of several processes, the share of process ``rank``.

    num_workers: processes that make them, each ``prefetch`` batches ahead; 0: a thread of this process is, and with
    prefetch=0 each is made when it is asked for. pin_memory: they lie in memory from which a GPU copies while it
    computes. Raises InputError for what cannot be read, and when a worker was killed. Close the iterator (or leave its
    loop) to end the workers.
    """
    source.check_world(world_size)
    for name, value in (("num_workers", num_workers), ("prefetch", prefetch)):
        if not isinstance(value, int) or value < 0:
            raise InputError(f"{name}={value!r}: expected an integer of at least 0")
    tasks = (source.task(plan, step, rank, world_size) for step in range(first_step, len(plan)))
    if num_workers:
        return _from_processes(source.maker, tasks, num_workers, max(1, prefetch), pin_memory)
    return _from_thread(source.maker, tasks, prefetch, pin_memory)


def _from_thread(maker, tasks, prefetch, pin_memory):
    def make(task):
        batch = maker.make(task)
        if not pin_memory:
            return batch
        memory, layout = packed(batch)
        return unpacked(memory.pin_memory(), layout)

    if not prefetch:
        yield from map(make, tasks)
        return
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting = deque()
        try:
            for task in tasks:
                waiting.append(thread.submit(make, task))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _from_processes(maker, tasks, num_workers, prefetch, pin_memory):
    # A fork of this process would take along its threads' locks, and what it has on a GPU.
    context = get_context("forkserver")
    context.set_forkserver_preload(["rrt.loader"])
    loader = DataLoader(
        _Making(maker),
        batch_size=None,
        sampler=tasks,
        num_workers=num_workers,
        prefetch_factor=prefetch,
        pin_memory=pin_memory,
        multiprocessing_context=context,
        worker_init_fn=_end_with_parent,
    )
    try:
        for made in loader:
            if isinstance(made, str):
                raise InputError(made)
            yield unpacked(*made)
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
        # The last three: of a worker that was killed while its batch was on the way.
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _SIGNS_OF_DEATH):
            raise
        raise InputError(
            "a process that reads batches was ended from outside, perhaps for want of memory or of room in /dev/shm;"
            f" lower dataset.num_workers={num_workers} and resume the run"
        ) from None


class _Making(Dataset):
    """What worker processes run: packed batches of tasks, or the line of an InputError, whose type and text
    DataLoader would bury in a traceback."""

    def __init__(self, maker: BatchMaker):
        # Kept as bytes, because what a process meets when it opens the store is told only once it is at work.
        self.given = pickle.dumps(maker)
        self.maker = None

    def __getitem__(self, task: BatchTask):
        try:
            if self.maker is None:
                self.maker, self.given = pickle.loads(self.given), None
            return packed(self.maker.make(task), shared=True)
        except (InputError, OSError) as error:
            return describe_error(error)


def packed(batch: PairBatch, shared: bool = False):
    """(uint8 tensor of all arrays, layout): a single block crosses to another process or into pinned memory at once.

    layout: (shape, type, first byte) of each array, and ``joined_pairs``.
    """
    images = batch.images
    arrays = [images.global_, images.descriptors, images.scales, images.offsets]
    arrays += [batch.query, batch.candidate, batch.labels]
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    memory = torch.empty(0, dtype=torch.uint8)
    # Made where other processes see it, as DataLoader's own collation does: nothing is copied when it is sent.
    memory.set_(torch.UntypedStorage._new_shared(size) if shared else torch.UntypedStorage(size))
    memory.resize_(size)
    layout = [(array.shape, array.dtype.str, start) for array, start in zip(arrays, starts)]
    for view, array in zip(_views(memory, layout), arrays):
        view[...] = array
    return memory, (layout, batch.joined_pairs)


def unpacked(memory: torch.Tensor, layout) -> PairBatch:
    """The batch whose arrays lie in ``memory``; see ``packed``."""
    layout, joined_pairs = layout
    views = list(_views(memory, layout))
    return PairBatch(ImageBatch(*views[:4]), *views[4:], joined_pairs)


def _views(memory, layout):
    memory = memory.numpy()
    for shape, dtype, start in layout:
        dtype = np.dtype(dtype)
        yield np.ndarray(tuple(shape), dtype, memory, start)


def _end_with_parent(worker: int) -> None:
    """A worker's last thread of life: whoever asked for its batches may be killed without a word.

    DataLoader watches its parent process, which here is the server that forks, and that lives as long as its children.
    """
    parent = parent_process()

    def wait():
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
