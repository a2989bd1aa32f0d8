"""Lists of folders and queries of lists, named and filled as other programs do."""

import os
import unicodedata

import pytest
from commands import assert_one_line_error, run_tool
from photo_folders import draw

from rrt.errors import InputError
from rrt.files.names import ImageNames
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.image_jobs import collect_jobs
from rrt.formats.listing import list_folder, list_revisited
from rrt.formats.lists import read_image_list, write_image_list
from rrt.formats.revisited import load_revisited_set


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def names_of(path):
    return read_image_list(path).names


@pytest.fixture
def photos(tmp_path):
    draw(tmp_path / "photos/bridge/p.jpg", 1)
    draw(tmp_path / "photos/tower/p.jpg", 2)
    return tmp_path / "photos"


def test_a_list_knows_the_kinds_that_search_knows_and_tells_what_it_leaves_out(photos, tmp_path):
    for kind in ("jfif.JPEG", "gif.GIF", "avif.AVIF", "jp2.JPEG2000", "pgm.PPM"):
        suffix, format_ = kind.split(".")
        draw(photos / "tower" / "x.png", 3).rename(tmp_path / "x.png")
        from PIL import Image

        Image.open(tmp_path / "x.png").convert("L").save(photos / "tower" / f"k.{suffix}", format_)
    draw(photos / "top.jpg", 4)
    for name in ("film.mov", "film2.MOV", "notes.txt", "sheet.pdf"):
        touch(photos / "bridge" / name)
    done = run_tool("tools/prepare_data.py", "folder", photos, tmp_path / "l.txt")
    assert done.returncode == 0 and names_of(tmp_path / "l.txt") == [
        "bridge/p.jpg",
        *(f"tower/{name}" for name in ("k.avif", "k.gif", "k.jfif", "k.jp2", "k.pgm", "p.jpg")),
    ]
    assert "left out 4 files of kinds that are not read: 2 .mov, 1 .pdf, 1 .txt" in done.stdout
    assert "left out 1 images beside the sub-folders, which have no landmark: top.jpg" in done.stdout


def test_what_systems_put_into_folders_is_not_listed_and_makes_no_landmark(photos, tmp_path):
    for folder in ("@eaDir", "#recycle", "__MACOSX", ".trash", "tower/@eaDir/p.jpg", "tower/.Trashes"):
        draw(photos / folder / "x.jpg", 5)
    touch(photos / "tower/._p.jpg")
    list_folder(photos, tmp_path / "l.txt")
    assert names_of(tmp_path / "l.txt") == ["bridge/p.jpg", "tower/p.jpg"]
    assert read_image_list(tmp_path / "l.txt").labels.tolist() == [0, 1]


def test_patterns_leave_out_files_and_folders(photos, tmp_path):
    draw(photos / "tower/small/a.png", 3)
    draw(photos / "junk/b.jpg", 4)
    done = run_tool(
        *("tools/prepare_data.py", "folder", photos, tmp_path / "l.txt"),
        *("--exclude", "junk", "--exclude", "tower/small", "--exclude", "*.gif"),
    )
    assert done.returncode == 0 and "left out 1 files by --exclude" in done.stdout
    assert names_of(tmp_path / "l.txt") == ["bridge/p.jpg", "tower/p.jpg"]


