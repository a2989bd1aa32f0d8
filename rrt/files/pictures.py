"""Decoding an image as the reference does, for extraction and for drawings of what was extracted."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Box = tuple[int, int, int, int]


class Unreadable(Exception):
    """Its text is the reason why an image cannot be read."""


class Decoded(NamedTuple):
    """pixels: uint8 RGB [H, W, 3] of the image or of its box; whole_size: (width, height) of the whole image."""

    pixels: np.ndarray
    whole_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of ``pixels``."""
        return self.pixels.shape[1::-1]


def decode(path: str | Path, box: Box | None = None, turned: bool = False) -> Decoded:
    """RGB, cropped to the box (x1, y1, x2, y2) in pixels. turned: upright, as EXIF says, which the reference ignores.
    Raises Unreadable."""
    try:
        with Image.open(path) as image:
            image = (upright(image) if turned else image).convert("RGB")
        crop = image if box is None else image.crop(box)
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except UnidentifiedImageError:
        raise Unreadable("not an image that can be read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from None
    if min(crop.size) < 1:
        raise Unreadable(f"the box {box} is empty")
    return Decoded(np.asarray(crop), image.size)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is where EXIF is damaged."""
    image.load()  # outside of the try: a damaged image is another matter than damaged EXIF
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds for damaged EXIF
        return image
