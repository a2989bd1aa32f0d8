"""Images a second of the shipped extraction, decoding included (tools/benchmark.py lite0)."""

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from rrt.errors import check_count
from rrt.extraction.describer import open_describer
from rrt.files.jobs import in_order_ahead
from rrt.files.machine import usable_cores
from rrt.formats.image_jobs import Job, read_image
from tools.benchmarks.common import Row, add_options

HELP = "extraction with lite0, which ONNX Runtime computes on the processor: images a second"


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--images", type=int, default=60, help="made up, 1024 x 768 (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of one worker (default: one a usable core)")
    add_options(parser, quick="a few images")


def run(args):
    """Rows of one worker that reads ahead. Raises InputError."""
    check_count("images", args.images)
    count, threads = 3 if args.quick else args.images, args.threads or usable_cores()
    describer = open_describer("lite0", threads=threads)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(str(i), Path(folder) / f"{i}.jpg") for i in range(count)]
        for job in jobs:
            pixels = np.kron(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8), np.ones((32, 32, 1), np.uint8))
            Image.fromarray(pixels).save(job.file)
        images = in_order_ahead(read_image, [jobs[0], *jobs], ahead=3, threads=1)
        start = 0.0
        for number, image in enumerate(images):
            assert image.pixels is not None
            describer.describe(image.pixels, image.job.name, image.resize_factor)
            if number == 0:  # warmed up
                start = time.perf_counter()
        seconds = (time.perf_counter() - start) / count
    note = f"{threads} threads, {describer.device}, three scales, 1024 x 768 JPEG"
    return [Row("lite0: an image", 1000 * seconds, "ms", note), Row("lite0: speed", 1 / seconds, "images/s", note)]
