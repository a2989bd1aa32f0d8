"""Synthetic buildings: a handful of textured planes in space, put together by shape, style and details.

World: x to the right along the front, y up, z out of the front towards the street; unit = one bay (about 3 metres);
the ground is y = 0 and the middle of the building's footprint is x = z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rrt.scenes.bays import Details, random_style
from rrt.scenes.parts import Parts

SHAPES = ("palace", "church", "temple", "domed", "townhall", "gate", "keep")


@dataclass(frozen=True)
class Building:
    """Faces with the bounding box of the whole: half width, height, half depth (bays)."""

    faces: list
    half_width: float
    height: float
    half_depth: float


def make_building(seed: int, split: int, family: int, member: int, shared: float) -> Building:
    """Member `member` of a family of look-alikes. The share `shared` of its motifs comes from the pool of the
    family."""
    style = random_style(np.random.default_rng([seed, split, family, 1]), SHAPES)
    rng = np.random.default_rng([seed, split, family, member, 2])
    count = 8
    from_pool = rng.permutation(style.motifs)[: round(count * shared)]
    own = rng.integers(1 << 30, size=count - len(from_pool))
    details = Details(
        (seed, split, family, member, 3),
        tuple(int(c) for c in np.concatenate([own, from_pool])),
        float(rng.uniform(0.3, 0.55)),
    )
    # The proportions of look-alikes differ by only a few percent, like those of houses in one street.
    style = replace(
        style,
        floor_height=style.floor_height * rng.uniform(0.96, 1.04),
        depth=style.depth * rng.uniform(0.93, 1.07),
        wall=tuple(np.clip(np.array(style.wall) * rng.uniform(0.96, 1.04, 3), 0, 255)),
    )
    return _Builder(style, details, np.random.default_rng([seed, split, family, 4]), rng).build()


class _Builder(Parts):
    """A shape that is put together from parts."""

    def build(self) -> Building:
        style = self.style
        getattr(self, f"_{style.top}")(style.bays / 2, style.depth / 2, style.floors * style.floor_height)
        corners = np.concatenate([face.corners for face in self.faces])
        low, high = corners.min(0), corners.max(0)
        return Building(self.faces, max(-low[0], high[0]), float(high[1]), max(-low[2], high[2]))

    # x and z are half the body's width and depth, y its height.

    def _palace(self, x, z, y):
        self._box(0, 0, x, z, 0, y, self.style.floors, central=True)
        style = self.family_rng.choice(["hip", "balustrade", "gable"])
        if style == "balustrade":
            self._parapet(x, z, y, "balustrade")
        else:
            self._hip(0, 0, x + 0.1, z + 0.1, y, self.family_rng.uniform(0.6, 1.2), 0.25 if style == "hip" else 0.9)
        if self.family_rng.random() < 0.6:
            self._front_gable(min(x, 1.1), z + 0.12, y, 0.7, "triangle")

    def _church(self, x, z, y):
        self._box(0, 0, x, z, 0, y, self.style.floors, central=True)
        rise = x * self.family_rng.uniform(0.8, 1.3)
        self._gable_roof(x, z, y, rise)
        self._front_gable(x, z + 0.01, y, rise, "triangle")
        towers, half = self.family_rng.choice([1, 2, 2]), self.family_rng.uniform(0.5, 0.65)
        top = y + self.family_rng.uniform(0.8, 2.2)
        for side in [-1, 1] if towers == 2 else [self.family_rng.choice([-1, 1])]:
            self._tower(side * (x + half * 0.8), z - half * 0.7, half, top, self.family_rng.uniform(1.4, 2.4), "spire")

    def _temple(self, x, z, y):
        self._box(0, 0, x, z, 0, y, self.style.floors, central=True)
        rise, out = x * self.family_rng.uniform(0.32, 0.5), self.family_rng.uniform(0.6, 1.0)
        self._columns(x, z + out, y, out)
        self._gable_roof(x + 0.1, z, y, rise, out)
        self._front_gable(x + 0.1, z + out + 0.02, y, rise, "triangle")

    def _domed(self, x, z, y):
        self._box(0, 0, x, z, 0, y, self.style.floors, central=True)
        self._parapet(x, z, y, str(self.family_rng.choice(["battlement", "balustrade"])))
        half = min(x, z, 1.5) * self.family_rng.uniform(0.65, 0.9)
        self._box(0, 0, half, half, y, y + 0.9, 1, plain=True)
        self._dome(0, 0, half * 1.15, y + 0.9, self.family_rng.choice(["round", "onion"]))
        if self.family_rng.random() < 0.7:
            thin, top = self.family_rng.uniform(0.22, 0.32), y + self.family_rng.uniform(1.0, 2.6)
            for side in (-1, 1):
                self._tower(side * (x + thin * 1.4), z - thin, thin, top, thin * 3.2, "dome")

    def _townhall(self, x, z, y):
        self._box(0, 0, x, z, 0, y, self.style.floors, central=True)
        kind = str(self.family_rng.choice(["stepped", "hip"]))
        rise = x * self.family_rng.uniform(0.6, 1.0)
        if kind == "stepped":
            self._gable_roof(x, z - 0.05, y, rise)
            self._front_gable(x, z + 0.01, y, rise * 1.12, "stepped")
        else:
            self._hip(0, 0, x + 0.1, z + 0.1, y, rise * 0.7, 0.3)
        half, at = self.family_rng.uniform(0.5, 0.75), self.family_rng.choice([-0.7, 0.0, 0.0, 0.7]) * x
        self._tower(
            at,
            -z * 0.2,
            half,
            y + rise + self.family_rng.uniform(0.8, 1.8),
            half * 2.2,
            str(self.family_rng.choice(["spire", "dome"])),
            base=y * 0.8,
        )

    def _gate(self, x, z, y):
        self._box(0, 0, x, z * 0.7, 0, y, self.style.floors, central=True)
        self._parapet(x, z * 0.7, y, "battlement")
        half = self.family_rng.uniform(0.5, 0.7)
        cap = str(self.family_rng.choice(["battlement", "spire", "dome"]))
        for side in (-1, 1):
            top = y * self.family_rng.uniform(1.1, 1.4)
            self._tower(side * (x + half * 0.6), z * 0.7 - half * 0.5, half, top, half * 1.8, cap)

    def _keep(self, x, z, y):
        self._box(0, 0, x, z, 0, y, self.style.floors, central=True)
        self._parapet(x, z, y, "battlement")
        half = x * self.family_rng.uniform(0.45, 0.7)
        self._box(0, -z * 0.2, half, z * 0.6, y, y + 1.3, 1)
        self._hip(0, -z * 0.2, half + 0.1, z * 0.6 + 0.1, y + 1.3, self.family_rng.uniform(0.6, 1.4), 0.6)
