"""A checkpoint whose state of a training is damaged ends the run that would go on from it with one line."""

import copy
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from reranking import small_network
from torch.optim.swa_utils import AveragedModel

from rrt.errors import InputError
from rrt.network.checkpoint import Checkpoint
from rrt.training.log import Meter
from rrt.training.schedules import make_optimizer
from rrt.training.settings import TrainSettings
from rrt.training.state import Progress, plain, random_states, restore, set_random_states

SETTINGS = {"adamw": TrainSettings(optim="adamw"), "sgd": TrainSettings(optim="sgd")}


class Run:
    """A network with its average, after two steps of training."""

    def __init__(self, settings):
        self.model = small_network(num_encoder_layers=1)
        self.averaged = AveragedModel(self.model)
        self.optimizer = make_optimizer(self.model, settings)
        self.scaler = torch.amp.GradScaler("cpu")
        self.recorded = plain({"training": asdict(settings), "model": self.model.settings})
        for _ in range(2):
            self.step()

    def step(self):
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()

    def content(self):
        sums = Meter().sums | {"steps": 2, "pairs": 24, "loss": 0.5}
        progress = Progress(0, 2, 0, 0.5, [{"epoch": 0, "loss": 0.5}], sums, [[1, 0.5, 0.5, 0.1]])
        training = {"random": [random_states()], "scaler": self.scaler.state_dict(), "weights": self.model.state_dict()}
        return {"optim": self.optimizer.state_dict(), "progress": asdict(progress), "training": training}

    def restore(self, content):
        checkpoint = Checkpoint(Path("last.pt"), self.averaged.module.state_dict(), settings=self.recorded, **content)
        progress = restore(checkpoint, self.recorded, self.model, self.averaged, self.optimizer, self.scaler)
        set_random_states(content["training"]["random"][0])
        return progress


@pytest.fixture(scope="module", params=SETTINGS)
def settings(request):
    return SETTINGS[request.param]


def test_the_undamaged_state_is_resumed(settings):
    content = copy.deepcopy(Run(settings).content())
    assert asdict(Run(settings).restore(content)) == content["progress"]


def leaves(value, path=()):
    """The paths to everything in a nested table or list; of what is alike, such as parameters, to the first three."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, below in items:
        if not isinstance(key, int) or key < 3:
            yield (*path, key)
            yield from leaves(below, (*path, key))


def changed(content, path, change):
    """A copy in which what is at the path is changed."""
    content = copy.deepcopy(content)
    holder = content
    for key in path[:-1]:
        if isinstance(holder[key], tuple):
            holder[key] = list(holder[key])
        holder = holder[key]
    change(holder, path[-1])
    return content


def removed(holder, key):
    del holder[key]


def words(holder, key):
    holder[key] = "damaged"


def none(holder, key):
    holder[key] = None


def nested(holder, key):
    holder[key] = {"x": [torch.zeros(3)]}


def no_number(holder, key):
    value = holder[key]
    is_tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
    holder[key] = torch.full_like(value, math.nan) if is_tensor else math.nan


def other_shape(holder, key):
    holder[key] = torch.zeros(3, 2)


# What a run can do without, or takes from its settings.
HARMLESS = {"param_groups", "history", "curve", "best_epoch", "best_score", "scaler", "cuda"}


@pytest.mark.filterwarnings("ignore:Using a non-tuple")
@pytest.mark.parametrize("change", [removed, words, none, nested, no_number, other_shape], ids=lambda f: f.__name__)
def test_damage_of_every_kind_is_one_line_or_harmless(settings, change):
    """Everything that is kept, in turn: a run that is resumed nevertheless makes its next step."""
    run = Run(settings)
    content = copy.deepcopy(run.content())
    for path in leaves(content):
        damaged = changed(content, path, change)
        try:
            run.restore(damaged)
        except InputError as error:
            assert str(error).startswith("last.pt: ") and len(str(error)) < 700, (path, error)
        else:
            run.step()
            assert HARMLESS & set(path) or path[-2:] == ("python", 2), path
