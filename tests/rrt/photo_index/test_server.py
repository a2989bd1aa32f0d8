"""The web page of an index by its requests: searches, and what is refused. Images are described without a network."""

import io
import json
import os
import struct
import tempfile
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photo_folders import FakeDescriber, build, draw, use_fakes
from photo_server import MAX_UPLOAD, refused, request, serving
from PIL import Image

from rrt.errors import InputError
from rrt.extraction.describer import open_describer
from rrt.photo_index.extraction import LocalDescriber
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.server import ServerSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine photographs of three scenes, their index, and a secret beside them."""
    folder = tmp_path_factory.mktemp("page")
    for scene in range(3):
        for i in range(3):
            draw(folder / "photos" / f"scene{scene}" / f"p{i}.png", 10 * scene + i, scene=scene)
    (folder / "secret.txt").write_text("secret")
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder / "index") as server:
        yield server


def image_bytes(seed=0, scene=0, format="PNG"):
    with tempfile.TemporaryDirectory() as folder:
        content = io.BytesIO()
        Image.open(draw(Path(folder) / "x.png", seed, scene=scene)).save(content, format)
        return content.getvalue()


def photographs(server):
    return {entry["name"]: entry for entry in json.loads(request(server, "GET", "/photographs")[2])["photographs"]}


def test_the_page_and_its_files_come_with_a_strict_policy(server):
    for path, kind in (
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/main.js", "text/javascript"),
        ("/vendor/cropper.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ):
        status, headers, body = request(server, "GET", path)
        assert status == 200 and headers["Content-Type"].startswith(kind) and body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers


def test_an_uploaded_image_finds_its_scene(server):
    status, _, body = request(server, "POST", "/search?name=mine.png", image_bytes(99, scene=1))
    found = json.loads(body)
    assert status == 200 and found["picture"] == "mine.png" and len(found["results"]) == 5
    assert {result["name"].split("/")[0] for result in found["results"][:3]} == {"scene1"}


def test_a_photograph_of_the_index_is_left_out_of_its_own_results(server):
    entry = photographs(server)["scene2/p1.png"]
    found = json.loads(request(server, "POST", f"/search/{entry['id']}")[2])
    names = [result["name"] for result in found["results"]]
    assert {*names[:2]} == {"scene2/p0.png", "scene2/p2.png"} and "scene2/p1.png" not in names
    assert server.service.describer.asked == [] or server.service.describer.asked[-1][0].name != "p1.png"


def test_a_box_is_described_and_a_photograph_still_left_out(server):
    entry = photographs(server)["scene2/p1.png"]
    found = json.loads(request(server, "POST", f"/search/{entry['id']}?box=[10,10,60,50]")[2])
    assert found["box"] == [10, 10, 60, 50] and "scene2/p1.png" not in [result["name"] for result in found["results"]]
    assert server.service.describer.asked[-1] == (
        Path(PhotoIndex(server.service.index.folder).manifest.root) / "scene2/p1.png",
        (10, 10, 60, 50),
    )


def test_the_index_says_that_it_has_an_uploaded_file(server, folder):
    found = json.loads(request(server, "POST", "/search", (folder / "photos/scene0/p0.png").read_bytes())[2])
    assert found["same_file"] == found["results"][0]["name"] == "scene0/p0.png"


def test_photographs_are_listed_by_pages_and_by_name(server):
    page = json.loads(request(server, "GET", "/photographs?offset=2&limit=3")[2])
    assert page["total"] == 9 and [entry["name"] for entry in page["photographs"]] == [
        "scene0/p2.png",
        "scene1/p0.png",
        "scene1/p1.png",
    ]
    assert json.loads(request(server, "GET", "/photographs?text=SCENE1")[2])["total"] == 3
    refused(server, 400, "offset", "GET", "/photographs?offset=-1")
    refused(server, 400, "limit", "GET", "/photographs?limit=x")


def test_images_are_small_jpegs_without_what_their_files_tell(server):
    entry = photographs(server)["scene0/p0.png"]
    for kind in ("thumbnail", "picture"):
        status, headers, body = request(server, "GET", f"/{kind}/{entry['id']}")
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        with Image.open(io.BytesIO(body)) as image:
            assert image.format == "JPEG" and image.size == (80, 60) and not image.getexif()


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/picture/../../secret.txt",
        "/picture/%2e%2e%2fsecret.txt",
        "/page/../../secret.txt",
        "//etc/passwd",
        "/picture//etc/passwd",
        "/thumbnail/" + "0" * 64,
        "/picture/x",
        "/picture/scene0%2fp0.png",
        "/main.js/../../app.py",
        "/results.html",
        "/vendor/LICENSE.htm",
        "/index.json",
        "/photos/scene0/p0.png",
        "/picture/" + "0" * 64 + "%0a",
        "/picture/%00",
        "file:///etc/passwd",
    ],
)
def test_no_path_from_outside_is_ever_followed(server, path):
    found, _, body = request(server, "GET", path)
    assert found == 404 and b"secret" not in body and b"root:" not in body


def test_a_photograph_replaced_by_a_link_or_another_file_is_not_shown(folder, tmp_path):
    for i in range(2):
        draw(tmp_path / "photos" / f"p{i}.png", i)
    draw(tmp_path / "private.png", 5)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(tmp_path / "index", tmp_path / "photos")
    first, second = tmp_path / "photos" / "p0.png", tmp_path / "photos" / "p1.png"
    status = os.stat(first)
    first.unlink()
    private = tmp_path / "private.png"
    private.write_bytes(private.read_bytes()[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(private, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.symlink(private, first)
    draw(second, 77)
    with serving(tmp_path / "index") as server:
        for entry in photographs(server).values():
            for kind in ("thumbnail", "picture"):
                refused(server, 404, "no longer there", "GET", f"/{kind}/{entry['id']}")
            refused(server, 422, "no longer there", "POST", f"/search/{entry['id']}?box=[0,0,20,20]")


def test_a_page_of_another_name_is_refused(server):
    port = server.port
    for host in (
        f"attacker.example:{port}",
        "127.0.0.1:1",
        "127.0.0.1",
        "",
        f"127.0.0.1.attacker.example:{port}",
        f"192.168.0.9:{port}",
        "127.0.0.1:",
        "[::1]",
    ):
        refused(server, 403, "does not go by that name", "GET", "/photographs", Host=host)
    for host in (f"localhost:{port}", f"LocalHost:{port}", f"[::1]:{port}"):
        assert request(server, "GET", "/", Host=host)[0] == 200


ODD = [
    "127.0.0.1:\xb2",
    f"127.0.0.1:{'1' * 5000}",
    *(f"localhost:{port}" for port in ("x", "-1", "65536", "8 0", "80:80")),
]


@pytest.mark.parametrize(
    "host", [*ODD, "::1", "[::1", "[::1]80", "[localhost]:80", "a@localhost:80", "a b:80", "http://a"]
)
def test_a_host_that_is_no_name_and_port_is_a_bad_request(server, host):
    refused(server, 400, "Host header", "GET", "/photographs", Host=host)


def test_other_machines_may_come_by_number_and_by_allowed_names_alone(folder):
    with serving(folder / "index", settings=ServerSettings("0.0.0.0", 0, ("photos.lan",))) as server:
        port = server.port
        for host, status in (
            ("192.168.0.9", 200),
            ("photos.lan", 200),
            ("Photos.LAN", 200),
            ("[fe80::1]", 200),
            ("attacker.example", 403),
        ):
            shown = {"Host": f"{host}:{port}", "Authorization": f"Bearer {server.token}"}
            assert request(server, "GET", "/", **shown)[0] == status, host


def test_searches_come_from_the_page_alone(server):
    for origin in ("http://attacker.example", "null", None, f"https://127.0.0.1:{server.port}"):
        refused(server, 403, "from this page alone", "POST", "/search", image_bytes(), Origin=origin)


def test_what_is_no_image_is_refused(server):
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n"
    for body in (
        b"hello",
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        page,
        image_bytes()[:20],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    ):
        refused(server, 415, "not an image", "POST", "/search", body)
    refused(server, 415, "image's file", "POST", "/search", image_bytes(), Content_Type="text/plain")
    refused(
        server, 415, "image's file", "POST", "/search", image_bytes(), Content_Type="multipart/form-data; boundary=x"
    )


def test_an_image_cut_short_or_too_small_is_refused_by_name(server):
    refused(server, 422, "cut.png", "POST", "/search?name=cut.png", image_bytes()[:-40])
    refused(server, 422, "cut.tif: ", "POST", "/search?name=cut.tif", image_bytes(format="TIFF")[:-40])
    refused(server, 415, "not an image", "POST", "/search", image_bytes(format="DDS"))
    with io.BytesIO() as content:
        Image.new("RGB", (4, 4)).save(content, "PNG")
        refused(server, 422, "shorter than 10 pixels", "POST", "/search", content.getvalue())


def test_what_cannot_be_described_is_told_by_its_own_reason(folder, tmp_path):
    """The reader and the model of the program itself, and a model that fails."""
    describer = LocalDescriber(folder / "index", {})
    vars(describer)["_opened"] = open_describer("lite0")
    broken = LocalDescriber(folder / "index", {})
    vars(broken)["_opened"] = SimpleNamespace(describe=lambda *_: 1 / 0)

    def takes_none(*_):
        raise InputError("my.onnx: takes no such image")

    avif, nan = image_bytes(format="AVIF"), np.full((40, 40), np.nan, np.float32)
    thin, long, floats = (io.BytesIO() for _ in range(3))
    Image.new("RGB", (1, 1000)).save(thin, "PNG")
    Image.new("RGB", (30_000, 2)).save(long, "PNG")
    Image.fromarray(nan).save(floats, "TIFF")
    with serving(folder / "index", describer) as server:
        for body, status, reason in (
            (avif[: len(avif) * 2 // 3] + b"\0" * 80, (415, 422), ""),
            (thin.getvalue(), (422,), "shorter than 10 pixels"),
            (long.getvalue(), (422,), "shorter than 10 pixels"),
            (floats.getvalue(), (422,), "not finite"),
            (image_bytes(format="SGI"), (415,), "not an image"),
            (image_bytes(format="EPS"), (415,), "not an image"),
            (image_bytes()[:-40], (422,), "truncated"),
        ):
            found, _, told = request(server, "POST", "/search", body)
            assert found in status and reason in json.loads(told)["error"], (found, told)
        found, _, told = request(server, "POST", "/search?box=[50,40,90,70]", image_bytes())
        assert found == 422 and "goes beyond the image of 80 x 60 pixels" in json.loads(told)["error"]
        server.service.describer = broken
        refused(server, 422, "cannot be described: ZeroDivisionError", "POST", "/search", image_bytes())
        vars(broken)["_opened"].describe = takes_none
        refused(server, 422, "picture: my.onnx: takes no such image", "POST", "/search", image_bytes())


def test_too_large_a_file_is_refused_and_the_answer_arrives(server):
    headers = refused(server, 413, "at most 0.3", "POST", "/search", b"x" * (MAX_UPLOAD + 1))
    assert headers["Connection"] == "close"
    refused(server, 413, "at most 0.3", "POST", "/search", b"x", Content_Length="999999999999")


def bomb(width, height):
    """A PNG of a few bytes whose head promises width x height pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_an_image_of_huge_dimensions_is_refused_before_it_is_decoded(server):
    before = len(server.service.describer.asked)
    for width, height in ((2000, 1000), (20_000, 10_000), (2**31 - 1, 2**31 - 1)):
        refused(server, 413, "megapixels", "POST", "/search", bomb(width, height))
    assert len(server.service.describer.asked) == before


@pytest.mark.parametrize("length", [None, "9999999999999", "99999999999999999999"])
def test_an_upload_without_a_size_is_refused(server, length):
    refused(server, 411, "size", "POST", "/search", b"", Content_Length=length)
    refused(server, 411, "size", "POST", "/search", b"", Content_Length=length, Transfer_Encoding="chunked")


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "1, 2", "1" * 30])
def test_a_size_that_is_no_number_is_refused(server, length):
    refused(server, 400, "Invalid HTTP request", "POST", "/search", b"", Content_Length=length)
    refused(server, 400, "Invalid", "POST", "/search", b"", Content_Length=length, Transfer_Encoding="chunked")


@pytest.mark.parametrize(
    "box",
    ["[1,2,3]", "[5,5,1,9]", "[0,0,0,0]", "[0,0,1.5,2]", "[-1,0,5,5]", "x", "[0,0,9999999,5]", "[" * 5000, "{}", "7"],
)
def test_a_box_that_is_none_is_refused(server, box):
    refused(server, 400, "the box", "POST", f"/search?box={box.replace('{', '%7B').replace('}', '%7D')}", image_bytes())


def test_a_box_outside_of_the_image_is_refused(server):
    refused(server, 422, "shorter than", "POST", "/search?box=[500,500,600,600]", image_bytes())


