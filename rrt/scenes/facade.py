"""Draws whole walls of a synthetic building: bays, entrance, centrepiece, pilasters, friezes, cornice."""

from __future__ import annotations

import cv2
import numpy as np

from rrt.scenes import textures as tx
from rrt.scenes.bays import FILLERS, PIXELS, Details, Style, fill_bay, ornament, outline, sill, tracery


def draw_wall(style: Style, details: Details, width: float, floors: int, face: int, central: bool) -> np.ndarray:
    """Texture of one wall, uint8 [floors * floor_height * PIXELS, width * PIXELS, 3].

    `face` is the number of the wall (0 front, 1 right, 2 left, more for towers); each wall has its own details. With
    `central` the middle bay has a door in the ground floor and a large ornament above it.
    """
    rng = np.random.default_rng([*details.seed, face])
    storey = round(style.floor_height * PIXELS)
    shape = (storey * floors, round(width * PIXELS))
    image = tx.wall(rng, style.material, shape, style.wall, style.course * PIXELS)
    bays = max(1, round(width))
    bay = shape[1] / bays
    variants = rng.choice(FILLERS, 3, replace=False)
    codes = rng.permutation(details.motifs)
    changed = rng.random((floors, bays)) < details.changed
    mirrored = rng.random() < 0.4
    for row in range(floors):
        y = shape[0] - (row + 1) * storey
        for column in range(bays):
            source = min(column, bays - 1 - column) if mirrored else column
            code = int(codes[(row * 3 + source) % len(codes)])
            what = str(variants[(row + source) % 3]) if changed[row, source] else "window"
            axis = central and abs(column - (bays - 1) / 2) < 0.6
            if axis and row == 0:
                what = "window"
            fill_bay(image, style, rng, what, code, column * bay, y, bay, storey)
        if row:
            _course(image, style, rng, details, y + storey, shape[1])
    if style.pilasters:
        for k in range(bays + 1):
            _pilaster(image, style, codes, k, min(max(k * bay, bay * 0.07), shape[1] - bay * 0.07), bay * 0.06)
    else:
        _quoins(image, style, shape, min(storey / 5, bay * 0.15))
    if central:
        _entrance(image, style, rng, codes, shape, bay, storey, floors)
    _cornice(image, style, rng, details, shape[1])
    tx.rectangle(image, 0, shape[0] - storey * 0.08, shape[1], shape[0], tx.shade(style.trim, 0.75))
    return image


def _course(image, style, rng, details, y, width):
    """A string course between two floors: a moulding, or a frieze of motifs in an order that only this building has."""
    height = PIXELS * 0.15
    if rng.random() < 0.45:
        tx.rectangle(image, 0, y - height / 2, width, y + height / 2, tx.shade(style.trim, 0.95))
        _frieze(image, style, rng, details, y - height / 2, height, width)
    sill(image, style.trim, 0, width, y + height / 2, 4)


def _frieze(image, style, rng, details, y, size, width):
    order = rng.choice(details.motifs, int(rng.integers(2, 5)))
    step = size * rng.uniform(1.15, 2.0)
    for k in range(int(width / step)):
        ornament(image, style, int(order[k % len(order)]), k * step + 2, y + 1, size - 2)


def _pilaster(image, style, codes, k, x, half):
    height = image.shape[0]
    tx.rectangle(image, x - half, 0, x + half, height, tx.shade(style.trim, 0.97))
    tx.rectangle(image, x + half * 0.5, 0, x + half, height, tx.shade(style.trim, 0.72))
    size = half * 3
    ornament(image, style, int(codes[k % len(codes)]), x - size / 2, PIXELS * 0.40, size, False)


def _quoins(image, style, shape, step):
    for k in range(int(shape[0] / step)):
        long = step * (1.3 if k % 2 else 0.8)
        for left, right in ((0, long), (shape[1] - long, shape[1])):
            stone = tx.shade(style.trim, 0.95 - 0.08 * (k % 2))
            tx.rectangle(image, left, k * step, right, (k + 1) * step - 1.5, stone)


