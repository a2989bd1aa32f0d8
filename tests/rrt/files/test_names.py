"""Names of files: equal letters, text that cannot be printed, what is no one's photograph, patterns."""

import os
import unicodedata

import pytest

from rrt.errors import InputError
from rrt.files.images import Unreadable, decode
from rrt.files.names import ImageNames, existing, is_excluded, is_left_out, same_text, shown
from rrt.formats.image_jobs import Job, read_image

NFC, NFD = (unicodedata.normalize(form, "Müller/Église.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("there, asked", [(NFC, NFD), (NFD, NFC)])
def test_a_file_is_found_by_its_letters_in_another_normal_form(tmp_path, there, asked):
    from photo_folders import draw

    draw(tmp_path / there, 1)
    assert not (tmp_path / asked).exists() and existing(tmp_path / asked) == tmp_path / there
    assert decode(tmp_path / asked).size == (80, 60)
    assert read_image(Job(asked, tmp_path / asked)).pixels is not None


def test_the_very_name_comes_before_its_twin(tmp_path):
    for name in (NFC, NFD):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        assert existing(tmp_path / name) == tmp_path / name


def test_a_name_that_is_nowhere_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / NFC, tmp_path / "none/none.jpg", "Ü/é.jpg"):
        assert str(existing(path)) == str(path)
        with pytest.raises(Unreadable, match="no such file"):
            decode(path)


def test_equal_letters_are_equal():
    assert NFC != NFD and same_text(NFC) == same_text(NFD) == NFC and same_text("a.jpg") == "a.jpg"


def test_names_are_shown_on_one_line():
    assert shown(os.fsdecode(b"caf\xe9\n.jpg")) == r"caf\udce9\n.jpg" and shown(NFC) == NFC


def test_what_systems_leave_is_no_photograph():
    assert all(map(is_left_out, ("._x.jpg", ".trash", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", ".hidden")))
    assert all(map(is_left_out, ("#snapshot", "@Recycle", "System Volume Information", "lost+found")))
    assert not any(map(is_left_out, ("recycle", "snapshot.jpg", "lost", "@home", "#1.jpg")))
    assert not any(map(is_left_out, ("x.jpg", "recycle", "#1.jpg", "@home", "macosx")))


def test_patterns_fit_a_whole_path_or_its_last_part():
    assert is_excluded("a/b.gif", ["*.gif"]) and is_excluded("a/b.gif", ["a/*"]) and is_excluded("x/thumbs", ["thumbs"])
    assert not is_excluded("a/b.gif", ["*.GIF"]) and not is_excluded("a/b.gif", ["b"]) and not is_excluded("a", [])


def test_a_name_with_its_folder_and_without_suffix_means_that_image_alone():
    names = ImageNames(["a/x.jpg", "b/x.png", "b/church.1", "c/x.jpg", "c/x.png"])
    asked = ("a/x", "b/x", "b/x.jpg", "b/church.1", "church.1", "d/church.1.jpg")
    assert [names.find(name) for name in asked] == [0, 1, 1, 2, 2, 2]
    for name in ("x", "c/x", "d/x.jpg"):
        with pytest.raises(InputError, match="may be"):
            names.find(name)
    assert names.find("c/x.png") == 4 and names.find("y") is None
