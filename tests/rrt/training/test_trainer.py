"""rrt/training/trainer.py, batches and schedules: closed forms, bit-for-bit resumption, honest selection."""

import json
import sys

import pytest
import torch
from reranking import NETWORK, make_batch, make_dataset, make_source, make_world
from training_runs import RUN, assert_same_weights, run, weights, with_validation

from rrt.errors import InputError
from rrt.network.checkpoint import load_checkpoint
from rrt.network.model import RRT
from rrt.training.log import Meter
from rrt.training.settings import TrainSettings
from rrt.training.trainer import Trainer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("world"))


def steps_on(trainer, batches):
    """One optimiser step on the batches, joined; returns their loss."""
    meter = Meter()
    with trainer.computer.workers():
        trainer._step(iter(batches), 1, meter)
    trainer._read_figures(meter)
    return meter.sums["loss"] / meter.sums["pairs"]


def test_a_run_learns_its_one_batch_by_heart(world):
    torch.manual_seed(0)
    source = make_source(world)
    batch = make_batch(source, source.plan(0, 1), 0)
    trainer = Trainer(RRT(**NETWORK), source, TrainSettings(lr=3e-3), "unused", {}, None)
    losses = [steps_on(trainer, [batch]) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


def test_a_run_writes_checkpoints_history_and_scalars(world, tmp_path):
    scalars = []

    def log(name, value, step):
        scalars.append((name, step))

    result = run(with_validation(world), tmp_path, log=log, planted_steps=2, log_every=2, curves=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "curves.png", "history.json", "last.pt"]
    assert [figures["epoch"] for figures in result.history] == [0, 1, 2]
    assert json.loads((tmp_path / "history.json").read_text()) == result.history
    assert all({"loss", "accuracy", "pairs_per_second", "val_M_map"} <= figures.keys() for figures in result.history)
    assert ("train.loss", 2) in scalars and ("epoch.val_M_map", 8) in scalars
    checkpoint = load_checkpoint(result.last)
    assert checkpoint.settings["scale_binning"] == "published"
    assert checkpoint.settings["model"]["dim_feedforward"] == NETWORK["dim_feedforward"]
    assert checkpoint.settings["training"]["planted_steps"] == 2


def test_resuming_gives_the_weights_of_an_undisturbed_run_bit_for_bit(world, tmp_path, monkeypatch):
    settings = {"epochs": 3, "planted_steps": 2, "planted_fraction": 0.3}
    run(world, tmp_path / "whole", **settings)
    steps = []
    step = Trainer._step

    def stumbling(self, *arguments):
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", stumbling)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "broken", **settings)
    monkeypatch.undo()
    result = run(world, tmp_path / "broken", resume="auto", **settings)
    # Two planted steps and one whole epoch were done; two epochs of three steps were left.
    assert [figures["epoch"] for figures in result.history] == [0, 1, 2, 3]
    assert_same_weights(weights(tmp_path / "whole" / "last.pt"), weights(tmp_path / "broken" / "last.pt"))
    whole, broken = (load_checkpoint(tmp_path / name / "last.pt").optim for name in ("whole", "broken"))
    for left, right in zip(whole["state"].values(), broken["state"].values(), strict=True):
        assert torch.equal(left["exp_avg"], right["exp_avg"]) and left["step"] == right["step"]


def test_auto_starts_afresh_where_nothing_is_and_does_nothing_when_all_is_done(world, tmp_path):
    first = run(world, tmp_path, resume="auto")
    before = (tmp_path / "last.pt").read_bytes()
    assert run(world, tmp_path, resume="auto").history == first.history
    assert (tmp_path / "last.pt").read_bytes() == before


def test_more_epochs_go_on_from_a_finished_run(world, tmp_path):
    run(world, tmp_path / "long", epochs=3)
    run(world, tmp_path / "short", epochs=1)
    run(world, tmp_path / "short", epochs=3, resume="auto")
    assert_same_weights(weights(tmp_path / "long" / "last.pt"), weights(tmp_path / "short" / "last.pt"))


def test_a_run_is_not_resumed_with_other_settings(world, tmp_path):
    run(world, tmp_path)
    with pytest.raises(InputError, match="trained with training.lr=0.001, now 0.002"):
        run(world, tmp_path, resume="auto", lr=2e-3)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(world, tmp_path):
    states = [weights(run(world, tmp_path / str(i), seed=seed, epochs=1).last) for i, seed in enumerate((1, 1, 2))]
    assert_same_weights(states[0], states[1])
    assert not torch.equal(states[0]["remap.weight"], states[2]["remap.weight"])


def test_a_new_training_can_start_from_the_weights_of_a_checkpoint(world, tmp_path):
    first = run(world, tmp_path / "first", epochs=1)
    second = run(world, tmp_path / "second", epochs=1, weights=str(first.last), lr=1e-12, weight_decay=0.0)
    for name, tensor in weights(second.last).items():
        torch.testing.assert_close(tensor, weights(first.last)[name], atol=1e-6, rtol=0)


SCORES = {1: (30.0, 80.0), 2: (40.0, 50.0), 3: (35.0, 60.0)}


@pytest.mark.parametrize(
    "select_on, validation, selected, said",
    [("val", True, 2, "val"), ("val", False, 3, "last"), ("test", True, 1, "test"), ("last", True, 3, "last")],
)
def test_the_best_epoch_is_chosen_where_the_settings_say(
    world, tmp_path, monkeypatch, select_on, validation, selected, said
):
    def figures(self):
        medium, hard = SCORES[len(self.progress.history) + 1]
        return {f"{name}_{p}_map": value for name in self.watched for p, value in (("M", medium), ("H", hard))}

    monkeypatch.setattr(Trainer, "_evaluate", figures)
    result = run(with_validation(world) if validation else world, tmp_path, epochs=3, select_on=select_on)
    assert result.selected_epoch == selected and result.selected_on == said
    selection = load_checkpoint(result.best).settings["selection"]
    assert selection["epoch"] == selected and selection["select_on"] == said
    assert load_checkpoint(result.best).progress["epoch"] == selected
    assert load_checkpoint(result.last).progress["epoch"] == 3


def test_the_test_set_is_not_even_opened_unless_asked_for(world, tmp_path):
    run(world | {"test_data_dir": "nowhere", "test_gnd_file": "nothing.pkl"}, tmp_path, epochs=1)
    with pytest.raises(InputError, match="nowhere"):
        run(world | {"test_data_dir": "nowhere"}, tmp_path, epochs=1, select_on="test")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(world, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "rrt.training.trainer.learning_rate", lambda step, per_epoch, settings: 1e-3 if step < 3 else float("nan")
    )
    with pytest.raises(InputError, match="not a finite number at step 4 .epoch 2.") as error:
        run(world, tmp_path, epochs=3)
    assert str(tmp_path / "last.pt") in str(error.value) and "lower lr" in str(error.value)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.progress["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.state.values())


def test_clipping_bounds_the_gradient(world):
    source = make_source(world)
    batch = make_batch(source, source.plan(0, 1), 0)
    trainer = Trainer(RRT(**NETWORK), source, TrainSettings(max_norm=0.01), "unused", {}, None)
    steps_on(trainer, [batch])
    norm = torch.stack([parameter.grad.norm() for parameter in trainer.model.parameters()]).norm()
    assert norm <= 0.0101


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"epochs": 0}, "nothing to train"),
        ({"optim": "lamb"}, "adamw, adam, sgd"),
        ({"scheduler": "poly"}, "multistep, cos"),
        ({"select_on": "train"}, "val, test, last"),
        ({"loss": "mse"}, "bce"),
        ({"lr": 0}, "lr=0: must be above 0"),
        ({"weight_decay": -0.5}, "weight_decay=-0.5: must not be negative"),
        ({"max_norm": -1}, "max_norm=-1.0: must not be negative"),
        ({"planted_steps": -1}, "planted_steps=-1: must not be negative"),
        ({"planted_fraction": 1.5}, "planted_fraction=1.5: must lie in 0..1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch=2.5: expected an integer or None"),
        ({"lr": "high"}, "lr='high': expected a number"),
        ({"planted": {"max_local": "all"}, "planted_steps": 1}, "planted.max_local='all': expected an integer"),
        ({"accumulation": 0}, "accumulation=0"),
        ({"save_every": 0}, "save_every=0"),
        ({"log_every": 0}, "log_every=0"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"ema_decay": -0.1}, "ema_decay=-0.1"),
        ({"precision": "half"}, "auto, float32, bfloat16"),
        ({"optim": "sgd", "nesterov": True}, "momentum above 0"),
        ({"seed": -1}, "seed=-1"),
        ({"resume": "missing.pt"}, "missing.pt: no such checkpoint"),
        ({"scale_binning": "nearest"}, "published, exact"),
        ({"planted": {"sigma": 1}, "planted_steps": 1}, "unknown setting 'sigma'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(world, tmp_path, settings, named):
    with pytest.raises(InputError, match=named):
        run(world, tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_tensorboard_gets_the_scalars_and_is_asked_for_before_anything_is_written(world, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(world, tmp_path / "run", epochs=1, log_every=1, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert {"train/accuracy", "train/lr", "epoch/loss"} <= set(events.Tags()["scalars"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="the package tensorboard is not installed"):
        run(world, tmp_path / "new", tensorboard=True)
    assert not (tmp_path / "new").exists()


def test_planted_steps_need_neighbours_for_hard_negatives_alone(tmp_path, world):
    folder = tmp_path / "train"
    folder.mkdir()
    make_world(folder, landmarks=2)
    (folder / "nn_inds_toy.pkl").unlink()
    planted = {"epochs": 0, "planted_steps": 2}
    with pytest.raises(InputError, match="nn_inds_toy.pkl"):
        run(world | {"train_data_dir": str(folder)}, tmp_path / "run", **planted)
    planted["planted"] = RUN["planted"] | {"hard_negatives": 0}
    assert run(world | {"train_data_dir": str(folder)}, tmp_path / "run", **planted).selected_epoch == 0