def test_other_methods_and_addresses_are_refused(server):
    refused(server, 404, "nothing at this address", "POST", "/photographs", b"")
    refused(server, 404, "no such photograph", "POST", f"/search/{'0' * 64}")
    refused(server, 400, "no body", "POST", f"/search/{photographs(server)['scene0/p0.png']['id']}", b"x")
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        status, headers, _ = request(server, method, "/")
        assert status == 501 and "Access-Control-Allow-Origin" not in headers and "Content-Security-Policy" in headers


def test_uploads_leave_nothing_behind(server, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for body in (image_bytes(), b"no image"):
        request(server, "POST", "/search", body)
    assert list(tmp_path.iterdir()) == []


def test_many_searches_at_a_time_are_limited_and_the_rest_is_told_to_come_again(folder):
    wait = threading.Event()
    with serving(folder / "index", FakeDescriber(wait), waiting=2) as server:
        answers = []
        threads = [
            threading.Thread(target=lambda i=i: answers.append(request(server, "POST", "/search", image_bytes(i))))
            for i in range(12)
        ]
        for thread in threads:
            thread.start()
        ends = threading.Event()
        while len(answers) < 9 and not ends.wait(0.02):
            pass
        assert {status for status, _, _ in answers} == {503} and all(
            headers["Retry-After"] == "1" for _, headers, _ in answers
        )
        assert request(server, "GET", "/photographs")[0] == 200  # the page is at work all the same
        wait.set()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _, _ in answers) == [200] * 3 + [503] * 9
        assert request(server, "POST", "/search", image_bytes())[0] == 200


def test_an_update_of_the_index_is_seen_without_a_restart(tmp_path):
    draw(tmp_path / "photos" / "a.png", 1)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(tmp_path / "index", tmp_path / "photos")
        with serving(tmp_path / "index") as server:
            assert list(photographs(server)) == ["a.png"]
            draw(tmp_path / "photos" / "b.png", 2)
            (tmp_path / "photos" / "a.png").unlink()
            build(tmp_path / "index", tmp_path / "photos")
            assert list(photographs(server)) == ["b.png"]
