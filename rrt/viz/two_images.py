"""Figures of two images side by side at one height, axes in their pixels, with lines between points of the one and of
the other. Everything is laid out in inches, so that panels below each other line up."""

import textwrap

import cv2
import numpy as np

from rrt.matching.images import ImageFeatures, Matches
from rrt.viz.style import label_pixels, save_figure

RASTER = 800  # pixels of the longest side of what is drawn of a photograph
WIDEST, HIGHEST, NARROWEST = 15.0, 6.5, 8.0  # inches: of a figure, of an image, of a figure
LEFT, BETWEEN, RIGHT, ABOVE, BELOW = 0.8, 0.15, 1.9, 0.8, 1.1  # inches around the images of a panel
LETTERS = 11  # of a title, in an inch
MATCH_COLOURS = "plasma"


def two_image_figure(pixels: list[np.ndarray], title: str, panels: int = 1):
    """A ``matplotlib.figure.Figure`` with room for ``panels`` drawings of the same two images below each other."""
    from matplotlib.figure import Figure

    widths, height = _inches(pixels)
    width = max(NARROWEST, LEFT + sum(widths) + BETWEEN + RIGHT)
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, int(LETTERS * width)) or [""]]
    head = 0.2 + 0.2 * len(lines)
    figure = Figure((width, head + panels * (ABOVE + height + BELOW)))
    figure.text(0.5, 1 - 0.1 / figure.get_figheight(), "\n".join(lines), ha="center", va="top", parse_math=False)
    return figure


def draw_images(
    figure, pixels: list[np.ndarray], names: list[str], panel: int = 0, title: str = "", grey: bool = False
) -> list:
    """Draws two images uint8 [H, W, 3] as a panel, 0 the lowest, of a ``two_image_figure``; returns their axes.
    grey: without colours, which are left to what is drawn over them."""
    widths, height = _inches(pixels)
    left = (figure.get_figwidth() - LEFT - sum(widths) - BETWEEN - RIGHT) / 2 + LEFT
    bottom = panel * (ABOVE + height + BELOW) + BELOW
    axes = [
        figure.add_axes(_rectangle(figure, start, bottom, width, height))
        for start, width in zip((left, left + widths[0] + BETWEEN), widths)
    ]
    for axis, image, name in zip(axes, pixels, names):
        rows, columns = image.shape[:2]
        style = {"cmap": "gray", "vmin": -60, "vmax": 360} if grey else {}
        axis.imshow(_raster(image, grey), extent=(0, columns, rows, 0), aspect="auto", **style)
        label_pixels(axis, columns, rows)
        axis.set_title(name, fontsize=9, parse_math=False)
    # What stands between the images would be crossed by lines.
    axes[1].yaxis.tick_right()
    axes[1].yaxis.set_label_position("right")
    middle = left + (sum(widths) + BETWEEN) / 2
    figure.text(
        middle / figure.get_figwidth(),
        (bottom + height + 0.4) / figure.get_figheight(),
        title,
        ha="center",
        fontsize=12,
    )
    return axes


def add_colour_bar(figure, axes, mappable, label: str) -> None:
    """A colour bar right of the two images."""
    right = axes[1].get_position()
    inch = 1 / figure.get_figwidth()
    cax = figure.add_axes((right.x1 + 0.75 * inch, right.y0, 0.16 * inch, right.height))
    figure.colorbar(mappable, cax=cax, label=label)


def add_legend(figure, axes, handles) -> None:
    """A legend in one row below the two images."""
    left, right = (axis.get_position() for axis in axes)
    anchor = (left.x0 + right.x1) / 2, left.y0 - 0.55 / figure.get_figheight()
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=anchor, ncols=len(handles), frameon=False)


def connect(
    figure,
    axes,
    points_a: np.ndarray,
    points_b: np.ndarray,
    colours,
    widths: float | np.ndarray = 1.5,
    styles: str | list = "-",
) -> None:
    """Lines from points [k, 2] of the first image to those of the second, over both; colours, widths (points) and
    line styles: one for all or one each. A dark rim keeps them apart from light photographs."""
    from matplotlib.colors import to_rgba_array
    from matplotlib.patches import ConnectionPatch

    count = len(points_a)
    colours, widths = np.broadcast_to(to_rgba_array(colours), (count, 4)), np.broadcast_to(widths, count)
    styles = [styles] * count if isinstance(styles, str) else styles
    for a, b, colour, width, style in zip(points_a, points_b, colours, widths, styles):
        line = ConnectionPatch(
            a, b, "data", "data", axesA=axes[0], axesB=axes[1], color=colour, linewidth=width, linestyle=style
        )
        line.set_path_effects(rim(width))
        figure.add_artist(line)


def rim(width: float) -> list:
    """Path effects of a dark rim around a line of this width in points."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width + 1.2, foreground="black", alpha=0.7), Normal()]


def draw_matches(
    figure, pixels, names: list[str], points_a: np.ndarray, points_b: np.ndarray, panel: int = 0, title: str = ""
) -> None:
    """Both images and a line for every verified match (points_a[i], points_b[i])."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    axes = draw_images(figure, pixels, names, panel, title)
    # Bright on dark stands out on any photograph; brighter the lower a line begins, so that lines are told apart in
    # grey too.
    colours = colormaps[MATCH_COLOURS](0.4 + 0.6 * np.clip(points_a[:, 1] / pixels[0].shape[0], 0, 1))
    connect(figure, axes, points_a, points_b, colours)
    for axis, points in zip(axes, (points_a, points_b)):
        axis.scatter(*points.T, s=14, c=colours, edgecolors="black", linewidths=0.7, zorder=3)
    if len(points_a):
        label = f"verified match ({len(points_a)}); the lower it begins, the brighter"
        style = {"color": colormaps[MATCH_COLOURS](0.7), "marker": "o", "markersize": 4, "path_effects": rim(1.5)}
        add_legend(figure, axes, [Line2D([], [], label=label, **style)])


def save_matches(path, pixels: list[np.ndarray], images: list[ImageFeatures], matches: Matches, geometry: str) -> str:
    """Writes a figure of two matched images (uint8 [H, W, 3] each) and returns what it shows, in four lines."""
    counts = [f"{image.name}: {len(image.points)} features" for image in images]
    ends = [image.points[rows] for image, rows in zip(images, matches.inliers.T)]
    found = (
        f"{len(matches.inliers)} inliers of {len(matches.pairs)} matches ({geometry}, "
        f"residual up to {matches.residual:g} pixels)"
    )
    figure = two_image_figure(pixels, " and ".join(image.name for image in images))
    draw_matches(figure, pixels, counts, ends[0], ends[1], title=found)
    save_figure(figure, path)
    return "\n".join([*counts, found, f"wrote {path}"])


def _inches(pixels) -> tuple[list[float], float]:
    """Widths of the two images and their height."""
    aspects = [image.shape[1] / image.shape[0] for image in pixels]
    height = min(HIGHEST, (WIDEST - LEFT - BETWEEN - RIGHT) / sum(aspects))
    return [height * aspect for aspect in aspects], height


def _rectangle(figure, left, bottom, width, height):
    wide, high = figure.get_size_inches()
    return left / wide, bottom / high, width / wide, height / high


def _raster(pixels: np.ndarray, grey: bool) -> np.ndarray:
    factor = min(1.0, RASTER / max(pixels.shape[:2]))
    if factor < 1:
        size = [max(1, round(side * factor)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if grey else pixels
