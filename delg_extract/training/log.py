"""What a training run tells while it runs: its curves as a table, as an image and to TensorBoard.

`tensorboard --logdir LOGDIR/train_logs`; tags are those of the reference (docs/delg.md 2.6).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rrt.viz.style import LINE_STYLES, MARKERS, figure_over_steps, save_figure

if TYPE_CHECKING:
    import tensorflow as tf

LOSSES = ("total", "global", "attention", "reconstruction")
HEADS = ("global", "local")
# independent ones of a smoothed line; what is left of the noise of single batches is then smaller than the trend
POINTS = 15
IMAGES = 8
FLUSH_MILLIS = 10_000
TAGS = {
    "total": "loss/total",
    "global": "loss/desc/crossentropy",
    "attention": "loss/attn/crossentropy",
    "reconstruction": "loss/recon/mse",
    "gradient_norm": "gradient_norm",
    "global_accuracy": "train_accuracy/desc",
    "local_accuracy": "train_accuracy/attn",
}


class CurveLog:
    """``train.csv``: a line per report; lines past the step a run resumes at are dropped."""

    def __init__(self, path: Path, columns: tuple[str, ...], start: int):
        kept = []
        if start and path.exists():
            with open(path, newline="") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= start]
        self.file = open(path, "w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(columns)
        self.writer.writerows(kept)

    def write(self, row) -> None:
        """Adds a line of values in the order of the columns; at once on the disk, so that a kill loses none."""
        self.writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
        self.file.flush()


def draw_curves(csv_path: str | Path, png_path: str | Path) -> Path:
    """Draws ``train.csv`` over the steps into one PNG: losses on the left, accuracies of the heads on the right.

    Training values are faint, their running mean strong, validation has a mark at each measurement. Columns that are
    missing or empty, as those of a head that is not trained, are left out.
    """
    table = pd.read_csv(csv_path)
    figure, (left, right) = figure_over_steps(4.6, 1)
    for number, column in enumerate(LOSSES):
        _draw_noisy(left, table, column, f"C{number}", LINE_STYLES[number], column)
    left.set(ylabel="loss (no unit; logarithmic)", yscale="log", title="Training loss")
    for number, head in enumerate(HEADS):
        _draw_noisy(right, table, f"{head}_accuracy", f"C{number}", LINE_STYLES[number], f"{head}, training")
        points = _points(table, f"validation_{head}")
        if len(points):
            right.plot(
                points.index,
                points,
                LINE_STYLES[number],
                color=f"C{number}",
                marker=MARKERS[number],
                markeredgecolor="black",
                label=f"{head}, validation",
            )
    right.set(ylabel="accuracy (share of images)", ylim=(0, 1), title="Accuracy")
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize="small")
    return save_figure(figure, png_path)


def running_mean(values: pd.Series) -> pd.Series:
    """Centred mean over a window that leaves about POINTS independent values; at the ends over the half of it that
    there is."""
    reach = len(values) // POINTS // 2 if len(values) >= 2 * POINTS else 0
    return pd.Series(values.rolling(2 * reach + 1, center=True, min_periods=reach + 1).mean())


def _draw_noisy(axis, table: pd.DataFrame, column: str, colour: str, style: str, label: str) -> None:
    points = _points(table, column)
    if len(points):
        axis.plot(points.index, points, color=colour, alpha=0.25, linewidth=1)
        axis.plot(points.index, running_mean(points), style, color=colour, label=label)


def _points(table: pd.DataFrame, column: str) -> pd.Series:
    """The values of a column that are there, by their steps."""
    return pd.Series(table.set_index("step")[column]).dropna() if column in table else pd.Series(dtype=float)


class Summaries:
    """Writes event files below ``folder``; with None nothing is written (summaries off, or another worker writes
    them)."""

    def __init__(self, folder: str | Path | None):
        # The curves above are drawn without it.
        from delg_extract.network.tensorflow import tf

        self._tf = tf
        self.writer = (
            tf.summary.create_file_writer(str(folder), flush_millis=FLUSH_MILLIS)
            if folder
            else tf.summary.create_noop_writer()
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by tag."""
        with self.writer.as_default(step):
            for tag, value in values.items():
                self._tf.summary.scalar(tag, value)

    def images(self, step: int, images: tf.Tensor, attention: tf.Tensor) -> None:
        """Statistics of the attention [B, h, w], and the first images of a batch [B, H, W, 3] (normalised) plain and
        with attention.

        The scores of an image are shown relative to its largest one, as in the reference; beside it the image dimmed
        by them.
        """
        tf = self._tf
        with self.writer.as_default(step):
            ordered = tf.sort(tf.reshape(attention, [-1]))
            last = tf.cast(tf.size(ordered) - 1, tf.float32)
            for tag, value in (
                ("max", ordered[-1]),
                ("min", ordered[0]),
                ("mean", tf.reduce_mean(ordered)),
                *((f"percent_{p}", ordered[tf.cast(last * p / 100, tf.int32)]) for p in (25, 50, 75)),
            ):
                tf.summary.scalar(f"attention/{tag}", value)
            tf.summary.scalar("image_range/max", tf.reduce_max(images))
            tf.summary.scalar("image_range/min", tf.reduce_min(images))
            shown = tf.clip_by_value((images[:IMAGES] + 1) / 2, 0, 1)
            scores = tf.expand_dims(attention[:IMAGES], -1)
            scores = tf.image.resize(
                scores / (tf.reduce_max(scores, (1, 2), keepdims=True) + 1e-3), tf.shape(images)[1:3]
            )
            tf.summary.image("batch_images", shown, max_outputs=IMAGES)
            tf.summary.image("batch_attention", tf.clip_by_value(scores, 0, 1), max_outputs=IMAGES)
            tf.summary.image(
                "batch_images_with_attention", shown * tf.clip_by_value(0.15 + 0.85 * scores, 0, 1), max_outputs=IMAGES
            )
