"""Extracting the parts of a store as tasks of a Ray cluster (extra ``cluster``)."""

from __future__ import annotations

import importlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from delg_extract.extraction import workers
from delg_extract.extraction.parts import Plan
from delg_extract.extraction.workers import ATTEMPTS, extract_part, gave_up
from rrt.errors import InputError, describe_error

# Tasks handed to Ray at once; it keeps what a task needs in memory until it runs.
RAY_WINDOW = 256


def _reach(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected HOST:PORT, auto or local")
    socket.create_connection((host, int(port)), timeout=10).close()


def _extract_in_ray(plan: Plan, part: int) -> int:
    if not workers.state:
        os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
        workers.state["plan"] = plan
    return extract_part(part)


def run_on_ray(plan: Plan, parts: list[int], address: str, on_images: Callable[[int], object]) -> None:
    """Extracts the parts as tasks of the Ray cluster at ``address`` ("local": started here, "auto": the one of this
    machine).

    A task takes a core, or a GPU where the cluster has some. Tasks of lost workers are tried again by Ray. Every
    machine needs this package and the same paths for images, model and output. Raises InputError when Ray is not
    there or a part fails for good.
    """
    try:
        # Named in no import statement: the package is an extra.
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise InputError("--ray_address: Ray is not installed; pip install 'rrt[cluster]'") from None
    try:
        if address not in ("auto", "local"):
            _reach(address)  # Ray itself would knock for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--ray_address {address}: no Ray cluster answers there ({describe_error(error)}); start one with "
            "'ray start --head', or give local"
        ) from None
    try:
        resources = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        task = ray.remote(**resources, max_retries=ATTEMPTS - 1, retry_exceptions=[OSError])(_extract_in_ray)
        shared, todo, running = ray.put(plan), deque(parts), {}
        while todo or running:
            while todo and len(running) < RAY_WINDOW:
                part = todo.popleft()
                running[task.remote(shared, part)] = part
            (done,), _ = ray.wait(list(running), num_returns=1)
            part = running.pop(done)
            try:
                on_images(ray.get(done))
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, (InputError, OSError)) else error) from None
            except ray.exceptions.RayError as error:
                raise gave_up(plan, part, f"{describe_error(error)}") from None
    finally:
        ray.shutdown()
