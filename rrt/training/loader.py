"""The batches of an epoch in order, made ahead of the training loop in worker processes.

    for batch in load_batches(source, source.plan(seed, epoch), num_workers=2): ...

Workers get the store's path and open it themselves; what they make comes back through shared memory. A batch
depends on its task alone (rrt/training/batches.py), so their number changes nothing but the speed.
"""

import pickle
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rrt.errors import InputError, describe_error
from rrt.files.machine import end_with_parent, usable_cores
from rrt.network.pairs import ImageBatch
from rrt.training.batches import ALIGNMENT, BatchMaker, BatchSource, BatchTask, EpochPlan, PairBatch

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
) -> Generator[PairBatch]:
    """The batches of the steps first_step.. of an epoch; of several processes, the share of process ``rank``.

    num_workers: processes that make them, at most one a processor, each ``prefetch`` batches ahead; 0: a thread of this
    process is, and with prefetch=0 each is made when it is asked for. pin_memory: where there is a GPU, their
    descriptors and scales are tensors in memory from which it copies while it computes. Raises InputError for what
    cannot be read, and when a worker was killed. Close the iterator, or run it to its end, to end the workers.
    """
    source.check_world(world_size)
    for name, value in (("num_workers", num_workers), ("prefetch", prefetch)):
        if not isinstance(value, int) or value < 0:
            raise InputError(f"{name}={value!r}: expected an integer of at least 0")
    pin_memory = pin_memory and torch.cuda.is_available()
    tasks = (source.task(plan, step, rank, world_size) for step in range(first_step, len(plan)))
    num_workers = min(num_workers, usable_cores())
    if num_workers:
        batches = _from_processes(source.maker, tasks, num_workers, max(1, prefetch), pin_memory)
        # What is left to do here, copying into pinned memory, the loop need not wait for either.
        return _ahead(batches, 1) if pin_memory else batches
    batches = (_pinned(source.maker.make(task)) if pin_memory else source.maker.make(task) for task in tasks)
    return _ahead(batches, prefetch) if prefetch else batches


def _pinned(batch):
    memory = torch.empty(packed_size(batch), dtype=torch.uint8, pin_memory=True)
    return unpacked(memory, pack(batch, memory), as_tensors=True)


def _ahead(batches, number):
    """The same batches, made by a thread that is up to ``number`` of them ahead."""
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(number))
        try:
            while True:
                waiting.append(thread.submit(next, batches, None))
                batch = waiting.popleft().result()
                if batch is None:
                    return
                yield batch
        finally:
            for future in waiting:
                future.cancel()
            thread.shutdown()
            batches.close()


def _from_processes(maker, tasks, num_workers, prefetch, pin_memory):
    # A fork of this process would take along its threads' locks, and what it has on a GPU.
    context = get_context("forkserver")
    context.set_forkserver_preload(["rrt.training.loader"])
    # One more than are on their way: a slot is free when the batch after it is asked for. They are made once, because
    # the system clears new memory page by page, which takes longer than to read a batch.
    slots = _shared_memory(num_workers * prefetch + 1, maker.largest_batch())
    shared = slots.numpy()
    loader = DataLoader(
        _Making(maker, slots),
        batch_size=None,
        sampler=((task, number % len(slots)) for number, task in enumerate(tasks)),
        num_workers=num_workers,
        prefetch_factor=prefetch,
        multiprocessing_context=context,
        worker_init_fn=end_with_parent,
    )
    try:
        for made in loader:
            if isinstance(made, str):
                raise InputError(made)
            slot, size, layout = made
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
            # By NumPy, because PyTorch would have its threads, which compute, wait for each other over it.
            memory.numpy()[:] = shared[slot, :size]
            yield unpacked(memory, layout, as_tensors=pin_memory)
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
        # The last three: of a worker that was killed while its batch was on the way.
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _SIGNS_OF_DEATH):
            raise
        raise InputError(
            f"a process that reads batches was ended from outside, perhaps for want of memory; lower num_workers="
            f"{num_workers} and resume the run"
        ) from None


def _shared_memory(slots, size):
    try:
        return torch.empty((slots, size), dtype=torch.uint8).share_memory_()
    except RuntimeError as error:
        raise InputError(
            f"/dev/shm: no room for the {slots} batches on their way ({slots * size / 2**20:.0f} MiB): {error}; enlarge"
            " it (docker run --shm-size), lower num_workers or take 0"
        ) from None


class _Making(Dataset):
    """What worker processes run: a batch packed into a slot of shared memory, or the line of an InputError, whose type
    and text DataLoader would bury in a traceback."""

    def __init__(self, maker: BatchMaker, slots: torch.Tensor):
        # Kept as bytes, because what a process meets when it opens the store is told only once it is at work.
        self.given = pickle.dumps(maker)
        self.maker = None
        self.slots = slots

    def __getitem__(self, task_and_slot: tuple[BatchTask, int]):
        task, slot = task_and_slot
        try:
            if self.maker is None:
                self.maker, self.given = pickle.loads(self.given), b""
            batch = self.maker.make(task)
        except (InputError, OSError) as error:
            return describe_error(error)
        return slot, packed_size(batch), pack(batch, self.slots[slot])


def packed_size(batch: PairBatch) -> int:
    """Bytes that ``pack`` fills."""
    return sum(_padded(array.nbytes) for array in _arrays(batch))


def pack(batch: PairBatch, memory: torch.Tensor):
    """Copy all arrays into one block of bytes, which crosses to a device's reach or another process at once.

    Returns its layout for ``unpacked``: (shape, type, first byte) of each array, ``joined_pairs`` and ``list_size``.
    """
    arrays = _arrays(batch)
    starts = np.cumsum([0, *(_padded(array.nbytes) for array in arrays)]).tolist()
    layout = [(array.shape, array.dtype.str, start) for array, start in zip(arrays, starts)]
    for view, array in zip(_views(memory, layout), arrays):
        view[...] = array
    return layout, batch.joined_pairs, batch.list_size


def unpacked(memory: torch.Tensor, layout, as_tensors: bool = False) -> PairBatch:
    """The batch whose arrays lie in ``memory``; see ``pack``.

    as_tensors: what is large becomes tensors. Copies of these to a GPU keep pinned memory from being used again
    before they are done; an array's would not.
    """
    layout, *numbers = layout
    views = list(_views(memory, layout))
    large: list[Any] = views[:4]
    if as_tensors:
        large = [_tensor_view(memory, view, start) for view, (_, _, start) in zip(large, layout)]
        views[4:] = [view.copy() for view in views[4:]]
    global_, descriptors, scales, positions = large
    offsets, query, candidate, labels = views[4:]
    return PairBatch(ImageBatch(global_, descriptors, scales, offsets, positions), query, candidate, labels, *numbers)


def _tensor_view(memory, view, start):
    kind = torch.from_numpy(np.empty(0, view.dtype)).dtype
    return memory[start : start + view.nbytes].view(kind).view(view.shape)


def _arrays(batch):
    images = batch.images
    of_images = [images.global_, images.descriptors, images.scales, images.positions, images.offsets]
    return [*of_images, batch.query, batch.candidate, batch.labels]


def _views(memory, layout):
    memory = memory.numpy()
    for shape, dtype, start in layout:
        yield np.ndarray(shape, dtype, memory, start)


def _padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT
