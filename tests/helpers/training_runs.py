"""Short trainings of the reranking transformer on made-up descriptors, for tests."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from reranking import NETWORK, typed

from rrt.network.checkpoint import load_checkpoint
from rrt.training.run import train_run
from rrt.training.settings import ExperimentSettings
from rrt.training.trainer import Trainer

RUN = {
    "resume": None,
    "weights": None,
    "cpu": True,
    "cudnn_flag": "benchmark",
    "scale_binning": "published",
    "max_train_local": None,
    "min_train_local": None,
    "min_positives": 2,
    "negatives": 1,
    "hard_negatives": 0,
    "watch_test": False,
    "planted": {"min_local": 2, "max_local": 6},
    "epochs": 2,
    "steps_per_epoch": 3,
    "lr": 1e-3,
    "curves": False,
}


@contextmanager
def stumbling_at(last_step):
    """A training in this block is interrupted after so many steps, as by Ctrl-C."""
    step = Trainer._step

    def stumbling(self, *arguments):
        if self.progress.step == last_step:
            raise KeyboardInterrupt
        step(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", stumbling)
        yield


def with_validation(world):
    return world | {"val_data_dir": str(Path(world["test_data_dir"]).parent / "val"), "val_gnd_file": "gnd_toy.pkl"}


def run(dataset, folder, model=None, log=None, **settings):
    settings = RUN | {"temp_dir": str(folder)} | settings
    return train_run(typed(ExperimentSettings, dataset, NETWORK | (model or {}), **settings), log)


def weights(path):
    return load_checkpoint(path).state


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
