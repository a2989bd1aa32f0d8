"""Styles of synthetic buildings, and what fills one bay of a wall: windows, niches, balconies, banners, ornaments.

A `Style` is what a family of look-alikes shares (palette, masonry, window kind, layout); `Details` are what only one
building has. Lengths in a style are in bays (1 bay = `PIXELS` pixels of a texture).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rrt.scenes import textures as tx

PIXELS = 88  # texture pixels per bay
FILLERS = ("medallion", "niche", "balcony", "mosaic", "banner", "plaque", "round", "blind", "shutters")


@dataclass(frozen=True)
class Style:
    """What look-alikes have in common. Colours are (blue, green, red)."""

    material: str
    wall: tuple
    trim: tuple
    roof: tuple
    roof_second: tuple
    glass: tuple
    accents: tuple  # three painted colours
    window: str  # rect, arched, pointed, twin
    hood: str  # none, triangle, segment, flat
    lattice: int  # 0..3 panes across
    course: float  # height of a course of stones, bays
    bays: int
    floors: int
    floor_height: float
    depth: float
    top: str  # shape of the building, see rrt/scenes/buildings.py
    pilasters: bool
    painted: bool  # ornaments painted rather than carved
    motifs: tuple = field(default=())  # shared pool of motif codes


@dataclass(frozen=True)
class Details:
    """What distinguishes a building from its look-alikes."""

    seed: tuple
    motifs: tuple
    changed: float  # share of bays that hold something other than the family's window


def random_style(rng: np.random.Generator, kinds) -> Style:
    """A family style; `kinds` lists the building shapes to draw from."""
    bases = [
        (118, 150, 178),
        (150, 178, 200),
        (165, 185, 195),
        (72, 96, 158),
        (62, 82, 138),
        (190, 205, 214),
        (128, 172, 208),
        (150, 160, 165),
        (120, 160, 190),
        (172, 160, 190),
        (150, 190, 175),
        (140, 140, 150),
        (196, 190, 176),
    ]
    base = tx.shade(bases[rng.integers(len(bases))], rng.uniform(0.8, 1.1)) + rng.normal(0, 7, 3)
    trims = [
        tx.shade(base, 1.35),
        tx.shade(base, 0.62),
        (205, 220, 228),
        (120, 150, 175),
        (80, 85, 95),
        (225, 232, 235),
    ]
    roofs = [(62, 72, 140), (92, 88, 84), (110, 130, 84), (60, 80, 110), (70, 62, 60), (120, 150, 120), (84, 100, 150)]
    accents = rng.uniform(30, 225, (3, 3))
    # Paint outdoors fades towards grey and towards the colour of the wall.
    accents = 0.55 * accents + 0.3 * accents.mean(1, keepdims=True) + 0.15 * base
    accents[0] *= 0.5
    return Style(
        material=str(rng.choice(tx.WALLS)),
        wall=tuple(np.clip(base, 30, 235)),
        trim=tuple(np.clip(trims[rng.integers(len(trims))], 25, 245)),
        roof=roofs[rng.integers(len(roofs))],
        roof_second=roofs[rng.integers(len(roofs))],
        glass=tuple(rng.uniform((45, 35, 25), (105, 85, 70))),
        accents=tuple(map(tuple, np.clip(accents, 0, 255).tolist())),
        window=str(rng.choice(["rect", "arched", "pointed", "twin"])),
        hood=str(rng.choice(["none", "triangle", "segment", "flat"])),
        lattice=int(rng.integers(0, 4)),
        course=float(rng.uniform(0.07, 0.16)),
        bays=int(rng.choice([3, 4, 5, 5])),
        floors=int(rng.choice([2, 2, 3])),
        floor_height=float(rng.uniform(1.05, 1.4)),
        depth=float(rng.uniform(1.6, 3.4)),
        top=str(rng.choice(kinds)),
        pilasters=bool(rng.random() < 0.5),
        painted=bool(rng.random() < 0.4),
        motifs=tuple(int(c) for c in rng.integers(1 << 30, size=8)),
    )


def outline(kind: str, x: float, y: float, width: float, height: float) -> np.ndarray:
    """Corners of an opening of the given kind in the rectangle with left upper corner (x, y)."""
    if kind == "round":
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        radius = min(width, height) / 2
        return np.stack([x + width / 2 + radius * np.cos(angle), y + height / 2 + radius * np.sin(angle)], 1)
    if kind in ("arched", "twin"):
        angle = np.linspace(np.pi, 2 * np.pi, 14)
        rise = min(width / 2, height / 2)
        top = np.stack([x + width / 2 + width / 2 * np.cos(angle), y + rise + rise * np.sin(angle)], 1)
    elif kind == "pointed":
        rise = min(width * 0.85, height * 0.6)
        t = np.linspace(0, 1, 8)
        left = np.stack([x + width / 2 * t**1.0, y + rise * (1 - t) ** 1.6], 1)
        top = np.concatenate([left, (left * (-1, 1) + (2 * x + width, 0))[::-1]])
    else:
        top = np.array([(x, y), (x + width, y)])
    return np.concatenate([top, [(x + width, y + height), (x, y + height)]])


def draw_window(image, style: Style, rng, x, y, width, height, kind=None, lattice=None) -> None:
    """A window with surround, recess, glass, panes, sill and hood inside the rectangle at (x, y), in place."""
    kind = kind or style.window
    lattice = style.lattice if lattice is None else lattice
    trim = np.array(style.trim)
    border = max(2.0, width * 0.13)
    surround = outline(kind, x - border, y - border, width + 2 * border, height + border)
    tx.fill(image, surround, trim)
    tx.stroke(image, surround, tx.shade(trim, 0.62), 1, True)
    tx.fill(image, outline(kind, x, y, width, height), tx.shade(style.glass, 0.45))
    glass = np.array(style.glass) * rng.uniform(0.75, 1.3)
    inset = outline(kind, x + width * 0.08, y + height * 0.06, width * 0.92, height * 0.94)
    tx.fill(image, inset, glass)
    if kind != "round":
        reflection = np.array([(0.15, 1), (0.85, 0.45), (1, 0.5), (1, 1)]) * (width, height) + (x, y)
        tx.fill(image, reflection, tx.shade(glass, 1.25))
    bar = tx.shade(trim, 0.9)
    thin = max(1.0, width * 0.06)
    for k in range(1, lattice + 1):
        at = x + width * k / (lattice + 1)
        tx.stroke(image, [(at, y + (height * 0.12 if kind != "rect" else 0)), (at, y + height)], bar, thin)
    for k in range(1, 1 + (lattice + 1) // 2 + (lattice > 2)):
        at = y + height * (0.2 + 0.75 * k / (2 + (lattice + 1) // 2))
        tx.stroke(image, [(x, at), (x + width, at)], bar, thin)
    if kind == "twin":
        tx.rectangle(image, x + width * 0.44, y, x + width * 0.56, y + height, trim)
        disc_y = y + width * 0.26
        tx.disc(image, x + width / 2, disc_y, width * 0.15, trim)
        tx.disc(image, x + width / 2, disc_y, width * 0.08, tx.shade(style.glass, 0.5))
    if kind == "round":
        return
    sill(image, trim, x - border * 1.4, x + width + border * 1.4, y + height, border)
    top = y - border * 1.5
    left, right = x - border * 1.6, x + width + border * 1.6
    if style.hood == "triangle":
        raised(image, [(left, top), (x + width / 2, top - width * 0.32), (right, top)], trim)
    elif style.hood == "segment":
        angle = np.linspace(np.pi, 2 * np.pi, 12)
        arc = np.stack([(right - left) / 2 * np.cos(angle), width * 0.28 * np.sin(angle)], 1)
        raised(image, arc + (x + width / 2, top), trim)
    elif style.hood == "flat":
        sill(image, trim, left, right, top - border, border)


def sill(image, colour, left, right, y, thickness):
    """A ledge from left to right below y (pixels) with its light edge and its shadow, drawn in place."""
    tx.rectangle(image, left, y + thickness, right, y + thickness * 1.7, tx.shade(colour, 0.42))
    tx.rectangle(image, left, y, right, y + thickness, colour)
    tx.rectangle(image, left, y, right, y + max(1, thickness * 0.3), tx.shade(colour, 1.18))


def raised(image, corners, colour):
    """A polygon [N, 2] (pixels) that stands out of the wall, drawn in place."""
    corners = np.asarray(corners, float)
    tx.fill(image, corners + (0, 2.5), tx.shade(colour, 0.42))
    tx.fill(image, corners, colour)
    tx.stroke(image, corners, tx.shade(colour, 0.68), 1, True)


def ornament(image, style: Style, code: int, x: float, y: float, size: float, painted=None) -> None:
    """Draws motif `code` in the square of `size` pixels at (x, y): carved, or painted in the family's colours."""
    drawing = tx.motif(code, max(6, round(size)))
    painted = style.painted if painted is None else painted
    if not painted:
        ground = tx.shade(style.trim, 0.80)
        tx.rectangle(image, x - 1, y - 1, x + size + 1, y + size + 1, ground)
        tx.carve(image, drawing, round(x), round(y))
        edge = [(x - 1, y - 1), (x + size, y - 1), (x + size, y + size), (x - 1, y + size)]
        tx.stroke(image, edge, tx.shade(ground, 0.6), 1, True)
        return
    order = np.random.default_rng([code, 3]).permutation(3)
    tx.paint(image, drawing, round(x), round(y), [style.accents[i] for i in order])


