"""Training on several replicas and several workers computes what one replica computes on the joined batch."""

import json
import os
import socket
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from builders import write_pictures
from commands import ROOT, files_below, warm_python

from delg_extract.network.weights import load_weights
from delg_extract.training.distribution import check_shares, make_strategy
from rrt.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny")  # as in the processes started here


@pytest.fixture(scope="module")
def start():
    def start(script, *arguments, **environment):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
        return subprocess.Popen(
            [warm_python("tensorflow", tiny_delg=True), str(ROOT / script), *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start


def finish(process):
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return output


def train_flags(folder, logdir):
    return (
        "--backbone",
        "small",
        "--train_list",
        folder / "train.txt",
        "--image_dir",
        folder,
        "--logdir",
        folder / logdir,
        "--image_size",
        "97",
        "--batch_size",
        "6",
        "--max_iters",
        "2",
        "--report_interval",
        "1",
        "--validation_fraction",
        "0.3",
        "--num_classes",
        "5",
        "--delg_global_features",
    )


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory, start):
    """The folder of images in which a process has trained on two replicas, and taken the steps of two_replicas.py."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    flags = *train_flags(folder, "mirrored"), "--summary_interval", "0"  # the workers write some
    finish(start("tests/helpers/two_replicas.py", folder / "found.npz", *flags, DELG_CPU_REPLICAS="2"))
    return folder


@pytest.mark.slow
def test_gradients_of_two_replicas_are_those_of_one_on_the_joined_batch(two_replicas):
    found = np.load(two_replicas / "found.npz")
    assert found["two/step"][0] == pytest.approx(found["one/step"][0], rel=1e-5)
    # Losses, norm of the gradient, accuracies. The reconstruction loss does not grow with the replicas.
    np.testing.assert_allclose(found["two/step"], found["one/step"], rtol=1e-4)
    pairs = [
        (found[key], found[key.replace("one", "two", 1)]) for key in found.files if key.startswith("one/gradient/")
    ]
    # Of biases before batch norms nothing but rounding is left.
    apart = [np.linalg.norm(two - one) / np.linalg.norm(one) for one, two in pairs if np.linalg.norm(one) > 1e-3]
    assert len(apart) > 50
    # Rounding may push one activation over a ReLU's bend, which moves everything before it by a per cent.
    assert np.median(apart[len(apart) // 2 :]) < 1e-3 and max(apart) < 0.05, apart
    for key in (key for key in found.files if key.startswith("one/after/")):
        np.testing.assert_allclose(found[key.replace("one", "two", 1)], found[key], atol=1e-3, err_msg=key)


@pytest.mark.slow
def test_two_workers_train_what_two_replicas_of_one_worker_train(two_replicas, start):
    pictures = two_replicas
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two)]
    workers = [
        start(
            "delg_extract/train.py",
            *train_flags(pictures, "workers"),
            TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
        )
        for index in (0, 1)
    ]
    for worker in workers:
        finish(worker)
    mirrored = load_weights(pictures / "mirrored/weights.h5").variables_by_name
    for name, variable in load_weights(pictures / "workers/weights.h5").variables_by_name.items():
        np.testing.assert_allclose(variable, mirrored[name], atol=2e-5, err_msg=name)
    assert {"weights.h5", "train.csv", "curves.png", "checkpoints"} <= set(files_below(pictures / "workers"))
    assert (pictures / "workers/train.csv").read_text().count("\n") == 1 + 2


def test_a_cluster_that_makes_no_sense_is_one_line(monkeypatch):
    for text in ("workers", "[]", '{"cluster": {"worker": 3}}'):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(InputError, match="TF_CONFIG: "):
            make_strategy()


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(InputError, match="--batch_size 4 cannot be shared by 3 replicas; give a multiple of 3"):
        check_shares(SimpleNamespace(num_replicas_in_sync=3), 4)