def _entrance(image, style, rng, codes, shape, bay, storey, floors):
    cx, bottom = shape[1] / 2, shape[0]
    w, h = bay * rng.uniform(0.5, 0.74), storey * rng.uniform(0.74, 0.86)
    kind = str(rng.choice(["rect", "arched", "pointed"]))
    margin = bay * 0.13
    half = w / 2 + margin * 2
    tx.rectangle(image, cx - half, bottom - h - margin * 2.4, cx + half, bottom, tx.shade(style.wall, 1.03))
    tx.fill(image, outline(kind, cx - w / 2 - margin, bottom - h - margin, w + 2 * margin, h + margin), style.trim)
    tx.fill(image, outline(kind, cx - w / 2, bottom - h, w, h), tx.shade(style.trim, 0.3))
    leaf = np.array(style.accents[int(rng.integers(3))]) * 0.7
    head = h * 0.36
    tx.rectangle(image, cx - w * 0.45, bottom - h + head, cx + w * 0.45, bottom, leaf)
    rows, columns = int(rng.integers(1, 5)), int(rng.choice([2, 2, 4]))
    for i in range(rows):
        for j in range(columns):
            x0, y0 = cx - w * 0.45 + w * 0.9 * j / columns + 2, bottom - (h - head) * (i + 1) / rows + 2
            x1, y1 = x0 + w * 0.9 / columns - 4, y0 + (h - head) / rows - 4
            tx.rectangle(image, x0, y0, x1, y1, tx.shade(leaf, 1.5 if (i + j) % 2 else 0.6))
    size = min(w * 0.6, head * 0.95)
    ornament(image, style, int(codes[0]), cx - size / 2, bottom - h + (head - size) * 0.7, size)
    for side in (-1, 1):
        x = cx + side * (w / 2 + margin * 1.5)
        tx.rectangle(image, x - margin * 0.4, bottom - h * 0.85, x + margin * 0.4, bottom, tx.shade(style.trim, 1.06))
        tx.rectangle(image, x + margin * 0.1, bottom - h * 0.85, x + margin * 0.4, bottom, tx.shade(style.trim, 0.68))
        ornament(image, style, int(codes[1 if side < 0 else 2]), x - margin, bottom - h * 0.85 - margin * 2, margin * 2)
    if rng.random() < 0.7:
        _sign(image, style, rng, cx, bottom - h - margin * 2.3, bay)
    if floors > 1:
        size = min(bay * 0.86, storey * 0.8)
        _centrepiece(image, style, rng, int(codes[3]), cx, bottom - storey * 1.52, size)


def _sign(image, style, rng, cx, y, bay):
    width, height = round(bay * rng.uniform(0.9, 1.7)), round(PIXELS * rng.uniform(0.17, 0.24))
    board = style.accents[int(rng.integers(3))]
    tx.rectangle(image, cx - width / 2 - 3, y - height / 2 - 3, cx + width / 2 + 3, y + height / 2 + 3, board)
    ink = (240, 240, 240) if sum(board) < 380 else (25, 20, 20)
    word = tx.lettering(rng, width, height, int(rng.integers(4, 9)))
    tx.paint(image, word, round(cx - width / 2), round(y - height / 2), [board, ink, ink])


def _centrepiece(image, style, rng, code, cx, cy, size):
    kind = rng.choice(["rose", "relief", "clock"])
    if kind == "relief":
        ornament(image, style, code, cx - size / 2, cy - size / 2, size)
        return
    tx.disc(image, cx, cy, size * 0.52, tx.shade(style.trim, 0.6))
    tx.disc(image, cx, cy, size * 0.5, style.trim)
    if kind == "rose":
        tx.disc(image, cx, cy, size * 0.42, tx.shade(style.glass, 0.6))
        tracery(image, style, code, cx, cy, size * 0.42)
        return
    face = style.accents[code % 3]
    tx.disc(image, cx, cy, size * 0.42, face)
    ink = (240, 240, 240) if sum(face) < 380 else (20, 20, 20)
    marks = int(rng.choice([4, 8, 12]))
    for angle in np.arange(marks) * 2 * np.pi / marks:
        way = np.array([np.cos(angle), np.sin(angle)])
        tx.stroke(image, [way * size * 0.33 + (cx, cy), way * size * 0.4 + (cx, cy)], ink, size * 0.05)
    for length, angle in zip((0.2, 0.33), rng.uniform(0, 2 * np.pi, 2), strict=True):
        tip = (cx + size * length * np.cos(angle), cy + size * length * np.sin(angle))
        tx.stroke(image, [(cx, cy), tip], ink, size * 0.05)


def _cornice(image, style, rng, details, width):
    height = PIXELS * 0.22
    tx.rectangle(image, 0, 0, width, height, style.trim)
    _frieze(image, style, rng, details, height * 0.18, height * 0.74, width)
    step = PIXELS * rng.uniform(0.09, 0.18)
    for k in range(int(width / step) + 1):
        tx.rectangle(image, k * step, height, k * step + step * 0.55, height * 1.28, style.trim)
        tx.rectangle(image, k * step, height * 1.28, k * step + step * 0.55, height * 1.45, tx.shade(style.wall, 0.45))
    shaded = slice(round(height * 1.45), round(height * 2.2))
    image[shaded] = cv2.convertScaleAbs(image[shaded], alpha=0.78)
