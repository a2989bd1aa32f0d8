"""The state of a training run: where it stands, and everything it needs to go on as if nothing had happened."""

import json
import random
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.checkpoint import Checkpoint, check_kind, load_weights
from rrt.store.schema import first_difference
from rrt.training.settings import TrainSettings


@dataclass
class Progress:
    """Where a run stands. epoch: the last stage finished (-1 = the teacher's, 0 = the planted steps), one below the
    first at the beginning; step: optimiser steps taken; stage: how far
    the stage after ``epoch`` is, ``{}`` at its beginning: ``steps`` and the sums of ``rrt.training.log.Meter``;
    history: a dict per stage; curve: rows (step, loss, accuracy, learning rate), one every ``log_every`` steps."""

    epoch: int = -1
    step: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    history: list = field(default_factory=list)
    stage: dict = field(default_factory=dict)
    curve: list = field(default_factory=list)


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
    """Put the state of a checkpoint into these and return where the run stood. averaged: the average of the weights, or
    None. InputError when the run was another one, or the checkpoint holds no state."""
    if not checkpoint.progress or checkpoint.optim is None:
        raise InputError(
            f"{checkpoint.path}: holds weights but no state of a training to resume; use weights= to start from it"
        )
    check_kind(checkpoint, model)
    # What was not yet a setting then had its default.
    made_with = checkpoint.settings | {"training": _with_defaults(checkpoint.settings.get("training", {}))}
    difference = first_difference(_compared(made_with), _compared(plain(recorded)))
    if difference:
        name, old, new = difference
        raise InputError(
            f"{checkpoint.path}: was trained with {name}={old}, now {new}; use the same or another temp_dir"
        )
    progress = Progress(**checkpoint.progress)
    if averaged is None:
        load_weights(model, checkpoint)
    else:
        load_weights(averaged.module, checkpoint)
        averaged.n_averaged.fill_(progress.step)
        load_weights(model, replace(checkpoint, state=checkpoint.training["weights"]))
    optimizer.load_state_dict(checkpoint.optim)
    if checkpoint.training.get("scaler"):
        scaler.load_state_dict(checkpoint.training["scaler"])
    return progress


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
