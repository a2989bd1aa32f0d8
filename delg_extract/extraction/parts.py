"""A store's parts, one after the other: decoding ahead of the network, writing behind it (docs/store.md 3: a part is
whole or not there)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from delg_extract.extraction.extractor import Descriptors, Extractor, Resized
from delg_extract.extraction.images import decode_ahead
from delg_extract.extraction.settings import ExtractionSettings
from rrt.formats.image_jobs import Job, ReadImage
from rrt.store.records import ImageRecord, Skipped
from rrt.store.writer import PartWriter


@dataclass(frozen=True)
class Plan:
    """Everything that extracts a store, as plain data that can be sent to another process or machine.

    model: weight file or SavedModel folder. override: settings of the network that replace those of the weight file.
    identity: all that shapes the numbers, as kept in the store. layout: local_dtype and compression of the store.
    batch: images of one size that go through the network together.
    """

    model: str
    settings: ExtractionSettings
    jobs: tuple[Job, ...]
    output: str
    identity: dict
    override: dict = field(default_factory=dict)
    precision: str = "float32"
    block: int = 64
    batch: int = 1
    layout: dict = field(default_factory=dict)

    def writer(self) -> PartWriter:
        """A writer of this store's parts; InputError when parts of other settings are in the way."""
        return PartWriter(self.output, [job.name for job in self.jobs], self.identity, self.block, **self.layout)

    def extractor(self) -> Extractor:
        """The network, loaded (TensorFlow is imported here, not before)."""
        from delg_extract.extraction.open import open_network

        return Extractor(open_network(self.model, self.precision, **self.override), self.settings)


class PartExtractor:
    """Extracts parts of a plan in this process."""

    def __init__(self, plan: Plan, threads: int = 2):
        self.plan, self.threads = plan, threads
        self.writer = plan.writer()
        self.extractor = plan.extractor()
        self._jobs = {job.name: job for job in plan.jobs}

    def run(self, parts: Iterable[int], on_images: Callable[[int], object] = lambda count: None) -> None:
        """Extracts and writes the parts; ``on_images`` is told how many images are done since it was last told.

        At most one part waits to be written while the next is computed, and a few images are decoded ahead.
        """
        parts = list(parts)
        jobs = (self._jobs[name] for part in parts for name in self.writer.block_names(part))
        images = decode_ahead(jobs, self.extractor, ahead=2 * self.plan.batch + 2, threads=self.threads)
        with ThreadPoolExecutor(1) as background:
            writing = None
            for part in parts:
                records = self._records(images, len(self.writer.block_names(part)), on_images)
                if writing:
                    writing.result()
                writing = background.submit(self.writer.write_part, part, records)
            if writing:
                writing.result()

    def _records(self, images, count: int, on_images) -> list[ImageRecord | Skipped]:
        """Records of the next ``count`` images, in any order: those of one size go through the network together."""
        records, by_size = [], {}
        for _ in range(count):
            image, resized = next(images)
            if resized is None:
                records.append(Skipped(image.job.name, image.reason))
                on_images(1)
                continue
            waiting = by_size.setdefault(resized.pixels.shape, [])
            waiting.append((image, resized))
            if len(waiting) == self.plan.batch:
                records += self._described(by_size.pop(resized.pixels.shape), on_images)
        for waiting in by_size.values():
            records += self._described(waiting, on_images)
        return records

    def _described(self, images: list[tuple[ReadImage, Resized]], on_images) -> list[ImageRecord | Skipped]:
        found = self.extractor.describe([resized for _, resized in images])
        on_images(len(images))
        return [to_record(image, descriptors) for (image, _), descriptors in zip(images, found)]


def to_record(image: ReadImage, descriptors: Descriptors | None) -> ImageRecord | Skipped:
    """What the store keeps of an image: keypoints as x, y in pixels of the (cropped) image."""
    if descriptors is None:
        return Skipped(image.job.name, Extractor.TOO_SMALL)
    assert image.pixels is not None
    height, width = image.pixels.shape[:2]
    return ImageRecord(
        name=image.job.name,
        size=(width, height),
        global_=descriptors.global_descriptor,
        descriptors=descriptors.descriptors,
        keypoints=descriptors.locations[:, ::-1],
        scales=descriptors.scales,
        attention=descriptors.attention,
    )
