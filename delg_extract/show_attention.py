"""Draws where a network looks: the attention over an image, and the local features that an extraction would keep.

    python delg_extract/show_attention.py jpg/a.jpg --model delg.h5 --output attention.png

Left the largest attention over all scales, right the kept features, below the attention at each scale. It is drawn from
what the network gives with no threshold, so weight files and SavedModels look the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from delg_extract.extraction.extractor import Descriptors
from delg_extract.extraction.one_image import add_options, check_options, describe, open_extractor, read_pixels
from rrt.command_line.parser import CommandParser, run_command
from rrt.viz.style import MARKERS, label_pixels, save_figure

EVERY_CELL = 10**6  # more than an image of any sensible size has
DRAWN_SIDE = 800  # pixels of the longest side of the drawing's own raster
WIDTH, PANEL_WIDTH, HIGHEST_PANEL, LEGEND = 15.0, 6.1, 9.0, 2.2  # inches
SHADE = 0.45  # brightness of a black pixel under the attention's colour; a white one has 1


class AttentionMap(NamedTuple):
    """Attention after softplus [h, w] at an image scale; its cells' centres lie at ``y`` [h] and ``x`` [w], pixels of
    the image."""

    scale: float
    y: np.ndarray
    x: np.ndarray
    attention: np.ndarray

    @property
    def cell(self) -> float:
        """Pixels of the image between neighbouring cells; of a single cell twice its distance from the border."""
        steps = np.concatenate([np.diff(self.x), np.diff(self.y)])
        return float(steps.min()) if len(steps) else float(2 * max(self.x[0], self.y[0], 1))

    def over(self, height: int, width: int, size: tuple[int, int]) -> np.ndarray:
        """The map bilinearly upsampled to ``size`` (rows, columns) that cover an image of height x width pixels."""
        grid = [
            _positions(centres, side, count) for centres, side, count in zip((self.y, self.x), (height, width), size)
        ]
        rows, columns = np.meshgrid(*grid, indexing="ij")
        return cv2.remap(self.attention, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _positions(centres: np.ndarray, side: int, count: int) -> np.ndarray:
    pixels = (np.arange(count) + 0.5) * (side / count)
    return np.interp(pixels, centres, np.arange(len(centres))).astype(np.float32)


def attention_maps(found: Descriptors) -> list[AttentionMap]:
    """The maps, by rising image scale, that all features of an image (no threshold, no limit) lie on; cells left out
    count as 0."""
    maps = []
    for inverse_scale in np.unique(found.scales)[::-1]:
        here = found.scales == inverse_scale
        y, row = np.unique(found.locations[here, 0], return_inverse=True)
        x, column = np.unique(found.locations[here, 1], return_inverse=True)
        attention = np.zeros((len(y), len(x)), np.float32)
        attention[row, column] = found.attention[here]
        maps.append(AttentionMap(float(1 / inverse_scale), y, x, attention))
    return maps


def kept(found: Descriptors, max_features: int, score_threshold: float) -> Descriptors:
    """The features, sorted by falling attention, that an extraction with this limit and threshold keeps."""
    rows = np.flatnonzero(found.attention >= score_threshold)[:max_features]
    return found._replace(
        **{name: getattr(found, name)[rows] for name in ("locations", "descriptors", "scales", "attention")}
    )


def draw_attention(
    path: str | Path, pixels: np.ndarray, maps: list[AttentionMap], features: Descriptors, title: str
) -> None:
    """Writes the figure: attention over the image uint8 [H, W, 3], kept features, and the maps of the scales where
    there are more."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    height, width = pixels.shape[:2]
    raster = _grey(pixels)
    over = [level.over(height, width, raster.shape) for level in maps]
    brightest = max(float(level.max()) for level in over)
    panel = min(HIGHEST_PANEL, PANEL_WIDTH * height / width) + 0.6
    below = min(HIGHEST_PANEL / 3, WIDTH / len(maps) * height / width) + 0.7 if len(maps) > 1 else 0
    # Labels beside axes of a fixed aspect would touch the margin.
    layout = ConstrainedLayoutEngine(rect=(0.01, 0, 0.99, 1))
    figure = Figure(figsize=(WIDTH, max(panel, LEGEND) + below + 0.4), layout=layout)
    top = figure.add_gridspec(2 if below else 1, 1, height_ratios=(panel, below) if below else None)
    left, right = (figure.add_subplot(cell) for cell in top[0].subgridspec(1, 2))
    colours = ScalarMappable(Normalize(0, brightest), "viridis")
    largest = np.max(over, axis=0)
    _overlay(left, raster, largest, colours, (width, height))
    if np.ptp(largest):
        # In grey print the photograph's own light and dark hide the colours; lines do not.
        lines = left.contour(
            largest,
            [brightest * part for part in (0.25, 0.5, 0.75)],
            extent=(0, width, 0, height),
            colors="white",
            linewidths=0.6,
        )
        left.clabel(lines, fontsize=7, fmt="%.2g")
    left.set_title(f"largest of {len(maps)} scales" if len(maps) > 1 else f"scale {maps[0].scale:.3g}")
    figure.colorbar(colours, ax=left, label="attention (softplus)", aspect=40, pad=0.01)
    _draw_features(right, raster, features, maps, (width, height))
    if below:
        cells = top[1].subgridspec(1, len(maps))
        for column, (level, values) in enumerate(zip(maps, over)):
            axes = figure.add_subplot(cells[column])
            _overlay(axes, raster, values, colours, (width, height), fontsize=7)
            axes.set_title(
                f"scale {level.scale:.3g}: {level.attention.shape[0]} x {level.attention.shape[1]} cells", fontsize=8
            )
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The image in grey at the drawing's size, uint8 [h, w]: colour is left to the attention."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = min(1.0, DRAWN_SIDE / max(grey.shape))
    size = [max(1, round(side * factor)) for side in grey.shape]
    return cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)


