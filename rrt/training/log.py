"""What a training run tells while it runs: means for the progress bar, scalars for Sacred and TensorBoard, and at its
end an image of its curves."""

import time
from collections import deque
from pathlib import Path

from rrt.errors import InputError
from rrt.viz.style import LINE_STYLES, MARKERS, figure_over_steps, save_figure

# Steps of the means that the progress bar and the scalars show.
RECENT_STEPS = 100


class Meter:
    """Means of loss and accuracy over a stage, and over its last steps; ``sums`` of an interrupted stage go on."""

    def __init__(self, sums: dict | None = None):
        self.sums = {"steps": 0, "pairs": 0, "loss": 0.0, "correct": 0.0, "seconds": 0.0} | (sums or {})
        self._recent: deque = deque(maxlen=RECENT_STEPS)
        self._earlier = dict(self.sums)
        self._start = time.perf_counter()

    def add(self, loss: float, correct: float, pairs: int) -> None:
        """A step's mean loss, and how many of its pairs were classified rightly."""
        self._recent.append((loss * pairs, correct, pairs))
        self.sums["steps"] += 1
        self.sums["pairs"] += pairs
        self.sums["loss"] += loss * pairs
        self.sums["correct"] += correct
        self.sums["seconds"] = self._earlier["seconds"] + time.perf_counter() - self._start

    def recent(self) -> dict:
        """Loss and accuracy over the last steps, at least one."""
        loss, correct, pairs = map(sum, zip(*self._recent))
        return {"loss": loss / pairs, "accuracy": correct / pairs}

    def mean(self) -> dict:
        """Figures of the stage; {} before its first step."""
        sums = self.sums
        if not sums["pairs"]:
            return {}
        return {
            "loss": round(sums["loss"] / sums["pairs"], 4),
            "accuracy": round(sums["correct"] / sums["pairs"], 4),
            "pairs_per_second": round(sums["pairs"] / max(sums["seconds"], 1e-9), 1),
            "seconds": round(sums["seconds"], 2),
        }

    def text(self) -> str:
        """What the progress bar says beside the steps; empty before the first one."""
        if not self._recent:
            return ""
        recent = self.recent()
        speed = (self.sums["pairs"] - self._earlier["pairs"]) / max(time.perf_counter() - self._start, 1e-9)
        return f"loss {recent['loss']:.3f}, accuracy {100 * recent['accuracy']:.1f} %, {speed:.0f} pairs/s"


class ScalarLog:
    """Hands scalars to ``log(name, value, step)`` and, where asked, to TensorBoard in the folder ``tensorboard``.

    InputError at once where TensorBoard is asked for and not installed; files are made by ``start`` alone.
    """

    def __init__(self, log, tensorboard: Path | None = None):
        self._log = log
        self._folder = tensorboard
        self._writer = None
        if tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError(
                    "tensorboard=True: the package tensorboard is not installed; install it, or leave the setting out"
                ) from None
            self._make = SummaryWriter

    def start(self, step: int) -> None:
        """step: what the run has done before; TensorBoard forgets what an interrupted run told of later ones."""
        if self._folder is not None:
            self._writer = self._make(str(self._folder), purge_step=step + 1 if step else None)

    def add(self, scalars: dict, step: int, prefix: str = "train.") -> None:
        """Hand on {name: value} as they are after optimiser step ``step``."""
        for name, value in scalars.items():
            self._log(prefix + name, value, step)
            if self._writer is not None:
                self._writer.add_scalar((prefix + name).replace(".", "/", 1), value, step)

    def close(self) -> None:
        """Have TensorBoard write what it holds back."""
        if self._writer is not None:
            self._writer.close()


def draw_curves(path, curve: list, history: list) -> Path:
    """Loss, accuracy, learning rate and, where a set was watched, mAP over the optimiser steps, as a PNG.

    curve, history: of ``rrt.training.state.Progress``.
    """
    sets = [(part, protocol) for part in ("val", "test") for protocol in "MH"]
    mean_ap = {}
    for part, protocol in sets:
        name = f"{part}_{protocol}_map"
        points = [(figures["step"], figures[name]) for figures in history if name in figures]
        if points:
            mean_ap[part, protocol] = points
    figure, axes = figure_over_steps(7, 2)
    # Short runs have no row of the curve; their stages' means do then.
    rows = curve or [[f["step"], f["loss"], f["accuracy"], f["lr"]] for f in history if "loss" in f]
    steps = [row[0] for row in rows]
    names = "loss (binary cross-entropy)", "accuracy (share of pairs)", "learning rate"
    for column, (axis, name) in enumerate(zip(axes, names), start=1):
        axis.plot(steps, [row[column] for row in rows], marker="." if len(rows) < 50 else "")
        axis.set_ylabel(name)
    axes[1].axhline(0.5, color="grey", linestyle=":", linewidth=1, label="chance")
    axes[1].legend(frameon=False)
    for number, ((part, protocol), points) in enumerate(mean_ap.items()):
        label = f"{'validation' if part == 'val' else 'test'} {'Medium' if protocol == 'M' else 'Hard'}"
        axes[3].plot(*zip(*points), LINE_STYLES[number], marker=MARKERS[number], label=label)
    axes[3].set_ylabel("mAP (%)")
    if mean_ap:
        axes[3].legend(frameon=False)
    else:
        axes[3].text(0.5, 0.5, "no set was watched", transform=axes[3].transAxes, ha="center")
    return save_figure(figure, path)
