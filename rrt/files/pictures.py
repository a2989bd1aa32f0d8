"""Decoding an image as the reference does, for extraction and for drawings of what was extracted; small copies of
images for pages."""

import io
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
    image = _opened(path, turned)
    crop = _cropped(image, box)
    return Decoded(np.asarray(crop), image.size)


def small_jpeg(path: str | Path, side: int, box: Box | None = None, turned: bool = False) -> bytes:
    """A JPEG of at most ``side`` pixels a side, without any metadata. box, turned and errors: as of decode()."""
    # The decoder of a JPEG can halve it as it reads, but a box is in pixels of the whole image.
    image = _cropped(_opened(path, turned, None if box else 2 * side), box)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def _opened(path: str | Path, turned: bool, enough: int | None = None) -> Image.Image:
    """The image in RGB; one with more than ``enough`` pixels a side may be shrunk to no fewer."""
    try:
        with Image.open(path) as image:
            if enough:
                image.draft("RGB", (enough, enough))
            return (upright(image) if turned else image).convert("RGB")
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except UnidentifiedImageError:
        raise Unreadable("not an image that can be read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from None


def _cropped(image: Image.Image, box: Box | None) -> Image.Image:
    if box is None:
        return image
    try:
        crop = image.crop(box)
    except (ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(" ".join(str(error).split())) from None
    if min(crop.size) < 1:
        raise Unreadable(f"the box {box} is empty")
    return crop


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is where EXIF is damaged."""
    image.load()  # outside of the try: a damaged image is another matter than damaged EXIF
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds for damaged EXIF
        return image
