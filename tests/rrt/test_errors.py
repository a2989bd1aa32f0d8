"""Errors are one line, files are whole or not there, commands end with a status and no traceback."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from rrt.command_line.parser import run_command
from rrt.errors import InputError, check_count, first_line
from rrt.files.atomic import atomic_path


def test_a_message_of_several_lines_becomes_one_line():
    assert str(InputError("a.txt: bad\nrecord 3;\nfix it")) == "a.txt: bad record 3; fix it"


def test_atomic_path_puts_the_file_in_place_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "folder" / "file.npy"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".npy" and temporary != target
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, failure):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(failure):
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_names_the_file_that_was_asked_for_and_not_the_temporary_one(tmp_path):
    with pytest.raises(PermissionError) as error, atomic_path(tmp_path / "file.txt") as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert error.value.filename == str(tmp_path / "file.txt")


def test_a_block_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        with atomic_path(tmp_path / "file.txt"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "raised, line, status",
    [
        (InputError("x.txt:3: bad"), "error: x.txt:3: bad", 1),
        (FileNotFoundError(2, "No such file or directory", "y.h5"), "error: y.h5: No such file or directory", 1),
        (
            PermissionError(13, "Permission denied", "z.h5"),
            "error: z.h5: Permission denied; give a path where you may read and write, or get the rights to this one",
            1,
        ),
        (OSError("disk on fire"), "error: disk on fire", 1),
        (KeyboardInterrupt(), "error: interrupted", 130),
    ],
)
def test_a_failing_command_prints_one_line_and_its_status(capsys, raised, line, status):
    def main():
        raise raised

    with pytest.raises(SystemExit) as exit_info:
        run_command(main)
    assert exit_info.value.code == status
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("returned, status", [(None, 0), (0, 0), (3, 3)])
def test_a_command_ends_with_the_status_it_returns(returned, status):
    with pytest.raises(SystemExit) as exit_info:
        run_command(lambda: returned)
    assert exit_info.value.code == status


def test_a_bug_is_not_hidden_by_run_command():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_importing_the_package_loads_nothing_heavy():
    code = textwrap.dedent("""
        import sys
        import rrt, rrt.errors, rrt.store.store, rrt.formats.lists, rrt.formats.ground_truth
        import rrt.evaluation.metrics, rrt.store.memory
        assert {"Reranker", "Retriever", "Store", "__version__"} <= set(dir(rrt))
        rrt.Store, rrt.ImageRecord, rrt.StoredImage, rrt.MemoryStore, rrt.InputError
        from rrt.store import ImageRecord, PartWriter, Skipped, Store, StoredImage, write_store
        assert Store is rrt.Store
        heavy = {"torch", "faiss", "tensorflow", "sacred", "scipy", "pandas"} & set(sys.modules)
        assert not heavy, heavy
    """)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "text, expected", [("\n  bad file \nmore", "bad file"), ("", "KeyError"), ("x" * 300, "x" * 200)]
)
def test_an_error_of_a_library_is_quoted_by_its_first_line(text, expected):
    error = KeyError() if not text else OSError(text)
    assert first_line(error) == expected


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_count_may_be_one_of_numpy(value):
    assert type(check_count("k", value)) is int


@pytest.mark.parametrize("value", [0, 3.0, np.float32(3), True, np.True_, "3", None])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(InputError, match="setting k=.*: expected an integer of at least 1"):
        check_count("k", value)
