"""rrt/training/schedules.py: learning rates against closed forms, optimisers by name."""

import math

import numpy as np
import pytest
import torch
from reranking import NETWORK

from rrt.errors import InputError, check_choice
from rrt.network.model import RRT
from rrt.training.schedules import learning_rate, make_optimizer
from rrt.training.settings import TrainSettings


def rates(steps, per_epoch=10, **settings):
    settings = TrainSettings(**{"lr": 2.0} | settings)
    return [learning_rate(step, per_epoch, settings) for step in steps]


def test_multistep_drops_by_gamma_at_every_tau_counted_in_epochs_of_triplets():
    settings = {"scheduler_tau": (1, 3), "scheduler_gamma": 0.5, "epochs": 5}
    assert rates([0, 9, 10, 29, 30, 49], **settings) == [2, 2, 1, 1, 0.5, 0.5]
    assert rates([0, 24, 25], planted_steps=15, **settings) == [2, 2, 1]


def test_milestones_count_in_whatever_order_they_are_given():
    settings = {"scheduler_gamma": 0.5, "epochs": 5}
    for order in [(1, 2, 4), (4, 2, 1), (2, 4, 1)]:
        assert rates([0, 10, 20, 30, 40], scheduler_tau=order, **settings) == [2, 1, 0.5, 0.5, 0.25]


def test_an_epoch_of_one_step_and_of_planted_ones_is_the_first():
    settings = {"per_epoch": 1, "scheduler_tau": (1,), "scheduler_gamma": 0.5, "epochs": 5}
    assert rates([0, 1], **settings) == [2, 1] and rates([0, 3, 4], planted_steps=3, **settings) == [2, 2, 1]


def test_warm_schedules_warm_up_over_500_steps_unless_told_otherwise_and_at_most_over_the_run():
    np.testing.assert_allclose(rates([0, 249, 499], scheduler="warmcos", epochs=100), [0.004, 1, 2])
    np.testing.assert_allclose(rates([0, 499], scheduler="warmstep", epochs=100), [0.004, 2])
    np.testing.assert_allclose(rates([0, 9, 19, 20], scheduler="warmcos", epochs=2), [0.1, 1, 2, 2])


def test_the_published_milestones_lie_behind_the_published_epochs():
    assert set(rates(range(0, 150, 7), epochs=15)) == {2.0}


def test_cosine_falls_from_lr_to_zero_over_the_whole_run():
    values = rates([0, 30, 60, 120], scheduler="cos", epochs=10, planted_steps=20)
    np.testing.assert_allclose(values, [2, 1 + math.cos(math.pi / 4), 1, 0], atol=1e-12)


def test_warm_schedules_rise_linearly_and_then_go_on_as_their_namesakes():
    warm = {"epochs": 10, "warmup_steps": 20}
    np.testing.assert_allclose(rates([0, 9, 19], scheduler="warmcos", **warm), [0.1, 1, 2])
    np.testing.assert_allclose(rates([20, 60, 100], scheduler="warmcos", **warm), [2, 1, 0], atol=1e-12)
    stepped = rates([0, 19, 20, 40], scheduler="warmstep", scheduler_tau=(4,), scheduler_gamma=0.1, **warm)
    np.testing.assert_allclose(stepped, [0.1, 2, 2, 0.2])


@pytest.mark.parametrize("scheduler", ["multistep", "cos"])
def test_every_scheduler_warms_up_when_told_to_and_only_then(scheduler):
    settings = {"scheduler": scheduler, "epochs": 10, "scheduler_tau": (4,)}
    np.testing.assert_allclose(rates([0, 4, 9], warmup_steps=10, **settings), [0.2, 1, 2])
    assert rates([0], **settings) == [2]
    namesake = settings | {"scheduler": "warm" + scheduler.replace("multi", "")}
    assert rates(range(100), warmup_steps=10, **settings) == rates(range(100), warmup_steps=10, **namesake)


def test_joined_batches_make_fewer_steps_of_the_same_schedule():
    settings = {"scheduler_tau": (1, 3), "scheduler_gamma": 0.5, "epochs": 5, "accumulation": 3, "planted_steps": 5}
    # Two steps of planted batches, then four an epoch: 3 + 3 + 3 + 1 batches.
    assert rates([1, 5, 6, 13, 14], **settings) == [2, 2, 1, 1, 0.5]


def test_no_bias_decay_spares_the_vectors():
    model = RRT(**NETWORK)
    decayed, spared = make_optimizer(model, TrainSettings(no_bias_decay=True)).param_groups
    assert all(p.dim() > 1 for p in decayed["params"]) and decayed["weight_decay"] == 5e-4
    assert all(p.dim() == 1 for p in spared["params"]) and spared["weight_decay"] == 0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimisers_have_the_numbers_of_the_settings(name):
    settings = TrainSettings(optim=name, lr=0.25, weight_decay=0.125, momentum=0.75, nesterov=True)
    model = RRT(**NETWORK)
    model.classifier.bias.requires_grad_(False)
    (group,) = make_optimizer(model, settings).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert len(group["params"]) == len(list(model.parameters())) - 1
    if name == "sgd":
        assert group["momentum"] == 0.75 and group["nesterov"] is True
    else:
        assert group["fused"] is True


@pytest.mark.parametrize("name, kind", [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_every_optimiser_makes_a_step(name, kind):
    model = RRT(**NETWORK)
    optimizer = make_optimizer(model, TrainSettings(optim=name, momentum=0.9, nesterov=True))
    assert type(optimizer).__name__ == kind
    before = model.classifier.weight.clone()
    model.classifier.weight.sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.classifier.weight)


def test_a_choice_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(InputError, match="optim='lamb': choose one of adamw, adam"):
        check_choice("optim", "lamb", ("adamw", "adam"))
