"""HEIC and HEIF are read wherever images are, where pillow-heif is installed, and named as lacking it where it is
not."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rrt.extraction.describer import open_describer
from rrt.files import images
from rrt.files.images import NO_HEIF, SUFFIXES, Unreadable, decode, size_of, small_jpeg
from rrt.formats.image_jobs import Job, read_image, read_query
from rrt.formats.listing import list_folder
from rrt.formats.lists import read_image_list
from rrt.photo_index.scan import scan


def picture():
    """80 x 60, its left half blue, its right half red."""
    image = Image.new("RGB", (80, 60), (200, 10, 10))
    image.paste((10, 10, 200), (0, 0, 40, 60))
    return image


@pytest.fixture(scope="module")
def heic():
    """Bytes of the picture in HEIC, also with an orientation in its EXIF."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()

    def encoded(orientation=None):
        out, exif = io.BytesIO(), Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        picture().save(out, "HEIF", exif=exif)
        return out.getvalue()

    return encoded


def test_every_reader_reads_them(tmp_path, heic):
    assert {".heic", ".heif"} < set(SUFFIXES)
    (tmp_path / "a").mkdir()
    for name in ("a/x.heic", "a/y.HEIF", "a/z.jpg"):  # phones rename them
        (tmp_path / name).write_bytes(heic())
        assert size_of(tmp_path / name) == (80, 60)
        for pixels in (decode(tmp_path / name).pixels, read_query(tmp_path / name)):
            np.testing.assert_allclose(pixels, np.asarray(picture()), atol=12)
        assert decode(tmp_path / name, (40, 0, 80, 60)).pixels[..., 2].max() < 60
        assert Image.open(io.BytesIO(small_jpeg(tmp_path / name, 40))).size == (40, 30)
    list_folder(tmp_path, tmp_path / "all.txt", num_workers=1)
    assert read_image_list(tmp_path / "all.txt").names == ["a/x.heic", "a/y.HEIF", "a/z.jpg"]
    assert len(scan(tmp_path, tmp_path / "index").files) == 3
    record = open_describer("lite0", image_size=128).describe(read_image(Job("x", tmp_path / "a/x.heic")).pixels, "x")
    assert record.size == (80, 60)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_they_are_turned_once_by_their_own_rotation_and_not_by_exif(tmp_path, heic, orientation):
    (tmp_path / "x.heic").write_bytes(heic(orientation))
    for turned in (False, True):
        np.testing.assert_array_equal(
            decode(tmp_path / "x.heic", turned=turned).pixels, decode(tmp_path / "x.heic").pixels
        )
    assert decode(tmp_path / "x.heic", turned=True).size == size_of(tmp_path / "x.heic")


def test_a_damaged_one_is_its_own_reason(tmp_path, heic):
    whole = heic()
    for cut in (13, 60, len(whole) // 2, len(whole) - 3):
        (tmp_path / "x.heic").write_bytes(whole[:cut])
        with pytest.raises(Unreadable):
            decode(tmp_path / "x.heic")


def test_a_package_that_cannot_be_loaded_stops_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_reads_heif", lambda: False)
    picture().save(tmp_path / "a.png")
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x1cftypheic" + bytes(99))
    assert decode(tmp_path / "a.png").size == (80, 60)
    with pytest.raises(Unreadable, match="without the package pillow-heif"):
        decode(tmp_path / "x.jpg")


def test_without_the_package_each_is_named_with_what_it_needs(tmp_path):
    (tmp_path / "a").mkdir()
    picture().save(tmp_path / "a/b.png")
    for name in ("x.heic", "y.heif"):
        (tmp_path / "a" / name).write_bytes(b"\0\0\0\x1cftypheic" + bytes(99))
    code = f"""
import json, sys
sys.modules["pillow_heif"] = None
from pathlib import Path
from rrt.formats.image_jobs import Job, read_image
from rrt.formats.listing import list_folder
from rrt.photo_index.scan import scan
folder = Path({str(tmp_path)!r})
written = list_folder(folder, folder / "all.txt", num_workers=1)
reason = read_image(Job("x", folder / "a/x.heic")).reason
print(json.dumps([written.notes, scan(folder, folder / "index").unread, reason]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    notes, unread, reason = json.loads(done.stdout)
    assert notes == [NO_HEIF, "left out 2 files of kinds that are not read: 1 .heic, 1 .heif"]
    assert unread == {"a/x.heic": NO_HEIF, "a/y.heif": NO_HEIF} and reason == NO_HEIF
