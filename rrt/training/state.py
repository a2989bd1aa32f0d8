"""The state of a training run: where it is, and everything it needs to go on as if nothing had happened."""

import json
import random
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_type_hints

import numpy as np
import torch
from pydantic import ConfigDict, create_model

from rrt.errors import InputError, first_line
from rrt.network.checkpoint import Checkpoint, check_kind, load_weights
from rrt.store.schema import first_difference
from rrt.training.log import Meter
from rrt.training.settings import TrainSettings


@dataclass
class Progress:
    """Where a run is. epoch: the last stage finished (-1 = the teacher's, 0 = the planted steps), one below the
    first at the beginning; step: optimiser steps taken; stage: how far
    the stage after ``epoch`` is, ``{}`` at its beginning: ``steps`` and the sums of ``rrt.training.log.Meter``;
    history: a dict per stage; curve: rows (step, loss, accuracy, learning rate), one every ``log_every`` steps."""

    epoch: int = -1
    step: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    history: list[dict[str, int | float]] = field(default_factory=list)
    stage: dict[str, int | float] = field(default_factory=dict)
    curve: list[list[int | float]] = field(default_factory=list)


_FIELDS: dict[str, Any] = {name: (kind, ...) for name, kind in get_type_hints(Progress).items()}
# What a checkpoint holds of it: every field, of its very type, and finite.
_Saved = create_model("Progress", __config__=ConfigDict(strict=True, allow_inf_nan=False, extra="forbid"), **_FIELDS)


def random_states() -> dict:
    """The states of all generators of this process, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states: dict) -> None:
    """Put back what ``random_states`` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def restore(checkpoint: Checkpoint, recorded: dict, model, averaged, optimizer, scaler) -> Progress:
    """Put the state of a checkpoint into these and return where the run was. averaged: the average of the weights, or
    None. InputError when the run was another one, or the checkpoint holds no state."""
    if checkpoint.progress == {} or checkpoint.optim is None:
        raise InputError(
            f"{checkpoint.path}: holds weights but no state of a training to resume; use weights= to start from it"
        )
    with _damage_told(checkpoint.path):
        check_kind(checkpoint, model)
        # What was not yet a setting then had its default.
        made_with = checkpoint.settings | {"training": _with_defaults(checkpoint.settings.get("training", {}))}
        difference = first_difference(_compared(made_with), _compared(plain(recorded)))
    if difference:
        name, old, new = difference
        raise InputError(
            f"{checkpoint.path}: was trained with {name}={old}, now {new}; use the same or another temp_dir"
        )
    with _damage_told(checkpoint.path):
        progress = _checked_progress(checkpoint.progress)
        if averaged is None:
            load_weights(model, checkpoint)
        else:
            load_weights(averaged.module, checkpoint)
            averaged.n_averaged.fill_(progress.step)
            load_weights(model, replace(checkpoint, state=checkpoint.training["weights"]))
        _load_momenta(optimizer, checkpoint.optim, progress.step)
        if scaler_state := checkpoint.training.get("scaler"):
            _check_finite("the scale of gradients", list(scaler_state.values()))
            scaler.load_state_dict(scaler_state)
        _check_random_states(checkpoint.training["random"])
    return progress


@contextmanager
def _damage_told(path):
    """Whatever damaged content raises, nearly every kind, as one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else first_line(error)
        raise InputError(
            f"{path}: its state of the training is damaged ({said}); resume another checkpoint, or start anew with "
            f"its weights (weights={path})"
        ) from None


def _checked_progress(saved):
    progress = Progress(**_Saved.model_validate(saved).model_dump())
    sums = Meter().sums
    if progress.stage and {k: type(v) for k, v in progress.stage.items()} != {k: type(v) for k, v in sums.items()}:
        raise ValueError(f"a stage of {progress.stage}; expected {', '.join(sums)}")
    if progress.step < 0 or progress.epoch < -2 or any(value < 0 for value in progress.stage.values()):
        raise ValueError("negative counts")
    return progress


def _load_momenta(optimizer, saved, step):
    """The optimiser's own settings stay, which are those of the run. Its momenta are checked: PyTorch takes any, and
    fails at the next step, or computes nonsense."""
    groups = [own | {"params": group["params"]} for own, group in zip(optimizer.param_groups, saved["param_groups"])]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    has_momenta, wanted = True, {"step", "exp_avg", "exp_avg_sq"}
    if isinstance(optimizer, torch.optim.SGD):
        has_momenta, wanted = optimizer.defaults["momentum"] > 0, {"momentum_buffer"}
    count = sum(len(group["params"]) for group in groups)
    if has_momenta and step and len(optimizer.state) != count:
        raise ValueError(f"momenta of {len(optimizer.state)} of {count} parameters")
    for parameter, state in optimizer.state.items():
        if set(state) != wanted:
            raise ValueError(f"momenta {', '.join(state)} instead of {', '.join(sorted(wanted))}")
        for name, value in state.items():
            if value.shape != (() if name == "step" else parameter.shape):
                raise ValueError(f"{name} of {list(value.shape)} for a parameter of {list(parameter.shape)}")
            _check_finite(name, value)


def _check_finite(name, values):
    if not torch.isfinite(torch.as_tensor(values)).all():
        raise ValueError(f"{name} holds NaN or infinity")


def _check_random_states(states):
    """Every process's; they are only set when the run goes on."""
    if not states:
        raise ValueError("there are no states of random numbers")
    before = random_states()
    try:
        for each in states:
            set_random_states(each)
    finally:
        set_random_states(before)


def _with_defaults(training: dict) -> dict:
    defaults = plain(asdict(TrainSettings()))
    return defaults | training | {"distil": defaults["distil"] | training.get("distil", {})}


def _compared(settings: dict) -> dict:
    """Without the selection and what a resumed run may change; None is a setting's absence."""
    kept = {}
    for name, value in settings.items():
        if name == "selection" or name in TrainSettings.FREE_TO_CHANGE or value is None:
            continue
        kept[name] = _compared(value) if isinstance(value, dict) else value
    return kept


def plain(settings: dict) -> dict:
    """Through JSON: tuples become lists, and nothing a checkpoint may not hold gets in."""
    return json.loads(json.dumps(settings))
