"""The curves of a training run, as a table and as a picture."""
from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

STYLES = ("-", "--", ":", "-.")  # lines stay apart in grey print


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
        self.writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
        self.file.flush()


def draw_curves(csv_path: str | Path, png_path: str | Path) -> Path:
    """Draws losses and accuracies of ``train.csv`` over the steps into one PNG."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = pd.read_csv(csv_path)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for style, column in zip(STYLES, ("total", "global", "attention", "reconstruction")):
        left.plot(table["step"], table[column], style, label=column)
    left.set(xlabel="step", ylabel="loss", yscale="log", title="Training loss")
    for style, column in zip(STYLES, ("global_accuracy", "local_accuracy", "validation_global", "validation_local")):
        points = table[["step", column]].dropna()
        right.plot(points["step"], points[column], style, marker="o" if "validation" in column else None, label=column.replace("_", " "))
    right.set(xlabel="step", ylabel="accuracy", ylim=(0, 1), title="Accuracy")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(png_path, dpi=120)
    plt.close(figure)
    return Path(png_path)
