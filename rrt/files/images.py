"""Decoding an image as the reference does, for extraction and for drawings of what was extracted; small copies of
images for pages."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from rrt.errors import InputError
from rrt.files import raw
from rrt.files.names import existing

Box = tuple[int, int, int, int]
# No others are opened: Pillow knows more kinds, and some of them start other programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
RAW = "RAW"  # of cameras, of which the preview is read
_HEIF = find_spec("pillow_heif") is not None
_HEIF_BRANDS = tuple(f"ftyp{brand}".encode() for brand in "heic heix heim heis hevc hevx mif1 msf1 heif".split())
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm"),
    *(".pbm", ".avif", ".jp2"),
    *((".heic", ".heif") if _HEIF else ()),
    *raw.SUFFIXES,
)
LIMIT, DEFAULT_LIMIT = "RRT_MAX_MEGAPIXELS", 80.0
# Pixels that a box may exceed the image by: published boxes count both ends and are rounded.
_BEYOND = 2
# The limit is told as the image's reason.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unreadable(Exception):
    """Its text is the reason why an image cannot be read."""


class TooLarge(Unreadable):
    """An image with more pixels than the limit."""


class Decoded(NamedTuple):
    """pixels: uint8 RGB [H, W, 3] of the image or of its box; whole_size: (width, height) of the whole image."""

    pixels: np.ndarray
    whole_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of ``pixels``."""
        return self.pixels.shape[1::-1]


def parse_box(text: str, name: str = "the box") -> Box:
    """``x1,y1,x2,y2``, also in brackets, in pixels; x2 and y2 lie outside. name: what errors call it. Raises
    InputError."""
    try:
        x1, y1, x2, y2 = (int(part) for part in text.removeprefix("[").removesuffix("]").split(","))
    except ValueError:
        raise InputError(f"{name} {text[:40]}: expected x1,y1,x2,y2, four whole numbers of pixels") from None
    if not (0 <= x1 < x2 <= 10**6 and 0 <= y1 < y2 <= 10**6):
        raise InputError(
            f"the box {x1},{y1},{x2},{y2} is empty, begins below 0 or has its corners the wrong way round; expected"
            " 0 <= x1 < x2 and 0 <= y1 < y2"
        )
    return x1, y1, x2, y2


def decode(path: str | Path | io.BytesIO, box: Box | None = None, turned: bool = False) -> Decoded:
    """RGB of a file (or its bytes), cropped to the box (x1, y1, x2, y2) in pixels. turned: upright, as EXIF says, which
    the reference ignores. Raises Unreadable."""
    image = _opened(path, turned)
    crop = _cropped(image, box)
    return Decoded(np.asarray(crop), image.size)


def size_of(file: str | Path) -> tuple[int, int]:
    """(width, height) in pixels from an image's header. Raises Unreadable."""
    with _open(file) as image:
        return image.size


def kind_of(file: str | Path) -> str:
    """What a file is by its header: one of FORMATS, HEIF or RAW. Raises Unreadable."""
    with _open(file) as image:
        return "JPEG" if image.format == "MPO" else str(image.format)


def taken(file: str | Path) -> str:
    """When EXIF says that a photograph was taken, `2024-05-31T18:02:07` by the camera's clock; "" where it does not."""
    try:
        with _open(file) as image:
            exif = image.getexif()
            digital = exif.get_ifd(ExifTags.IFD.Exif)
            for table, tag in (
                (digital, ExifTags.Base.DateTimeOriginal),
                (digital, ExifTags.Base.DateTimeDigitized),
                (exif, ExifTags.Base.DateTime),
            ):
                try:
                    return datetime.strptime(str(table.get(tag)).strip(" \0"), "%Y:%m:%d %H:%M:%S").isoformat()
                except ValueError:  # cameras without a clock write zeros or blanks
                    continue
    except Unreadable:
        pass
    return ""


def small_jpeg(path: str | Path, side: int, box: Box | None = None, turned: bool = False) -> bytes:
    """A JPEG of at most ``side`` pixels a side, without any metadata. box, turned and errors: as of decode()."""
    # The decoder of a JPEG can halve it as it reads, but a box is in pixels of the whole image.
    image = _cropped(_opened(path, turned, None if box else 2 * side), box)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()  # Pillow would write the comment of the original
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def megapixel_limit() -> float:
    """Megapixels of the largest image that is read: RRT_MAX_MEGAPIXELS of the environment, or DEFAULT_LIMIT. Raises
    InputError."""
    text = os.environ.get(LIMIT) or DEFAULT_LIMIT
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e6:
        raise InputError(f"{LIMIT}={text}: expected a number of megapixels above 0")
    return limit