@pytest.mark.parametrize("name, reason", [(b"caf\xe9.jpg", "no UTF-8"), (b"a\nb.jpg", "line break")])
def test_a_name_that_no_list_can_hold_is_skipped_alone(photos, tmp_path, name, reason):
    draw(photos / "tower/x.jpg", 3).rename(photos / "tower" / os.fsdecode(name))
    command = ("tools/prepare_data.py", "folder", photos, tmp_path / "l.txt")
    assert_one_line_error(run_tool(*command), reason, "rename it", "--allow_missing")
    assert run_tool(*command, "--allow_missing").returncode == 0
    assert names_of(tmp_path / "l.txt") == ["bridge/p.jpg", "tower/p.jpg"]
    assert reason in (tmp_path / "l.txt.skipped.csv").read_text()
    for path in (photos / "tower/p.jpg", photos / "bridge/p.jpg"):
        path.unlink()
    assert_one_line_error(run_tool(*command), "no image can be listed", reason)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_set_is_listed_and_opened_whatever_the_normal_form_of_its_names(tmp_path, form):
    names = [unicodedata.normalize("NFD" if form == "NFC" else "NFC", name) for name in ("Müller", "Église", "tower")]
    for i, name in enumerate(names):
        draw(tmp_path / "jpg" / f"{unicodedata.normalize(form, name)}.jpg", i)
    gnd = [{"bbx": [0, 0, 50, 40], "easy": [0], "hard": [], "junk": []}]
    save_ground_truth(tmp_path / "g.json", names[1:], names[:1], gnd)
    list_revisited(tmp_path, tmp_path / "g.json", tmp_path)
    lists = tmp_path / "test_query.txt", tmp_path / "test_gallery.txt"
    assert len(load_revisited_set(*lists, tmp_path / "g.json").gallery) == 2
    write_image_list(lists[0], [unicodedata.normalize(form, f"jpg/{names[0]}.jpg")], [0], [(50, 40)])
    load_revisited_set(*lists, tmp_path / "g.json")
    (job,) = collect_jobs([], [lists[0]], tmp_path / "g.json", tmp_path)
    assert job.box == (0, 0, 50, 40)


def test_an_image_is_found_by_its_whole_name_and_by_a_stem_of_its_own():
    names = ImageNames(["a/001.jpg", "b/001.jpg", "church.1", "church.2", "c/bell.tower.png", "002"])
    assert names.find("a/001.jpg") == 0 and names.find("b/001.jpg") == 1
    assert names.find("church.1.jpg") == 2 and names.find("jpg/church.2.jpg") == 3 and names.find("church.3") is None
    assert names.find("bell.tower") == 4 and names.find("jpg/002.jpg") == 5 and names.find("bell") is None
    for asked in ("001", "001.jpg", "jpg/001.jpg"):
        with pytest.raises(InputError, match="may be 'a/001.jpg' or 'b/001.jpg'"):
            names.find(asked)


def truth_of(folder, queries):
    gnd = [{"bbx": [0, 0, 50 + i, 40], "easy": [0], "hard": [], "junk": []} for i in range(len(queries))]
    save_ground_truth(folder / "g.json", ["g"], queries, gnd)
    return folder / "g.json"


@pytest.mark.parametrize(
    "queries, listed, told",
    [
        (["a/001", "b/001"], ["c/001.jpg"], r"may be 'a/001' or 'b/001'.*line 1 of q.txt"),
        (["001"], ["a/001.jpg", "b/001.jpg"], r"'001' may be 'a/001.jpg' or 'b/001.jpg'"),
        (["002"], ["a/001.jpg"], r"no query '001' \(line 1 of q.txt\)"),
        (["{}"], ["a/{0}.jpg"], r"no query '\{0\}'"),
    ],
)
def test_queries_that_may_be_several_are_refused(tmp_path, queries, listed, told):
    write_image_list(tmp_path / "q.txt", listed, [0] * len(listed), [(9, 9)] * len(listed))
    with pytest.raises(InputError, match=told):
        collect_jobs([], [tmp_path / "q.txt"], truth_of(tmp_path, queries), tmp_path)


def test_a_query_in_two_lists_is_one(tmp_path):
    for name in ("q.txt", "r.txt"):
        write_image_list(tmp_path / name, ["jpg/church.1.jpg"], [0], [(9, 9)])
    jobs = collect_jobs([], [tmp_path / "q.txt", tmp_path / "r.txt"], truth_of(tmp_path, ["church.1"]), tmp_path)
    assert [job.box for job in jobs] == [(0, 0, 50, 40)]


def test_a_box_of_width_and_height_is_told_as_corners(tmp_path):
    gnd = [{"bbx": [100, 100.5, 20, 30], "easy": [0], "hard": [], "junk": []}]
    with pytest.raises(InputError, match=r"bbx 100, 100.5, 20, 30 .*x2 < x1.*write 100, 100.5, 120, 130.5"):
        save_ground_truth(tmp_path / "g.json", ["a"], ["q"], gnd)