def _overlay(
    axes, raster: np.ndarray, values: np.ndarray, colours, size: tuple[int, int], fontsize: float = 10
) -> None:
    shade = SHADE + (1 - SHADE) * raster[..., None] / 255
    axes.imshow(colours.to_rgba(values)[..., :3] * shade, extent=(0, size[0], size[1], 0))
    label_pixels(axes, *size, fontsize)


def _draw_features(
    axes, raster: np.ndarray, features: Descriptors, maps: list[AttentionMap], size: tuple[int, int]
) -> None:
    """Circles of the size of a grid cell at their scale, with a marker of the scale in the middle; the finest in
    front."""
    from matplotlib import colormaps
    from matplotlib.collections import EllipseCollection

    axes.imshow(raster, cmap="gray", vmin=0, vmax=400, extent=(0, size[0], size[1], 0))
    for number, level in enumerate(maps):
        points = features.locations[np.isclose(features.scales, 1 / level.scale), ::-1]
        colour = colormaps["plasma"](0.3 + 0.7 * number / max(1, len(maps) - 1))
        diameter = np.full(len(points), level.cell)
        axes.add_collection(
            EllipseCollection(
                diameter,
                diameter,
                0,
                units="xy",
                offsets=points,
                offset_transform=axes.transData,
                facecolors="none",
                edgecolors=[colour],
                linewidths=0.7,
            )
        )
        axes.scatter(
            *points.T,
            s=16,
            marker=MARKERS[number % len(MARKERS)],
            color=colour,
            edgecolors="black",
            linewidths=0.4,
            label=f"{level.scale:.3g} ({len(points)})",
            zorder=2 + number / 100,
        )
    axes.set(title=f"{len(features.scales)} kept features; a circle is a grid cell of its scale")
    label_pixels(axes, *size)
    axes.legend(
        title="image scale\n(features)",
        loc="upper left",
        bbox_to_anchor=(1, 1),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = CommandParser(__doc__)
    p.add_argument("image", help="the image")
    add_options(p, output="attention.png")
    return p


def main() -> int:
    """The command."""
    args = parser().parse_args()
    check_options(args)
    pixels = read_pixels(args.image)
    extractor, threshold = open_extractor(args, max_features=EVERY_CELL, score_threshold=0.0)
    found = describe(extractor, pixels, args.image)
    features = kept(found, args.max_features, threshold)
    draw_attention(
        args.output,
        pixels,
        attention_maps(found),
        features,
        f"{Path(args.image).name}: {len(features.scales)} of {len(found.scales)} local features kept (attention >= "
        f"{threshold:g}, at most {args.max_features})",
    )
    print(
        f"{Path(args.image).name}: {len(found.scales)} cells, {len(features.scales)} features kept",
        f"wrote {args.output}",
        sep="\n",
    )
    return 0


if __name__ == "__main__":
    run_command(main)
