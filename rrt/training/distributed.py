"""Several processes, on one machine or many, that train one network; started by torchrun:

    torchrun --nproc_per_node 2 experiment.py with temp_dir=logs/NAME dataset.gldv2_roxford_r50_gldv2 model.RRT

Each process computes its share of every batch; gradients are summed once an optimiser step, in one block. (Not by
DistributedDataParallel: a processor's threads gather their gradients themselves, a share may be empty, and 9 MB once a
step leave nothing to overlap.) Rank 0 alone writes, logs and evaluates. What fails in one process ends all of them with
the same line.
"""

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from rrt.devices import choose_device
from rrt.errors import InputError, describe_error

# The others wait while rank 0 evaluates. A process that ended is noticed at once, by its closed connections.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them; the default is a run of one process, where nothing is exchanged.

    device: what this process computes on. control: the group for messages between processors.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    control: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes, logs and evaluates."""
        return self.rank == 0

    def sum_gradients(self, parameters: list, figures: torch.Tensor) -> torch.Tensor:
        """Replace every ``parameter.grad`` by its sum over all processes, and return that of ``figures`` [k]."""
        if self.world_size == 1:
            return figures
        # A process without a share of the batch has no gradients.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), figures.to(gradients[0].dtype)])
        with _one_line():
            dist.all_reduce(flat)
        *parts, figures = flat.split([*(p.numel() for p in parameters), len(figures)])
        for parameter, part in zip(parameters, parts):
            parameter.grad = part.view_as(parameter)
        return figures

    def gather(self, value) -> list:
        """Every process' plain value, by rank; tensors in it on the processor."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        with _one_line():
            dist.all_gather_object(values, value, group=self.control)
        return values

    def from_first(self, make):
        """``make()`` of rank 0, the same in every process; called there alone. An InputError of it is raised in all."""
        value: list[Any] = [None]
        with self.agreeing():
            if self.is_first:
                value = [make()]
        if self.world_size > 1:
            with _one_line():
                dist.broadcast_object_list(value, src=0, group=self.control)
        return value[0]

    @contextmanager
    def agreeing(self):
        """What every process does by itself: when it ends with an InputError or OSError in one of them, all raise the
        same InputError."""
        problem = None
        try:
            yield
        except (InputError, OSError) as error:
            problem = error
        self.raise_together(problem)

    def raise_together(self, problem: Exception | None) -> None:
        """Raise the first process' problem in all, if there is any."""
        if self.world_size == 1:
            if problem is not None:
                raise problem
            return
        texts = [text for text in self.gather(describe_error(problem) if problem else None) if text]
        if texts:
            raise InputError(texts[0])


@contextmanager
def join_processes(cpu: bool = False):
    """The ``Processes`` that torchrun's environment describes, else those of a run of one; left when the block ends.

    A GPU each (by LOCAL_RANK) with NCCL where there are GPUs and not ``cpu``, else processors with gloo.
    """
    cuda = choose_device("cpu" if cpu else None) == "cuda"
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        yield Processes(device="cuda" if cuda else "cpu")
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if cuda and local_rank >= torch.cuda.device_count():
        raise InputError(
            f"torchrun started process {local_rank} of this machine, which has {torch.cuda.device_count()} GPUs; give"
            " --nproc_per_node at most that many, or cpu=True"
        )
    device = "cpu"
    if cuda:
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    with _one_line():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(control, dist.ProcessGroup), "every process is in this group"
    try:
        yield Processes(dist.get_rank(), world_size, device, control)
    finally:
        dist.destroy_process_group()


@contextmanager
def _one_line():
    try:
        yield
    except RuntimeError as error:
        # Without the line of PyTorch's sources before the reason and the advice behind it.
        reason = re.sub(r"^(\[\S*?:\d+\] )+", "", str(error).splitlines()[0]).split(". ")[0][:160]
        raise InputError(
            f"another process of this run ended or is out of reach ({reason}); resume=auto goes on"
        ) from None
