"""A training that is killed at any file operation ends, resumed, as one that was not."""

import hashlib
import io
import json
import os
import signal
import sys

import pytest
import torch
from commands import files_below
from faults import every, forked, kill_everywhere
from reranking import NETWORK, make_dataset
from training_runs import run, weights

from rrt.command_line.sacred import run_sacred
from rrt.commands import experiment
from rrt.errors import InputError
from rrt.files.locks import owned


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("world"))


def state(folder):
    """The weights of both checkpoints and the names of the files, as text."""
    found = {}
    for name in ("last.pt", "best.pt"):
        values = b"".join(tensor.numpy().tobytes() for tensor in weights(folder / name).values())
        found[name] = hashlib.sha256(values).hexdigest()
    return json.dumps([found, files_below(folder)])


def test_a_training_killed_at_any_file_operation_is_resumed(world, tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    settings = {"resume": "auto", "select_on": "last", "save_every": 2, "epochs": 2, "steps_per_epoch": 3}

    def train():
        torch.set_num_threads(1)  # a fork has no threads but its own
        run(world, folder, **settings)

    kill_everywhere(folder, train, lambda: state(folder), every(20))


def test_a_second_training_in_one_folder_is_refused(world, tmp_path):
    with owned(tmp_path / "log", "training there"):
        with pytest.raises(InputError, match=r"log: another process is training there; wait for it to end"):
            run(world, tmp_path / "log")


def test_one_that_is_told_to_end_while_it_saves_leaves_nothing_half_written(world, tmp_path, monkeypatch):
    """As Sacred runs it, with a process that reads batches."""
    save = torch.save

    def save_and_be_told(content, file):
        save(content, file)
        os.kill(os.getpid(), signal.SIGTERM)

    def train():
        torch.set_num_threads(1)
        torch.save, sys.stderr = save_and_be_told, io.StringIO()
        dataset = [f"dataset.{name}={value}" for name, value in (world | {"num_workers": 1}).items()]
        network = ["model.RRT", *(f"model.{name}={value}" for name, value in NETWORK.items())]
        settings = ["cpu=True", "epochs=2", "steps_per_epoch=4", "save_every=2", "min_positives=2", "curves=False"]
        with pytest.raises(SystemExit) as end:
            run_sacred(experiment.ex, ["experiment.py", "with", f"temp_dir={tmp_path}", *dataset, *network, *settings])
        return f"{end.value.code} {sys.stderr.getvalue()}"

    assert forked(train) == (0, "143 error: terminated\n")
    left = files_below(tmp_path)
    assert "1/run.json" in left and not [name for name in left if ".tmp" in name or name.endswith(("lock", ".pt"))]
    assert json.loads((tmp_path / "1/run.json").read_text())["status"] == "INTERRUPTED"
