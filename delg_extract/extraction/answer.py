"""Describes single images for another program: the network stays loaded, an image takes as long as its convolutions.

What a worker process of `concurrent.futures` runs (rrt/photo_index/delg.py). TensorFlow is loaded in that process
alone, and no exception of TensorFlow leaves it: to unpickle one, the program would have to load TensorFlow too.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from delg_extract.extraction.extractor import Extractor
from delg_extract.extraction.open import open_network
from delg_extract.extraction.options import extraction_of
from delg_extract.extraction.parts import to_record
from rrt.errors import InputError, describe_error
from rrt.files.images import Box
from rrt.files.machine import end_with_parent
from rrt.formats.image_jobs import Job, ReadImage, read_query
from rrt.progress import lock_with_threads
from rrt.store.records import ImageRecord, Skipped

QUERY = "query"  # the name of the image


def start_worker() -> None:
    """Initialiser of the worker: it ends with its parent, leaves Ctrl-C to it and prints nothing on its streams."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    lock_with_threads()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)


def load(words: tuple[str, ...]) -> None:
    """Load the network before it is needed; what is wrong with it is told with the first image."""
    with suppress(Exception):
        _opened(words)


def describe_image(words: tuple[str, ...], path: str, box: Box | None = None) -> ImageRecord:
    """The descriptors of an image, turned as its EXIF orientation says and cropped to ``box`` (pixels of the upright
    image).

    words: options of the extraction, as on a command line. Raises InputError with the reason alone, without the path.
    """
    try:
        return _described(words, path, box)
    except (InputError, OSError) as error:
        raise InputError(describe_error(error)) from None
    except Exception as error:
        raise InputError(f"cannot be described: {type(error).__name__}: {str(error)[:300]}") from None


@lru_cache(maxsize=1)
def _opened(words: tuple[str, ...]) -> Extractor:
    asked = extraction_of(words)
    return Extractor(open_network(asked.model, asked.precision, **asked.override), asked.settings)


def _described(words, path, box) -> ImageRecord:
    extractor = _opened(words)
    # A box is an image of its own: the reference's factor for crops would leave a small object of a large photograph
    # few pixels.
    pixels = read_query(path, box)
    (descriptors,) = extractor.describe([extractor.resize(pixels)])
    record = to_record(ReadImage(Job(QUERY, Path(path)), pixels), descriptors)
    if isinstance(record, Skipped):
        raise InputError(record.reason)
    return record
