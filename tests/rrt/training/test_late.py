"""Training of LATE by the same trainer: from plain matching, resumed to the bit, its constants measured first."""

import random

import numpy as np
import pytest
import torch
from reranking import make_dataset, make_source
from training_runs import assert_same_weights, run, stumbling_at, weights, with_validation

from rrt.errors import InputError
from rrt.network.checkpoint import load_checkpoint
from rrt.network.networks import make_network
from rrt.rerankers.maxsim import MaxSim
from rrt.training.standardise import standardise

LATE = {"kind": "LATE", "nhead": 2, "dropout": 0.1}
DISTIL = {"steps": 2, "candidates": 3, "pool": 6, "itself": 0.5, "local": 4, "min_local": 3}
SETTINGS = {
    "distil": DISTIL,
    "epochs": 2,
    "steps_per_epoch": 4,
    "planted_steps": 3,
    "planted_fraction": 0.3,
    "accumulation": 2,
    "ema_decay": 0.9,
    "save_every": 1,
    "lr": 1e-3,
}
NUM_STEPS = 1 + 2 + 2 * 2


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return with_validation(make_dataset(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("whole"), model=LATE, **SETTINGS)


@pytest.mark.parametrize("last_step", random.Random(0).sample(range(1, NUM_STEPS), 2))
def test_a_run_interrupted_at_any_step_ends_with_the_same_bits(world, undisturbed, tmp_path, last_step):
    with stumbling_at(last_step):
        run(world, tmp_path, model=LATE, **SETTINGS)
    run(world, tmp_path, model=LATE, resume="auto", **SETTINGS)
    assert_same_weights(weights(undisturbed.last), weights(tmp_path / "last.pt"))


def test_training_moves_all_but_the_constants_and_records_the_kind(world, undisturbed):
    recorded = load_checkpoint(undisturbed.last)
    assert recorded.settings["model"]["kind"] == "LATE" and "seq_len" not in recorded.settings["model"]
    start = make_network(recorded.settings["model"])
    standardise(start, make_source(world).train, 500)
    torch.testing.assert_close(recorded.state["constants"], start.constants)
    assert recorded.state["global_weight"] == 1
    for name in ("change.weight", "weigh.weight", "bias", "log_temperature"):
        assert recorded.state[name].abs().max() > 0, name


def test_weights_of_another_training_keep_their_constants(world, undisturbed, tmp_path):
    other = world | {"max_sequence_len": 3}
    result = run(other, tmp_path, model=LATE, weights=str(undisturbed.best), epochs=1, lr=1e-9)
    assert torch.equal(weights(result.last)["constants"], weights(undisturbed.best)["constants"])


def test_kinds_do_not_resume_each_other(world, undisturbed, tmp_path):
    with pytest.raises(InputError, match="holds a network of model.LATE, these settings say model.RRT"):
        run(world, tmp_path, resume=str(undisturbed.last), **SETTINGS)


def test_the_constants_are_those_of_shortlists_of_training_images(world):
    train = make_source(world).train
    network = make_network({"kind": "LATE", "num_global_features": 24, "num_local_features": 16})
    standardise(network, train, 5, seed=3)
    # The whole world is drawn, and of each query the 30 most similar.
    globals_ = np.asarray(train.store.global_descriptors[train.index])
    drawn = np.random.default_rng([3, 2]).permutation(len(globals_))
    matches, cosines = [], []
    for query in drawn[:32]:
        near = np.argsort(-(globals_ @ globals_[query]), kind="stable")
        near = near[near != query][:30]
        cosines.append(globals_[near] @ globals_[query])
        method = MaxSim(symmetric=True, query_local=5, gallery_local=5, device="cpu")
        matches.append(method.similarities(train.store, train.index[query], train.index[near]))
    expected = [f(values) for values in (matches, cosines) for f in (np.mean, lambda v: np.sqrt(np.var(v, 1).mean()))]
    np.testing.assert_allclose(network.constants, expected, atol=1e-5)
