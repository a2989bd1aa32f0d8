"""Training of the reranking transformer: by a teacher first, then planted correspondences, then labelled triplets."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rrt.datasets.sets import check_num_rerank
from rrt.errors import InputError
from rrt.evaluation.reranking import evaluate_reranked, score_shortlists
from rrt.files.atomic import write_json
from rrt.network.checkpoint import Checkpoint, save_checkpoint
from rrt.network.scoring import PairScorer
from rrt.progress import bar
from rrt.training.batches import BatchSource
from rrt.training.distributed import Processes
from rrt.training.loader import load_batches
from rrt.training.log import Meter, ScalarLog, draw_curves
from rrt.training.schedules import learning_rate, make_optimizer
from rrt.training.settings import TrainSettings
from rrt.training.state import Progress, plain, random_states, restore, set_random_states
from rrt.training.step import GradientComputer

# Candidates reranked when an epoch is evaluated, the published number.
NUM_RERANK = 100


@dataclass(frozen=True)
class TrainResult:
    """Paths of the selected and of the last checkpoint, which epoch was selected and by what, and the figures of every
    stage."""

    best: Path
    last: Path
    selected_epoch: int | None
    selected_on: str
    history: list


class Trainer:
    """One training run in the folder ``run_dir``: ``last.pt`` after every epoch and every ``save_every`` steps,
    ``best.pt`` the selected epoch, ``history.json``, ``curves.png``.

    recorded: plain settings to keep in the checkpoints (``model``, ``scale_binning``, ..). validation, test:
    ``TestSet`` or None. processes: those that train together, of which rank 0 alone writes, logs and evaluates.
    loading: options of ``rrt.training.loader.load_batches``. log(name, value, step) receives every scalar. watched:
    {name: TestSet} of further sets, which are measured after every epoch for the log alone.
    """

    def __init__(
        self,
        model,
        source: BatchSource,
        settings: TrainSettings,
        run_dir,
        recorded: dict,
        make_scorer: Callable[..., PairScorer],
        validation=None,
        test=None,
        processes: Processes | None = None,
        loading: dict | None = None,
        log: Callable[[str, float, int], None] = lambda name, value, step: None,
        watched: dict | None = None,
    ):
        if settings.select_on == "test" and test is None:
            raise InputError("select_on=test needs the test set; set dataset.test_data_dir")
        self.processes = processes or Processes()
        source.check_world(self.processes.world_size)
        self.model = model.to(self.processes.device)
        self.source = source
        self.settings = settings
        self.run_dir = Path(run_dir)
        self.recorded = plain({"training": asdict(settings)} | recorded)
        self.make_scorer = make_scorer
        self.loading = loading or {}
        # Without a validation set there is nothing honest to select on: the last epoch is taken, and recorded so.
        self.selected_on = "last" if settings.select_on == "val" and validation is None else settings.select_on
        self.watched = {name: data for name, data in (("val", validation), ("test", test)) if data is not None}
        self.watched |= watched or {}
        for data in self.watched.values():
            check_num_rerank(data, NUM_RERANK)
        self.computer = GradientComputer(
            self.model,
            self.processes.device,
            settings.precision,
            settings.label_smoothing,
            settings.compile,
            settings.distil,
            settings.loss,
        )
        self.optimizer = make_optimizer(model, settings)
        self.averaged = None
        if settings.ema_decay:
            # Starts from the weights after the first step, so that it remembers nothing of the random ones.
            self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        writes_tensorboard = settings.tensorboard and self.processes.is_first
        self.scalars = ScalarLog(log, self.run_dir / "tensorboard" if writes_tensorboard else None)
        # Stages: -1 learns from a teacher, 0 is planted, the others are epochs.
        self.progress = Progress(epoch=-2 if settings.distil.steps else -1)
        self._random_states = None
        self._unread = None

    @property
    def last_path(self) -> Path:
        """The checkpoint that a run goes on from."""
        return self.run_dir / "last.pt"

    @property
    def network(self):
        """What is evaluated and kept: the weights, or their running average."""
        return self.model if self.averaged is None else self.averaged.module

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue the run that wrote ``checkpoint``. InputError when it was made with other settings."""
        self.progress = restore(
            checkpoint, self.recorded, self.model, self.averaged, self.optimizer, self.computer.scaler
        )
        states = checkpoint.training.get("random", [])
        # More processes than before draw anew.
        self._random_states = states[self.processes.rank] if self.processes.rank < len(states) else None

    def run(self) -> TrainResult:
        """Train what is left, and return where the checkpoints are. InputError when the loss stops being a finite
        number."""
        progress, settings = self.progress, self.settings
        if self.processes.is_first:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self.scalars.start(progress.step)
        with closing(self.scalars):
            stages = [-1] * bool(settings.distil.steps) + [0] * bool(settings.planted_steps)
            stages += range(1, settings.epochs + 1)
            for epoch in (stage for stage in stages if stage > progress.epoch):
                figures = {"epoch": epoch} | self._train_stage(epoch) | self._evaluate()
                self._finish_stage(epoch, figures)
        if settings.curves and self.processes.is_first:
            draw_curves(self.run_dir / "curves.png", progress.curve, progress.history)
        return TrainResult(
            self.run_dir / "best.pt", self.last_path, progress.best_epoch, self.selected_on, progress.history
        )

    def _train_stage(self, epoch: int) -> dict:
        settings, progress, processes = self.settings, self.progress, self.processes
        plan = self.source.plan(settings.seed, epoch)
        num_steps = settings.optimiser_steps(len(plan))
        meter = Meter(progress.stage)
        first = meter.sums["steps"]
        # Batches depend on (seed, epoch, step) alone; only dropout draws from the global generators.
        torch.manual_seed(settings.seed + epoch + 1_000_003 * processes.rank)
        if first and self._random_states:
            set_random_states(self._random_states)
        self.model.train()
        batches = load_batches(
            self.source, plan, first * settings.accumulation, processes.rank, processes.world_size, **self.loading
        )
        title = {-1: "distillation", 0: "planted"}.get(epoch, f"epoch {epoch}/{settings.epochs}")
        shown = bar(what=title, unit="step", total=num_steps, initial=first, shown=processes.is_first)
        with shown, closing(batches), self.computer.workers():
            for step in range(first, num_steps):
                self._step(batches, epoch, meter)
                shown.update()
                shown.set_postfix_str(meter.text(), refresh=False)
                # At the end of a stage the state is saved with its evaluation.
                if settings.save_every and progress.step % settings.save_every == 0 and step + 1 < num_steps:
                    self._read_figures(meter)
                    progress.stage = dict(meter.sums)
                    self._save(self.last_path)
            self._read_figures(meter)
        rate = learning_rate(max(0, progress.step - 1), self.source.steps_per_epoch, settings)
        return {"step": progress.step, "lr": rate} | meter.mean()

    def _step(self, batches, epoch: int, meter: Meter) -> None:
        """One optimiser step on the next ``accumulation`` batches, as if they were one."""
        settings, processes, scaler = self.settings, self.processes, self.computer.scaler
        problem, sums = None, torch.zeros(2, dtype=torch.float64, device=self.computer.device)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            group = list(islice(batches, settings.accumulation))
            pairs = sum(batch.joined_pairs for batch in group)
            for batch in group:
                sums += self.computer.add(batch, pairs)
        except InputError as error:
            if processes.world_size == 1:
                raise
            # The others must learn of it where they expect gradients.
            problem, pairs = error, 0
        # Read only now, when a GPU has new work and need not wait for being asked.
        self._read_figures(meter)
        failed = sums.new_tensor([problem is not None])
        figures = processes.sum_gradients(self.computer.parameters, torch.cat([sums, failed]))
        rate = learning_rate(self.progress.step, self.source.steps_per_epoch, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = figures.new_zeros(1)
        if settings.max_norm > 0:
            scaler.unscale_(self.optimizer)
            norm[0] = torch.nn.utils.clip_grad_norm_(self.computer.parameters, settings.max_norm)
        scaler.step(self.optimizer)
        scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self._unread = (torch.cat([figures, norm]), pairs, problem, epoch, self.progress.step, rate)
        self.progress.step += 1

    def _read_figures(self, meter: Meter) -> None:
        """Take note of the step before: its loss, and whether anything failed in it. Nothing is saved before."""
        if self._unread is None:
            return
        (figures, pairs, problem, epoch, step, rate), self._unread = self._unread, None
        loss, correct, failed, norm = figures.tolist()
        if failed:
            self.processes.raise_together(problem)
        if not math.isfinite(loss):
            raise InputError(self._diverged("loss", step, epoch))
        # The scaler leaves out a step whose gradient is too large for float16, and goes on with a smaller scale.
        if not math.isfinite(norm) and not self.computer.scaler.is_enabled():
            raise InputError(self._diverged("gradient", step, epoch))
        meter.add(loss, correct, pairs)
        if (step + 1) % self.settings.log_every == 0:
            recent = meter.recent() | {"lr": rate}
            self.progress.curve.append([step + 1, *recent.values()])
            self.scalars.add(recent, step + 1)

    def _diverged(self, what, step, epoch):
        good = (
            f"the last good checkpoint is {self.last_path}"
            if self.last_path.exists()
            else "no checkpoint was written yet"
        )
        settings = self.settings
        rate = f"distil.lr ({settings.distil.lr})" if epoch < 0 else f"lr ({settings.lr})"
        return f"the {what} is not a finite number at step {step} (epoch {epoch}); {good}; lower {rate} or set max_norm"

    def _evaluate(self) -> dict:
        """Figures of the watched sets, found by rank 0 and known to all."""

        def figures_of_sets():
            figures = {}
            for name, data in self.watched.items():
                scorer = self.make_scorer(self.network, data.store)
                results = evaluate_reranked(data, score_shortlists(data, scorer, NUM_RERANK))
                # A protocol without a single positive has no figure.
                figures |= {
                    f"{name}_{p[0].upper()}_map": round(100 * r.map, 2)
                    for p, r in results.items()
                    if not math.isnan(r.map)
                }
            return figures

        return self.processes.from_first(figures_of_sets)

    def _finish_stage(self, epoch: int, figures: dict) -> None:
        progress = self.progress
        progress.epoch, progress.stage = epoch, {}
        progress.history.append(figures)
        scalars = {name: value for name, value in figures.items() if name not in ("epoch", "step")}
        self.scalars.add(scalars, progress.step, "epoch.")
        score = self._selection_score(figures)
        best = progress.best_score is None or self.selected_on == "last" or score > progress.best_score
        if best:
            progress.best_epoch, progress.best_score = epoch, score
        # best.pt first: after a kill between the two the stage is trained again and rewrites the same files.
        if best:
            self._save(self.run_dir / "best.pt")
        if self.processes.is_first:
            write_json(self.run_dir / "history.json", progress.history)
        self._save(self.last_path)

    def _save(self, path: Path) -> None:
        progress = self.progress
        random = self.processes.gather(random_states())
        if not self.processes.is_first:
            return
        score = self._selection_score(progress.history[-1]) if progress.history else None
        selection = {"select_on": self.selected_on, "epoch": progress.epoch, "score": score}
        weights = None if self.averaged is None else self.model.state_dict()
        training = {"random": random, "scaler": self.computer.scaler.state_dict(), "weights": weights}
        settings = self.recorded | {"selection": selection}
        save_checkpoint(path, self.network, self.optimizer, settings, asdict(progress), training)

    def _selection_score(self, figures: dict) -> float:
        """Validation: Medium mAP. Test: Medium + Hard, as the published program selects. Last: the epoch itself."""
        if self.selected_on == "val":
            return figures["val_M_map"]
        if self.selected_on == "test":
            return figures["test_M_map"] + figures["test_H_map"]
        return float(figures["epoch"])
