"""A store is written to the same bytes whatever file operation an extraction is killed at."""

import hashlib
import json

from builders import make_records
from commands import files_below
from faults import every, kill_everywhere

from rrt.store.finished import is_complete, remove_store, writing
from rrt.store.records import Skipped
from rrt.store.writer import PartWriter

NAMES = [f"{i}.jpg" for i in range(5)]
RECORDS = [*make_records(NAMES[:4], num_local=3), Skipped(NAMES[4], "cannot be read")]


def extract(path, settings):
    with writing(path):
        if is_complete(path, NAMES, settings):
            return
        writer = PartWriter(path, NAMES, settings, block=2)
        for part in writer.missing_parts():
            writer.write_part(part, RECORDS[2 * part : 2 * part + 2])
        writer.merge("0" * 64, "x")


def state(folder):
    """The bytes of every file, by name, as text."""
    contents = {name: folder / name for name in files_below(folder)}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in contents.items() if path.is_file()}
    return json.dumps(digests)


def test_an_extraction_killed_at_any_file_operation_is_resumed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    kill_everywhere(folder, lambda: extract(folder / "delg_x.h5", {"a": 1}), lambda: state(folder), every(6))


def test_so_is_one_that_replaces_a_store(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    extract(folder / "delg_x.h5", {"a": 1})

    def replace():
        remove_store(folder / "delg_x.h5")
        extract(folder / "delg_x.h5", {"a": 2})

    kill_everywhere(folder, replace, lambda: state(folder), every(6))
