"""Small upright JPEGs of photographs, without what else their files tell (place, camera)."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from rrt.errors import describe_error
from rrt.files.atomic import write_bytes
from rrt.files.pictures import upright
from rrt.photo_index.query import PhotoIndex

SIDE = 256  # pixels of the longest side
_QUALITY = 82


def small_jpeg(file: str | Path | io.BytesIO, side: int) -> bytes:
    """An image turned upright and shrunk to ``side`` pixels. Raises ValueError when it cannot be read."""
    try:
        with Image.open(file) as image:
            image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at a fraction of its size where that will do
            image = upright(image).convert("RGB")
            image.thumbnail((side, side))
            out = io.BytesIO()
            image.save(out, "JPEG", quality=_QUALITY)
            return out.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(describe_error(error)) from None


def thumbnail(index: PhotoIndex, number: int) -> bytes | None:
    """The small image of an entry, kept in the index; None when its file is gone or cannot be read any more."""
    path = index.folder / "thumbnails" / f"{index.entries[number].content}.jpg"
    try:
        return path.read_bytes()
    except OSError:
        pass
    file = index.file_of(number)
    try:
        made = small_jpeg(file, SIDE) if file else None
    except ValueError:
        return None
    if made:
        try:
            write_bytes(path, made)
        except OSError:
            pass  # an index that may only be read
    return made
