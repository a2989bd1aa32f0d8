"""What all images of the project share: how they are written, and how lines and points stay apart in grey print."""

import warnings
from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import atomic_path

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
DPI = 120
# One a line or method, beside its colour.
MARKERS = "os^vD<>pPX*hd8"
LINE_STYLES = ("-", "--", ":", "-.")


def add_figure_output(parser, default: str) -> None:
    """The option --output of commands that draw one figure."""
    parser.add_argument(
        "--output", default=default, help="the image to write: .png, .jpg, .svg or .pdf (default %(default)s)"
    )


def check_figure_path(path: str | Path) -> None:
    """InputError for a file name that says no format."""
    if Path(path).suffix.lower() not in FIGURE_SUFFIXES:
        raise InputError(f"{path}: an image of unknown kind; choose a name that ends in {', '.join(FIGURE_SUFFIXES)}")


def label_pixels(axis, width: int, height: int, fontsize: float = 10) -> None:
    """Makes the axes those of an image of width x height pixels, the first row at the top."""
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_xlabel("x (pixels)", fontsize=fontsize)
    axis.set_ylabel("y (pixels)", fontsize=fontsize)
    axis.tick_params(labelsize=0.9 * fontsize)
    axis.locator_params(nbins=6)


def figure_over_steps(height: float, rows: int):
    """A figure 11 inches wide, and its axes, two in each row, for curves over the steps of a training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(rows, 2).ravel()
    for axis in axes:
        axis.set_xlabel("optimiser step")
        axis.grid(alpha=0.3)
    return figure, axes


def save_figure(figure, path: str | Path) -> Path:
    """Writes a ``matplotlib.figure.Figure`` whole or not at all, in the format of the suffix."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # A file name in letters that the font lacks is no reason to trouble the user.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, dpi=DPI)
    return Path(path)
