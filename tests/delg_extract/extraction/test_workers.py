"""Extraction with many workers: the same store, whoever dies on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from builders import datasets_of
from commands import ROOT
from failing_workers import die, fail_the_first_time, lose_the_disk
from PIL import Image

from delg_extract import extract
from delg_extract.extraction.parts import Plan
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.extraction.workers import ATTEMPTS, LocalWorkers, default_workers
from delg_extract.network.model import Delg
from delg_extract.network.weights import save_weights
from rrt.errors import InputError
from rrt.formats.image_jobs import Job
from rrt.formats.lists import write_image_list

NUM_IMAGES = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, their list and a small network."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(NUM_IMAGES)]
    for name in names:
        Image.fromarray(
            np.kron(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        ).save(folder / name)
    write_image_list(folder / "list.txt", names, np.zeros(NUM_IMAGES, int), np.full((NUM_IMAGES, 2), (160, 120)))
    save_weights(folder / "small.h5", Delg("small", seed=3), score_threshold=0.0)
    return folder


def arguments(folder, output, *extra):
    return [
        "delg_extract/extract.py",
        "--model",
        folder / "small.h5",
        "--image_dir",
        folder,
        "--list",
        folder / "list.txt",
        "--output",
        output,
        "--block",
        "4",
        *extra,
    ]


def command(folder, output, *extra):
    script, *rest = map(str, arguments(folder, output, *extra))
    return [sys.executable, str(ROOT / script), *rest]


def run_here(folder, output, *extra):
    """The command in this process, where TensorFlow has been loaded."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [str(word) for word in arguments(folder, output, *extra)])
        assert extract.main() == 0


def assert_same_descriptors(path, expected):
    """Equal but for the rounding of another number of threads: float16 descriptors, and keypoints in the same order."""
    found, expected = datasets_of(path), datasets_of(expected)
    assert found.keys() == expected.keys()
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


def processes_with(*words):
    """Numbers of the processes whose command line holds all words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(entry.name))
    return found


def children_of(pid):
    return [child for child in processes_with("spawn_main", "multiprocessing") if parent_of(child) == pid]


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def kill_one_when(happened, victims):
    """Kills one of `victims()` as soon as `happened()`, in the background; the list it returns then holds it."""
    killed = []

    def watch():
        deadline = time.time() + 120
        while time.time() < deadline and not killed:
            if happened() and victims():
                killed.append(victims()[0])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    return killed


@pytest.mark.slow
def test_a_killed_worker_costs_its_part_alone(folder, whole, tmp_path):
    output = tmp_path / "delg_x.h5"
    parts = tmp_path / "delg_x.h5.parts"
    killed = kill_one_when(lambda: list(parts.glob("part-*.h5")), lambda: children_of(os.getpid()))
    run_here(folder, output, "--num_workers", "2")
    assert killed
    assert_same_descriptors(output, whole)


@pytest.mark.slow
def test_workers_end_with_a_killed_parent_and_the_next_run_goes_on(folder, whole, tmp_path):
    output = tmp_path / "delg_x.h5"
    parts = tmp_path / "delg_x.h5.parts"
    process = subprocess.Popen(
        command(folder, output, "--num_workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    while not list(parts.glob("part-?????.h5")) and time.time() < deadline:
        time.sleep(0.01)
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    assert len(workers) == 2
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
