"""Parts of synthetic buildings (walls, roofs, gables, towers, domes, columns) as textured planes in space.

World as in rrt/scenes/buildings.py: x to the right along the front, y up, z out of the front; unit = one bay.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from rrt.scenes import textures as tx
from rrt.scenes.augment import pyramid
from rrt.scenes.bays import PIXELS, Details, Style, ornament, sill
from rrt.scenes.facade import draw_wall


@dataclass(frozen=True)
class Face:
    """A textured rectangle in space; texels with an alpha below one half are transparent.

    corner: left upper corner of the texture; right, down: its edges, world units [3]. levels: pyramid of the texture,
    uint8 [h, w, 4]. A billboard turns about its vertical middle line to face the camera.
    """

    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray
    levels: list
    billboard: bool = False

    @functools.cached_property
    def normal(self) -> np.ndarray:
        """Outward unit normal [3]."""
        (a, b, c), (d, e, f) = self.down.tolist(), self.right.tolist()
        normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d])
        return normal / np.sqrt(normal @ normal)

    @functools.cached_property
    def corners(self) -> np.ndarray:
        """The four corners [4, 3] in the order left upper, right upper, right lower, left lower."""
        far = self.corner + self.right
        return np.stack([self.corner, far, far + self.down, self.corner + self.down])


class Parts:
    """Collects faces. `family_rng` decides what look-alikes share (towers, roofs), `rng` what only this building has.

    Parts that have an axis stand at the vertical line (cx, cz); x and z are half a width and half a depth.
    """

    def __init__(self, style: Style, details: Details, family_rng, rng):
        self.style, self.details, self.family_rng, self.rng = style, details, family_rng, rng
        self.faces: list[Face] = []
        self.next_wall = 0

    def _add(self, corner, right, down, texture, billboard=False):
        if texture.shape[2] == 3:
            texture = np.dstack([texture, np.full(texture.shape[:2], 255, np.uint8)])
        corner, right, down = (np.asarray(v, float) for v in (corner, right, down))
        self.faces.append(Face(corner, right, down, pyramid(texture), billboard))

    def _box(self, cx, cz, x, z, y0, y1, floors, central=False, plain=False):
        style = replace(self.style, floor_height=(y1 - y0) / floors)
        details = replace(self.details, changed=0.8) if plain else self.details
        height = (0, y0 - y1, 0)
        walls = [
            ((cx - x, y1, cz + z), (2 * x, 0, 0), 2 * x, central),
            ((cx + x, y1, cz + z), (0, 0, -2 * z), 2 * z, False),
            ((cx - x, y1, cz - z), (0, 0, 2 * z), 2 * z, False),
        ]
        for corner, right, width, door in walls:
            self._add(corner, right, height, draw_wall(style, details, width, floors, self.next_wall, door))
            self.next_wall += 1

    def _roof_texture(self, width, height):
        style = self.style
        shape = (max(16, round(height * PIXELS * 0.6)), max(16, round(width * PIXELS * 0.6)))
        pattern = int(np.random.default_rng([*self.details.seed, 9]).integers(4))
        return tx.roof(self.rng, shape, style.roof, style.roof_second, pattern, PIXELS * 0.055)

    def _cut(self, texture, corners):
        """Keeps a polygon (in parts of the texture's width and height) and makes the rest transparent."""
        alpha = np.zeros(texture.shape[:2], np.uint8)
        tx.fill(alpha, np.asarray(corners) * (texture.shape[1], texture.shape[0]), 255)
        return np.dstack([texture, alpha])

    def _gable_roof(self, x, z, y, rise, out=0.0):
        """Two slopes with a ridge from front to back; the eaves and the front extend 0.12 beyond the walls."""
        over = 0.12
        length, drop = 2 * z + out + over, rise * (1 + over / x)
        texture = self._roof_texture(length, np.hypot(x, rise))
        self._add((0, y + rise, z + out + over), (0, 0, -length), (x + over, -drop, 0), texture)
        self._add((0, y + rise, -z), (0, 0, length), (-x - over, -drop, 0), texture)

    def _hip(self, cx, cz, x, z, y, rise, ridge):
        """A hipped roof; `ridge` is the length of the ridge as a share of the width (0 = pyramid)."""
        inset = (1 - ridge) / 2
        front = self._roof_texture(2 * x, np.hypot(z, rise))
        self._add(
            (cx - x, y + rise, cz),
            (2 * x, 0, 0),
            (0, -rise, z),
            self._cut(front, [(inset, 0), (1 - inset, 0), (1, 1), (0, 1)]),
        )
        reach = x - ridge * x
        side = self._cut(self._roof_texture(2 * z, np.hypot(reach, rise)), [(0.5, 0), (1, 1), (0, 1)])
        self._add((cx + x - reach, y + rise, cz + z), (0, 0, -2 * z), (reach, -rise, 0), side)
        self._add((cx - x + reach, y + rise, cz - z), (0, 0, 2 * z), (-reach, -rise, 0), side)

    def _front_gable(self, x, z, y, rise, kind):
        style = self.style
        width, height = round(2 * x * PIXELS), max(20, round(rise * PIXELS))
        rng = np.random.default_rng([*self.details.seed, 50])
        texture = tx.wall(rng, style.material, (height, width), style.wall, style.course * PIXELS)
        size = min(width * 0.3, height * 0.55)
        code = int(rng.choice(self.details.motifs))
        ornament(texture, style, code, width / 2 - size / 2, height * 0.92 - size, size)
        if width > 2.5 * height:
            for side in (-1, 1):
                small, middle = size * 0.6, width / 2 + side * size * 1.15
                code = int(rng.choice(self.details.motifs))
                ornament(texture, style, code, middle - small / 2, height * 0.92 - small, small)
        corners = [(0, 1), (0.5, 0), (1, 1)]
        if kind == "stepped":
            steps = 4
            left = [(0.5 * (k + d) / steps, 1 - (k + 1) / steps) for k in range(steps) for d in (0, 0.999)]
            left = [(0.0, 1.0), *left]
            corners = left + [(1 - a, b) for a, b in left[::-1]]
        edge = np.array(corners) * (width, height)
        tx.stroke(texture, edge, style.trim, PIXELS * 0.14)
        tx.stroke(texture, edge, tx.shade(style.trim, 0.6), 2)
        sill(texture, style.trim, 0, width, height - PIXELS * 0.12, PIXELS * 0.09)
        self._add((-x, y + rise, z), (2 * x, 0, 0), (0, -rise, 0), self._cut(texture, corners))

    def _parapet(self, x, z, y, kind):
        """A rim around a flat roof."""
        height = 0.36
        flat = tx.shade(self._roof_texture(2 * x, 2 * z), 0.7).astype(np.uint8)
        self._add((-x, y, -z), (2 * x, 0, 0), (0, 0, 2 * z), flat)
        self._rims(0, 0, x, z, y, height, kind)

    def _rims(self, cx, cz, x, z, y, height, kind):
        top = y + height
        for corner, right in [
            ((cx - x, top, cz + z), (2 * x, 0, 0)),
            ((cx + x, top, cz + z), (0, 0, -2 * z)),
            ((cx - x, top, cz - z), (0, 0, 2 * z)),
        ]:
            self._add(corner, right, (0, -height, 0), self._rim(max(np.abs(right)), height, kind))

    def _rim(self, width, height, kind):
        w, h = round(width * PIXELS), round(height * PIXELS)
        texture = np.empty((h, w, 4), np.uint8)
        texture[..., :3] = tx.wall(self.rng, self.style.material, (h, w), self.style.wall, self.style.course * PIXELS)
        texture[..., 3] = 255
        count = max(2, round(width / (0.45 if kind == "battlement" else 0.16)))
        for k in range(count):
            left, right = round((k + 0.3) * w / count), round((k + 0.8) * w / count)
            if kind == "battlement":
                texture[: round(h * 0.55), left:right, 3] = 0
            else:
                texture[round(h * 0.25) : round(h * 0.85), left:right, 3] = 0
        if kind == "balustrade":
            texture[: round(h * 0.22), :, :3] = self.style.trim
        return texture

    def _tower(self, cx, cz, half, top, cap_height, cap, base=0.0):
        floors = max(1, round((top - base) / self.style.floor_height))
        self._box(cx, cz, half, half, base, top, floors, plain=True)
        if cap == "spire":
            self._hip(cx, cz, half * 1.12, half * 1.12, top, cap_height, 0.0)
        elif cap == "dome":
            self._dome(cx, cz, half * 1.1, top, "onion")
        else:
            self._rims(cx, cz, half, half, top, 0.3, "battlement")

    def _dome(self, cx, cz, radius, y, kind):
        """A dome, drawn as a billboard with ribs and a lantern because it looks the same from all sides."""
        rise = radius * (1.15 if kind == "round" else 1.7)
        w, h = max(24, round(2 * radius * PIXELS)), max(24, round(rise * PIXELS))
        t = np.linspace(0, 1, 24)
        profile = np.sqrt(1 - t**2)
        if kind == "onion":
            profile = np.cos(t**0.75 * np.pi / 2) ** 0.8 * (1 + 0.35 * np.sin(np.pi * t) * (1 - t))
        profile = np.minimum(profile / max(profile.max(), 1), 1) * 0.48
        heights = 1 - t * 0.84
        texture = tx.roof(self.rng, (h, w), self.style.roof, self.style.roof_second, 0, PIXELS * 0.05)
        ribs = int(np.random.default_rng([*self.details.seed, 60]).integers(3, 8))
        for k in range(1, ribs):
            bend = np.cos(np.pi * k / ribs)
            line = np.stack([0.5 + bend * profile, heights], 1) * (w, h)
            tx.stroke(texture, line, self.style.roof_second, max(1, w * 0.025))
        # Round bodies darken towards their edges. A billboard is not shaded, so its texture is.
        texture[:] = texture * (1 - 0.45 * np.abs(np.linspace(-1, 1, w)) ** 3)[None, :, None]
        edge = np.concatenate([np.stack([0.5 - profile, heights], 1), np.stack([0.5 + profile, heights], 1)[::-1]])
        cut = self._cut(texture, edge)
        lantern = np.array([(0.47, 0.0), (0.53, 0.0), (0.53, 0.2), (0.47, 0.2)]) * (w, h)
        tx.fill(cut, lantern, (*self.style.accents[1], 255))
        self._add((cx - radius, y + rise, cz), (2 * radius, 0, 0), (0, -rise, 0), cut, billboard=True)

    def _columns(self, x, z, y, out):
        """A row of columns in front of the wall, with the beam above; the wall seen between them shifts with the
        view."""
        style = self.style
        w, h = round(2 * x * PIXELS), round(y * PIXELS)
        texture = np.zeros((h, w, 4), np.uint8)
        texture[..., :3] = style.trim
        count = style.bays + 1
        radius = PIXELS * self.family_rng.uniform(0.12, 0.18)
        beam, base = round(PIXELS * 0.45), round(PIXELS * 0.14)
        texture[:beam, :, 3] = 255
        for k in range(count):
            at = radius * 1.3 + (w - 2.6 * radius) * k / (count - 1)
            left, right = round(at - radius), round(at + radius)
            across = np.linspace(-1, 1, right - left)
            light = 0.55 + 0.5 * np.sqrt(np.clip(1 - (across + 0.25) ** 2 / 1.6, 0, 1))
            light -= 0.10 * (np.cos(across * 16) > 0.5)
            texture[beam:, left:right, :3] = np.clip(np.array(style.trim) * light[None, :, None], 0, 255)
            texture[beam:, left:right, 3] = 255
            stone = (*tx.shade(style.trim, 0.88), 255)
            for y0, y1 in ((beam, beam + base), (h - base, h)):
                tx.rectangle(texture, at - radius * 1.35, y0, at + radius * 1.35, y1, stone)
        front = np.ascontiguousarray(texture[..., :3])
        rng = np.random.default_rng([*self.details.seed, 70])
        order = rng.choice(self.details.motifs, int(rng.integers(2, 5)))
        size, step = beam * 0.62, beam * rng.uniform(0.8, 1.6)
        for k in range(int(w / step)):
            ornament(front, style, int(order[k % len(order)]), k * step + 3, beam * 0.18, size)
        texture[..., :3] = front
        self._add((-x, y, z), (2 * x, 0, 0), (0, -y, 0), texture)
        for sign in (-1, 1):
            post = texture[:, : round(2.6 * radius)]
            thick = 2.6 * radius / PIXELS
            right = (0, 0, -thick) if sign > 0 else (0, 0, thick)
            self._add((sign * x, y, z if sign > 0 else z - thick), right, (0, -y, 0), post)
        beam_side = np.full((beam, max(12, round(out * PIXELS)), 3), style.trim, np.uint8)
        self._add((x, y, z), (0, 0, -out), (0, -beam / PIXELS, 0), beam_side)
        self._add((-x, y, z - out), (0, 0, out), (0, -beam / PIXELS, 0), beam_side)
