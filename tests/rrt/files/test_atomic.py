"""Leftovers of killed runs go, those of live ones stay; a full disk is one line with file and remedy."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from builders import make_records
from PIL import Image
from safetensors.numpy import save_file

from rrt.errors import InputError, describe_error
from rrt.files import atomic
from rrt.files.atomic import all_or_none, atomic_path, no_room, take_room, temporary_name, write_json
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.store.writer import PartWriter, write_store


def killed(work):
    """Runs ``work`` in a fork that is killed within it."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def leave_half(path):
    def work():
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            die()

    killed(work)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def in_a_process_of_its_own(work):
    """As the next run of a command: what is looked at once by a process is looked at again."""
    process = os.fork()
    if not process:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_what_killed_runs_were_writing_is_removed_by_the_next_run(tmp_path):
    for name in ("last.pt", "a.run", "0/thumb.jpg"):
        leave_half(tmp_path / name)
        leave_half(tmp_path / name)
    assert len(names_in(tmp_path)) == 2 and len(names_in(tmp_path / "0")) == 1  # of the last that was killed there
    in_a_process_of_its_own(lambda: write_json(tmp_path / "x.json", 1))
    assert names_in(tmp_path) == ["0", "x.json"]
    in_a_process_of_its_own(lambda: write_json(tmp_path / "0" / "x.json", 1))
    assert names_in(tmp_path / "0") == ["x.json"]


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ZeroDivisionError), all_or_none():
        write_json(tmp_path / "a.json", 2)
        write_json(tmp_path / "new/b.json", 2)
        raise ZeroDivisionError
    assert (tmp_path / "a.json").read_text() == "1\n" and sorted(os.listdir(tmp_path)) == ["a.json", "new"]
    assert not os.listdir(tmp_path / "new") and not atomic._writing
    with all_or_none():
        write_json(tmp_path / "a.json", 2)
        with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "c.json"):
            raise ZeroDivisionError
        write_json(tmp_path / "b.json", 2)
        assert (tmp_path / "a.json").read_text() == "1\n" and not (tmp_path / "b.json").exists()
    write_json(tmp_path / "d.json", 2)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "d.json", "new"] and not atomic._writing
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text() == "2\n"


