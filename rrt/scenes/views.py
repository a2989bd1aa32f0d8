"""One image of a synthetic building: the camera's position, light, surroundings, and which part of the building is
seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rrt.scenes.augment import blend, camera_effects, jpeg_bytes
from rrt.scenes.backdrop import draw_backdrop, ground_shadow, occluders, random_light
from rrt.scenes.buildings import Building
from rrt.scenes.camera import Camera, look_at, render, turned, visible_faces, visible_share

SUPERSAMPLING = 2
EASY_ANGLE, EASY_SCALE, EASY_SHARE = 30.0, 1.7, 0.6
JUNK_SHARE, JUNK_COVER = 0.2, 0.02


@dataclass(frozen=True)
class View:
    """What is known about an image.

    size: width, height in pixels. box: x1, y1, x2, y2 of the first and last columns and rows that show the building
    (before occluders). position: of the camera, from the building's middle (bays). pixels_per_bay: at that middle.
    share: part of the building's surface turned to the camera that is in the image and not hidden. cover: part of the
    image that shows the building.
    """

    size: tuple
    box: tuple
    position: tuple
    pixels_per_bay: float
    share: float
    cover: float


def grade(query: View, other: View) -> str:
    """ "easy", "hard" or "junk": how `other` counts as a positive of `query`, two images of one building.

    junk: less than 20 % of the building's surface or 2 % of the image is left to recognise it by.
    easy: viewing directions at most 30 degrees apart, apparent sizes within a factor of 1.7, and at least 60 % of the
    surface turned to the camera seen. hard: everything else (turned far, much larger or smaller, cut off or hidden).
    """
    if other.share < JUNK_SHARE or other.cover < JUNK_COVER:
        return "junk"
    near = viewing_angle(query, other) <= EASY_ANGLE and scale_ratio(query, other) <= EASY_SCALE
    return "easy" if near and other.share >= EASY_SHARE else "hard"


def viewing_angle(a: View, b: View) -> float:
    """Degrees between the directions from which two images see the building's middle."""
    p, q = np.array(a.position), np.array(b.position)
    return float(np.degrees(np.arccos(np.clip(p @ q / (np.linalg.norm(p) * np.linalg.norm(q)), -1, 1))))


def scale_ratio(a: View, b: View) -> float:
    """How many times larger the building appears in one image than in the other: at least 1."""
    ratio = a.pixels_per_bay / b.pixels_per_bay
    return float(max(ratio, 1 / ratio))


def draw_view(
    building: Building, rng: np.random.Generator, kind: str, size: int, difficulty: float
) -> tuple[bytes, View]:
    """Renders an image with longest side `size`, and returns the bytes of its JPEG and what is known about it.

    kind: "query" (moderate view, whole building, little in front of it), "view" (anything) or "gallery" (anything,
    sometimes almost nothing of the building). A higher difficulty (0..1) widens the range of viewpoints, light and
    occlusion.
    """
    camera = _place_camera(building, rng, kind, size, difficulty)
    strength = difficulty * (0.8 if kind == "query" else 1.2)
    light = random_light(rng, min(strength, 1.0))
    image = draw_backdrop(rng, camera, light)
    ground_shadow(image, camera, light, building.half_width, building.half_depth, building.height)
    faces = visible_faces(building, camera)
    colour, shown = render(faces, camera.scaled(SUPERSAMPLING), light.sun, light.ambient, light.direct)
    alpha = cv2.resize(shown.astype(np.float32), camera.size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(colour, camera.size, interpolation=cv2.INTER_AREA)
    # The colours outside the building are zero, so the average over a pixel is already weighted by coverage.
    image = cv2.add(blend(image, np.zeros_like(image), alpha), small)
    solid = alpha > 0.5
    box = _bounding_box(solid)
    count = int(rng.poisson((0.6 if kind == "query" else 3.0) * difficulty))
    hidden = occluders(rng, image, box, count, light) if count else np.zeros_like(solid)
    seen = solid & ~hidden
    image = camera_effects(rng, image, min(strength * 1.2, 1.0))
    quality = int(rng.integers(round(88 - 50 * difficulty), 94))
    middle = np.array([0, building.height / 2, 0])
    away = camera.position - middle
    view = View(
        camera.size,
        box,
        tuple(float(v) for v in away),
        float(camera.focal / np.linalg.norm(away)),
        visible_share(faces, camera, seen),
        float(seen.mean()),
    )
    return jpeg_bytes(image, quality), view


def _place_camera(building: Building, rng, kind, size, difficulty) -> Camera:
    tall = building.height > 1.5 * building.half_width
    portrait = rng.random() < (0.65 if tall else 0.2)
    short = round(size * rng.choice([0.75, 0.75, 0.6667, 0.8]))
    frame = (short, size) if portrait else (size, short)
    widest = np.radians((20 + 20 * difficulty) if kind == "query" else (30 + 60 * difficulty))
    azimuth = rng.uniform(-widest, widest)
    reach = max(building.half_width, building.half_depth, building.height / 2) + building.half_depth
    fill, offset = _framing(rng, kind, difficulty)
    # A building that is small in the image is far away, not seen at a wide angle.
    distance = reach * 2.0 ** rng.uniform(0.6, 1.8) / min(1.0, fill / 0.5)
    street = rng.random() < 0.6
    rise = rng.uniform(0.3, 0.8) if street else distance * np.tan(np.radians(rng.uniform(4, 10 + 26 * difficulty)))
    position = np.array([np.sin(azimuth) * distance, max(rise, 0.3), np.cos(azimuth) * distance])
    roll = np.radians(rng.normal(0, 1 + 6 * difficulty))
    camera = look_at(position, (0, building.height / 2, 0), roll, size, frame)
    # The size and the position that the building shall have determine the focal length and the middle of the image.
    low, high = _extent(building, camera)
    focal = size * fill / max((high - low) / frame)
    camera = look_at(position, (0, building.height / 2, 0), roll, focal, frame)
    low, high = _extent(building, camera)
    room = np.abs(np.array(frame) - (high - low)) / 2
    shift = (np.array(frame) - 1) / 2 - (low + high) / 2 + offset * room
    return look_at(position, (0, building.height / 2, 0), roll, focal, frame, shift)


def _framing(rng, kind, difficulty):
    """Share of the image's side that the building fills, and its position, -1 (left, top) to 1 (right, bottom)."""
    offset = rng.uniform(-0.8, 0.8, 2)
    if kind == "query":
        return rng.uniform(0.62, 0.9), offset * 0.8
    way = rng.random()
    if way < 0.05 and kind == "gallery":  # almost nothing of it: far away
        return rng.uniform(0.10, 0.16), offset
    if way < 0.05 + 0.3 * difficulty:  # a detail
        return rng.uniform(1.1, 1.1 + 1.4 * difficulty), offset
    if way < 0.10 + 0.55 * difficulty:  # one building among others
        return rng.uniform(0.64 - 0.36 * difficulty, 0.64), offset
    return rng.uniform(0.6, 1.05), offset


def _extent(building: Building, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    pixels, _ = camera.project(np.concatenate([turned(face, camera).corners for face in building.faces]))
    return pixels.min(0), pixels.max(0)


def _bounding_box(mask: np.ndarray) -> tuple:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return tuple(float(v) for v in (columns[0], rows[0], columns[-1], rows[-1]))
