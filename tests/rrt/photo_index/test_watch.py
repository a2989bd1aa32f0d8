"""An index follows its folder while a program runs, whatever happens to the folder; how far a build is is told."""

import json
import os
import threading
import time
from contextlib import contextmanager

import pytest
from photo_folders import build, draw, use_fakes
from photo_server import request, serving
from watchdog import events

from rrt.commands import search
from rrt.errors import InputError
from rrt.photo_index import watch as module
from rrt.photo_index.manifest import PENDING
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.segments import under_way
from rrt.photo_index.update import BuildSettings
from rrt.photo_index.watch import Watch


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of two photographs that has an index, and short waits."""
    use_fakes(monkeypatch)
    monkeypatch.setattr(module, "QUIET", 0.05)
    monkeypatch.setattr(module, "AGAIN", 0.1)
    for i in range(2):
        draw(tmp_path / "photos" / f"p{i}.png", i)
    build(tmp_path / "index", tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def updates(monkeypatch):
    """The updates that were begun."""
    begun, honest = [], module.update

    def counted(*given):
        begun.append(given)
        return honest(*given)

    monkeypatch.setattr(module, "update", counted)
    return begun


@contextmanager
def following(folder, photos):
    """The lines told while the folder is followed."""
    lines = []
    watch = Watch(folder, str(photos), BuildSettings(), lines.append)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        settled(watch)
        yield lines
    finally:
        watch.stop()
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def followed(photos, tmp_path, updates):
    """The lines told while the folder of photographs is followed."""
    with following(tmp_path / "index", photos) as lines:
        yield lines


def settled(watch):
    """Waits until the system tells of changes."""
    probe = os.path.join(watch.photos, "probe.txt")
    wait_for(lambda: open(probe, "w").close() or os.utime(probe) or watch._last)
    os.unlink(probe)


def wait_for(done, seconds=20):
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.02)


def names(tmp_path):
    return [entry.name for entry in PhotoIndex(tmp_path / "index").entries]


def test_changes_are_taken_in_a_few_at_a_time_and_told(followed, photos, tmp_path, updates):
    for i in range(12):
        draw(photos / "new" / f"n{i:02d}.png", 100 + i)
    wait_for(lambda: len(names(tmp_path)) == 14)
    (photos / "p0.png").unlink()
    wait_for(lambda: followed and "1 removed" in followed[-1])
    assert len(updates) < 9 and "13 photographs" in followed[-1] and len(names(tmp_path)) == 13


def test_an_update_that_fails_is_told_once_and_tried_again(followed, photos, tmp_path, monkeypatch, capsys):
    honest, failing = module.update, [1] * 3

    def failing_first(*given):
        if failing and failing.pop():
            raise InputError("the drive is away")
        return honest(*given)

    monkeypatch.setattr(module, "update", failing_first)
    draw(photos / "c.png", 5)
    wait_for(lambda: "c.png" in names(tmp_path))
    assert capsys.readouterr().err.count("the drive is away") == 1


def test_a_folder_that_goes_and_comes_back_is_followed_on(followed, photos, tmp_path):
    photos.rename(tmp_path / "away")
    time.sleep(0.3)
    (tmp_path / "away").rename(photos)
    draw(photos / "later.png", 6)
    wait_for(lambda: "later.png" in names(tmp_path))
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize(
    "event, counts",
    [
        (events.FileCreatedEvent("p.png"), True),
        (events.FileModifiedEvent("deep/er/p.png"), True),
        (events.FileClosedEvent("p.png"), True),
        (events.FileDeletedEvent("p.png"), True),
        (events.DirMovedEvent("trip", "journey"), True),
        (events.FileMovedEvent(".upload.part", "p.png"), True),
        (events.FileOpenedEvent("p.png"), False),
        (events.FileClosedNoWriteEvent("p.png"), False),
        (events.DirModifiedEvent("."), False),
        (events.FileCreatedEvent(".hidden.png"), False),
        (events.FileCreatedEvent("@eaDir/p.png/x.jpg"), False),
        (events.FileCreatedEvent("index/thumbnails/x.jpg"), False),
        (events.DirDeletedEvent("index"), False),
        (events.FileCreatedEvent("index of photos/p.png"), True),
    ],
)
def test_what_is_read_hidden_or_of_the_index_itself_is_no_change(tmp_path, event, counts):
    watch = Watch(tmp_path / "index", str(tmp_path), BuildSettings(), print)
    for name in ("src_path", "dest_path"):
        if getattr(event, name):
            setattr(event, name, str(tmp_path / getattr(event, name)))
    watch._take(event)
    assert watch._changed.is_set() == counts


def test_a_build_that_is_interrupted_says_that_it_can_go_on(photos, tmp_path, monkeypatch, capsys):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("rrt.photo_index.update.update", interrupted)
    monkeypatch.setattr("sys.argv", ["search.py", "build", str(photos), "--index", str(tmp_path / "index")])
    with pytest.raises(KeyboardInterrupt):
        search.main()
    assert "the same command goes on" in capsys.readouterr().err


def test_how_far_a_build_is_is_known_to_the_page(photos, tmp_path):
    folder = tmp_path / "index"
    with serving(folder) as server:

        def told():
            return json.loads(request(server, "GET", "/progress")[2])["describing"]

        assert told() is None
        (folder / PENDING).write_text(json.dumps({"number": 7, "table": {str(i): "x" for i in range(100)}, "seen": {}}))
        assert told() is None  # nobody is at work
        (folder / "lock").touch()
        assert told() == [0, 100]
        parts = folder / "segments" / "segment-00007.h5.parts"
        parts.mkdir(parents=True)
        for part in range(3):
            (parts / f"part-{part:05d}.h5").touch()
        assert told() == [96, 100] and under_way(folder) == (96, 100)
        (parts / "part-00003.h5").touch()
        assert told() == [100, 100]
        for path in (*parts.iterdir(), folder / PENDING):
            os.utime(path, (1, 1))
        assert told() is None
