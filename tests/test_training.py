"""rrt/training.py, batches and schedules: closed forms, bit-for-bit resumption, honest selection."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reranking import NETWORK, make_test_world, make_world

from rrt.batches import BatchSource, PairBatch
from rrt.checkpoint import load_checkpoint
from rrt.datasets import open_train_set
from rrt.errors import InputError
from rrt.ingredients import DATASET_DEFAULTS, MODEL_DEFAULTS
from rrt.model import RRT
from rrt.pairs import read_images
from rrt.planted import PlantedSettings, PlantedSource
from rrt.runs import train_run
from rrt.sampler import TripletSampler
from rrt.schedules import learning_rate, make_optimizer
from rrt.training import Trainer, TrainSettings

RUN = {
    "resume": None,
    "weights": None,
    "cpu": True,
    "cudnn_flag": "benchmark",
    "scale_binning": "published",
    "max_train_local": None,
    "min_train_local": None,
    "min_positives": 2,
    "watch_test": False,
    "planted": {"min_local": 2, "max_local": 6},
    "epochs": 2,
    "steps_per_epoch": 3,
    "lr": 1e-3,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A ``dataset`` configuration of a made-up world with training, validation and test folders."""
    root = tmp_path_factory.mktemp("world")
    for part in ("train", "val", "test"):
        (root / part).mkdir()
    make_world(root / "train")
    make_test_world(root / "val", landmarks=3, seed=1)
    make_test_world(root / "test", landmarks=3, seed=2)
    return DATASET_DEFAULTS | {
        "desc_name": "toy",
        "train_data_dir": str(root / "train"),
        "test_data_dir": str(root / "test"),
        "test_gnd_file": "gnd_toy.pkl",
        "batch_size": 12,
        "sampler": "triplet",
    }


def with_validation(world):
    return world | {"val_data_dir": str(Path(world["test_data_dir"]).parent / "val"), "val_gnd_file": "gnd_toy.pkl"}


def run(dataset, folder, **settings):
    return train_run(dataset, MODEL_DEFAULTS | NETWORK, RUN | {"temp_dir": str(folder)} | settings)


def weights(path):
    return load_checkpoint(path).state


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def rates(steps, per_epoch=10, **settings):
    settings = TrainSettings(**{"lr": 2.0} | settings)
    return [learning_rate(step, per_epoch, settings) for step in steps]


def test_multistep_drops_by_gamma_at_every_tau_counted_in_epochs_of_triplets():
    settings = {"scheduler_tau": (1, 3), "scheduler_gamma": 0.5, "epochs": 5}
    assert rates([0, 9, 10, 29, 30, 49], **settings) == [2, 2, 1, 1, 0.5, 0.5]
    assert rates([0, 24, 25], planted_steps=15, **settings) == [2, 2, 1]


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


def test_no_bias_decay_spares_the_vectors():
    model = RRT(**NETWORK)
    decayed, spared = make_optimizer(model, TrainSettings(no_bias_decay=True)).param_groups
    assert all(p.dim() > 1 for p in decayed["params"]) and decayed["weight_decay"] == 5e-4
    assert all(p.dim() == 1 for p in spared["params"]) and spared["weight_decay"] == 0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("name, kind", [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_every_optimiser_makes_a_step(name, kind):
    model = RRT(**NETWORK)
    optimizer = make_optimizer(model, TrainSettings(optim=name, momentum=0.9, nesterov=True))
    assert type(optimizer).__name__ == kind
    before = model.classifier.weight.clone()
    model.classifier.weight.sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.classifier.weight)


def make_source(world, **settings):
    train = open_train_set(world["train_data_dir"], "toy", "train.txt", True)
    sampler = TripletSampler(train.labels, train.neighbors, 30, 2)
    planted = PlantedSource(train.store, train.index, PlantedSettings(min_local=2, max_local=6), train.labels)
    return BatchSource(train, sampler, planted, **{"batch_size": 12} | settings)


def test_a_batch_of_triplets_is_positive_and_negative_pairs_of_its_anchors(world):
    source = make_source(world)
    rng = np.random.default_rng([5, 1])
    triplets = source.sampler.epoch(np.random.default_rng([5, 1]))
    train = source.train
    for step, batch in enumerate(source.epoch(rng)):
        wanted = triplets[4 * step : 4 * step + 4]
        assert len(batch.labels) == 2 * len(wanted)
        for i, (anchor, *others) in enumerate(wanted):
            for pair, (other, label) in zip((i, len(wanted) + i), zip(others, (1, 0))):
                assert batch.labels[pair] == label
                for place, row in ((batch.query[pair], anchor), (batch.candidate[pair], other)):
                    expected = read_images(train.store, train.index[[row]], None)
                    start, end = batch.images.offsets[place : place + 2]
                    np.testing.assert_array_equal(batch.images.descriptors[start:end], expected.descriptors)
                    np.testing.assert_array_equal(batch.images.global_[place], expected.global_[0])
    assert step + 1 == source.steps_per_epoch == math.ceil(len(source.sampler.anchors) / 4)


def test_an_image_that_is_in_a_batch_twice_is_read_once(world):
    for batch in make_source(world).epoch(np.random.default_rng(0)):
        assert len(np.unique(batch.images.global_, axis=0)) == len(batch.images.global_)


def test_the_number_of_descriptors_is_drawn_for_every_batch(world):
    source = make_source(world, min_local=2, max_local=5)
    largest = {int(batch.images.counts.max()) for seed in range(5) for batch in source.epoch(np.random.default_rng(seed))}
    assert largest == {2, 3, 4, 5}


def test_planted_batches_take_their_share_of_an_epoch(world):
    source = make_source(world)
    size_of_triplets = len(np.unique(source.train.store.global_descriptors, axis=0))
    known = source.train.store.global_descriptors[:, 0]
    planted = [
        not np.isin(batch.images.global_[:, 0], known).all()
        for seed in range(30)
        for batch in source.epoch(np.random.default_rng(seed), planted_fraction=0.25)
    ]
    assert size_of_triplets == len(known)
    assert 0.15 < np.mean(planted) < 0.35


def test_a_batch_gives_the_logits_of_its_pairs(world):
    source = make_source(world)
    batch = next(source.epoch(np.random.default_rng(0)))
    torch.manual_seed(0)
    model = RRT(**NETWORK).eval()
    logits = batch.logits(model)
    for pair in range(len(batch.labels)):
        single = replace(batch, query=batch.query[[pair]], candidate=batch.candidate[[pair]], labels=batch.labels[[pair]])
        torch.testing.assert_close(single.logits(model)[0], logits[pair], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"batch_size": 10}, {"batch_size": 0}, {"min_local": 7, "max_local": 5}])
