"""Work shared among the machines of a Ray cluster (extra ``cluster``): a task a part, the results of one process.

Every machine needs this package and the same paths. A worker opens what all parts need once; one that is lost costs the
part it was at, which Ray gives to another.
"""

from __future__ import annotations

import importlib
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from rrt.errors import InputError, describe_error

ATTEMPTS = 3
# Tasks handed to Ray at once; it keeps what a task needs in memory until it runs.
_WINDOW = 256
# In a worker: the run it works for, and what does a part of it.
_opened: dict[str, Any] = {}


def run_on_ray(
    opener: Callable[[Any], Callable[[Any], Any]],
    shared: Any,
    parts: Iterable[Any],
    address: str,
    on_done: Callable[[Any, Any], object],
    gave_up: Callable[[Any, str], InputError],
    gpu: bool = True,
) -> None:
    """``opener(shared)(part)`` for every part, as tasks of the Ray cluster at ``address`` ("local": started here,
    "auto": the one of this machine; where this process is connected already, that one).

    opener: a function of a module, called once by a worker; what it returns is given the parts one by one.
    on_done(part, result) is called here, in the order in which parts are finished. gave_up(part, reason): the error
    that ends the run when a part failed ``ATTEMPTS`` times. gpu: a task takes a GPU where the cluster has some, else a
    core. Raises InputError when Ray or the cluster is not there, and what a task raises.
    """
    ray = _load()
    with _Connection(ray, address):
        resources = {"num_gpus": 1} if gpu and ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        task = ray.remote(**resources, max_retries=ATTEMPTS - 1, retry_exceptions=[OSError])(_work)
        # In a list, because Ray would send what it is given by itself along with every task.
        common = secrets.token_hex(8), opener, [ray.put(shared)]
        todo, running = deque(parts), {}
        while todo or running:
            while todo and len(running) < _WINDOW:
                part = todo.popleft()
                running[task.remote(*common, part)] = part
            (done,), _ = ray.wait(list(running), num_returns=1)
            part = running.pop(done)
            try:
                on_done(part, ray.get(done))
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, OSError):
                    raise gave_up(part, describe_error(cause)) from None
                raise (cause if isinstance(cause, InputError) else error) from None
            except ray.exceptions.RayError as error:
                raise gave_up(part, describe_error(error)) from None


def extract_on_ray(opener, plan, parts: list[int], address: str, on_images, gpu: bool = True) -> None:
    """run_on_ray() for parts of the store of an extraction's ``plan``; on_images is told how many images a part has."""
    run_on_ray(
        opener,
        plan,
        parts,
        address,
        lambda part, count: on_images(count),
        lambda part, reason: gave_up(plan, part, reason),
        gpu,
    )


def gave_up(plan, part: int, reason: str) -> InputError:
    """The error that ends an extraction when a part cannot be done."""
    first = plan.jobs[part * plan.block].name
    return InputError(
        f"{plan.output}: part {part} (from {first!r}) failed {ATTEMPTS} times: {reason}; whole parts are kept, run "
        "again"
    )


def _work(run, opener, shared, part):
    if _opened.get("run") != run:
        _opened.clear()
        _opened.update(work=opener(_load().get(shared[0])), run=run)
    return _opened["work"](part)


class _Connection:
    """The cluster at an address; one that this process was connected to before stays so."""

    def __init__(self, ray, address):
        self.ray, self.address, self.ours = ray, address, not ray.is_initialized()

    def __enter__(self):
        if not self.ours:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if self.address not in ("auto", "local"):
                _reach(self.address)  # Ray itself would knock for minutes
            self.ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"ray_address {self.address}: no Ray cluster answers there ({describe_error(error)}); start one with "
                "'ray start --head', or give local"
            ) from None

    def __exit__(self, *_):
        if self.ours:
            self.ray.shutdown()


def _load() -> Any:
    try:
        # Named in no import statement: the package is an extra.
        return importlib.import_module("ray")
    except ImportError:
        raise InputError("ray_address: Ray is not installed; pip install 'rrt[cluster]'") from None


def _reach(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected HOST:PORT, auto or local")
    socket.create_connection((host, int(port)), timeout=10).close()