def test_what_a_live_process_is_writing_stays(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
        in_a_process_of_its_own(lambda: write_json(tmp_path / "b.json", 1))
        write_json(tmp_path / "c.json", 1)
        atomic._swept.clear()
        write_json(tmp_path / "d.json", 1)
    assert names_in(tmp_path) == ["a.txt", "b.json", "c.json", "d.json"]


def test_what_another_machine_wrote_stays_for_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_HOST", "0bad")
    for name in ("a.txt", "b.txt"):
        temporary_name(tmp_path / name).touch()
    monkeypatch.undo()
    (tmp_path / "c.0123abcd.tmp.txt").touch()  # of an earlier version
    for old in (*tmp_path.glob("a.*"), *tmp_path.glob("c.*")):
        os.utime(old, (0, 0))
    in_a_process_of_its_own(lambda: write_json(tmp_path / "x.json", 1))
    assert [name.split(".")[0] for name in names_in(tmp_path)] == ["b", "x"]


def test_files_of_others_stay(tmp_path):
    kept = ["a.tmp", "a.0123abcd.tmp.h5", "b-1-2.tmp", "c.txt", "d.0bad-x-0000.tmp"]
    for name in kept:
        (tmp_path / name).touch()
    in_a_process_of_its_own(lambda: write_json(tmp_path / "x.json", 1))
    assert names_in(tmp_path) == sorted([*kept, "x.json"])


def test_a_folder_half_written_goes_too(tmp_path):
    killed(lambda: (temporary_name(tmp_path / "model").mkdir(), die()))
    in_a_process_of_its_own(lambda: write_json(tmp_path / "x.json", 1))
    assert names_in(tmp_path) == ["x.json"]


@contextmanager
def small_files(limit):
    """No file may grow beyond ``limit`` bytes: the disk is full for every library alike."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


NUMBERS = np.random.default_rng(0).random(100_000)


def to_png(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(path)


def to_figure(path):
    from matplotlib.figure import Figure

    figure = Figure(dpi=300)
    figure.add_subplot().imshow(NUMBERS.reshape(250, 400))
    figure.savefig(path)


def within(write, suffix):
    def run(folder):
        with atomic_path(folder / f"file{suffix}") as temporary:
            write(temporary)

    return run


WRITERS = {
    "bytes": within(lambda path: path.write_bytes(NUMBERS.tobytes()), ".bin"),
    "npy": within(lambda path: np.save(path, NUMBERS), ".npy"),
    "npz": within(lambda path: np.savez(path, x=NUMBERS), ".npz"),
    "compressed": within(lambda path: np.savez_compressed(path, x=NUMBERS), ".npz"),
    "png": within(to_png, ".png"),
    "figure": within(to_figure, ".png"),
    "safetensors": within(lambda path: save_file({"x": NUMBERS}, path), ".safetensors"),
    "json": lambda folder: write_json(folder / "file.json", NUMBERS.tolist()),
    "checkpoint": lambda folder: save_checkpoint(folder / "file.pt", RRT(num_global_features=64, num_encoder_layers=1)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, writer):
    with small_files(20_000), pytest.raises(InputError) as error:
        WRITERS[writer](tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/file") and "make room or write elsewhere, and run again" in str(
        error.value
    )
    assert names_in(tmp_path) == []


def test_a_full_disk_is_told_from_other_errors():
    assert "no room" in str(no_room("x", OSError(errno.ENOSPC, "No space left on device")))
    assert "quota" in str(no_room("x", RuntimeError("(errno = 122, error message = 'Disk quota exceeded')")))
    later = RuntimeError("could not close the file")
    later.__context__ = OSError(errno.ENOSPC, "No space")
    assert no_room("x", later)
    assert no_room("x", RuntimeError("no")) is no_room("x", OSError(errno.EIO, "broken")) is None
    assert describe_error(OSError(errno.ENOSPC, "No space left on device")).endswith(
        "; make room or write elsewhere, and run again"
    )


def test_a_store_that_the_disk_has_no_room_for_is_not_begun(tmp_path, monkeypatch):
    """HDF5 crashes on a disk that is full."""
    records = make_records(["a.jpg", "b.jpg"], num_local=3000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(InputError, match=r"file.h5: takes 192,\d+ bytes, 100,000 are free on the disk; make room"):
        write_store(tmp_path / "file.h5", records)
    writer = PartWriter(tmp_path / "part.h5", ["a.jpg", "b.jpg"], {}, block=2)
    with pytest.raises(
        InputError, match=r"part-00000.h5: takes 19\d,\d+ bytes, 100,000 are free on the disk; make room"
    ):
        writer.write_part(0, records)
    assert names_in(tmp_path) == ["part.h5.parts"] and names_in(writer.folder) == ["settings.json"]
    write_store(tmp_path / "small.h5", make_records(["a.jpg"], num_local=3))


def test_room_for_a_mapped_file_is_taken_before_it_is_filled(tmp_path):
    """Where it lacks, the processor's signal would end the process."""
    np.memmap(tmp_path / "a.bin", np.uint8, "w+", shape=100_000).flush()
    take_room(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").stat().st_blocks * 512 >= 100_000
    with pytest.raises(InputError, match="a.bin: no room"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        take_room(tmp_path / "a.bin")
    assert names_in(tmp_path) == []


SLOW = """
import sys, time
from pathlib import Path
from rrt.command_line.parser import run_command
from rrt.files.atomic import atomic_path
def main():
    with atomic_path(Path(sys.argv[1]) / "a.txt") as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
run_command(main)
"""


@pytest.mark.parametrize(
    "sent, said, status", [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_an_order_to_end_is_one_line_and_nothing_half_written(tmp_path, sent, said, status):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, tmp_path], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    assert process.communicate(timeout=30)[1] == f"error: {said}\n"
    assert process.returncode == status and names_in(tmp_path) == []


def test_a_worker_that_is_told_to_end_leaves_nothing_half_written(tmp_path):
    process = os.fork()
    if not process:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            atomic.end_at_once()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 143
    assert names_in(tmp_path) == []


torch.set_num_threads(1)
