"""A training that is killed at any file operation ends, gone on with, as one that was not."""

import hashlib
import json

import pytest
import torch
from commands import files_below
from faults import every, kill_everywhere
from reranking import make_dataset
from training_runs import run, weights

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


def test_a_training_killed_at_any_file_operation_is_gone_on_with(world, tmp_path):
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
