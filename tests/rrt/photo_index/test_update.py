"""An index follows its folder: added, changed, renamed, removed and unreadable photographs; builds that are killed."""

import os
import select
import time

import numpy as np
import pytest
from commands import assert_one_line_error, files_below, run_tool, started_tool
from photo_folders import build, draw, use_fakes
from places import HELPERS
from warm_python import kill

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.files.images import NO_HEIF
from rrt.files.locks import owned
from rrt.files.names import shown
from rrt.formats.lists import write_image_list
from rrt.photo_index import extraction, segments
from rrt.photo_index.manifest import read_manifest, write_manifest
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.segments import describe


@pytest.fixture
def described(monkeypatch):
    """The files that were described so far."""
    files = []
    use_fakes(monkeypatch, files)
    return files


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        draw(tmp_path / "photos" / f"p{i}.jpg", i)
    return tmp_path / "photos"


def names(folder):
    return [entry.name for entry in PhotoIndex(folder).entries]


def globals_of(folder):
    """{SHA-256: global descriptor as stored} of the photographs."""
    index = PhotoIndex(folder)
    return {
        entry.content: index.store.global_descriptors[row].tolist() for entry, row in zip(index.entries, index.rows)
    }


def test_an_update_describes_what_is_new_and_nothing_else(photos, tmp_path, described):
    done = build(tmp_path / "i", photos)
    assert (done.new, done.described, len(described)) == (5, 5, 5)
    draw(photos / "deep" / "er" / "p5.png", 5)
    done = build(tmp_path / "i", photos)
    assert (done.new, done.described) == (1, 1) and described[5:] == [str(photos / "deep/er/p5.png")]
    assert names(tmp_path / "i") == ["deep/er/p5.png", "p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg"]
    assert build(tmp_path / "i", photos).described == 0 and len(described) == 6


