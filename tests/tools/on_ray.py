"""What runs on a Ray cluster gives what one process gives, although a worker is killed (but once); one cluster for
all. Run by test_ray.py."""

import json
import os
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import ray_tasks
import torch
from commands import run_tool
from PIL import Image
from places import ROOT
from reranking import make_measured_world, make_world, toy_dataset, typed
from small_delg import write_small_delg

from delg_extract.extraction import parts as delg_parts
from delg_extract.extraction import run as delg_run
from delg_extract.extraction.settings import ExtractionSettings
from rrt.errors import InputError
from rrt.evaluation import on_ray
from rrt.evaluation.comparison import CompareSettings, compare
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.extraction.describer import open_describer
from rrt.extraction.extract import PartExtractor, Plan, extract
from rrt.files import cluster
from rrt.formats.image_jobs import Job
from rrt.formats.lists import write_image_list
from rrt.search.learning import learn_whitening
from rrt.search.neighbors import prepare_topk_gldv2
from rrt.search.table import load_neighbors
from rrt.store.store import Store

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """(Address of a cluster to which this process is connected, the file that lets one of them be killed)."""
    deadly = tmp_path_factory.mktemp("deadly") / "file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers")]))
        patch.setenv("RRT_TEST_DIE", str(deadly))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else behind everything else on a busy machine
        patch.setattr(cluster, "_work", ray_tasks.work_or_die)
        from ray.cluster_utils import Cluster

        # Not by ray.init(), whose cluster ends with the connection.
        spared = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **spared})
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield started.address, deadly
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def address(two_workers):
    """Of the cluster, one of whose workers is killed at its first task."""
    address, deadly = two_workers
    deadly.touch()
    yield address
    assert not deadly.exists()


@pytest.fixture
def jobs(tmp_path):
    generator = np.random.default_rng(3)
    for i in range(5):
        Image.fromarray(generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(tmp_path / f"p{i}.png")
    return tuple(Job(f"p{i}.png", tmp_path / f"p{i}.png") for i in range(5))


def check_extraction(address, jobs, tmp_path, model, block):
    one = Plan(partial(open_describer, model, image_size=128), jobs, str(tmp_path / "one.h5"), {"a": 1}, block)
    alone = PartExtractor(one, threads=1)
    for part in alone.writer.missing_parts():
        alone.run(part)
    alone.writer.merge("abc", "x")
    assert extract(replace(one, output=str(tmp_path / "ray.h5")), "abc", "x", ray_address=address, gpu=False) == []
    assert (tmp_path / "ray.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_an_extraction(address, jobs, tmp_path):
    check_extraction(address, jobs, tmp_path, "lite0", block=2)


def test_an_extraction_by_a_library(two_workers, jobs, tmp_path):
    from tiny_backbones import save_backbone  # loads the library

    model = f"transformers:{save_backbone(tmp_path, 'dinov2')}"
    check_extraction(two_workers[0], jobs, tmp_path, model, block=5)  # one worker that loads the library is enough


def test_neighbours(address, tmp_path):
    path = make_world(tmp_path, landmarks=8)[0]
    learn_whitening(path, tmp_path / "whitening.npz", dim=12)
    for whitening in (None, tmp_path / "whitening.npz"):
        how = {"k": 9, "block": 24, "whitening": whitening, "first_pass": "int8", "device": "cpu"}
        one = load_neighbors(prepare_topk_gldv2(tmp_path, "toy", **how))
        table = prepare_topk_gldv2(tmp_path, "toy", **how, ray_address=address)
        np.testing.assert_array_equal(load_neighbors(table), one)
        assert not table.with_name(table.name + ".parts").exists()


def test_an_evaluation_and_a_comparison(address, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "BLOCK", 2)
    torch.set_num_threads(1)
    dataset = toy_dataset(make_measured_world(tmp_path))
    how = {"resume": str(tmp_path / "published.pt"), "cpu": True}
    found = []
    for where in (None, address):
        folder = tmp_path / f"run{len(found)}"
        how |= {"ray_address": where, "temp_dir": str(folder)}
        more = {"reranker": "maxsim+rrt", "distractors": str(tmp_path / "distractors.h5")}
        evaluate_run(typed(EvaluationSettings, dataset, **how, **more))
        with np.load(folder / "rankings.npz") as file:
            rankings = {name: file[name] for name in file.files if "rank" in name}
        rows = compare(typed(CompareSettings, dataset, methods=["k_reciprocal", "rrt"], **how))
        kept = [{name: row[name] for name in ("method", "map", "interval", "p")} for row in rows]
        figures = json.loads((tmp_path / f"run{len(found)}/results.json").read_text())["maxsim+rrt"]
        found.append((rankings, kept, figures))
    (one, *of_one), (many, *of_many) = found
    assert one and one.keys() == many.keys() and of_one == of_many
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])


@pytest.mark.parametrize("kind, message", [("bad", "^3 is bad$"), ("lost", "^part 3 after 3: 3: Input/output error$")])
def test_what_a_task_raises_ends_the_run(two_workers, kind, message):
    def gave_up(part, reason):
        return InputError(f"part {part} after {cluster.ATTEMPTS}: {reason}")

    with pytest.raises(InputError, match=message):
        cluster.run_on_ray(ray_tasks.open_failing, kind, ["3"], two_workers[0], print, gave_up)


def test_an_extraction_with_delg(address, jobs, tmp_path, monkeypatch):
    weights = write_small_delg(tmp_path / "small.h5")  # TensorFlow may not be loaded beside PyTorch
    write_image_list(tmp_path / "list.txt", [job.name for job in jobs], [0] * 5, [(128, 96)] * 5)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")  # as a worker has, for the same sums
    one = ("--model", weights, "--image_dir", tmp_path, "--list", tmp_path / "list.txt", "--num_workers", 1)
    done = run_tool("delg_extract/extract.py", *one, "--output", tmp_path / "one.h5", "--score_threshold", 0)
    assert done.returncode == 0, done.stderr
    # Workers of their own, which have not loaded PyTorch.
    ray.shutdown()
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    loaded = "tensorflow" in sys.modules  # by another test of this process
    settings, output = ExtractionSettings(score_threshold=0.0), tmp_path / "ray.h5"
    plan = delg_parts.Plan(str(weights), settings, jobs, str(output), {"a": 1}, block=5)
    delg_run.extract(plan, ray_address=address, keep_parts=True)
    assert ("tensorflow" in sys.modules) == loaded
    for ours, theirs in zip(Store(output), Store(tmp_path / "one.h5"), strict=True):
        assert len(theirs.record().descriptors)
        for a, b in zip(vars(ours.record()).values(), vars(theirs.record()).values(), strict=True):
            np.testing.assert_array_equal(a, b)
