"""Procedural materials, carved and painted motifs and lettering for the synthetic scenes.

Textures are uint8 [H, W, 3], OpenCV channel order. A motif is named by an integer: the same integer gives the same
drawing at every size, so that a building repeats it over all its images and a family of look-alikes can share it.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from rrt.scenes.augment import smooth_noise

WALLS = ("brick", "ashlar", "rubble", "plaster", "banded", "panel")
_SHIFT = 4  # fractional bits of OpenCV's sub-pixel drawing


def points(values) -> np.ndarray:
    """Pixel coordinates, float [N, 2], as the fixed-point array with which OpenCV draws (shift 4)."""
    return np.rint(np.asarray(values, np.float64) * (1 << _SHIFT)).astype(np.int32).reshape(-1, 1, 2)


def fill(image: np.ndarray, values, colour) -> None:
    """Fills a polygon (pixels, [N, 2]) with antialiased borders, in place."""
    cv2.fillPoly(image, [points(values)], _colour(colour), cv2.LINE_AA, _SHIFT)


def stroke(image: np.ndarray, values, colour, width: float, closed: bool = False) -> None:
    """Draws a polyline (pixels, [N, 2]) of the given width, in place."""
    cv2.polylines(image, [points(values)], closed, _colour(colour), max(1, round(width)), cv2.LINE_AA, _SHIFT)


def disc(image: np.ndarray, x: float, y: float, radius: float, colour, width: float = 0) -> None:
    """A filled disc, or a ring when `width` is positive, in place."""
    centre = (round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT)))
    thickness = max(1, round(width)) if width > 0 else -1
    cv2.circle(image, centre, round(max(radius, 0.5) * (1 << _SHIFT)), _colour(colour), thickness, cv2.LINE_AA, _SHIFT)


def rectangle(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour) -> None:
    """A filled rectangle from (x0, y0) to (x1, y1), in place."""
    fill(image, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)


def _colour(colour):
    return tuple(map(float, colour)) if np.ndim(colour) else float(colour)


def shade(colour, factor) -> np.ndarray:
    """A lighter (factor > 1) or darker colour, clipped."""
    return np.minimum(np.asarray(colour, np.float64) * factor, 255)


def wall(rng: np.random.Generator, kind: str, shape: tuple[int, int], colour, unit: float) -> np.ndarray:
    """A wall of `kind`, one of WALLS. unit: height of a course of stones in pixels; rng: for its tint and stains."""
    if kind in ("plaster", "panel"):
        image = np.broadcast_to(np.asarray(colour, np.float32), (*shape, 3)).copy()
        image *= (1 + 0.05 * smooth_noise(rng, shape, 40, 2))[..., None]
        if kind == "panel":
            image = _joints(image, max(int(unit * 2.6), 3), max(int(unit * 2.0), 3))
    else:
        image = _masonry(rng, kind, shape, np.asarray(colour, np.float32), unit)
    # Weather: large stains and streaks running down, different on each building.
    stains = 1 + 0.10 * smooth_noise(rng, (shape[0] // 2, shape[1] // 2), 3, 4)
    stains = cv2.resize(stains, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    streaks = smooth_noise(rng, (8, shape[1]), max(4, shape[1] // 14), 2)
    streaks = cv2.resize(streaks, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    image *= (stains * (1 - 0.16 * np.clip(streaks - 0.15, 0, 1)))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _masonry(rng, kind, shape, colour, unit):
    length, spread, bond, gap = {
        "brick": (2.4, 0.16, 0.5, 0.20),
        "ashlar": (1.9, 0.09, 0.5, 0.09),
        "rubble": (1.4, 0.22, 0.37, 0.24),
        "banded": (2.6, 0.07, 0.5, 0.08),
    }[kind]
    unit = max(unit, 3.0)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    if kind == "rubble":
        x = x + unit * 0.45 * smooth_noise(rng, shape, int(max(shape) / unit), 1)
        y = y + unit * 0.30 * smooth_noise(rng, shape, int(max(shape) / unit), 1)
    row = np.floor(y / np.float32(unit)).astype(np.int32)
    along = x / np.float32(unit * length) + row * np.float32(bond)
    column = np.floor(along).astype(np.int32)
    rows, columns = row - row.min(), column - column.min()
    tint = rng.normal(1, spread, (rows.max() + 1, columns.max() + 1, 1)) * rng.normal(1, 0.03, (1, 1, 3))
    image = colour * tint.astype(np.float32)[rows, columns]
    if kind == "banded":
        image[rows[:, 0] % 4 >= 2] *= np.array([0.72, 0.66, 0.74], np.float32)
    joint = np.abs(y / np.float32(unit) - row - np.float32(0.5)) * 2
    joint_x = np.abs(along - column - np.float32(0.5)) * 2
    mortar = (joint > 1 - gap) | (joint_x > 1 - gap / length)
    image[mortar] = image[mortar] * 0.45 + colour * (0.62 if kind == "brick" else 0.28)
    return image


def _joints(image, width, height):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    image[(y % height < 1.5) | (x % width < 1.5)] *= 0.8
    return image


def roof(rng: np.random.Generator, shape: tuple[int, int], colour, second, pattern: int, unit: float) -> np.ndarray:
    """Tiles of `unit` pixels; `pattern` 0 plain, 1 stripes, 2 lozenges, 3 chevrons in the second colour."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / max(unit, 2.0)
    row = np.floor(y).astype(np.int64)
    column = np.floor(x + 0.5 * (row % 2)).astype(np.int64)
    tint = rng.normal(1, 0.13, (row.max() + 1, column.max() + 1)).astype(np.float32)[row, column]
    image = np.asarray(colour, np.float32) * tint[..., None]
    period = int(rng.integers(5, 9))
    chosen = {
        0: np.zeros(shape, bool),
        1: row % period < 2,
        2: (column + row) % period * ((column - row) % period) < 4,
        3: (row + np.abs(column % (2 * period) - period)) % period < 2,
    }[pattern]
    image[chosen] = np.asarray(second, np.float32) * tint[chosen][:, None]
    image *= (0.78 + 0.3 * np.clip(y % 1, 0, 1))[..., None]
    image *= (1 + 0.08 * smooth_noise(rng, shape, 4))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def carve(image: np.ndarray, height_map: np.ndarray, x: int, y: int) -> None:
    """Presses a relief (uint8 [h, w], 255 = raised) into the texture at (x, y), lit from the upper left, in place."""
    patch, relief = _overlap(image, height_map, x, y)
    if not patch.size:
        return
    soft = cv2.GaussianBlur(relief, (0, 0), max(0.6, height_map.shape[0] / 70))
    slope = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3) + cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)
    factor = 1 - 0.34 * (1 - soft) + 0.16 * soft + 0.38 * slope
    patch[:] = np.clip(patch * factor[..., None], 0, 255).astype(np.uint8)