def test_impossible_batches_are_refused(world, settings):
    with pytest.raises(InputError):
        make_source(world, **settings)


def test_a_run_learns_its_one_batch_by_heart(world):
    torch.manual_seed(0)
    source = make_source(world)
    batch = next(source.epoch(np.random.default_rng(0)))
    trainer = Trainer(RRT(**NETWORK), source, TrainSettings(lr=3e-3), "unused", {}, None)
    losses = [trainer._step(batch, 1)[0] for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


def test_a_run_writes_checkpoints_history_and_scalars(world, tmp_path):
    scalars = []
    settings = RUN | {"temp_dir": str(tmp_path), "planted_steps": 2, "log_every": 2}
    log = lambda name, value, step: scalars.append((name, step))  # noqa: E731
    result = train_run(with_validation(world), MODEL_DEFAULTS | NETWORK, settings, log)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "history.json", "last.pt"]
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


@pytest.mark.parametrize("select_on, validation, selected, said", [
    ("val", True, 2, "val"),
    ("val", False, 3, "last"),
    ("test", True, 1, "test"),
    ("last", True, 3, "last"),
])  # fmt: skip
def test_the_best_epoch_is_chosen_where_the_settings_say(world, tmp_path, monkeypatch, select_on, validation, selected, said):
    def figures(self, epoch):
        medium, hard = SCORES[epoch]
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
    monkeypatch.setattr("rrt.training.learning_rate", lambda step, per_epoch, settings: 1e-3 if step < 3 else float("nan"))
    with pytest.raises(InputError, match="not a finite number at step 4 .epoch 2.") as error:
        run(world, tmp_path, epochs=3)
    assert str(tmp_path / "last.pt") in str(error.value) and "lower lr" in str(error.value)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.progress["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.state.values())


def test_clipping_bounds_the_gradient(world):
    source = make_source(world)
    batch = next(source.epoch(np.random.default_rng(0)))
    trainer = Trainer(RRT(**NETWORK), source, TrainSettings(max_norm=0.01), "unused", {}, None)
    trainer._step(batch, 1)
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
        ({"lr": 0}, "lr must be positive"),
        ({"planted_fraction": 1.5}, "planted_fraction"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"scale_binning": "nearest"}, "published, exact"),
        ({"planted": {"sigma": 1}, "planted_steps": 1}, "unknown setting 'sigma'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(world, tmp_path, settings, named):
    with pytest.raises(InputError, match=named):
        run(world, tmp_path / "new", **settings)
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


def test_pairs_of_triplets_stand_positives_first():
    batch = PairBatch.of_triplets(None, np.array([[0, 1, 2], [3, 4, 5]]))
    assert batch.query.tolist() == [0, 3, 0, 3]
    assert batch.candidate.tolist() == [1, 4, 2, 5]
    assert batch.labels.tolist() == [1, 1, 0, 0]
