"""The extraction of a store, by this process, by processes of this machine or by a Ray cluster."""

from __future__ import annotations

from pathlib import Path

from delg_extract.extraction.parts import PartExtractor, Plan
from delg_extract.extraction.workers import LocalWorkers, default_workers, open_for_one
from rrt.files.cluster import extract_on_ray
from rrt.store.records import Skipped


def extract(
    plan: Plan,
    model_sha256: str = "",
    desc_name: str = "",
    num_workers: int = 1,
    ray_address: str | None = None,
    keep_parts: bool = False,
) -> list[Skipped]:
    """Extracts what the store of ``plan`` still lacks and returns the images left out.

    ``num_workers``: processes of this machine (0: a sensible number; 1: this process); ``ray_address``: a Ray cluster
    instead; ``keep_parts``: the store is the folder of its parts (rrt.store.folder), nothing is merged.
    """
    writer = plan.writer()
    if keep_parts:
        writer.check_keeping()
    with writer.progress(f"extract {Path(plan.output).name}") as (missing, shown):
        num_workers = min(num_workers or default_workers(), max(1, len(missing)))
        if ray_address and missing:
            extract_on_ray(open_for_one, plan, missing, ray_address, shown.update)
        elif num_workers == 1 and missing:
            PartExtractor(plan).run(missing, shown.update)
        elif missing:
            with LocalWorkers(plan, num_workers) as workers:
                workers.run(missing, shown.update)
    (writer.keep_parts if keep_parts else writer.merge)(model_sha256=model_sha256, desc_name=desc_name)
    return writer.skipped