def fill_bay(image, style: Style, rng, what: str, code: int, x, y, width, height) -> None:
    """Fills the bay rectangle at (x, y) with `what` ("window" or one of FILLERS), in place."""
    cx = x + width / 2
    w, h = width * 0.46, height * 0.56
    wx, wy = cx - w / 2, y + height * 0.24
    if what in ("medallion", "mosaic"):
        size = min(width * 0.7, height * 0.66)
        ornament(image, style, code, cx - size / 2, y + (height - size) / 2, size, True if what == "mosaic" else None)
        return
    if what == "niche":
        _niche(image, style, rng, wx, wy, w, h)
        return
    if what == "blind":
        tx.fill(image, outline(style.window, wx, wy, w, h), tx.shade(style.wall, 0.68))
        ornament(image, style, code, wx + w * 0.12, wy + h * 0.3, w * 0.76)
        return
    if what == "round":
        tx.disc(image, cx, y + height * 0.5, width * 0.33, style.trim)
        size = width * 0.44
        draw_window(image, style, rng, cx - size / 2, y + height * 0.5 - size / 2, size, size, "round", 0)
        tracery(image, style, code, cx, y + height * 0.5, size * 0.5)
        return
    draw_window(image, style, rng, wx, wy, w, h)
    if what == "shutters":
        colour = style.accents[int(rng.integers(3))]
        for side in (wx - w * 0.52, wx + w * 1.04):
            tx.rectangle(image, side, wy, side + w * 0.48, wy + h, colour)
            for k in range(1, 7):
                tx.stroke(image, [(side, wy + h * k / 7), (side + w * 0.48, wy + h * k / 7)], tx.shade(colour, 0.6), 1)
    elif what == "balcony":
        _balcony(image, style, code, x + width * 0.1, wy + h * 0.62, width * 0.8, h * 0.46)
    elif what == "banner":
        left, right, top, hem = cx - width * 0.2, cx + width * 0.2, wy + h * 0.1, y + height * 0.9
        cloth = [(left, top), (right, top), (right, hem), (cx, hem + height * 0.08), (left, hem)]
        tx.fill(image, cloth, style.accents[code % 3])
        ornament(image, style, code, cx - width * 0.16, top + h * 0.15, width * 0.32, True)
    elif what == "plaque":
        board, ink, top, thick = style.accents[2], (235, 235, 235), y + height * 0.02, round(height * 0.17)
        tx.rectangle(image, x + width * 0.12, top, x + width * 0.88, top + thick, board)
        word = tx.lettering(rng, round(width * 0.7), thick, int(rng.integers(3, 6)))
        tx.paint(image, word, round(x + width * 0.15), round(top), [board, ink, ink])
    else:
        size = height * 0.17
        ornament(image, style, code, cx - size / 2, y + height * 0.015, size)


