"""Images described in one call: files, images of Pillow, arrays.

rrt.describe("tower.jpg")
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, overload

import numpy as np
from PIL import Image, ImageOps

from rrt.errors import InputError
from rrt.extraction.describer import Describer, open_describer
from rrt.extraction.levels import TooSmall
from rrt.files.machine import usable_cores
from rrt.files.names import shown
from rrt.formats.image_jobs import read_query
from rrt.store.records import ImageRecord

ImageLike = str | Path | Image.Image | np.ndarray
WANTED = "give uint8 [height, width, 3] in RGB, an image of Pillow, or a file"


def pixels_of(image: ImageLike) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an image, upright. Raises InputError, which names the file."""
    if isinstance(image, str | Path):
        try:
            return read_query(image)
        except InputError as reason:
            raise InputError(f"{shown(str(image))}: {reason}; give a photograph (JPEG, PNG, ...)") from None
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise InputError(f"an array {pixels.shape} of {pixels.dtype} is no image; {WANTED}")
    if 0 in pixels.shape:
        raise InputError(f"an array {pixels.shape} holds no pixels; give an image")
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2))


# A lock, so that threads that begin together do not each open the model.
_opening = Lock()


@lru_cache(maxsize=4)
def _opened(model: str, settings: tuple[tuple[str, Any], ...]) -> Describer:
    return open_describer(model, **dict(settings))


def describer_of(model: str | Describer, **settings) -> Describer:
    """The describer of a name, opened once in a process, or the one that is given."""
    if not isinstance(model, str):
        return model
    with _opening:
        hashable = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        return _opened(model, tuple(sorted(hashable.items())))


@overload
def describe(image: ImageLike, model: str | Describer = ..., **settings) -> ImageRecord: ...


@overload
def describe(image: Iterable[ImageLike], model: str | Describer = ..., **settings) -> list[ImageRecord]: ...


def describe(image, model: str | Describer = "lite0", **settings):
    """The global and local descriptors of an image, or of a list of images, which is faster than one after the other ->
    ImageRecord, or a list of them.

    image: a file, an image of Pillow, or uint8 [H, W, 3] in RGB (grey: [H, W]); files and Pillow's are turned upright
    by EXIF. model: `lite0`, `onnx:FILE`, `transformers:NAME`, or a Describer, which is opened once; settings: of
    ``rrt.extraction.describer.open_describer``. Keypoints are in pixels of the upright image. Raises InputError.
    """
    if not isinstance(image, ImageLike):
        if not np.iterable(image) or isinstance(image, bytes):
            raise InputError(f"a {type(image).__name__} is no image; {WANTED}")
        return _described_each(list(image), model, settings)
    name = Path(image).name if isinstance(image, str | Path) else "image"
    try:
        return describer_of(model, **settings).describe(pixels_of(image), name)
    except TooSmall as too_small:
        raise InputError(f"{shown(name)}: {too_small}; give a larger image") from None


def _described_each(images: list[ImageLike], model: str | Describer, settings: dict[str, Any]) -> list[ImageRecord]:
    workers = min(usable_cores(), len(images))
    if workers < 2 or not isinstance(model, str) or model.startswith("transformers:"):
        return [describe(each, model, **settings) for each in images]
    # A thread for each image at a time: one image leaves most of many cores idle. The numbers are the same.
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(partial(describe, model=model, **{"threads": 1, **settings}), images))
