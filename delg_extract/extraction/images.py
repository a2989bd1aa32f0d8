"""The images of an extraction, decoded and resized ahead of the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from delg_extract.extraction.extractor import Extractor, Resized
from rrt.files.jobs import in_order_ahead
from rrt.formats.image_jobs import Job, ReadImage, read_image


def decode_ahead(
    jobs: Iterable[Job], extractor: Extractor, ahead: int, threads: int
) -> Iterator[tuple[ReadImage, Resized | None]]:
    """Images in order with their resized form (None for one that cannot be read), at most ``ahead`` of them waiting."""

    def prepare(job):
        image = read_image(job)
        return image, None if image.pixels is None else extractor.resize(image.pixels, image.resize_factor)

    return in_order_ahead(prepare, jobs, ahead, threads)