def test_a_renamed_photograph_is_known_by_its_content(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    before = globals_of(tmp_path / "i")
    (photos / "p1.jpg").rename(photos / "another name.jpg")
    done = build(tmp_path / "i", photos)
    assert (done.new, done.removed, done.renamed, done.described) == (0, 0, 1, 0) and len(described) == 5
    assert globals_of(tmp_path / "i") == before and "another name.jpg" in names(tmp_path / "i")


def test_copies_are_one_entry_with_several_paths(photos, tmp_path, described):
    (photos / "copy.jpg").write_bytes((photos / "p0.jpg").read_bytes())
    done = build(tmp_path / "i", photos)
    assert done.described == 5
    entries = {entry.name: entry.paths for entry in PhotoIndex(tmp_path / "i").entries}
    assert entries["copy.jpg"] == ["copy.jpg", "p0.jpg"] and len(entries) == 5
    (photos / "copy.jpg").unlink()
    assert build(tmp_path / "i", photos).described == 0
    assert "p0.jpg" in names(tmp_path / "i")


def test_a_changed_photograph_is_described_anew_and_a_removed_one_is_not_found(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    draw(photos / "p0.jpg", 100)
    (photos / "p4.jpg").unlink()
    done = build(tmp_path / "i", photos)
    assert (done.changed, done.removed, done.described) == (1, 1, 1)
    assert names(tmp_path / "i") == ["p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg"]
    assert sha256_of_file(photos / "p0.jpg") in globals_of(tmp_path / "i")
    assert describe(tmp_path / "i")["rows of removed photographs"] == 2


def test_a_photograph_that_comes_back_keeps_its_descriptors(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    (photos / "p4.jpg").rename(tmp_path / "away.jpg")
    build(tmp_path / "i", photos)
    (tmp_path / "away.jpg").rename(photos / "p4.jpg")
    assert build(tmp_path / "i", photos).described == 0


def test_a_touched_file_is_read_but_not_described_and_rehash_reads_all(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    os.utime(photos / "p0.jpg", (1, 1))
    done = build(tmp_path / "i", photos)
    assert (done.changed, done.described) == (0, 0)
    content, status = (photos / "p1.jpg").read_bytes(), os.stat(photos / "p1.jpg")
    (photos / "p1.jpg").write_bytes(content[:-3] + b"abc")
    os.utime(photos / "p1.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert build(tmp_path / "i", photos).changed == 0
    assert build(tmp_path / "i", photos, rehash=True).changed == 1


def test_unreadable_images_stop_nothing_and_are_tried_again_when_they_change(photos, tmp_path, described):
    (photos / "text.jpg").write_text("no image")
    (photos / "cut.jpg").write_bytes((photos / "p0.jpg").read_bytes()[:500])
    (photos / "camera.HEIC").write_bytes(b"x")
    (photos / "notes.txt").write_text("x")
    draw(photos / "tiny.png", 7, size=(5, 5))
    done = build(tmp_path / "i", photos)
    skipped = done.manifest.skipped()
    assert sorted(skipped) == ["camera.HEIC", "cut.jpg", "text.jpg", "tiny.png"] and done.ignored == 1
    assert "not an image" in skipped["text.jpg"] and "shorter" in skipped["tiny.png"]
    assert skipped["camera.HEIC"] in (NO_HEIF, skipped["text.jpg"])  # as pillow-heif is there or not
    lines = (tmp_path / "i" / "skipped.csv").read_text().splitlines()
    assert lines[0] == "name,reason" and len(lines) == 5
    looked_at = len(described)
    build(tmp_path / "i", photos)
    assert len(described) == looked_at
    draw(photos / "text.jpg", 8)
    assert build(tmp_path / "i", photos).described == 1
    assert "text.jpg" in names(tmp_path / "i") and "text.jpg" not in read_manifest(tmp_path / "i").skipped()


def test_an_index_takes_an_unreadable_image_when_it_is_all_that_is_new(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    (photos / "text.jpg").write_text("no image")
    done = build(tmp_path / "i", photos)
    assert done.described == 0 and list(done.manifest.skipped()) == ["text.jpg"] and len(names(tmp_path / "i")) == 5


def test_a_rotated_image_is_upright(photos, tmp_path, described):
    draw(photos / "turned.jpg", 9, size=(80, 60), orientation=6)
    build(tmp_path / "i", photos)
    index = PhotoIndex(tmp_path / "i")
    assert index.entries[index.numbers["turned.jpg"]].size == (60, 80)


def test_names_of_any_kind_hidden_files_and_links(photos, tmp_path, described):
    odd = [
        "ü ß 日本.jpg",
        "a 'b' \"c\".jpg",
        "line\nbreak.jpg",
        "comma, semicolon;.JPG",
        os.fsdecode(b"\xff\xfe.jpg"),
        "<b>&amp;.jpg",
    ]
    for i, name in enumerate(odd):
        draw(photos / "x" / f"{i}.jpg", 20 + i).rename(photos / "x" / name)
    draw(photos / ".hidden.jpg", 40)
    draw(photos / ".trash" / "p.jpg", 41)
    draw(tmp_path / "outside" / "o.jpg", 42)
    os.symlink("..", photos / "x" / "loop")
    os.symlink("nowhere.jpg", photos / "dangling.jpg")
    os.symlink("self.jpg", photos / "self.jpg")
    os.symlink(tmp_path / "outside" / "o.jpg", photos / "out.jpg")
    os.symlink(tmp_path / "outside", photos / "out")
    os.symlink("p0.jpg", photos / "link.jpg")
    done = build(tmp_path / "i", photos)
    assert names(tmp_path / "i") == sorted(
        ["link.jpg", "p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg", *(f"x/{name}" for name in odd)]
    )
    assert sorted(done.manifest.skipped()) == ["dangling.jpg", "out.jpg", "self.jpg"]
    assert all("\n" not in shown(name) and shown(name).encode() for name in names(tmp_path / "i"))
    build(tmp_path / "i", photos, follow_links=True)
    assert {"out.jpg"} == set(names(tmp_path / "i")) - {
        *(f"x/{name}" for name in odd),
        *(f"p{i}.jpg" for i in range(5)),
        "link.jpg",
    }
    assert read_manifest(tmp_path / "i").photographs.keys() >= {"out.jpg", "out/o.jpg"}


def test_an_index_inside_the_folder_is_not_searched_for_photographs(photos, described):
    build(photos / "index", photos)
    draw(photos / "index" / "thumbnails" / "x.jpg", 30)
    build(photos / "index", photos)
    assert len(names(photos / "index")) == 5


def test_many_segments_and_many_removed_photographs_are_merged(photos, tmp_path, described, monkeypatch):
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 3)
    for i in range(5):
        draw(photos / f"more{i}.jpg", 50 + i)
        done = build(tmp_path / "i", photos)
        if done.merged:
            break
        before = globals_of(tmp_path / "i")
    assert done.merged and (i, len(done.manifest.segments)) == (3, 1)
    after = globals_of(tmp_path / "i")
    assert {content: after[content] for content in before} == before and len(after) == len(before) + 1
    assert files_below(tmp_path / "i" / "segments") == list(done.manifest.segments)


def test_an_index_that_is_read_while_it_is_merged_stays_whole(photos, tmp_path, described, monkeypatch):
    build(tmp_path / "i", photos)
    index = PhotoIndex(tmp_path / "i")
    before = [hit.entry.name for hit in index.search(0, Ranker("none"))]
    monkeypatch.setattr("rrt.photo_index.update.wants_merging", lambda *_: True)
    (photos / "p4.jpg").unlink()
    build(tmp_path / "i", photos)
    assert index.changed() and [hit.entry.name for hit in index.search(0, Ranker("none"))] == before
    assert "p4.jpg" in before and "p4.jpg" not in names(tmp_path / "i")


def test_a_file_that_changes_while_it_is_described_does_not_keep_the_wrong_descriptors(
    photos, tmp_path, described, monkeypatch
):
    honest = extraction.extract

    def meddling(*given):
        draw(photos / "p2.jpg", 200)
        (photos / "p3.jpg").unlink()
        honest(*given)
        monkeypatch.setattr(extraction, "extract", honest)

    monkeypatch.setattr(extraction, "extract", meddling)
    build(tmp_path / "i", photos)
    assert names(tmp_path / "i") == ["p0.jpg", "p1.jpg", "p4.jpg"]
    build(tmp_path / "i", photos)
    assert names(tmp_path / "i") == ["p0.jpg", "p1.jpg", "p2.jpg", "p4.jpg"]
    build(tmp_path / "fresh", photos)
    assert globals_of(tmp_path / "i") == globals_of(tmp_path / "fresh")


def test_two_builders_at_once_are_refused(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    with (
        owned(tmp_path / "i", "changing this index", "lock"),
        pytest.raises(InputError, match="another process is changing this index"),
    ):
        build(tmp_path / "i", photos)


def test_of_a_refused_first_build_nothing_is_left(tmp_path, described):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there").mkdir()
    for index in ("new", "there"):
        with pytest.raises(InputError, match="no images in this folder"):
            build(tmp_path / index, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "there"]
    (tmp_path / "empty" / "x.jpg").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match=r"1 that cannot be read; the first is x.jpg: a link .* give --follow_links"):
        build(tmp_path / "new", tmp_path / "empty")


def test_another_model_or_setting_is_refused_and_another_folder_too(photos, tmp_path, described):
    build(tmp_path / "i", photos, flags=(["--max_features", "50"],))
    build(tmp_path / "i", photos)
    with pytest.raises(InputError, match="described with flags"):
        build(tmp_path / "i", photos, flags=(["--max_features", "60"],))
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="--moved"):
        build(tmp_path / "i", tmp_path / "elsewhere")
    assert build(tmp_path / "i", tmp_path / "elsewhere", moved=True).described == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in this folder.*5 photographs were there before"):
        build(tmp_path / "i", tmp_path / "empty", moved=True)
    assert len(names(tmp_path / "i")) == 5


def test_whitening_is_learned_on_the_index_and_again_when_it_changes(photos, tmp_path, described):
    build(tmp_path / "i", photos)
    plain = PhotoIndex(tmp_path / "i").gallery
    first = build(tmp_path / "i", photos, whiten=3).manifest.whitening
    assert PhotoIndex(tmp_path / "i").gallery.shape == (5, 3)
    assert build(tmp_path / "i", photos).manifest.whitening == first
    draw(photos / "p9.jpg", 90)
    second = build(tmp_path / "i", photos).manifest.whitening
    assert second["file"] != first["file"] and not (tmp_path / "i" / first["file"]).exists()
    given = build(tmp_path / "j", photos, whitening=str(tmp_path / "i" / second["file"])).manifest.whitening
    assert np.allclose(PhotoIndex(tmp_path / "i").gallery, PhotoIndex(tmp_path / "j").gallery) and given["file"]
    build(tmp_path / "i", photos, no_whitening=True)
    assert PhotoIndex(tmp_path / "i").gallery.shape[1] == plain.shape[1]


def test_an_image_list_chooses_the_photographs(photos, tmp_path, described):
    write_image_list(tmp_path / "list.txt", ["p1.jpg", "p3.jpg", "away.jpg"], [0, 0, 0], [(80, 60)] * 3)
    done = build(tmp_path / "i", photos, image_list=str(tmp_path / "list.txt"))
    assert names(tmp_path / "i") == ["p1.jpg", "p3.jpg"] and list(done.manifest.skipped()) == ["away.jpg"]


def test_a_folder_that_cannot_be_listed_keeps_its_photographs(photos, tmp_path, described, monkeypatch):
    draw(photos / "sub" / "s.jpg", 60)
    build(tmp_path / "i", photos)
    honest = os.scandir

    def scandir(path):
        if str(path).endswith("sub/"):
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done = build(tmp_path / "i", photos)
    assert "sub/s.jpg" in names(tmp_path / "i") and done.manifest.skipped() == {"sub/": "Permission denied"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "rrt-photo-index", "version": 1}',
        b'{"schema": "other"}',
        b'{"schema": "rrt-photo-index", "version": 1, "root": "/", "extraction": {}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_manifest_is_one_line(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(InputError, match="index.json: damaged"):
        read_manifest(tmp_path)


def test_a_manifest_comes_back_as_it_was_written(photos, tmp_path, described):
    manifest = build(tmp_path / "i", photos, whiten=2).manifest
    write_manifest(tmp_path / "copy", manifest)
    assert read_manifest(tmp_path / "copy") == manifest


def ended(process, seconds):
    return select.select([process], [], [], seconds)[0]


def test_a_build_killed_at_any_moment_is_gone_on_with(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    for i in range(12):
        draw(photos / f"p{i}.jpg", i)
    (photos / "text.jpg").write_text("no image")
    use_fakes(monkeypatch)
    build(tmp_path / "whole", photos, whiten=4)
    index = tmp_path / "killed"
    moments = [
        lambda: index.exists(),
        lambda: (index / "index.json").exists(),
        lambda: list(index.glob("segments/*.parts/part-00001.h5")),
        lambda: list(index.glob("segments/*.parts/part-00004.h5")),
        lambda: list(index.glob("segments/segment-*.h5")),
    ]
    seen = set()
    for moment in moments:
        with started_tool(HELPERS / "killed_build.py", index, photos, 0.05) as process:
            ends = time.time() + 60
            while not moment() and not ended(process, 0.002) and time.time() < ends:
                pass
            kill(process)
        parts = {
            path.name: path.stat().st_mtime_ns
            for path in index.glob("segments/*.parts/part-*.h5")
            if ".tmp" not in path.name
        }
        assert seen <= set(parts.items()) or not parts, "what was finished was done again"
        seen = set(parts.items())
    build(index, photos, whiten=4)
    assert globals_of(index) == globals_of(tmp_path / "whole")
    assert np.allclose(PhotoIndex(index).gallery, PhotoIndex(tmp_path / "whole").gallery)
    assert not [name for name in files_below(index) if "pending" in name or ".tmp" in name or "parts" in name]


def test_wrong_input_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("x")
    draw(tmp_path / "photos" / "p.jpg", 1)
    missing = [
        (("build", tmp_path / "nowhere", "--index", tmp_path / "i"), "no such folder"),
        (("build", tmp_path / "empty", "--index", tmp_path / "i"), "no images in this folder"),
        (("build", tmp_path / "photos", "--index", tmp_path / "other"), "letter.txt"),
        (("build", tmp_path / "photos", "--index", tmp_path / "photos/p.jpg"), "p.jpg: a file; give the folder"),
        (("build", tmp_path / "photos", "--index", tmp_path / "j", "--model", tmp_path / "no.h5"), "no.h5"),
        (("info", tmp_path / "nowhere"), "no index there"),
    ]
    for arguments, part in missing:
        assert_one_line_error(run_tool("tools/search.py", *arguments), part)
