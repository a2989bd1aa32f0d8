"""The JPEG that cameras put into their raw files, found without decoding raw values.

Most raw files are TIFF 6.0: a header, then directories (IFDs) of entries, some of which lead to further directories.
Adobe's DNG specification 1.7 and the makers' habits say where previews are: in a strip that is a JPEG, in
JPEGInterchangeFormat, in Panasonic's JpgFromRaw. Fujifilm's files name theirs in the header. Whatever a file says is
checked against its size; a file that leads in circles or has too much of something has no more of it read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

SUFFIXES = (
    *(".dng", ".cr2", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".pef", ".srw", ".rw2", ".raf", ".3fr", ".erf"),
    *(".mef", ".iiq", ".dcr", ".kdc"),
)
NO_PREVIEW = "a camera's raw file without a preview that can be read; export it as JPEG"
_FUJIFILM = b"FUJIFILMCCD-RAW "
_MAGICS = (42, 85)  # of TIFF and of Panasonic
# Limits on what one file has read: directories, entries of one, values of an entry, bytes of a preview.
_DIRECTORIES, _ENTRIES, _VALUES, _LARGEST = 40, 1000, 64, 256_000_000
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4}  # of the types that are of use here
_COMPRESSION, _PHOTOMETRIC, _STRIP, _STRIP_BYTES, _JPEG, _JPEG_BYTES = 259, 262, 273, 279, 513, 514
_ORIENTATION, _DATE, _FURTHER, _EXIF, _TAKEN, _DNG, _JPG_FROM_RAW = 274, 306, 330, 34665, 36867, 50706, 46
# Values of sensors: colour filter arrays, linear raw; ways of compressing them by Nikon, Sony, Pentax, Samsung, Kodak.
_SENSOR, _SENSOR_COMPRESSIONS = {32803, 34892}, {34713, 32767, 65535, 32769, 32770, 32772, 65000}


class Preview(NamedTuple):
    """jpeg: its bytes; orientation: EXIF's, 1 = upright, 0 = the JPEG's own says; date: when it was taken, as EXIF has
    it, "" where the file does not say."""

    jpeg: bytes
    orientation: int = 0
    date: str = ""


def find_preview(file: BinaryIO, named_raw: bool = False) -> Preview | None:
    """The largest JPEG in a raw file. None where the file is no raw one; without ``jpeg`` where it is one that has no
    preview. named_raw: whether its name says that it is raw. Raises OSError alone."""
    head = _at(file, 0, 92)
    if head.startswith(_FUJIFILM) and len(head) == 92:
        return Preview(_largest(file, [struct.unpack(">II", head[84:])]))
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 10:
        return None
    magic, first = struct.unpack(order + "HI", head[2:8])
    if magic not in _MAGICS:
        return None
    tiff = _Tiff(file, order)
    directories = list(tiff.directories(first))
    is_raw = magic != _MAGICS[0] or head[8:10] == b"CR" or tiff.has_sensor(directories)
    if not is_raw and not named_raw:
        return None
    jpeg = _largest(file, [place for directory in directories for place in tiff.strips(directory)])
    if not jpeg and not is_raw:
        return None
    orientation = next(iter(tiff.values(directories[0], _ORIENTATION)), 1) if directories else 1
    dates = [tiff.text(directory, tag) for tag in (_TAKEN, _DATE) for directory in directories]
    return Preview(jpeg, orientation if 1 <= orientation <= 8 else 1, next(filter(None, dates), ""))


class _Tiff:
    """The directories of a TIFF file, each {tag: (type, count, where its values are)}."""

    def __init__(self, file: BinaryIO, order: str):
        self.file, self.order = file, order

    def directories(self, first: int) -> Iterator[dict[int, tuple[int, int, int]]]:
        """All that can be reached from the one at ``first``, each once."""
        waiting, seen = [first], set()
        while waiting and len(seen) < _DIRECTORIES:
            start = waiting.pop(0)
            counted = b"" if start in seen or not start else _at(self.file, start, 2)
            if len(counted) < 2:
                continue
            seen.add(start)
            (count,) = struct.unpack(self.order + "H", counted)
            content = _at(self.file, start + 2, 12 * min(count, _ENTRIES) + 4)
            found = {}
            for place in range(0, min(12 * count, len(content) - 11), 12):
                tag, kind, number, value = struct.unpack(self.order + "HHII", content[place : place + 12])
                inline = _BYTES.get(kind, 5) * number <= 4
                found.setdefault(tag, (kind, number, start + 2 + place + 8 if inline else value))
            yield found
            waiting += self.values(found, _FURTHER) + self.values(found, _EXIF)
            if count <= _ENTRIES and len(content) == 12 * count + 4:
                waiting += struct.unpack(self.order + "I", content[-4:])

    def values(self, directory, tag: int) -> list[int]:
        """The whole numbers of an entry; none where there is no such entry or it is not one of them."""
        kind, number, place = directory.get(tag, (0, 0, 0))
        code = {3: "H", 4: "I", 13: "I"}.get(kind)
        if code is None or not 0 < number <= _VALUES:
            return []
        content = _at(self.file, place, _BYTES[kind] * number)
        return (
            list(struct.unpack(f"{self.order}{number}{code}", content)) if len(content) == _BYTES[kind] * number else []
        )

    def text(self, directory, tag: int) -> str:
        """The text of an entry, or ""."""
        kind, number, place = directory.get(tag, (0, 0, 0))
        return (
            _at(self.file, place, number).decode("ascii", "replace").strip(" \0") if kind == 2 and number <= 64 else ""
        )

    def has_sensor(self, directories) -> bool:
        """Whether one holds values of a sensor."""
        return any(
            _DNG in directory
            or _SENSOR.intersection(self.values(directory, _PHOTOMETRIC))
            or _SENSOR_COMPRESSIONS.intersection(self.values(directory, _COMPRESSION))
            for directory in directories
        )

    def strips(self, directory) -> Iterator[tuple[int, int]]:
        """(Start, length) of what may be JPEGs, but those of a sensor's values."""
        if _SENSOR.intersection(self.values(directory, _PHOTOMETRIC)):
            return
        for start, length in ((_STRIP, _STRIP_BYTES), (_JPEG, _JPEG_BYTES)):
            starts, lengths = self.values(directory, start), self.values(directory, length)
            if len(starts) == len(lengths) == 1:
                yield starts[0], lengths[0]
        kind, number, place = directory.get(_JPG_FROM_RAW, (0, 0, 0))
        if kind in (1, 7):
            yield place, number


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _largest(file: BinaryIO, places) -> bytes:
    """The JPEG of most pixels at one of the places (start, length), b"" where none is."""
    size = file.seek(0, os.SEEK_END)
    found = [
        (_pixels(file, start), start, length)
        for start, length in places
        if 0 < start and 100 <= length <= _LARGEST and start + length <= size
    ]
    pixels, start, length = max(found, default=(0, 0, 0))
    return _at(file, start, length) if pixels else b""


def _pixels(file: BinaryIO, start: int) -> int:
    """Pixels that the head of a JPEG tells of; 0 for what is none, and for what decoders of photographs do not read:
    lossless ones, which hold values of sensors, and those of more than 8 bits."""
    if _at(file, start, 2) != b"\xff\xd8":
        return 0
    for _ in range(_VALUES):
        segment = file.read(4)
        if len(segment) < 4 or segment[0] != 0xFF:
            return 0
        marker, length = segment[1], struct.unpack(">H", segment[2:])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            head = file.read(6)
            bits, height, width, channels = struct.unpack(">BHHB", head) if len(head) == 6 else (0, 0, 0, 0)
            return height * width if marker <= 0xC2 and bits == 8 and channels in (1, 3) else 0
        if marker == 0xDA or length < 2:
            return 0
        file.seek(length - 2, os.SEEK_CUR)
    return 0
