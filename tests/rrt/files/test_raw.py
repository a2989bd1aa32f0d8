"""Of cameras' raw files the embedded JPEG is read, upright and with its date; hostile ones get one line."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from rrt.files import raw
from rrt.files.images import SUFFIXES, Unreadable, decode, kind_of, size_of, small_jpeg, taken

SHORT, LONG, ASCII = 3, 4, 2
LOSSLESS = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 8, 4000, 6000, 1) + bytes(300)
DATE = "2024:05:31 18:02:07"


def jpeg(size=(80, 60)):
    """Its left half is blue, its right half red."""
    image, out = Image.new("RGB", size, (200, 10, 10)), io.BytesIO()
    image.paste((10, 10, 200), (0, 0, size[0] // 2, size[1]))
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def tiff(directories, order="<", magic=42, extra=b""):
    """A file of directories [{tag: (type, [values]) or bytes, whose place and length are told by the tags}], each a
    list of entries; (\"strip\", bytes), (\"jpeg\", bytes) and (\"ifds\", numbers of directories) are put in place."""
    content = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", magic, 0) + extra)
    places, waiting = [], []
    for entries in directories:
        plain = []
        for tag, kind, values in entries:
            if tag in ("strip", "jpeg"):
                start, length = (273, 279) if tag == "strip" else (513, 514)
                plain += [(start, LONG, [len(content)]), (length, LONG, [len(values)])]
                content += values
            else:
                plain.append((tag, kind, values))
        places.append(len(content))
        content += struct.pack(order + "H", len(plain))
        for tag, kind, values in sorted(plain, key=lambda entry: entry[0]):
            if kind == ASCII:
                data = values.encode() + b"\0"
            else:
                data = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
            content += struct.pack(order + "HHI", tag, kind, len(values) + (kind == ASCII))
            waiting.append((len(content), data, tag == 330))
            content += data.ljust(4, b"\0") if len(data) <= 4 else bytes(4)
        content += bytes(4)
    struct.pack_into(order + "I", content, 4, places[0])
    for place, data, further in waiting:
        if further:
            numbers = struct.unpack(f"{order}{len(data) // 4}I", data)
            data = struct.pack(f"{order}{len(numbers)}I", *(places[number] for number in numbers))
        if len(data) > 4:
            struct.pack_into(order + "I", content, place, len(content))
            content += data
        else:
            content[place : place + len(data)] = data
    return bytes(content)


def camera(order="<", orientation=1, preview=None, **more):
    """As Nikon's: a small picture, and below it values of a sensor and the preview."""
    return tiff(
        [
            [(254, LONG, [1]), (274, SHORT, [orientation]), (306, ASCII, DATE), (330, LONG, [1, 2])],
            [(259, SHORT, [34713]), (262, SHORT, [32803]), ("strip", 0, LOSSLESS)],
            [(259, SHORT, [6]), ("jpeg", 0, preview or jpeg())],
        ],
        order,
        **more,
    )


@pytest.mark.parametrize("order", "<>")
def test_the_preview_of_either_byte_order_is_read_upright_with_its_date(tmp_path, order):
    for orientation, size, corner in (
        (1, (80, 60), (10, 10, 200)),
        (6, (60, 80), (10, 10, 200)),
        (3, (80, 60), (200, 10, 10)),
    ):
        file = tmp_path / "x.NEF"
        file.write_bytes(camera(order, orientation))
        found = decode(file, turned=True)
        assert found.size == size
        np.testing.assert_allclose(found.pixels[2, 2], corner, atol=12)
        assert size_of(file) == (80, 60) and taken(file) == "2024-05-31T18:02:07" and kind_of(file) == "RAW"
        assert Image.open(io.BytesIO(small_jpeg(file, 40, turned=True))).size == tuple(side // 2 for side in size)


def test_the_largest_jpeg_is_taken_and_never_the_values_of_a_sensor(tmp_path):
    canon = [
        [(259, SHORT, [6]), ("strip", 0, jpeg((160, 120)))],
        [("jpeg", 0, jpeg((40, 30)))],
        [(259, SHORT, [6]), ("strip", 0, LOSSLESS)],
    ]
    canon[0].append((330, LONG, [1, 2]))
    (tmp_path / "x.cr2").write_bytes(tiff(canon, extra=b"CR\x02\0"))
    assert size_of(tmp_path / "x.cr2") == (160, 120)


def test_panasonic_and_fujifilm_have_their_own_places(tmp_path):
    data = jpeg()
    head = (
        b"IIU\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + struct.pack("<HHII", 46, 7, len(data), 30) + bytes(4)
    )
    (tmp_path / "x.rw2").write_bytes(head.ljust(30, b"\0") + data)
    fuji = b"FUJIFILMCCD-RAW 0201".ljust(84, b"0") + struct.pack(">II", 200, len(data))
    (tmp_path / "x.raf").write_bytes(fuji.ljust(200, b"\0") + data)
    for name in ("x.rw2", "x.raf"):
        assert size_of(tmp_path / name) == (80, 60) and decode(tmp_path / name).size == (80, 60)


def test_a_tiff_that_is_no_raw_file_is_read_as_before(tmp_path):
    for name in ("scan.tif", "renamed.dng"):
        Image.new("RGB", (50, 40), (1, 2, 3)).save(tmp_path / name, "TIFF")
        assert decode(tmp_path / name).pixels[0, 0].tolist() == [1, 2, 3] and kind_of(tmp_path / name) == "TIFF"
    assert {".dng", ".cr2", ".nef", ".arw"} < set(SUFFIXES)


def test_a_raw_file_without_a_preview_says_so(tmp_path):
    for content in (
        tiff([[(262, SHORT, [32803]), ("strip", 0, LOSSLESS)]]),
        tiff([[(50706, LONG, [1]), (259, SHORT, [7]), ("strip", 0, LOSSLESS)]]),
        b"FUJIFILMCCD-RAW ".ljust(200, b"\0"),
        camera(preview=b"no JPEG".ljust(200)),
    ):
        (tmp_path / "x.dng").write_bytes(content)
        with pytest.raises(Unreadable, match="without a preview"):
            decode(tmp_path / "x.dng")


def test_a_preview_of_too_many_pixels_or_cut_short_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.nef").write_bytes(camera())
    monkeypatch.setenv("RRT_MAX_MEGAPIXELS", "0.004")
    with pytest.raises(Unreadable, match="more than 0.004 megapixels"):
        decode(tmp_path / "x.nef")
    monkeypatch.delenv("RRT_MAX_MEGAPIXELS")
    (tmp_path / "x.nef").write_bytes(camera(preview=jpeg()[:300].ljust(900, b"\0")))
    with pytest.raises(Unreadable):
        decode(tmp_path / "x.nef")


def test_files_that_lead_in_circles_or_promise_too_much_are_read_in_no_time(tmp_path):
    circle = tiff([[(50706, LONG, [1]), (330, LONG, [0, 0, 0])]])
    many = (
        b"II*\0"
        + struct.pack("<I", 8)
        + b"".join(
            struct.pack("<H", 1) + struct.pack("<HHII", 50706, 4, 1, 1) + struct.pack("<I", 8 + 18 * (n + 1))
            for n in range(9999)
        )
    )
    endless = b"II*\0" + struct.pack("<IH", 8, 0xFFFF) + struct.pack("<HHII", 330, 4, 2**32 - 1, 2**32 - 1) * 2000
    far = b"MM\0*" + struct.pack(">I", 2**32 - 1) + bytes(90)
    for content in (circle, many, endless, far, b"II*\0", b"MM\0*\0\0\0\x08", b"II", camera()[:200]):
        file = Counting(content)
        found = raw.find_preview(file, named_raw=True)
        assert (found is None or found.jpeg == b"") and file.taken < 100_000
        (tmp_path / "x.dng").write_bytes(content)
        with pytest.raises(Unreadable):
            decode(tmp_path / "x.dng")


class Counting(io.BytesIO):
    taken = 0

    def read(self, size=-1):
        found = super().read(size)
        self.taken += len(found)
        return found


def test_no_damage_raises_anything_but_a_reason(tmp_path):
    generator, whole = np.random.default_rng(0), {order: camera(order) for order in "<>"}
    for _ in range(150):
        content = bytearray(whole["<>"[generator.integers(2)]])
        for _ in range(generator.integers(1, 6)):
            content[generator.integers(len(content))] = generator.integers(256)
        (tmp_path / "x.nef").write_bytes(content)
        try:
            taken(tmp_path / "x.nef")
            decode(tmp_path / "x.nef", turned=True)
        except Unreadable as reason:
            assert "\n" not in str(reason)
