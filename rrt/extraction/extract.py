"""The images of lists into a store: parts by several processes, so that a run that was killed goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrt.extraction.describer import Describer
from rrt.extraction.levels import TooSmall
from rrt.files.cluster import extract_on_ray
from rrt.files.jobs import in_order_ahead, worker_processes
from rrt.files.machine import begin_worker, usable_cores
from rrt.formats.image_jobs import Job, read_image
from rrt.store.records import ImageRecord, Skipped
from rrt.store.writer import PartWriter

_worker: dict[str, Any] = {}


@dataclass(frozen=True)
class Plan:
    """Everything that extracts a store, as plain data that can be sent to another process.

    describer: makes the describer with `threads` threads; with several workers a function of a module (or a
    functools.partial of one). identity: all that shapes the numbers, as kept in the store. layout: local_dtype and
    compression of the store. block: images a part.
    """

    describer: Callable[[int], Describer]
    jobs: tuple[Job, ...]
    output: str
    identity: dict
    block: int = 64
    layout: dict = field(default_factory=dict)

    def writer(self) -> PartWriter:
        """A writer of this store's parts; InputError when parts of other settings are in the way."""
        return PartWriter(self.output, [job.name for job in self.jobs], self.identity, self.block, **self.layout)


class PartExtractor:
    """Extracts parts of a plan in this process."""

    def __init__(self, plan: Plan, threads: int):
        self.writer, self.describer = plan.writer(), plan.describer(threads)
        self._jobs = {job.name: job for job in plan.jobs}

    def run(self, part: int, on_image: Callable[[], object] = lambda: None) -> int:
        """Extract and write a part; returns how many images it has. on_image: called after each."""
        jobs = [self._jobs[name] for name in self.writer.block_names(part)]
        records = []
        for record in described(self.describer, jobs):
            records.append(record)
            on_image()
        self.writer.write_part(part, records)
        return len(jobs)


def described(describer: Describer, jobs: Iterable[Job]) -> Iterator[ImageRecord | Skipped]:
    """What a store keeps of each image, in order; the next ones are decoded ahead."""
    for image in in_order_ahead(read_image, jobs, ahead=3, threads=1):
        if image.pixels is None:
            yield Skipped(image.job.name, image.reason)
            continue
        try:
            yield describer.describe(image.pixels, image.job.name, image.resize_factor)
        except TooSmall as too_small:
            yield Skipped(image.job.name, str(too_small))


def extract(
    plan: Plan,
    model_sha256: str = "",
    desc_name: str = "",
    num_workers: int = 0,
    keep_parts: bool = False,
    ray_address: str | None = None,
    gpu: bool = True,
) -> list[Skipped]:
    """Extract what the store of ``plan`` still lacks and return the images left out.

    num_workers: processes (0: one a usable core; 1: this process). keep_parts: the store is the folder of its parts
    (rrt.store.folder), nothing is merged. ray_address: a Ray cluster does the work instead, with a worker of one thread
    on each core, or, where the describer takes a GPU (gpu), on each of these. Raises InputError when a worker died or
    parts of another extraction are in the way.
    """
    writer = plan.writer()
    if keep_parts:
        writer.check_keeping()
    with writer.progress(f"extract {Path(plan.output).name}") as (missing, shown):
        num_workers = min(num_workers or usable_cores(), max(1, len(missing)))
        if ray_address and missing:
            extract_on_ray(_open_for_one, plan, missing, ray_address, shown.update, gpu)
        elif num_workers == 1 and missing:
            extractor = PartExtractor(plan, usable_cores())
            for part in missing:
                extractor.run(part, shown.update)
        elif missing:
            _run_workers(plan, missing, num_workers, shown.update)
    (writer.keep_parts if keep_parts else writer.merge)(model_sha256=model_sha256, desc_name=desc_name)
    return writer.skipped


def _open_for_one(plan):
    return PartExtractor(plan, threads=1).run


def _run_workers(plan, parts, num_workers, on_images):
    threads = max(1, usable_cores() // num_workers)
    died = f"{plan.output}: a worker process died (out of memory?); whole parts are kept, run again with fewer workers"
    with worker_processes(num_workers, _start, (plan, threads), died) as pool:
        for done in as_completed([pool.submit(_extract, part) for part in parts]):
            on_images(done.result())


def _start(plan, threads):
    begin_worker()
    _worker["plan"], _worker["threads"] = plan, threads


def _extract(part: int) -> int:
    # The model is loaded by the first part, not by the initialiser, whose errors an executor does not tell.
    if "extractor" not in _worker:
        _worker["extractor"] = PartExtractor(_worker["plan"], _worker["threads"])
    return _worker["extractor"].run(part)
