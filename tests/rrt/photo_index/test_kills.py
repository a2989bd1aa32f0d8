"""An index is whole whatever file operation its build is killed at: the next one makes of it what one run would."""

import json
from collections import Counter

import cv2
import pytest
from commands import files_below
from faults import every, forked, kill_everywhere
from photo_folders import build, draw, use_fakes

from rrt.files.atomic import temporary_name
from rrt.photo_index.query import PhotoIndex


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    use_fakes(monkeypatch)
    cv2.setNumThreads(1)  # a fork has no threads but its own


def first(folder):
    build(folder / "there" / "index", folder / "photos")


def whitened(folder):
    build(folder / "there" / "index", folder / "photos", whiten=4)


def change(photos):
    draw(photos / "p1.jpg", 12)


def remove(photos):
    (photos / "p0.jpg").unlink()


def merge(photos):
    for i in range(3):
        (photos / f"p{i}.jpg").unlink()
    draw(photos / "other.jpg", 13)


# {name: (what was built before, what happens to the photographs, the build that is killed)}. The operations of a first
# build without whitening are among those with it, those of a new photograph among those of a changed one.
SCENARIOS = {
    "first, whitened": (None, None, whitened),
    "change": (first, change, first),
    "remove": (first, remove, first),
    "whiten": (first, None, whitened),
    "whitened anew": (whitened, merge, first),
}


def state(folder):
    """All that searches use, and the kinds of files, as text; a killed run may have used up numbers of segments."""
    index = PhotoIndex(folder)
    rows = {
        entry.name: (entry.content, index.gallery[row].round(4).tolist()) for row, entry in enumerate(index.entries)
    }
    kinds = Counter("".join(letter for letter in file if not letter.isdigit()) for file in files_below(folder))
    return json.dumps([rows, dict(sorted(kinds.items()))])


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_build_killed_at_any_file_operation_is_resumed(tmp_path, name):
    before, event, killed = SCENARIOS[name]
    for i in range(4):
        draw(tmp_path / "photos" / f"p{i}.jpg", i)
    (tmp_path / "there").mkdir()
    if before:
        assert forked(lambda: before(tmp_path))[0] == 0
    if event:
        event(tmp_path / "photos")
    index = tmp_path / "there" / "index"
    assert kill_everywhere(tmp_path / "there", lambda: killed(tmp_path), lambda: state(index), every(8))


def test_a_build_after_a_kill_while_the_whitening_is_written(tmp_path):
    for i in range(5):
        draw(tmp_path / "photos" / f"p{i}.jpg", i)
    whitened(tmp_path)
    left = temporary_name(tmp_path / "there" / "index" / "whitening-00007.npz")
    left.touch()
    (tmp_path / "there" / "index" / "whitening-00002.deadbeef.tmp.npz").touch()
    whitened(tmp_path)
    assert not [file for file in files_below(tmp_path / "there" / "index") if ".tmp" in file]
