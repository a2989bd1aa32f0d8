"""Groups of near-duplicates in an index: what belongs together, what is kept, how it is told."""

import json
import threading
import time

import cv2
import numpy as np
import pytest
from photo_folders import build, detailed, use_fakes
from photo_server import request, serving
from PIL import Image

from rrt.commands import search
from rrt.files.atomic import sha256_of_file
from rrt.matching.copies import METHOD
from rrt.photo_index import duplicates, duplicates_view
from rrt.photo_index.duplicates import KEPT, SAME_FILE, candidates, find_groups
from rrt.photo_index.duplicates_report import as_html, as_json, as_text
from rrt.photo_index.python import PhotoIndex


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs 0 to 3, copies of 0 and of 1, and their index."""
    folder = tmp_path_factory.mktemp("duplicates")
    photos = folder / "photos"
    (photos / "copies <b>").mkdir(parents=True)
    for seed in range(4):
        Image.fromarray(detailed(seed)).save(photos / f"p{seed}.png")
    first = detailed(0)
    Image.fromarray(first).save(photos / "copies <b>/saved.jpg", quality=15)
    Image.fromarray(cv2.resize(first, (200, 150), interpolation=cv2.INTER_AREA)).save(photos / "copies <b>/small.png")
    (photos / "copies <b>/same.png").write_bytes((photos / "p0.png").read_bytes())
    Image.fromarray(detailed(1)[:, ::-1]).save(photos / "copies <b>/mirrored.png")
    Image.fromarray(cv2.copyMakeBorder(detailed(2), 30, 30, 30, 30, cv2.BORDER_CONSTANT)).save(photos / "framed.png")
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", photos)
    return folder


@pytest.fixture(autouse=True)
def every_pair(monkeypatch):
    """Made-up descriptors say little of what is near."""
    monkeypatch.setattr(duplicates, "SIMILAR", -1.0)


def told(groups):
    return {member.path: member.changes for group in groups for member in group.members}


def test_copies_are_grouped_by_what_was_changed_and_the_largest_is_the_first(folder):
    groups = PhotoIndex(folder / "index").duplicates()
    assert {tuple(sorted(member.path for member in group.members)) for group in groups} == {
        ("copies <b>/same.png", "copies <b>/saved.jpg", "copies <b>/small.png", "p0.png"),
        ("copies <b>/mirrored.png", "p1.png"),
        ("framed.png", "p2.png"),
    }
    assert [group.spare for group in groups] == sorted((group.spare for group in groups), reverse=True)
    changes = told(groups)
    assert changes["copies <b>/saved.jpg"] == ("saved anew",) and changes["copies <b>/small.png"] == ("resized",)
    assert {changes["copies <b>/same.png"], changes["p0.png"]} == {(), (SAME_FILE,)}
    assert {changes["copies <b>/mirrored.png"], changes["p1.png"]} == {(), ("mirrored",)}
    # What has no frame is the first, although it has fewer pixels.
    assert changes["p2.png"] == () and changes["framed.png"] == ("framed",)
    first = next(group for group in groups if len(group.members) == 4).members
    assert first[0].size == (320, 240) and first[0].bytes == (folder / "photos/p0.png").stat().st_size
    assert all(len(member.date) == len("2024-05-31T18:02:07") for member in first)


def test_nothing_but_what_was_found_is_written_and_it_is_used_again(folder, monkeypatch):
    before = {path: sha256_of_file(path) for path in (folder / "photos").rglob("*") if path.is_file()}
    index = PhotoIndex(folder / "index")
    (folder / "index" / KEPT).unlink(missing_ok=True)
    groups = find_groups(index)
    assert before == {path: sha256_of_file(path) for path in (folder / "photos").rglob("*") if path.is_file()}
    compared = []
    monkeypatch.setattr(duplicates, "compare", lambda *looks: compared.append(looks))
    assert find_groups(index) == groups and compared == []
    # A kill may cut the last line; another method finds all anew.
    kept = (folder / "index" / KEPT).read_bytes()
    (folder / "index" / KEPT).write_bytes(kept[:-9] + b"\nnull\n[1, 2]\n")
    find_groups(index)
    assert len(compared) == 1
    (folder / "index" / KEPT).write_bytes(kept.replace(b"[%d," % METHOD, b"[0,"))
    compared.clear()
    find_groups(index)
    assert len(compared) > 1
    (folder / "index" / KEPT).unlink()


def test_an_index_that_may_only_be_read_has_its_groups_told(folder, monkeypatch):
    monkeypatch.setattr(duplicates, "open", lambda *_: (_ for _ in ()).throw(PermissionError()), raising=False)
    assert len(find_groups(PhotoIndex(folder / "index"))) == 3
    assert not (folder / "index" / KEPT).exists()


def test_candidates_are_the_near_pairs_each_once(folder, monkeypatch):
    index = PhotoIndex(folder / "index")
    products = index.gallery @ index.gallery.T
    monkeypatch.setattr(duplicates, "SIMILAR", 0.8)
    monkeypatch.setattr(duplicates, "_BLOCK", 3)
    wanted = {(a, b) for a, b in np.argwhere(np.triu(products >= 0.8, 1)).tolist()}
    found = candidates(index).tolist()
    assert len(found) == len(wanted) and {tuple(pair) for pair in found} == wanted and 0 < len(wanted) < 20
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 1)
    nearest = np.argsort(-products, axis=1)[:, 1]
    assert {tuple(pair) for pair in candidates(index).tolist()} <= {
        tuple(sorted((number, int(other)))) for number, other in enumerate(nearest)
    }


def test_groups_are_told_as_text_json_and_a_page_that_needs_nothing_beside_it(folder):
    index = PhotoIndex(folder / "index")
    groups = index.duplicates()
    text = as_text(groups)
    assert "copies <b>/mirrored.png" in text and "(mirrored)" in text
    assert "3 groups of 8 files" in text and text.endswith("nothing was changed or deleted")
    plain = as_json(index, groups)
    assert json.loads(json.dumps(plain))["groups"][0]["spare"] == groups[0].spare
    assert {"id", "path", "size", "bytes", "date", "changes"} == set(plain["groups"][0]["members"][0])
    page = as_html(index, groups)
    assert page.count('src="data:image/jpeg;base64,') == 8 and "copies &lt;b&gt;/saved.jpg" in page
    assert "<script" not in page and "<b>saved anew</b>" in page


def test_the_command_prints_and_writes_the_groups(folder, tmp_path, monkeypatch, capsys):
    words = ("duplicates", folder / "index", "--html", tmp_path / "d.html", "--json", tmp_path / "d.json")
    monkeypatch.setattr("sys.argv", ["search.py", *map(str, words)])
    search.main()
    assert "nothing was changed or deleted" in capsys.readouterr().out
    found = json.loads((tmp_path / "d.json").read_text())["groups"]
    assert any(member["changes"] == [SAME_FILE] for group in found for member in group["members"])
    assert (tmp_path / "d.html").read_text().startswith("<!doctype html>")


def test_the_page_asks_for_groups_by_pages_while_they_are_searched_for(folder):
    with serving(folder / "index") as server:
        ends = time.monotonic() + 30
        while not (page := json.loads(request(server, "GET", "/duplicates?limit=2")[2]))["done"]:
            assert page["groups"] == [] and time.monotonic() < ends
            time.sleep(0.02)
        assert (page["total"], page["files"], len(page["groups"]), page["error"]) == (3, 8, 2, "")
        assert page["compared"] == page["pairs"] > 0
        (rest,) = json.loads(request(server, "GET", "/duplicates?offset=2&limit=2")[2])["groups"]
        assert rest not in page["groups"] and request(server, "GET", f"/thumbnail/{rest['members'][0]['id']}")[0] == 200
        assert request(server, "GET", "/duplicates?offset=x")[0] == 400
        assert request(server, "POST", "/duplicates", b"")[0] == 404


def test_an_update_has_the_groups_searched_for_again(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    (tmp_path / "photos").mkdir()
    for name in "ab":
        Image.fromarray(detailed(ord(name))).save(tmp_path / "photos" / f"{name}.png")
    build(tmp_path / "index", tmp_path / "photos")

    def groups(server):
        ends = time.monotonic() + 30
        while not (page := json.loads(request(server, "GET", "/duplicates")[2]))["done"]:
            assert time.monotonic() < ends
            time.sleep(0.02)
        return [{member["path"] for member in group["members"]} for group in page["groups"]]

    with serving(tmp_path / "index") as server:
        assert groups(server) == []
        Image.fromarray(detailed(ord("a"))).save(tmp_path / "photos/c.jpg", quality=50)
        build(tmp_path / "index", tmp_path / "photos")
        assert groups(server) == [{"a.png", "c.jpg"}]


def test_a_search_for_copies_ends_with_the_server(folder, monkeypatch):
    began, told = threading.Event(), []

    def endless(index, tell):
        while True:
            tell(0, 1)
            began.set()
            told.append(time.monotonic())

    monkeypatch.setattr(duplicates_view, "find_groups", endless)
    index = PhotoIndex(folder / "index")
    copies = duplicates_view.Duplicates(lambda: index)
    copies.page(0, 1)
    assert began.wait(20)
    copies.close()
    count = len(told)
    time.sleep(0.05)
    assert len(told) == count and not any(thread.name.endswith("(_search)") for thread in threading.enumerate())
