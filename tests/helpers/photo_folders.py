"""Folders of made-up photographs, and descriptors of them without a network, for the tests of tools/search.py."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rrt.errors import InputError
from rrt.formats.image_jobs import Job, read_image, read_table
from rrt.photo_index import extraction
from rrt.photo_index.update import BuildSettings, update
from rrt.store.records import ImageRecord, Skipped
from rrt.store.writer import PartWriter

# As lite0 has them, whose reranker is the default.
GLOBAL, LOCAL = 512, 128


def draw(path, seed, size=(80, 60), orientation=None, scene=None):
    """A smooth image of its own for every seed, or of a scene with noise of the seed; returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed if scene is None else scene).integers(30, 226, (3, 4, 3))
    if scene is not None:
        cells = cells + np.random.default_rng([seed, 1]).integers(-12, 13, cells.shape)
    pixels = cv2.resize(cells.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def detailed(seed, size=(320, 240)):
    """A picture with details, uint8 RGB [h, w, 3], of its own for every seed."""
    generator, (width, height) = np.random.default_rng(seed), size
    pixels = np.full((height, width, 3), generator.integers(60, 200, 3), np.uint8)
    for x, y, side, *colour in generator.integers(0, (width, height, 40, 256, 256, 256), (120, 6)).tolist():
        cv2.rectangle(pixels, (x, y), (x + side, y + side // 2 + 3), colour, -1)
        cv2.line(pixels, (x, y), (y, x), colour[::-1], 1)
    return pixels


def describe(job: Job, pixels_box=None):
    """An ImageRecord (colours of a grid of 4 x 4) or Skipped, as delg_extract would answer."""
    picture = read_image(job)
    if picture.pixels is None:
        return Skipped(job.name, picture.reason)
    pixels = picture.pixels
    if pixels_box:
        x1, y1, x2, y2 = pixels_box
        pixels = pixels[y1:y2, x1:x2]
    if min(pixels.shape[:2]) < 10:
        return Skipped(job.name, "a side is shorter than 10 pixels")
    grid = cv2.resize(pixels, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float32) / 255 - 0.5
    rows = np.zeros((16, LOCAL), np.float32)
    rows[:, :8] = np.tile(grid.reshape(16, 3), (1, 3))[:, :8] + np.float32([1, 0, 0, 0, 0, 0, 0, 0])
    height, width = pixels.shape[:2]
    keypoints = (np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(16, 2) + 0.5) * (width / 4, height / 4)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    vector = np.zeros(GLOBAL, np.float32)
    vector[: grid.size] = grid.reshape(-1)
    return ImageRecord(
        job.name,
        (width, height),
        vector / np.linalg.norm(vector),
        unit,
        keypoints.astype(np.float32),
        np.ones(16, np.float32),
        np.linspace(2, 1, 16, dtype=np.float32),
    )


def fake_extract(flags, table, output, count, num_workers, lock, seconds=0.0, described=None):
    """Stands for rrt.photo_index.extraction.extract; parts of two images. described: a list that takes the files
    looked at."""
    jobs = {job.name: Job(job.name, job.file, upright=True) for job in read_table(table)}
    assert len(jobs) == count
    writer = PartWriter(output, list(jobs), {"fake": 1}, block=2)
    for part in writer.missing_parts():
        time.sleep(seconds)
        names = writer.block_names(part)
        if described is not None:
            described += [str(jobs[name].file) for name in names]
        writer.write_part(part, [describe(jobs[name]) for name in names])
    writer.merge(model_sha256="0" * 64, desc_name="photographs")


def fake_description(flags):
    return {"flags": flags, "model_sha256": "0" * 64, "settings": {"flags": json.loads(json.dumps(flags))}}


class FakeDescriber:
    """Stands for a Describer; ``wait``: an event that every request waits for."""

    def __init__(self, wait=None):
        self.wait, self.asked = wait, []

    def start(self):
        pass

    close = start

    def describe(self, image, box=None):
        self.asked.append((Path(image), box))
        if self.wait:
            self.wait.wait(20)
        record = describe(Job("query", Path(image), upright=True), box)
        if isinstance(record, Skipped):
            raise InputError(record.reason)
        return record


def use_fakes(monkeypatch, described=None):
    """Has updates describe images in this process."""
    monkeypatch.setattr(extraction, "extract", lambda *given: fake_extract(*given, described=described))
    monkeypatch.setattr(extraction, "describe_extraction", fake_description)


def build(folder, photos, **settings):
    return update(folder, str(photos), BuildSettings(**settings))