def _niche(image, style, rng, x, y, w, h):
    tx.fill(image, outline("arched", x - 3, y - 3, w + 6, h + 6), style.trim)
    tx.fill(image, outline("arched", x, y, w, h), tx.shade(style.wall, 0.42))
    stone = tx.shade(style.trim, 0.95)
    cx, lean = x + w / 2, rng.uniform(-0.1, 0.1) * w
    shoulders, hem = rng.uniform(0.2, 0.36) * w, rng.uniform(0.2, 0.42) * w
    neck, foot = y + h * 0.36, y + h
    robe = [(cx - shoulders, neck), (cx + shoulders, neck), (cx + hem + lean, foot), (cx - hem + lean, foot)]
    tx.fill(image, robe, stone)
    tx.disc(image, cx, y + h * 0.24, w * 0.14, tx.shade(stone, 1.08))
    for _ in range(int(rng.integers(1, 4))):
        x0, y0 = cx + rng.uniform(-0.4, 0.4) * w, y + rng.uniform(0.2, 0.6) * h
        tx.stroke(image, [(cx + lean, y + h * 0.5), (x0, y0)], tx.shade(stone, rng.uniform(0.6, 1.1)), w * 0.1)
    for k in np.linspace(-0.6, 0.6, int(rng.integers(2, 5))):
        tx.stroke(image, [(cx + k * shoulders, y + h * 0.45), (cx + k * hem + lean, y + h)], tx.shade(stone, 0.65), 1.5)


