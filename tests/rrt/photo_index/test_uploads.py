"""What the page's server keeps of searches, the details that explain a result, and originals."""

import io
import json
import threading
from hashlib import sha256

import numpy as np
import pytest
from photo_folders import FakeDescriber, build, draw, use_fakes
from photo_server import refused, request, serving
from PIL import Image

from rrt.photo_index.kept import Kept, Upload


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    for scene in range(2):
        for i in range(2):
            draw(folder / "photos" / f"scene{scene}" / f"p{i}.png", 10 * scene + i, scene=scene)
    draw(folder / "photos" / "odd \u00e9 name.tif", 30)
    draw(folder / "photos" / "photo.jpg", 31)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    draw(folder / "mine.png", 99, (120, 90), scene=1)
    draw(folder / "tall.jpg", 99, (120, 90), orientation=6, scene=1)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder / "index") as server:
        yield server


def upload(server, file, fields=""):
    return json.loads(request(server, "POST", f"/search?name={file.name}{fields}", file.read_bytes())[2])


def identity(server, name):
    return json.loads(request(server, "GET", f"/photograph?name={name}")[2])["id"]


def test_an_upload_is_searched_for_again_by_its_bytes_and_shown_upright(server, folder):
    first = upload(server, folder / "tall.jpg")
    assert first["upload"] == sha256((folder / "tall.jpg").read_bytes()).hexdigest() and first["size"] == [90, 120]
    again = json.loads(request(server, "POST", f"/search/upload/{first['upload']}")[2])
    assert again["results"] == first["results"] and again["picture"] == "tall.jpg"
    status, headers, body = request(server, "GET", f"/upload/{first['upload']}")
    assert status == 200 and headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(body)) as image:
        assert image.size == (90, 120) and not image.getexif()


def test_an_image_and_its_box_are_described_once(server, folder):
    found = upload(server, folder / "mine.png")
    asked = len(server.service.describer.asked)
    for _ in range(2):
        request(server, "POST", f"/search/upload/{found['upload']}")
        request(server, "POST", f"/search/upload/{found['upload']}?box=[0,0,60,50]&text=scene")
    assert [box for _, box in server.service.describer.asked[asked:]] == [(0, 0, 60, 50)]


def test_an_upload_that_is_not_kept_is_refused(server):
    for address in (f"/search/upload/{'0' * 64}", "/search/upload/x", f"/details/x?upload={'0' * 64}"):
        refused(server, 404, "", "POST", address)
    refused(server, 404, "choose it again", "GET", "/upload/x")
    refused(server, 403, "from this page alone", "POST", "/search/upload/x", Origin="http://attacker.example")
    refused(server, 403, "from this page alone", "POST", "/details/x?photo=y", Origin="null")


def test_the_sides_of_an_upload_that_is_nearly_square_are_not_exchanged(tmp_path):
    for name, size in (("wide.png", (3000, 2999)), ("high.png", (2999, 3000))):
        Image.new("L", size).save(tmp_path / name)
        upload = Upload.of(tmp_path / name, name, size)
        with Image.open(io.BytesIO(upload.jpeg)) as small:
            assert small.size == (1200, 1200)
        assert upload.size == size


def test_what_is_kept_is_limited_in_number_and_bytes():
    kept = Kept[bytes](3, 10, len)
    for key in "abcd":
        kept.put(key, key.encode())
    assert [kept.get(key) for key in "abcd"] == [None, b"b", b"c", b"d"]
    kept.get("b")
    kept.put("e", b"x" * 9)  # heavy: of the others the one used last remains
    assert [kept.get(key) for key in "bcde"] == [b"b", None, None, b"x" * 9]
    kept.put("f", b"x" * 11)
    assert len(kept) == 0


def test_the_server_keeps_no_more_uploads_than_it_may(folder):
    with serving(folder / "index", uploads=Kept[Upload](1)) as server:
        first, second = (upload(server, folder / name)["upload"] for name in ("mine.png", "tall.jpg"))
        assert [request(server, "GET", f"/upload/{each}")[0] for each in (first, second)] == [404, 200]


def test_an_upload_that_is_too_heavy_to_be_kept_is_still_searched_for(folder):
    with serving(folder / "index", uploads=Kept[Upload](1, 10, lambda upload: len(upload.content))) as server:
        found = upload(server, folder / "mine.png")
        assert len(found["results"]) == 5 and len(server.service.uploads) == 0
        refused(server, 404, "choose it again", "POST", f"/search/upload/{found['upload']}")


def test_details_are_those_that_both_images_have_at_their_places(server, folder):
    own, twin = (identity(server, f"scene1/p{i}.png") for i in range(2))
    found = json.loads(request(server, "POST", f"/details/{twin}?photo={own}")[2])
    pairs = np.array(found["pairs"])
    assert found["count"] == len(pairs) >= 12 and np.abs(pairs[:, :2] - pairs[:, 2:]).max() < 0.01
    # A box that is the right half: its details lie there in the whole image.
    mine = upload(server, folder / "mine.png")["upload"]
    boxed = json.loads(request(server, "POST", f"/details/{twin}?upload={mine}&box=[60,0,120,90]")[2])
    assert boxed["pairs"] and all(0.5 < x < 1 for x, *_ in boxed["pairs"])
    refused(server, 404, "no such photograph", "POST", f"/details/{'0' * 64}?photo={own}")
    refused(server, 404, "no such photograph", "POST", f"/details/{own}?photo={'0' * 64}")


def test_an_original_comes_with_its_own_type_and_other_kinds_are_saved(server, folder):
    for name, kind, how in (
        ("photo.jpg", "image/jpeg", 'inline; filename="photo.jpg"'),
        ("scene0/p0.png", "image/png", "inline"),
        ("odd%20%C3%A9%20name.tif", "application/octet-stream", "attachment; filename*=utf-8''odd%20%C3%A9%20name.tif"),
    ):
        status, headers, body = request(server, "GET", f"/original/{identity(server, name)}")
        assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, kind, "nosniff")
        assert (
            headers["Content-Disposition"].startswith(how)
            and "default-src 'none'" in headers["Content-Security-Policy"]
        )
        assert body in [file.read_bytes() for file in (folder / "photos").rglob("*.*")]
    refused(server, 404, "no such photograph", "GET", "/original/x")


def test_a_page_with_the_name_of_an_image_is_not_shown_as_one(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    photo = draw(tmp_path / "photos" / "a.png", 1)
    build(tmp_path / "index", tmp_path / "photos")
    with serving(tmp_path / "index") as server:
        known = identity(server, "a.png")
        photo.write_text("<script>alert(1)</script>")
        refused(server, 404, "no longer there", "GET", f"/original/{known}")


def test_it_is_told_what_a_search_does_and_how_many_wait(folder):
    wait = threading.Event()
    with serving(folder / "index", FakeDescriber(wait)) as server:

        def progress():
            told = json.loads(request(server, "GET", "/progress")[2])
            return {name: told[name] for name in ("doing", "waiting")}

        assert progress() == {"doing": "", "waiting": 0}
        threads = [threading.Thread(target=upload, args=(server, folder / name)) for name in ("mine.png", "tall.jpg")]
        for thread in threads:
            thread.start()
        ends = threading.Event()
        for _ in range(500):
            if progress() == {"doing": "describing", "waiting": 1}:
                break
            ends.wait(0.02)
        else:
            raise AssertionError(progress())
        wait.set()
        for thread in threads:
            thread.join()
        assert progress() == {"doing": "", "waiting": 0}
