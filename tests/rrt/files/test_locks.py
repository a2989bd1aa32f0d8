"""A lock that one process holds at a time, also when that process or a file is taken away from under it."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from commands import files_below

from rrt.errors import InputError
from rrt.files.locks import locked, owned

HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom rrt.files.locks import locked\n"
    "with locked(Path(sys.argv[1]), 'working'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path / "lock"."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, tmp_path / "lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_process_is_refused_in_one_line(holder, tmp_path):
    reason = "lock: another process is working; wait for it to end$"
    with pytest.raises(InputError, match=reason), locked(tmp_path / "lock", "working"):
        pass
    with pytest.raises(InputError, match="^the index: another"), locked(tmp_path / "lock", "working", "the index"):
        pass


def test_a_process_that_is_killed_holds_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock", "working"):
        pass


def test_so_is_the_same_process_and_afterwards_no_file_is_left(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", "working"):
            with pytest.raises(InputError, match="another process"), locked(tmp_path / "lock", "working"):
                pass
            assert files_below(tmp_path) == ["lock"]
        assert files_below(tmp_path) == []


def test_a_failed_block_gives_the_lock_back(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "working"):
        raise ZeroDivisionError
    with locked(tmp_path / "lock", "working"):
        pass


def test_a_child_that_was_given_it_holds_it_on(tmp_path):
    script = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom rrt.files.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'working') as descriptors:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=descriptors)\n"
        "    print(child.pid, flush=True)\n    child.wait()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, tmp_path / "lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            with pytest.raises(InputError, match="another process"), locked(tmp_path / "lock", "working"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "lock", "working") as descriptors:
        assert descriptors == ()
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error, locked(tmp_path / "file/lock", "working", tmp_path / "store.h5"):
        pass
    assert error.value.filename == str(tmp_path / "store.h5"), "what the user named, not the lock beside it"


def test_an_output_folder_belongs_to_one_run(tmp_path):
    folder = tmp_path / "deep" / "out"
    with owned(folder, "writing there"), pytest.raises(InputError, match="out: another process is writing there"):
        with owned(folder, "writing there"):
            pytest.fail("two runs in one folder")
    assert not folder.exists() and folder.parent.exists()
    with owned(folder, "writing there"):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
