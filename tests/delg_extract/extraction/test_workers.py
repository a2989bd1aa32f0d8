"""Extraction with many workers: the same store, whoever dies on the way.

Workers are started anew where their parent dies and where no TensorFlow is needed; else they are forks (forked.py). The
model is plain arithmetic. One of the images is a pipe: whoever reads it waits until a test lets it, so that a run
cannot end before something was killed, and then finds that it is no image.
"""

import os
import select
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from builders import datasets_of
from commands import started_tool
from delg_exports import INPUTS, LOCAL_OUTPUTS, save_toy
from failing_workers import die, fail_the_first_time, lose_the_disk
from PIL import Image
from warm_python import status_of

from delg_extract import extract
from delg_extract.extraction.parts import Plan
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.extraction.workers import ATTEMPTS, LocalWorkers, default_workers
from rrt.errors import InputError
from rrt.formats.image_jobs import Job
from rrt.formats.lists import write_image_list

NUM_IMAGES, PIPE = 12, "5.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, their list and a model."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(NUM_IMAGES)]
    for name in names:
        Image.fromarray(
            np.kron(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        ).save(folder / name)
    (folder / PIPE).unlink()
    os.mkfifo(folder / PIPE)
    write_image_list(folder / "list.txt", names, np.zeros(NUM_IMAGES, int), np.full((NUM_IMAGES, 2), (160, 120)))
    save_toy("tf2", folder / "toy", INPUTS, *LOCAL_OUTPUTS, "global_descriptors")
    return folder


@contextmanager
def readable(pipe):
    """Whoever reads the pipe need not wait."""
    end = os.open(pipe, os.O_RDWR)
    os.write(end, b"something else")
    yield
    os.close(end)


def arguments(folder, output, *extra):
    return [
        "delg_extract/extract.py",
        "--model",
        folder / "toy",
        "--max_features",
        "50",
        "--allow_missing",
        "--image_dir",
        folder,
        "--list",
        folder / "list.txt",
        "--output",
        output,
        "--block",
        "2",
        *extra,
    ]


def run_here(folder, output, *extra):
    """The command in this process, where TensorFlow has been loaded."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [str(word) for word in arguments(folder, output, *extra)])
        with readable(folder / PIPE):
            assert extract.main() == 0


def assert_same_descriptors(path, expected):
    """Equal but for the rounding of another number of threads: float16 descriptors, and keypoints in the same order."""
    found, expected = datasets_of(path), datasets_of(expected)
    assert found.keys() == expected.keys() and len(found["names"]) == NUM_IMAGES - 1
    for name in found:
        if found[name].dtype.kind == "f":
            assert np.allclose(found[name].astype(float), expected[name].astype(float), rtol=1e-3, atol=2e-3), name
        else:
            assert np.array_equal(found[name], expected[name]), name


@pytest.fixture(scope="module")
def whole(folder):
    """The store that one process gives."""
    run_here(folder, folder / "delg_whole.h5", "--num_workers", "1")
    return folder / "delg_whole.h5"


def processes_in(folder):
    """A command that was started in a folder, and its worker processes -> (number, [numbers])."""
    command, workers = None, []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (entry / "cwd").resolve() == folder and b"resource_tracker" not in (entry / "cmdline").read_bytes():
                if os.getpgid(int(entry.name)) == int(entry.name):
                    command = int(entry.name)
                else:
                    workers.append(int(entry.name))
    return command, workers


def wait_for_a_part(parts, ended):
    while not list(parts.glob("part-?????.h5")):
        assert not select.select([ended], [], [], 0.01)[0], "the command ended without a part"


@pytest.mark.slow
def test_a_killed_worker_costs_its_part_alone(folder, whole, tmp_path):
    output = tmp_path / "delg_x.h5"
    with started_tool(*arguments(folder, output, "--num_workers", "2"), cwd=tmp_path, forked=True) as ended:
        wait_for_a_part(tmp_path / "delg_x.h5.parts", ended)
        os.kill(processes_in(tmp_path)[1][0], signal.SIGKILL)
        with readable(folder / PIPE):
            assert status_of(ended) == 0
    assert_same_descriptors(output, whole)


@pytest.mark.slow
def test_workers_end_with_a_killed_parent_and_the_next_run_goes_on(folder, whole, tmp_path):
    output = tmp_path / "delg_x.h5"
    parts = tmp_path / "delg_x.h5.parts"
    with started_tool(*arguments(folder, output, "--num_workers", "2"), cwd=tmp_path) as ended:
        wait_for_a_part(parts, ended)
        process, workers = processes_in(tmp_path)
        os.kill(process, signal.SIGKILL)
        assert status_of(ended) == 128 + signal.SIGKILL
    assert len(workers) == 2
    deadline = time.time() + 120
    while time.time() < deadline and any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-?????.h5")}
    assert kept
    run_here(folder, output, "--num_workers", "1")
    assert_same_descriptors(output, whole)


def plan_of(tmp_path):
    jobs = tuple(Job(f"{i}.jpg", tmp_path / f"{i}.jpg") for i in range(4))
    return Plan("none.h5", ExtractionSettings(), jobs, str(tmp_path / "delg_x.h5"), {}, block=2)


@pytest.mark.parametrize("task, words", [(die, "worker died"), (lose_the_disk, "images: Input/output error")])
def test_a_part_that_always_fails_ends_the_run_after_some_attempts(task, words, tmp_path):
    with pytest.raises(InputError, match=rf"part \d \(from '[02].jpg'\) failed {ATTEMPTS} times: .*{words}"):
        with LocalWorkers(plan_of(tmp_path), 2, task) as workers:
            workers.run([0, 1], lambda count: None)


def test_every_part_is_tried_again_by_a_fresh_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("RRT_TEST_MARKERS", str(tmp_path))
    done = []
    with LocalWorkers(plan_of(tmp_path), 2, fail_the_first_time) as workers:
        workers.run([0, 1], done.append)
    assert done == [2, 2]


def test_the_default_number_of_workers_is_that_of_the_gpus_or_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")
    assert default_workers() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert 1 <= default_workers() <= (os.cpu_count() or 1)
    assert default_workers(bytes_a_worker=1e15) == 1
