"""Images as they come from elsewhere: more bits than eight, damaged, hostile, enormous, of a kind that is not read."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from rrt.errors import InputError
from rrt.files.images import LIMIT, TooLarge, Unreadable, decode, size_of, small_jpeg

SECRET = b"12 Secret Street"


def grey():
    """uint8 [60, 80] with all values from 0 to 255."""
    noise = np.random.default_rng(1).integers(0, 256, (60, 80), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore


def twelve_bits(values):
    """An uncompressed TIFF of 12 bits a pixel."""
    wide = values.astype(np.uint16) << 4
    left, right = wide[:, 0::2], wide[:, 1::2]
    data = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], -1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


def write_grey(path, kind):
    """The image of grey() in a file of more bits."""
    sixteen, orientation = grey().astype(np.uint16) * 257, Image.Exif()
    if kind == "turned":
        orientation[0x0112] = 6
    if kind == "12 bits":
        path.write_bytes(twelve_bits(grey()))
    elif kind in ("16 bits", "turned"):
        Image.fromarray(sixteen).save(path, exif=orientation)
    elif kind == "16 bits, opencv":
        cv2.imwrite(str(path), sixteen)
    elif kind == "32 bits":
        Image.fromarray(grey().astype(np.int32) * 1000 - 5000).save(path)
    else:
        Image.fromarray(grey().astype(np.float32) / (1 if kind == "float 0 to 255" else 255)).save(path)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "name, kind",
    [
        ("a.png", "16 bits"),
        ("a.tif", "16 bits"),
        ("a.jp2", "16 bits"),
        ("a.png", "16 bits, opencv"),
        ("a.tif", "16 bits, opencv"),
        ("a.pgm", "16 bits, opencv"),
        ("a.tif", "12 bits"),
        ("a.tif", "32 bits"),
        ("a.tif", "float"),
        ("a.tif", "float 0 to 255"),
        ("a.pfm", "float"),
    ],
)
def test_a_grey_image_of_more_bits_is_the_same_as_in_eight(tmp_path, name, kind, turned):
    write_grey(tmp_path / name, kind)
    assert np.array_equal(decode(tmp_path / name, turned=turned).pixels, np.dstack([grey()] * 3))
    assert np.asarray(Image.open(io.BytesIO(small_jpeg(tmp_path / name, 40)))).std() > 10


def test_a_turned_grey_image_of_more_bits_is_upright(tmp_path):
    for name in ("a.png", "a.tif"):
        write_grey(tmp_path / name, "turned")
        assert np.array_equal(decode(tmp_path / name, turned=True).pixels[..., 0], np.rot90(grey(), -1)), name


def test_an_uncompressed_tiff_that_is_turned_keeps_its_pixels(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    Image.fromarray(grey()).save(tmp_path / "a.tif", exif=orientation)
    assert np.array_equal(decode(tmp_path / "a.tif").pixels[..., 0], np.rot90(grey(), -1))


def test_a_faint_float_image_is_not_stretched_and_an_even_one_is_no_error(tmp_path):
    Image.fromarray(np.full((20, 20), 0.5, np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((20, 20), 7000, np.float32)).save(tmp_path / "b.tif")
    assert (decode(tmp_path / "a.tif").pixels == 128).all() and (decode(tmp_path / "b.tif").pixels == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_the_reason(tmp_path, value):
    values = grey().astype(np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(Unreadable, match="not finite"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["AVIF", "JPEG", "PNG", "WEBP", "TIFF", "GIF", "JPEG2000", "BMP", "PPM"])
def test_whatever_a_damaged_file_raises_is_its_reason(tmp_path, kind):
    out, rng, told = io.BytesIO(), np.random.default_rng(3), 0
    Image.fromarray(cv2.resize(grey(), (64, 48))).convert("RGB").save(out, kind)
    whole = out.getvalue()
    for number in range(40):
        data = bytearray(whole[: len(whole) if number % 2 else rng.integers(1, len(whole))])
        for position in rng.integers(0, len(data), 3):
            data[position] ^= 0xFF
        for read in (size_of, decode, lambda file: small_jpeg(file, 16)):
            (tmp_path / "x.jpg").write_bytes(data)
            try:
                read(tmp_path / "x.jpg")
            except Unreadable as reason:
                told += 1
                assert str(reason) and "\n" not in str(reason)
    assert told


@pytest.mark.parametrize("read", [size_of, decode, lambda file: small_jpeg(file, 64)])
def test_postscript_under_a_photographs_name_starts_no_program(tmp_path, monkeypatch, read):
    program, called = tmp_path / "bin" / "gs", tmp_path / "called"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho called > {called}\necho 10.01.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "x.jpg").write_text(head)
    with pytest.raises(Unreadable, match="not an image"):
        read(tmp_path / "x.jpg")
    assert not called.exists()


@pytest.mark.parametrize(
    "kind", ["EPS", "DDS", "SPIDER", "BLP", "IM", "TGA", "ICO", "PCX", "SGI", "ICNS", "MSP", "QOI"]
)
def test_other_kinds_are_not_opened(tmp_path, kind):
    image = Image.fromarray(grey()).convert("RGB")
    mode = {"SPIDER": "F", "BLP": "P", "MSP": "1"}.get(kind, "RGB")
    out = io.BytesIO()  # some register the suffix of a file they write
    image.convert(mode).save(out, kind)
    (tmp_path / "x.jpg").write_bytes(out.getvalue())
    with pytest.raises(Unreadable, match="not an image"):
        decode(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_no_metadata_reaches_a_small_copy(tmp_path, kind):
    exif, more = Image.Exif(), {}
    exif[0x010E] = exif[0x013B] = SECRET.decode()
    if kind == "PNG":
        more["pnginfo"] = PngImagePlugin.PngInfo()
        more["pnginfo"].add_text("Comment", SECRET.decode())
    if kind in ("JPEG", "GIF"):
        more["comment"] = SECRET
    if kind in ("JPEG", "WEBP"):
        more["xmp"] = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    if kind == "JPEG":
        more["extra"] = b"\xff\xed" + struct.pack(">H", 2 + 14 + len(SECRET)) + b"Photoshop 3.0\0" + SECRET
    if kind != "GIF":
        more |= {"exif": exif, "icc_profile": SECRET * 10}
    Image.fromarray(grey()).convert("RGB").save(tmp_path / "a", kind, **more)
    assert SECRET in (tmp_path / "a").read_bytes() or kind == "PNG"
    for turned in (False, True):
        small = small_jpeg(tmp_path / "a", 32, turned=turned)
        assert SECRET not in small and not Image.open(io.BytesIO(small)).info.keys() & {"exif", "comment", "xmp"}


@pytest.mark.parametrize("side", [9_000, 14_000])
def test_an_enormous_image_is_refused_before_it_is_decoded(tmp_path, side, monkeypatch):
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    header = struct.pack(">II", side, side) + b"\x01\0\0\0\0"
    png = out.getvalue()
    png = png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]
    (tmp_path / "a.png").write_bytes(png)
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("memory was taken"))
    for read in (size_of, decode, lambda file: small_jpeg(file, 64)):
        with pytest.raises(TooLarge, match=f"more than 80 megapixels; set {LIMIT} "):
            read(tmp_path / "a.png")


def test_the_largest_image_is_a_setting(tmp_path, monkeypatch):
    Image.new("L", (2000, 1000)).save(tmp_path / "a.png")
    monkeypatch.setenv(LIMIT, "1.5")
    with pytest.raises(TooLarge, match="more than 1.5 megapixels"):
        decode(tmp_path / "a.png")
    monkeypatch.setenv(LIMIT, "2")
    assert size_of(tmp_path / "a.png") == (2000, 1000)
    for wrong in ("many", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(LIMIT, wrong)
        with pytest.raises(InputError, match=f"{LIMIT}={wrong}: expected"):
            decode(tmp_path / "a.png")


def test_a_larger_limit_than_pillows_is_heeded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (60, 50)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").size == (60, 50)


@pytest.mark.parametrize("box", [(200, 200, 300, 300), (70, 50, 300, 300), (-5, 0, 20, 20), (0, 0, 10, 63)])
def test_a_box_beyond_the_image_is_refused_with_both(tmp_path, box):
    Image.fromarray(grey()).save(tmp_path / "a.png")
    told = ",".join(map(str, box))
    with pytest.raises(Unreadable, match=rf"box {told} \(x1,y1,x2,y2\) goes beyond the image of 80 x 60 pixels"):
        decode(tmp_path / "a.png", box)


def test_a_box_of_published_truth_may_be_a_pixel_off(tmp_path):
    Image.fromarray(grey()).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", (0, -1, 81, 60)).size == (81, 61)
