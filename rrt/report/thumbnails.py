"""Small images for pages, made once: the name of a thumbnail says which file, of which size and time, it was made
from."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rrt.files.atomic import write_bytes
from rrt.files.images import Box, Unreadable, size_of, small_jpeg
from rrt.files.jobs import run_jobs

EDGE = 256
_NAME = re.compile(r"([0-9a-f]{24})_(\d+)x(\d+)\.jpg")
# Below this many, starting processes takes longer than the images.
_FEW = 100


@dataclass(frozen=True)
class Job:
    """An image to be shown: its file, and the box (x1, y1, x2, y2) it is cropped to, in its pixels, if any."""

    file: Path
    box: Box | None = None


@dataclass(frozen=True)
class Thumbnail:
    """file: its name in the folder of thumbnails; size: width and height of the whole image it was made from."""

    file: str
    size: tuple[int, int]


def make_thumbnails(folder, jobs: list[Job], num_workers: int = 1) -> dict[Job, Thumbnail]:
    """A JPEG of at most EDGE pixels a side for every job, except where the file is missing or no image.

    What the folder holds already is taken as it is: a second run, or one after a kill, makes what is missing or was
    made of another file. EXIF orientation is ignored, as in the extraction, whose boxes it would turn.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = _by_key(file.name for file in folder.iterdir())
    keys = {job: key for job in dict.fromkeys(jobs) if (key := _key(job))}
    missing = [(job, folder, key) for job, key in keys.items() if key not in there]
    if missing:
        made = run_jobs(_make, missing, num_workers if len(missing) >= _FEW else 1, "thumbnails")
        there |= _by_key(filter(None, made))
    return {job: there[key] for job, key in keys.items() if key in there}


def _by_key(names: Iterable[str]) -> dict[str, Thumbnail]:
    """{key: Thumbnail} of those names that are a thumbnail's."""
    found = filter(None, map(_NAME.fullmatch, names))
    return {match[1]: Thumbnail(match[0], (int(match[2]), int(match[3]))) for match in found}


def remove_others(folder, kept) -> None:
    """Remove the thumbnails of a folder that are not among the names ``kept``."""
    for file in Path(folder).iterdir():
        if _NAME.fullmatch(file.name) and file.name not in kept:
            file.unlink()


def _key(job):
    """None for what is no file."""
    try:
        status = job.file.stat()
    except (OSError, ValueError):
        return None
    told = f"{job.file.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0{job.box}\0{EDGE}"
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _make(task) -> str | None:
    """Write one thumbnail; its name, or None when the file is no image that can be read."""
    job, folder, key = task
    try:
        size = size_of(job.file)
        jpeg = small_jpeg(job.file, EDGE, job.box)
    except Unreadable:
        return None
    name = f"{key}_{size[0]}x{size[1]}.jpg"
    write_bytes(folder / name, jpeg)
    return name
