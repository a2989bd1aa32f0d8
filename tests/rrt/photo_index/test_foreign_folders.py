"""Indexes of folders that other programs filled: hostile images, system folders, patterns, names in other forms."""

import unicodedata

import pytest
from commands import run_tool
from photo_folders import build, draw, use_fakes
from PIL import Image

from rrt.photo_index import extraction
from rrt.photo_index.manifest import read_manifest
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.summary import lines_of_build


@pytest.fixture
def photos(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    for i in range(3):
        draw(tmp_path / "photos" / f"p{i}.jpg", i)
    return tmp_path / "photos"


def test_no_image_ends_a_build(photos, tmp_path):
    Image.new("RGB", (1, 1000)).save(photos / "divider.png")
    Image.new("1", (20_000, 20_000)).save(photos / "wall.png")
    (photos / "eps.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    draw(photos / "x.avif", 1)
    (photos / "x.avif").write_bytes((photos / "x.avif").read_bytes()[:200])
    skipped = build(tmp_path / "i", photos).manifest.skipped()
    assert list(skipped) == ["divider.png", "eps.jpg", "wall.png", "x.avif"]
    assert "megapixels; set RRT_MAX_MEGAPIXELS" in skipped["wall.png"] and "not an image" in skipped["eps.jpg"]
    assert len(PhotoIndex(tmp_path / "i").entries) == 3


def test_the_counts_of_a_build_add_up_to_the_files_that_were_found(photos, tmp_path, monkeypatch):
    (photos / "live.HEIC").write_bytes(b"\0\0\0\x1cftypheic" + bytes(99))
    for name in ("live.MOV", "clip.mp4", "sub.m2ts"):
        (photos / name).write_bytes(b"film")
    for name in ("notes.txt", "live.aae", "new.cr3"):
        (photos / name).write_bytes(b"x")
    (photos / "text.jpg").write_text("no image")
    (photos / "copy.jpg").write_bytes((photos / "p0.jpg").read_bytes())
    draw(photos / ".hidden/p.jpg", 8)

    def checked():
        done = build(tmp_path / "i", photos)
        hidden = 1
        assert done.files == sum(path.is_file() for path in photos.rglob("*")) - hidden
        assert done.files == done.photographs + done.skipped + done.postponed + done.videos + done.ignored
        assert done.photographs == sum(len(entry.paths) for entry in PhotoIndex(tmp_path / "i").entries)
        told = lines_of_build(tmp_path / "i", done)[-1]
        assert f"of {done.files} files in all" in told and "3 videos left out" in told
        return done

    done = checked()
    assert (done.new, done.videos, done.ignored, done.unchanged) == (4, 3, 2, 0)
    assert set(done.manifest.skipped()) == {"live.HEIC", "new.cr3", "text.jpg"}
    draw(photos / "p1.jpg", 50)
    (photos / "p2.jpg").rename(photos / "moved.jpg")
    (photos / "copy.jpg").unlink()
    draw(photos / "text.jpg", 51)
    done = checked()
    assert (done.new, done.changed, done.renamed, done.unchanged, done.skipped) == (0, 2, 1, 1, 2)
    honest = extraction.extract

    def meddling(*given):
        draw(photos / "p3.jpg", 52)
        honest(*given)
        monkeypatch.setattr(extraction, "extract", honest)

    draw(photos / "p3.jpg", 53)
    monkeypatch.setattr(extraction, "extract", meddling)
    assert checked().postponed == 1
    assert checked().new == 1


def test_what_systems_put_into_folders_is_no_photograph(photos, tmp_path):
    for name in ("@eaDir/p0.jpg/THUMB.jpg", "#recycle/x.jpg", "a/__MACOSX/._x.jpg", ".trash/x.jpg", "a/._x.jpg"):
        draw(photos / name, 9)
    assert list(build(tmp_path / "i", photos).manifest.photographs) == ["p0.jpg", "p1.jpg", "p2.jpg"]


def test_patterns_leave_photographs_out_until_they_are_taken_back(photos, tmp_path):
    draw(photos / "small/x.jpg", 5)
    done = build(tmp_path / "i", photos, exclude=("small", "p2*"))
    assert list(done.manifest.photographs) == ["p0.jpg", "p1.jpg"]
    assert build(tmp_path / "i", photos).new == 0
    assert read_manifest(tmp_path / "i").exclude == ("small", "p2*")
    assert build(tmp_path / "i", photos, exclude=()).new == 2


def test_a_photograph_is_meant_by_its_letters_in_any_normal_form(photos, tmp_path):
    name = "Müller.jpg"
    draw(photos / unicodedata.normalize("NFD", name), 5)
    build(tmp_path / "i", photos)
    index = PhotoIndex(tmp_path / "i")
    assert index.find(name) == index.find(unicodedata.normalize("NFD", name)) is not None
    assert index.find("Mueller.jpg") is None
    done = run_tool("tools/search.py", "query", tmp_path / "i", name, "--method", "none")
    assert done.returncode == 0 and "photograph of the index" in done.stdout


def test_a_file_here_is_not_passed_over_in_silence_for_a_photograph_of_its_name(photos, tmp_path, monkeypatch):
    build(tmp_path / "i", photos)
    draw(tmp_path / "card/p0.jpg", 77)
    words = ("tools/search.py", "query", tmp_path / "i", "p0.jpg", "--method", "none")
    monkeypatch.chdir(tmp_path / "card")
    index = PhotoIndex(tmp_path / "i")
    assert index.is_another_file("p0.jpg", index.numbers["p0.jpg"])
    assert not index.is_another_file("p1.jpg", index.numbers["p1.jpg"])
    assert not index.is_another_file(str(photos / "p0.jpg"), index.numbers["p0.jpg"])
    done = run_tool(*words, cwd=tmp_path / "card")
    assert done.returncode == 0 and "photograph of the index" in done.stdout
    assert "there is also a file p0.jpg here: give it as ./p0.jpg" in done.stderr
    assert "note" not in run_tool(*words, cwd=photos).stderr