def _overlap(image, mask, x, y):
    """The part of the image below a mask uint8 at (x, y), and the mask there in 0..1; empty where they do not meet."""
    x0, y0 = max(x, 0), max(y, 0)
    patch = image[y0 : max(y + mask.shape[0], 0), x0 : max(x + mask.shape[1], 0)]
    height, width = patch.shape[:2]
    return patch, mask[y0 - y : y0 - y + height, x0 - x : x0 - x + width].astype(np.float32) / 255


def paint(image: np.ndarray, mask: np.ndarray, x: int, y: int, colours) -> None:
    """Paints a motif: its three height bands in three colours (background, middle, raised), in place."""
    patch, level = _overlap(image, mask, x, y)
    ground, middle, raised = (np.asarray(c, np.float32) for c in colours)
    low, high = np.clip(level * 2, 0, 1)[..., None], np.clip(level * 2 - 1, 0, 1)[..., None]
    patch[:] = np.clip((ground * (1 - low) + middle * low) * (1 - high) + raised * high, 0, 255)


@functools.lru_cache(maxsize=256)
def motif(code: int, size: int) -> np.ndarray:
    """The relief of motif `code`, uint8 [size, size]; depends only on the code. It is cached: do not write to it."""
    rng = np.random.default_rng([7919, code])
    image = np.zeros((size, size), np.uint8)
    draw = _MOTIFS[int(rng.integers(len(_MOTIFS)))]
    frame = int(rng.integers(4))
    draw(rng, image, size / 2, size * (0.47 if frame == 0 else 0.38))
    border = [(0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96)]
    if frame == 1:
        disc(image, size / 2, size / 2, size * 0.46, 255, size * 0.05)
    elif frame == 2:
        stroke(image, np.array(border) * size, 255, size * 0.06, closed=True)
    elif frame == 3:
        stroke(image, np.array([(0.5, 0.02), (0.98, 0.5), (0.5, 0.98), (0.02, 0.5)]) * size, 255, size * 0.05, True)
    return image


