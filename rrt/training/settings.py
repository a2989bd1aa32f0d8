"""Settings of the training loop, checked."""

from dataclasses import dataclass

from rrt.errors import InputError, check_choice, check_count, check_types
from rrt.network.precision import PRECISIONS
from rrt.training.schedules import OPTIMISERS, SCHEDULERS

SELECTIONS = ("val", "test", "last")


@dataclass(frozen=True)
class TrainSettings:
    """The defaults are the published ones (docs/protocol.md 4) as far as there are any; what is not published is off.

    planted_steps: batches of planted correspondences before the first epoch of triplets; planted_fraction: share of the
    batches that stay planted afterwards; steps_per_epoch: batches of an epoch, None = every anchor once;
    accumulation: batches an optimiser step, which then is that of the joined batch; warmup_steps: the rate rises from 0
    over so many optimiser steps, None = 500 for the warm schedulers and 0 for the others; label_smoothing:
    ``rrt.training.step.pair_losses``; ema_decay: evaluate and keep the running average d average + (1 - d) weights, 0 =
    the weights themselves; precision: float32 | bfloat16 | float16 | auto (``rrt.network.precision``); compile:
    torch.compile in training; save_every: optimiser steps between saved states, beside those of every epoch, None = no
    others; log_every: optimiser steps between logged scalars; tensorboard: scalars go there, too; curves: draw them at
    the end.
    """

    epochs: int = 15
    lr: float = 1e-4
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 5e-4
    optim: str = "adamw"
    scheduler: str = "multistep"
    scheduler_tau: tuple = (16, 18)
    scheduler_gamma: float = 0.1
    warmup_steps: int | None = None
    max_norm: float = 0.0
    no_bias_decay: bool = False
    loss: str = "bce"
    seed: int = 0
    planted_steps: int = 0
    planted_fraction: float = 0.0
    steps_per_epoch: int | None = None
    accumulation: int = 1
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    precision: str = "float32"
    compile: bool = False
    select_on: str = "val"
    save_every: int | None = 1000
    log_every: int = 100
    tensorboard: bool = False
    curves: bool = True

    # What a resumed run may change without becoming another run.
    FREE_TO_CHANGE = ("epochs", "select_on", "compile", "save_every", "log_every", "tensorboard", "curves")

    def __post_init__(self):
        check_types(self)
        check_choice("optim", self.optim, OPTIMISERS)
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        check_choice("select_on", self.select_on, SELECTIONS)
        check_choice("loss", self.loss, ("bce",))
        check_choice("precision", self.precision, PRECISIONS)
        if self.lr <= 0 or self.weight_decay < 0 or self.max_norm < 0:
            raise InputError("lr must be positive, weight_decay and max_norm not negative")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: must not be negative")
        if self.nesterov and self.optim == "sgd" and self.momentum <= 0:
            raise InputError("nesterov=True needs a momentum above 0")
        if self.planted_steps < 0 or not 0 <= self.planted_fraction <= 1:
            raise InputError("planted_steps must not be negative and planted_fraction must lie in 0..1")
        if self.epochs < 0 or self.epochs + self.planted_steps == 0:
            raise InputError("nothing to train: epochs and planted_steps are both 0")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch={self.steps_per_epoch}: give a positive number or None")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise InputError(f"warmup_steps={self.warmup_steps}: must not be negative")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must lie in 0..1, 1 excluded; 0 turns it off")
        check_count("accumulation", self.accumulation)
        check_count("log_every", self.log_every)
        if self.save_every is not None:
            check_count("save_every", self.save_every)

    def optimiser_steps(self, batches: int) -> int:
        """Optimiser steps that so many batches of a stage make; the last may join fewer batches."""
        return -(-batches // self.accumulation)
