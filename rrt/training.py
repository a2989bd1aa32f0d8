"""Training of the reranking transformer: planted correspondences first, labelled triplets after."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from rrt.batches import BatchSource, PairBatch
from rrt.checkpoint import Checkpoint, load_weights, save_checkpoint
from rrt.datasets import check_num_rerank
from rrt.errors import InputError, atomic_path
from rrt.evaluation import evaluate_reranked, score_shortlists
from rrt.loader import load_batches
from rrt.schedules import OPTIMISERS, SCHEDULERS, check_choice, learning_rate, make_optimizer
from rrt.scorer import Scorer

SELECTIONS = ("val", "test", "last")
# Candidates reranked when an epoch is evaluated, the published number.
NUM_RERANK = 100
# Settings a resumed run may change without becoming another run.
_FREE_TO_CHANGE = ("epochs", "select_on")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training loop; the defaults are the published ones (RRT_SPEC section 4) as far as there are any.

    planted_steps: steps on planted correspondences before the first epoch of triplets; planted_fraction: share of the
    batches that stay planted afterwards; steps_per_epoch: cap on an epoch's batches, None = every anchor once;
    warmup_steps: for the warm schedulers; log_every: steps between logged scalars.
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
    warmup_steps: int = 500
    max_norm: float = 0.0
    no_bias_decay: bool = False
    loss: str = "bce"
    seed: int = 0
    planted_steps: int = 0
    planted_fraction: float = 0.0
    steps_per_epoch: int | None = None
    select_on: str = "val"
    log_every: int = 100

    def __post_init__(self):
        check_choice("optim", self.optim, OPTIMISERS)
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        check_choice("select_on", self.select_on, SELECTIONS)
        check_choice("loss", self.loss, ("bce",))
        if self.lr <= 0 or self.weight_decay < 0 or self.max_norm < 0:
            raise InputError("lr must be positive, weight_decay and max_norm not negative")
        if self.planted_steps < 0 or not 0 <= self.planted_fraction <= 1:
            raise InputError("planted_steps must not be negative and planted_fraction must lie in 0..1")
        if self.epochs < 0 or self.epochs + self.planted_steps == 0:
            raise InputError("nothing to train: epochs and planted_steps are both 0")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch={self.steps_per_epoch}: give a positive number or None")


@dataclass
class Progress:
    """Where a run stands. epoch: stages finished (0 = the planted steps); step: optimiser steps taken; history: a dict
    per stage."""

    epoch: int = -1
    step: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    history: list = field(default_factory=list)


@dataclass(frozen=True)
class TrainResult:
    """Paths of the selected and of the last checkpoint, which epoch was selected and by what, and the figures of every
    stage."""

    best: Path
    last: Path
    selected_epoch: int
    selected_on: str
    history: list


class Trainer:
    """One training run in the folder ``run_dir``: ``last.pt`` after every epoch, ``best.pt`` the selected one,
    ``history.json``.

    recorded: plain settings to keep in the checkpoints (``model``, ``scale_binning``, ..). validation, test:
    ``TestSet`` or None. log(name, value, step) receives every scalar.
    """

    def __init__(
        self,
        model,
        source: BatchSource,
        settings: TrainSettings,
        run_dir,
        recorded: dict,
        make_scorer: Callable[..., Scorer],
        validation=None,
        test=None,
        device="cpu",
        log: Callable[[str, float, int], None] = lambda name, value, step: None,
    ):
        if settings.select_on == "test" and test is None:
            raise InputError("select_on=test needs the test set; set dataset.test_data_dir")
        self.model = model.to(device)
        self.source = source
        self.settings = settings
        self.run_dir = Path(run_dir)
        self.recorded = recorded | {"training": asdict(settings) | {"scheduler_tau": list(settings.scheduler_tau)}}
        self.make_scorer = make_scorer
        self.device = device
        self.log = log
        # Without a validation set there is nothing honest to select on: the last epoch it is, and it says so.
        self.selected_on = "last" if settings.select_on == "val" and validation is None else settings.select_on
        self.watched = {name: data for name, data in (("val", validation), ("test", test)) if data is not None}
        for data in self.watched.values():
            check_num_rerank(data, NUM_RERANK)
        self.optimizer = make_optimizer(model, settings)
        self.progress = Progress()

    @property
    def last_path(self) -> Path:
        return self.run_dir / "last.pt"

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue the run that wrote ``checkpoint``. InputError when it was made with other settings."""
        if not checkpoint.progress or checkpoint.optim is None:
            raise InputError(
                f"{checkpoint.path}: holds weights but no state of a training to resume; use weights= to start from it"
            )
        difference = first_difference(checkpoint.settings, _plain(self.recorded))
        if difference:
            name, old, new = difference
            raise InputError(
                f"{checkpoint.path}: was trained with {name}={old}, now {new}; use the same or another temp_dir"
            )
        load_weights(self.model, checkpoint)
        self.optimizer.load_state_dict(checkpoint.optim)
        self.progress = Progress(**checkpoint.progress)

    def run(self) -> TrainResult:
        """Train what is left, and return where the checkpoints are. InputError when the loss stops being a finite
        number."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        first_stage = 0 if self.settings.planted_steps else 1
        for epoch in range(max(first_stage, self.progress.epoch + 1), self.settings.epochs + 1):
            figures = {"epoch": epoch} | self._train_stage(epoch) | self._evaluate(epoch)
            self._finish_stage(epoch, figures)
        progress = self.progress
        return TrainResult(
            self.run_dir / "best.pt", self.last_path, progress.best_epoch, self.selected_on, progress.history
        )

    def _train_stage(self, epoch: int) -> dict:
        # Everything random hangs on (seed, epoch, step) alone, so that a resumed run needs no state of a generator.
        plan = self.source.plan(self.settings.seed, epoch)
        torch.manual_seed(self.settings.seed + epoch)
        self.model.train()
        title = "planted" if epoch == 0 else f"epoch {epoch}/{self.settings.epochs}"
        meter = _Meter()
        start = time.perf_counter()
        with tqdm(total=len(plan), desc=title, unit="step", disable=None) as bar:
            for batch in load_batches(self.source, plan):
                meter.add(*self._step(batch, epoch))
                self.progress.step += 1
                bar.update()
                bar.set_postfix_str(meter.text(), refresh=False)
                if self.progress.step % self.settings.log_every == 0:
                    self._log(meter.recent(), self.progress.step)
        return meter.mean() | {"seconds": round(time.perf_counter() - start, 2)}

    def _step(self, batch: PairBatch, epoch: int):
        rate = learning_rate(self.progress.step, self.source.steps_per_epoch, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        labels = torch.from_numpy(batch.labels).to(self.device)
        logits = batch.logits(self.model, self.device)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(self._diverged("loss", epoch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.max_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_norm)
            if not torch.isfinite(norm):
                raise InputError(self._diverged("gradient", epoch))
        self.optimizer.step()
        correct = ((logits.detach() > 0) == (labels > 0.5)).float().mean().item()
        return value, correct, len(labels)

    def _diverged(self, what, epoch):
        good = (
            f"the last good checkpoint is {self.last_path}"
            if self.last_path.exists()
            else "no checkpoint was written yet"
        )
        return (
            f"the {what} is not a finite number at step {self.progress.step} (epoch {epoch}); {good};"
            f" lower lr ({self.settings.lr}) or set max_norm"
        )

    def _evaluate(self, epoch: int) -> dict:
        figures = {}
        for name, data in self.watched.items():
            scorer = self.make_scorer(self.model, data.store)
            results = evaluate_reranked(data, score_shortlists(data, scorer, NUM_RERANK))
            # A protocol without a single positive has no figure.
            figures |= {
                f"{name}_{p[0].upper()}_map": round(100 * r.map, 2) for p, r in results.items() if not math.isnan(r.map)
            }
        return figures

    def _finish_stage(self, epoch: int, figures: dict) -> None:
        progress = self.progress
        progress.epoch = epoch
        progress.history.append(figures)
        self._log({name: value for name, value in figures.items() if name != "epoch"}, progress.step, "epoch.")
        score = self._selection_score(figures)
        best = progress.best_score is None or self.selected_on == "last" or score > progress.best_score
        if best:
            progress.best_epoch, progress.best_score = epoch, score
        selection = {"select_on": self.selected_on, "epoch": epoch, "score": score}
        settings = _plain(self.recorded | {"selection": selection})
        # best.pt first: after a kill between the two the stage is trained again and rewrites the same files.
        if best:
            save_checkpoint(self.run_dir / "best.pt", self.model, self.optimizer, settings, asdict(progress))
        with atomic_path(self.run_dir / "history.json") as temporary:
            temporary.write_text(json.dumps(progress.history, indent=1))
        save_checkpoint(self.last_path, self.model, self.optimizer, settings, asdict(progress))

    def _selection_score(self, figures: dict) -> float:
        """Validation: Medium mAP. Test: Medium + Hard, as the published program selects. Last: the epoch itself."""
        if self.selected_on == "val":
            return figures["val_M_map"]
        if self.selected_on == "test":
            return figures["test_M_map"] + figures["test_H_map"]
        return float(figures["epoch"])

    def _log(self, scalars: dict, step: int, prefix: str = "train.") -> None:
        for name, value in scalars.items():
            self.log(prefix + name, value, step)


class _Meter:
    """Running means of loss and accuracy: over the whole stage, and over the last 100 steps for the progress bar."""

    def __init__(self):
        self.rows = []
        self.start = time.perf_counter()

    def add(self, loss, accuracy, pairs):
        self.rows.append((loss, accuracy, pairs))

    def recent(self):
        loss, accuracy, _ = np.mean(self.rows[-100:], axis=0)
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def mean(self):
        if not self.rows:
            return {}
        loss, accuracy, _ = np.mean(self.rows, axis=0)
        return {
            "loss": round(float(loss), 4),
            "accuracy": round(float(accuracy), 4),
            "pairs_per_second": round(self._speed(), 1),
        }

    def text(self):
        recent = self.recent()
        return f"loss {recent['loss']:.3f}, accuracy {100 * recent['accuracy']:.1f} %, {self._speed():.0f} pairs/s"

    def _speed(self):
        return sum(row[2] for row in self.rows) / max(time.perf_counter() - self.start, 1e-9)


def first_difference(old: dict, new: dict, prefix: str = ""):
    """(name, old value, new value) of the first setting that differs between two plain nested settings, or None.

    ``selection`` and the settings a resumed run may change are not compared.
    """
    for name in sorted(old.keys() | new.keys()):
        if name in _FREE_TO_CHANGE or (not prefix and name == "selection"):
            continue
        left, right = old.get(name), new.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found = first_difference(left, right, f"{prefix}{name}.")
            if found:
                return found
        elif left != right:
            return f"{prefix}{name}", left, right
    return None


def _plain(settings: dict) -> dict:
    """Through JSON: tuples become lists, and nothing a checkpoint may not hold gets in."""
    return json.loads(json.dumps(settings))