def _around(count, radius, centre, phase=0.0):
    angle = phase + np.arange(count) * 2 * np.pi / count
    return centre + radius * np.stack([np.sin(angle), -np.cos(angle)], 1)


def _rosette(rng, image, c, r):
    count, phase = int(rng.integers(4, 10)), rng.uniform(0, np.pi)
    for x, y in _around(count, r * rng.uniform(0.55, 0.68), c, phase):
        disc(image, x, y, r * 1.15 / count + r * 0.08, 220)
        disc(image, x, y, r * 0.5 / count, rng.choice([90, 0]))
    disc(image, c, c, r * rng.uniform(0.18, 0.36), 255)
    disc(image, c, c, r * rng.uniform(0.08, 0.15), 40)


def _star(rng, image, c, r):
    count, inner = int(rng.integers(4, 9)), rng.uniform(0.3, 0.6)
    corners = np.empty((2 * count, 2))
    corners[0::2], corners[1::2] = _around(count, r, c), _around(count, r * inner, c, np.pi / count)
    fill(image, corners, 230)
    fill(image, c + (corners - c) * rng.uniform(0.45, 0.7), rng.choice([0, 120]))
    disc(image, c, c, r * rng.uniform(0.1, 0.25), 255)


def _rings(rng, image, c, r):
    for k, part in enumerate(np.sort(rng.uniform(0.15, 0.8, int(rng.integers(1, 4))))):
        disc(image, c, c, r * part, 150 + 40 * (k % 2), r * 0.12)
    count = int(rng.integers(6, 17))
    for a, b in zip(_around(count, r * rng.uniform(0.3, 0.7), c), _around(count, r, c), strict=True):
        stroke(image, [a, b], 255, r * rng.uniform(0.08, 0.16))


def _shield(rng, image, c, r):
    outline = np.array([(-0.8, -0.9), (0.8, -0.9), (0.8, 0.1), (0.45, 0.65), (0, 1), (-0.45, 0.65), (-0.8, 0.1)])
    outline = outline * r + c
    fill(image, outline, 110)
    inside = np.zeros_like(image)
    division = int(rng.integers(5))
    if division in (0, 1):
        rectangle(inside, c - r, c - r, c, c, 255)
        rectangle(inside, c, c, c + r, c + r, 255)
    if division in (1, 2):
        stroke(inside, [(c - r, c - r * rng.uniform(0.2, 1)), (c + r, c + r * rng.uniform(0.2, 1))], 255, r * 0.3)
    if division in (2, 3):
        for part in rng.uniform(-0.7, 0.6, int(rng.integers(1, 4))):
            stroke(inside, [(c - r, c + part * r), (c + r, c + part * r)], 220, r * 0.16)
    if division in (3, 4):
        _star(rng, inside, c + r * rng.uniform(-0.2, 0.2), r * rng.uniform(0.3, 0.55))
    mask = np.zeros_like(image)
    fill(mask, outline, 255)
    np.maximum(image, np.minimum(inside, mask), out=image)
    stroke(image, outline, 255, r * 0.1, closed=True)


