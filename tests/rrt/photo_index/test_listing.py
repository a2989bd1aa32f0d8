"""What the page lists: filters, orders, dates, and what is told of one photograph."""

import json
import os
import shutil

import pytest
from photo_folders import build, draw, use_fakes
from photo_server import refused, request, serving
from PIL import Image

from rrt.files.images import taken
from rrt.photo_index import dates
from rrt.photo_index.dates import DATES, read_dates
from rrt.photo_index.listing import Listing, Wanted
from rrt.photo_index.query import PhotoIndex

MAY, JUNE = "2024-05-31T18:02:07", "2019-06-01T00:00:00"


def dated(path, seed, date, size=(80, 60), tag=0x9003):
    """A photograph of a camera whose clock says ``date``."""
    draw(path, seed, size)
    with Image.open(path) as image:
        image.load()
    exif = Image.Exif()
    (exif.get_ifd(0x8769) if tag != 0x0132 else exif)[tag] = date
    image.save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listing")
    photos = folder / "photos"
    dated(photos / "trips" / "rome" / "Arch.jpg", 1, "2024:05:31 18:02:07", (90, 60))
    dated(photos / "trips" / "oslo.jpg", 2, "2019:06:01 00:00:00")
    old = draw(photos / "Caf\u00e9 tower.png", 3)
    os.utime(old, (1e9, 1e9))
    shutil.copy(old, photos / "trips" / "copy.png")
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", photos)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder / "index") as server:
        yield server


def names(server, fields=""):
    found = json.loads(request(server, "GET", f"/photographs?{fields}")[2])
    assert found["total"] == len(found["photographs"])
    return [entry["name"] for entry in found["photographs"]]


ARCH, OSLO, TOWER = "trips/rome/Arch.jpg", "trips/oslo.jpg", "Caf\u00e9 tower.png"


@pytest.mark.parametrize(
    "fields, wanted",
    [
        ("", [TOWER, OSLO, ARCH]),
        ("text=tower%20CAFE%CC%81", [TOWER]),  # in any order, case and normal form
        ("text=trips%20ar", [ARCH]),
        ("text=oslo%20rome", []),
        ("folder=trips", [TOWER, OSLO, ARCH]),  # a copy of the tower lies there
        ("folder=trips/rome/", [ARCH]),
        ("folder=trip", []),
        ("since=2024-05-31", [ARCH]),
        ("until=2019-06-01", [TOWER, OSLO]),
        ("since=2019-06-01&until=2024-05-30&text=jpg", [OSLO]),
        ("sort=newest", [ARCH, OSLO, TOWER]),
        ("sort=oldest", [TOWER, OSLO, ARCH]),
        ("sort=largest", [ARCH, TOWER, OSLO]),
    ],
)
def test_photographs_are_filtered_and_ordered(server, fields, wanted):
    assert names(server, fields) == wanted


@pytest.mark.parametrize(
    "fields, part", [("sort=price", "sort"), ("since=yesterday", "since"), ("until=2024", "until")]
)
def test_an_order_or_a_day_that_is_none_is_refused(server, fields, part):
    refused(server, 400, part, "GET", f"/photographs?{fields}")


def test_a_search_looks_among_the_photographs_wanted_alone(server):
    known = {entry["name"]: entry for entry in json.loads(request(server, "GET", "/photographs")[2])["photographs"]}
    asked = f"/search/{known[OSLO]['id']}"
    found = json.loads(request(server, "POST", f"{asked}?folder=trips/rome")[2])
    assert [(result["name"], result["date"]) for result in found["results"]] == [(ARCH, MAY)]
    assert len(json.loads(request(server, "POST", asked)[2])["results"]) == 2
    refused(server, 422, "no photograph passes the filters", "POST", f"{asked}?folder=nowhere")


def test_a_photograph_tells_its_dates_and_where_it_lies(server, folder):
    index = PhotoIndex(folder / "index")
    tower = json.loads(request(server, "GET", "/photograph?name=Caf%C3%A9%20tower.png")[2])
    assert tower["paths"] == [os.path.join(index.manifest.root, name) for name in (TOWER, "trips/copy.png")]
    assert (tower["date"][:4], tower["taken"], tower["size"], tower["more"]) == ("2001", False, [80, 60], 1)
    arch = json.loads(request(server, "GET", f"/photograph?id={index.entries[index.numbers[ARCH]].content}")[2])
    assert (arch["date"], arch["taken"]) == (MAY, True)
    assert arch["bytes"] == os.path.getsize(folder / "photos" / ARCH)
    for asked in ("name=../secret.txt", "name=/etc/passwd", "id=x", ""):
        refused(server, 404, "no such photograph", "GET", f"/photograph?{asked}")


def test_folders_are_listed_with_all_that_lies_below_them(server):
    assert json.loads(request(server, "GET", "/about")[2])["folders"] == [["trips", 3], ["trips/rome", 1]]


@pytest.mark.parametrize("tag", [0x9003, 0x9004, 0x0132])
def test_each_date_of_exif_counts(tmp_path, tag):
    assert taken(dated(tmp_path / "a.jpg", 1, "2024:05:31 18:02:07", tag=tag)) == MAY


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2024:13:01 00:00:00", "soon", ""])
def test_a_date_that_is_none_is_not_taken(tmp_path, date):
    assert taken(dated(tmp_path / "a.jpg", 1, date)) == ""


def test_a_file_that_is_no_image_has_no_date(tmp_path):
    (tmp_path / "a.jpg").write_text("letter")
    assert taken(tmp_path / "a.jpg") == taken(tmp_path / "none.jpg") == ""


def test_an_update_looks_up_new_photographs_alone_and_forgets_those_removed(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    looked_up = []
    monkeypatch.setattr(dates, "taken", lambda file: looked_up.append(file.name) or taken(file))
    dated(tmp_path / "photos" / "a.jpg", 1, "2024:05:31 18:02:07")
    build(tmp_path / "index", tmp_path / "photos")
    assert [*read_dates(tmp_path / "index").values()] == [MAY]
    (tmp_path / "photos" / "a.jpg").unlink()
    dated(tmp_path / "photos" / "b.jpg", 2, "2019:06:01 00:00:00")
    build(tmp_path / "index", tmp_path / "photos")
    assert [*read_dates(tmp_path / "index").values()] == [JUNE] and looked_up == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "no json"])
def test_dates_that_are_damaged_are_as_good_as_none(folder, tmp_path, content):
    shutil.copytree(folder / "index", tmp_path / "index")
    (tmp_path / "index" / DATES).write_text(content)
    listing = Listing(PhotoIndex(tmp_path / "index"))
    assert not any(told for _, told in listing.dates) and len(listing.select(Wanted(since="2020-01-01"))) == 2