NO_HEIF = (
    "HEIC cannot be read without the package pillow-heif; install it (pip install 'rrt[heif]'), or convert to JPEG"
)


@cache
def _reads_heif() -> bool:
    """Whether Pillow knows HEIC from now on; a package that cannot be loaded is as good as none."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]  # of those who installed it

        pillow_heif.register_heif_opener()
        return True
    except Exception:
        return False


def _found(file: str | Path) -> str | Path:
    return file if str(file).isascii() else existing(file)  # a Path takes as long as opening a file


@contextmanager
def _open(file: str | Path | io.BytesIO) -> Iterator[Image.Image]:
    """The image, its pixels not yet decoded. Whatever happens with it becomes Unreadable: damaged files make Pillow's
    decoders raise many kinds."""
    limit, is_heif = megapixel_limit(), False
    if Image.MAX_IMAGE_PIXELS and Image.MAX_IMAGE_PIXELS < limit * 1e6:
        Image.MAX_IMAGE_PIXELS = int(limit * 1e6)
    try:
        # Not by its path: Pillow would map an uncompressed TIFF, and mixes up its sides where it is turned.
        with nullcontext(file) if isinstance(file, io.BytesIO) else open(_found(file), "rb") as data:
            head = data.read(12)
            is_heif = head[4:].startswith(_HEIF_BRANDS)  # it is loaded for those alone
            may_be_raw = head.startswith((b"II", b"MM", b"FUJIFILM"))
            formats = (*FORMATS, "HEIF") if is_heif and _reads_heif() else FORMATS
            preview = raw.find_preview(data, Path(str(file)).suffix.lower() in raw.SUFFIXES) if may_be_raw else None
            if preview and not preview.jpeg:
                raise Unreadable(raw.NO_PREVIEW)
            data.seek(0)
            with Image.open(io.BytesIO(preview.jpeg) if preview else data, formats=formats) as image:
                if preview:
                    _tell_of(image, preview)
                if image.width * image.height > limit * 1e6:
                    raise Image.DecompressionBombError
                yield image
    except (Unreadable, InputError):
        raise
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except UnidentifiedImageError:
        raise Unreadable(NO_HEIF if is_heif and not _reads_heif() else "not an image that can be read") from None
    except Image.DecompressionBombError:
        remedy = f"set {LIMIT} to a larger number if it is to be read"
        raise TooLarge(f"more than {limit:g} megapixels; {remedy}") from None
    except Exception as error:
        # What the system says, without the path that who asks names.
        said = (getattr(error, "strerror", None) or str(error)).split()
        raise Unreadable(" ".join(said)[:300] or type(error).__name__) from None


def _tell_of(preview: Image.Image, found: raw.Preview) -> None:
    """Gives the preview of a raw file what that says of it, as far as it does not say it itself."""
    exif = preview.getexif()
    if found.orientation:
        exif.setdefault(ExifTags.Base.Orientation, found.orientation)
    if found.date:
        exif.setdefault(ExifTags.Base.DateTime, found.date)
    preview.format = RAW


def _opened(file: str | Path | io.BytesIO, turned: bool, enough: int | None = None) -> Image.Image:
    """The image in RGB; one with more than ``enough`` pixels a side may be shrunk to no fewer."""
    with _open(file) as image:
        if enough:
            image.draft("RGB", (enough, enough))
        return _eight_bits(upright(image) if turned else image, image).convert("RGB")


def _eight_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """Grey images of more bits in 8; convert() would cut their values off at 255. 16 bits keep their highest 8, others
    are scaled from their own range, floats within 0..1 from that. file: the image as it was opened."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    image.load()  # an image that is turned as it is loaded has its sides only then
    values = np.asarray(image)
    if image.mode not in ("I", "F") or (image.mode == "I" and file.format in ("PPM", "PNG")):
        bits = file.tag_v2.get(258, (16,))[0] if isinstance(file, TiffImageFile) else 16  # a TIFF may have 12
        return Image.fromarray((values >> (bits - 8)).clip(0, 255).astype(np.uint8))
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise Unreadable("some of its values are not finite numbers; save it with 8 bits a channel")
    if image.mode == "F" and 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    return Image.fromarray(np.rint((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8))


def _cropped(image: Image.Image, box: Box | None) -> Image.Image:
    if box is None:
        return image
    width, height = image.size
    if min(box) < -_BEYOND or box[2] > width + _BEYOND or box[3] > height + _BEYOND:
        told = ",".join(map(str, box))
        raise Unreadable(f"the box {told} (x1,y1,x2,y2) goes beyond the image of {width} x {height} pixels")
    try:
        crop = image.crop(box)
    except ValueError as error:
        raise Unreadable(str(error)) from None
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