def _spiral(rng, image, c, r):
    turns, side, arms = rng.uniform(1.2, 2.6), rng.choice([-1, 1]), int(rng.integers(1, 4))
    t = np.linspace(0.06, 1, 60)
    for arm in range(arms):
        angle = side * t * turns * 2 * np.pi + arm * 2 * np.pi / arms
        curve = c + r * t[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        stroke(image, curve, 255, max(1.0, r * 0.3 / (arms * turns)))


def _knot(rng, image, c, r):
    a, b = rng.choice([1, 2, 3, 4, 5], 2, replace=False)
    t = np.linspace(0, 2 * np.pi, 120)
    phase = rng.uniform(0, np.pi)
    curve = c + r * 0.92 * np.stack([np.sin(a * t + phase), np.cos(b * t)], 1)
    stroke(image, curve, 120, r * 0.28, closed=True)
    stroke(image, curve, 255, r * 0.12, closed=True)


def _mosaic(rng, image, c, r):
    n = int(rng.integers(4, 8))
    bits = rng.choice([0, 128, 255], (n, n), p=[0.45, 0.2, 0.35]).astype(np.uint8)
    if rng.random() < 0.7:
        bits = np.maximum(bits, bits[:, ::-1])
    side = int(2 * r)
    start = int(c - r)
    image[start : start + side, start : start + side] = cv2.resize(bits, (side, side), interpolation=cv2.INTER_NEAREST)


def _beast(rng, image, c, r):
    """Mirrored blob with limbs: a heraldic eagle, lily or face, depending on the numbers."""
    count = int(rng.integers(5, 9))
    heights = np.linspace(-1, 1, count)
    widths = rng.uniform(0.1, 0.95, count)
    half = np.stack([widths, heights], 1) * r
    fill(image, np.concatenate([half, half[::-1] * (-1, 1)]) + c, 200)
    for _ in range(int(rng.integers(1, 4))):
        x, y, size = rng.uniform(0.1, 0.6) * r, rng.uniform(-0.7, 0.7) * r, rng.uniform(0.08, 0.2) * r
        value = rng.choice([0, 255])
        for side in (-1, 1):
            disc(image, c + side * x, c + y, size, value)
    stroke(image, [(c, c - r * rng.uniform(0, 1)), (c, c + r * rng.uniform(0.2, 1))], 255, r * 0.1)


def _glyph(rng, image, c, r):
    grid = np.stack(np.meshgrid([-0.8, 0, 0.8], [-0.9, -0.3, 0.3, 0.9]), -1).reshape(-1, 2)
    for _ in range(int(rng.integers(2, 4))):
        path = grid[rng.choice(12, int(rng.integers(2, 5)), replace=False)] * r + c
        stroke(image, path, 255, r * rng.uniform(0.16, 0.28))
    if rng.random() < 0.5:
        disc(image, c + rng.uniform(-0.5, 0.5) * r, c + rng.uniform(-0.5, 0.5) * r, r * 0.3, 180, r * 0.16)


def _cross(rng, image, c, r):
    arms, flare = int(rng.choice([3, 4, 4, 6, 8])), rng.uniform(0.1, 0.4)
    for x, y in _around(arms, r, c, rng.choice([0.0, np.pi / arms])):
        along = np.array([x - c, y - c])
        across = np.array([-along[1], along[0]])
        fill(image, [c + across * 0.08, c + along + across * flare, c + along - across * flare, c - across * 0.08], 230)
    disc(image, c, c, r * rng.uniform(0.15, 0.4), rng.choice([255, 120, 0]))


_MOTIFS = (_rosette, _star, _rings, _shield, _spiral, _knot, _mosaic, _beast, _glyph, _cross)


def lettering(rng: np.random.Generator, width: int, height: int, letters: int) -> np.ndarray:
    """A word of an invented script, uint8 [height, width], 255 = ink."""
    image = np.zeros((height, width), np.uint8)
    step = width / letters
    for k in range(letters):
        grid = np.stack(np.meshgrid([0.15, 0.45, 0.75], [0.15, 0.5, 0.85]), -1).reshape(-1, 2) * (step, height)
        for _ in range(int(rng.integers(1, 3))):
            path = grid[rng.choice(9, int(rng.integers(2, 5)), replace=False)] + (k * step, 0)
            stroke(image, path, 255, max(1.0, height * 0.11))
    return image
