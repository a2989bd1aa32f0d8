"""Training that goes on: after a kill at any step, with everything that has a state, and in several processes."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_tool, warm_python
from reranking import NETWORK, make_dataset
from training_runs import RUN, assert_same_weights, run, stumbling_at, weights, with_validation

from rrt.errors import InputError
from rrt.network.checkpoint import load_checkpoint
from rrt.training.state import random_states, set_random_states
from rrt.training.trainer import Trainer

# A teacher's lists for the made-up world: four of a batch.
DISTIL = {
    "steps": 3,
    "candidates": 2,
    "views": 0,
    "itself": 0.5,
    "pool": 6,
    "nearest": 8,
    "lr": 2e-3,
    "warmup_steps": 1,
}
# Everything that has a state of its own: rates, momenta, dropout's generator, averaged weights, drawn batches.
STATEFUL = {
    "distil": DISTIL,
    "epochs": 3,
    "steps_per_epoch": 5,
    "planted_steps": 4,
    "planted_fraction": 0.3,
    "accumulation": 2,
    "ema_decay": 0.9,
    "scheduler": "warmcos",
    "warmup_steps": 4,
    "max_norm": 0.5,
    "save_every": 2,
    "log_every": 2,
}
NUM_STEPS = 2 + 2 + 3 * 3
DROPOUT = {"dropout": 0.1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return with_validation(make_dataset(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("whole"), model=DROPOUT, **STATEFUL)


def assert_same_run(left: Path, right: Path):
    """All that was learned, and all that was told, but for times."""
    left, right = (load_checkpoint(folder / "last.pt") for folder in (left, right))
    assert_same_weights(left.state, right.state)
    assert_same_weights(left.training["weights"], right.training["weights"])
    for a, b in zip(left.optim["state"].values(), right.optim["state"].values(), strict=True):
        assert torch.equal(a["exp_avg"], b["exp_avg"]) and torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    times = ("seconds", "pairs_per_second")
    told = [[{k: v for k, v in f.items() if k not in times} for f in c.progress["history"]] for c in (left, right)]
    assert told[0] == told[1]
    for a, b in zip(left.progress["curve"], right.progress["curve"], strict=True):
        assert a == pytest.approx(b, abs=0.5) and (a[0], a[3]) == (b[0], b[3])


@pytest.mark.parametrize("last_step", random.Random(0).sample(range(NUM_STEPS), 4))
def test_a_run_interrupted_at_any_step_ends_as_the_undisturbed_one(world, undisturbed, tmp_path, last_step):
    with stumbling_at(last_step):
        run(world, tmp_path, model=DROPOUT, **STATEFUL)
    # A state is saved every second step, and every stage's end.
    assert (tmp_path / "last.pt").exists() == (last_step >= 2)
    run(world, tmp_path, model=DROPOUT, resume="auto", **STATEFUL)
    assert_same_run(undisturbed.last.parent, tmp_path)


def test_a_teachers_stage_alone_goes_on_to_the_same_bits_in_half_precision(world, tmp_path, monkeypatch):
    settings = {"epochs": 0, "distil": DISTIL, "precision": "bfloat16", "save_every": 1, "log_every": 2}
    run(world, tmp_path / "whole", **settings)
    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, *a: step(self, *a) if self.progress.step < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(world, tmp_path / "halved", **settings)
    monkeypatch.undo()
    resumed = run(world, tmp_path / "halved", resume="auto", **settings)
    assert [stage["epoch"] for stage in resumed.history] == [-1] and resumed.selected_epoch == -1
    left, right = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "halved"))
    assert_same_weights(left.state, right.state)
    with pytest.raises(InputError, match="training.distil.lr=0.002, now 0.001"):
        run(world, tmp_path / "halved", resume="auto", **settings | {"distil": DISTIL | {"lr": 1e-3}})
    with pytest.raises(InputError, match="training.distil.teacher=maxsim, now global"):
        run(world, tmp_path / "halved", resume="auto", **settings | {"distil": DISTIL | {"teacher": "global"}})


@pytest.mark.slow
def test_after_kill_9_at_a_random_step_auto_ends_with_the_same_bits(world, undisturbed, tmp_path):
    step = random.Random(1).randrange(3, NUM_STEPS)
    settings = RUN | STATEFUL | {"temp_dir": str(tmp_path / "run"), "dataset": world, "model": NETWORK | DROPOUT}
    (tmp_path / "arguments.json").write_text(json.dumps(settings))
    killed = run_tool("tests/helpers/killed_training.py", tmp_path / "arguments.json", step)
    assert killed.returncode == -9, killed.stderr
    assert 0 < load_checkpoint(tmp_path / "run" / "last.pt").progress["step"] <= step
    run(world, tmp_path / "run", model=DROPOUT, resume="auto", **STATEFUL)
    assert_same_run(undisturbed.last.parent, tmp_path / "run")


def test_a_state_in_mid_epoch_is_a_checkpoint_like_any_other(world, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_evaluate", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(world, tmp_path, epochs=1, steps_per_epoch=3, save_every=2, ema_decay=0.5)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert {"state", "optim"} <= content.keys()
    assert content["progress"]["step"] == 2 and content["progress"]["stage"]["steps"] == 2
    assert content["settings"]["selection"]["epoch"] == -1
    # The published program reads the average, which is what is evaluated.
    assert not torch.equal(content["state"]["remap.weight"], content["training"]["weights"]["remap.weight"])


def test_states_of_generators_come_back():
    def draw():
        return random.random(), np.random.normal(), torch.randn(1).item()

    states = random_states()
    first = draw()
    assert draw() != first
    set_random_states(states)
    assert draw() == first


def test_a_state_made_before_a_setting_existed_had_its_default(world, tmp_path):
    run(world, tmp_path, epochs=1)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    del content["settings"]["training"]["label_smoothing"]
    torch.save(content, tmp_path / "last.pt")
    assert run(world, tmp_path, epochs=2, resume="auto").history[-1]["epoch"] == 2
    with pytest.raises(InputError, match="training.ema_decay=0.0, now 0.5"):
        run(world, tmp_path, epochs=3, resume="auto", ema_decay=0.5)


def torchrun(world, folder, *settings, processes=2):
    """`torchrun experiment.py` on this machine alone; a finished process."""
    model = [f"model.{name}={value}" for name, value in NETWORK.items()]
    plain = {name: value for name, value in world.items() if isinstance(value, (str, int))}
    dataset = [f"dataset.{name}={value}" for name, value in plain.items()]
    # Each process is a Python that has loaded its libraries.
    start = ["--standalone", "--nproc_per_node", processes, "--no_python", warm_python("torch"), "experiment.py"]
    fixed = ["model.RRT", *model, "cpu=True", "min_positives=2", "curves=False"]
    return run_tool(TORCHRUN, *start, "with", f"temp_dir={folder}", *dataset, *fixed, *settings)


TORCHRUN = Path(torch.__file__).parent / "distributed" / "run.py"


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(world, tmp_path):
    settings = {"epochs": 2, "steps_per_epoch": 4, "planted_steps": 2, "accumulation": 2, "lr": 1e-4, "max_norm": 0.1}
    alone = run(world, tmp_path / "alone", planted={"min_local": 2}, distil=DISTIL, **settings)
    given = [f"{name}={value}" for name, value in settings.items()] + ["planted.min_local=2"]
    given += [f"distil.{name}={value}" for name, value in DISTIL.items()]
    finished = torchrun(world, tmp_path / "two", *given)
    assert finished.returncode == 0, finished.stderr
    shared = weights(tmp_path / "two" / "last.pt")
    for name, tensor in weights(alone.last).items():
        if name.endswith("in_proj_bias"):
            # The keys' bias changes no softmax: its gradient is rounding alone, which AdamW magnifies.
            (query, key, value), (shared_query, shared_key, shared_value) = tensor.chunk(3), shared[name].chunk(3)
            assert (key - shared_key).abs().max() <= 2 * (5 * settings["lr"] + 2 * DISTIL["lr"])
            tensor, shared[name] = torch.cat([query, value]), torch.cat([shared_query, shared_value])
        torch.testing.assert_close(shared[name], tensor, atol=1e-5, rtol=0)
    told = json.loads((tmp_path / "two" / "history.json").read_text())
    for left, right in zip(told, alone.history, strict=True):
        assert left["val_M_map"] == right["val_M_map"] and left["accuracy"] == right["accuracy"]
        assert left["loss"] == pytest.approx(right["loss"], abs=1e-4)
    # One of them wrote, and printed.
    assert [path.name for path in (tmp_path / "two").iterdir() if path.is_dir() and path.name != "_sources"] == ["1"]
    assert finished.stdout.count("selected on") == 1


@pytest.mark.slow
def test_what_fails_in_one_process_ends_all_with_its_line(world, tmp_path):
    finished = torchrun(world, tmp_path / "run", "epochs=1", "lr=-1")
    errors = [line for line in finished.stderr.splitlines() if "error: " in line and "ERROR" not in line]
    assert finished.returncode != 0 and not (tmp_path / "run").exists()
    # torchrun ends the other as soon as one has ended.
    assert errors and all(line.endswith("error: lr=-1: must be above 0") for line in errors)