def tracery(image, style, code, cx, cy, radius):
    """A rose of petals about (cx, cy) in pixels, its kind by ``code``, drawn in place."""
    rng = np.random.default_rng([code, 5])
    petals, inner = int(rng.integers(3, 11)), rng.uniform(0.2, 0.5)
    for angle in np.arange(petals) * 2 * np.pi / petals + rng.uniform(0, 1):
        way = np.array([np.cos(angle), np.sin(angle)])
        tx.stroke(image, [way * radius * inner + (cx, cy), way * radius + (cx, cy)], style.trim, radius * 0.1)
        if petals < 7:
            x, y = way * radius * 0.68 + (cx, cy)
            tx.disc(image, x, y, radius * 0.2, style.accents[code % 3])
    tx.disc(image, cx, cy, radius * inner, style.trim, radius * 0.12)


def _balcony(image, style, code, x, y, w, h):
    rng = np.random.default_rng([code, 11])
    iron = (45, 42, 40) if rng.random() < 0.6 else style.trim
    tx.rectangle(image, x, y + h, x + w, y + h * 1.35, style.trim)
    tx.rectangle(image, x, y + h * 1.35, x + w, y + h * 1.6, tx.shade(style.wall, 0.45))
    bars, bend, cross = int(rng.integers(4, 10)), rng.uniform(-1, 1), rng.random() < 0.5
    for k in range(bars + 1):
        at = x + w * k / bars
        to = min(max(at + bend * w / bars, x), x + w)
        tx.stroke(image, [(at, y), (to, y + h)], iron, 1.6)
        if cross:
            tx.stroke(image, [(to, y), (at, y + h)], iron, 1.6)
    tx.stroke(image, [(x, y), (x + w, y)], iron, 3)
