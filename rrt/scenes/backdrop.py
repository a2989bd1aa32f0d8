"""The surroundings of a synthetic building: light, sky, far hills and houses, ground, and occluders in front of it.

They are drawn independently for each image, so that landmarks differ only by the building.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rrt.scenes import textures as tx
from rrt.scenes.augment import blend, pyramid, smooth_noise, warp_antialiased
from rrt.scenes.camera import Camera

_SCALE = 130  # backdrop texels for a unit of tan(angle)
_REACH, _UP, _DOWN = 1.7, 1.8, 0.7  # tan of the backdrop's extent sideways, up and down


@dataclass(frozen=True)
class Light:
    """sun: unit direction towards it. ambient, direct: colour factors [3]. zenith, horizon: sky colours [3]."""

    sun: np.ndarray
    ambient: np.ndarray
    direct: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray


def random_light(rng: np.random.Generator, strength: float) -> Light:
    """A time of day. A higher `strength` (0..1) makes dusk, hard sun and light from behind more probable."""
    azimuth, height = rng.uniform(-1.4, 1.4) * (0.6 + 0.6 * strength), rng.uniform(0.25, 1.2)
    sun = np.array([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)])
    chances = [0.5 - 0.1 * strength, 0.3, 0.15, 0.05 + 0.1 * strength]
    mood = rng.choice(["clear", "overcast", "golden", "dusk"], p=chances)
    jitter = 1 + rng.normal(0, 0.06, (2, 3))
    ambient, direct, zenith, horizon = {
        "clear": ((0.62, 0.55, 0.50), (0.42, 0.52, 0.56), (205, 140, 80), (235, 215, 195)),
        "overcast": ((0.78, 0.78, 0.78), (0.16, 0.17, 0.17), (190, 185, 180), (215, 213, 210)),
        "golden": ((0.50, 0.46, 0.46), (0.30, 0.52, 0.70), (190, 150, 110), (150, 195, 240)),
        "dusk": ((0.48, 0.36, 0.32), (0.10, 0.18, 0.26), (90, 50, 35), (120, 110, 150)),
    }[str(mood)]
    return Light(
        sun,
        np.array(ambient) * jitter[0],
        np.array(direct) * jitter[0] * rng.uniform(0.7, 1.3),
        np.array(zenith) * jitter[1],
        np.array(horizon) * jitter[1],
    )


def draw_backdrop(rng: np.random.Generator, camera: Camera, light: Light) -> np.ndarray:
    """Sky, far scenery and ground as the camera sees them, uint8 [H, W, 3]."""
    far = _far_scenery(rng, light)
    forward = camera.rotation[2] * (1, 0, 1)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 1.0, 0))
    kr = camera.matrix()
    corner = forward - _REACH * right + np.array([0, _UP, 0])
    homography = np.stack([kr @ right / _SCALE, kr @ (0, -1 / _SCALE, 0), kr @ corner], 1)
    image = cv2.warpPerspective(far, homography, camera.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return _add_ground(rng, image, camera, light)


def _far_scenery(rng, light):
    height, width = round((_UP + _DOWN) * _SCALE), round(2 * _REACH * _SCALE)
    line = round(_UP * _SCALE)
    image = cv2.resize(_sky(rng, light, (height // 2, width // 2), line // 2), (width, height))
    dim = light.ambient + 0.4 * light.direct
    for depth in range(int(rng.integers(0, 3))):
        ridge = smooth_noise(rng, (2, width), int(rng.integers(3, 9)), 3)[0]
        top = line - _SCALE * (rng.uniform(0.02, 0.3) + 0.12 * ridge)
        colour = np.array([120, 130, 110]) * rng.uniform(0.6, 1.1, 3) * dim * (0.9 - 0.25 * depth)
        tx.fill(image, [(0, height), *zip(range(width), top, strict=True), (width, height)], np.clip(colour, 0, 255))
    kind = rng.choice(["open", "town", "trees", "both"])
    if kind in ("town", "both"):
        _far_houses(rng, image, line, dim)
    if kind in ("trees", "both"):
        for x in np.cumsum(rng.uniform(6, 60, 24)):
            radius = rng.uniform(8, 34)
            _foliage(rng, image, x, line - 0.7 * radius, radius, dim, 12)
    return image


def _sky(rng, light, shape, line):
    """Colour from the zenith down to row `line`, the horizon, with clouds."""
    t = np.clip(np.arange(shape[0]) / line, 0, 1)[:, None, None] ** 1.5
    sky = np.clip(light.zenith * (1 - t) + light.horizon * t, 0, 255).astype(np.uint8)
    clouds = smooth_noise(rng, shape, int(rng.integers(3, 7)), 3)
    cover = np.clip(clouds * rng.uniform(0.6, 2.2) - rng.uniform(-0.2, 0.7), 0, 0.9)
    white = np.clip(light.horizon * 0.5 + 120 * (0.4 + light.ambient.mean()), 0, 255).astype(np.uint8)
    return blend(np.repeat(sky, shape[1], 1), np.full((*shape, 3), white), cover)


def _far_houses(rng, image, line, dim):
    x, width = 0.0, image.shape[1]
    while x < width:
        w, h = rng.uniform(14, 60), rng.uniform(8, 60) * rng.choice([0.5, 1, 1.6])
        colour = (rng.uniform(70, 190) + rng.uniform(-25, 25, 3)) * dim
        tx.rectangle(image, x, line - h, x + w, line + 3, colour)
        if rng.random() < 0.5:
            tx.fill(image, [(x - 2, line - h), (x + w / 2, line - h - w * 0.3), (x + w + 2, line - h)], colour * 0.6)
        step = rng.uniform(6, 11)
        for row in np.arange(line - h + 4, line - 4, step):
            for column in np.arange(x + 3, x + w - 3, step * 0.8):
                tx.rectangle(image, column, row, column + step * 0.35, row + step * 0.55, colour * 0.5)
        x += w + rng.choice([0, 0, 20, 60])


def _add_ground(rng, image, camera, light):
    tile = _ground_tile(rng)
    kr, texel = camera.matrix(), 4.0 / tile.shape[0]  # the tile repeats every four bays
    homography = np.stack([kr @ (texel, 0, 0), kr @ (0, 0, texel), kr @ -camera.position], 1)
    inverse = np.linalg.inv(homography).astype(np.float32)
    width, height = camera.size
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    # The third row of the inverse gives 1 / depth on the ground plane; it is positive below the horizon only.
    nearness = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
    dim = np.clip(light.ambient + light.direct * light.sun[1], 0, 1.3)
    levels = pyramid(tile, 3, 32)
    level = levels[1 if nearness.max() > 0.12 else 2]
    fit = np.diag([tile.shape[1] / level.shape[1], tile.shape[0] / level.shape[0], 1.0])
    ground = cv2.warpPerspective(
        level, homography @ fit, camera.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    mean = tile.reshape(-1, 3).mean(0)
    haze = np.broadcast_to(np.clip(mean * 0.75 + light.horizon * 0.2, 0, 255).astype(np.uint8), ground.shape)
    ground = blend(np.ascontiguousarray(haze), ground, np.clip(nearness * 9 - 0.25, 0, 1))
    table = np.clip(np.arange(256)[:, None] * dim, 0, 255).astype(np.uint8)
    return blend(image, cv2.LUT(ground, table[None]), np.clip(nearness * 400, 0, 1))


def _ground_tile(rng):
    size = 192
    colours = {"grass": (60, 120, 95), "paving": (150, 158, 165), "asphalt": (105, 105, 105), "gravel": (130, 150, 165)}
    kind = str(rng.choice(list(colours)))
    base = np.array(colours[kind]) * rng.uniform(0.75, 1.2) + rng.normal(0, 8, 3)
    image = np.broadcast_to(base, (size, size, 3)).astype(np.float32)
    image = image * (1 + (0.2 if kind == "grass" else 0.1) * rng.standard_normal((size, size, 1), np.float32))
    if kind == "paving":
        step = int(rng.choice([12, 16, 24, 32]))
        tint = rng.normal(1, 0.07, (size // step, size // step)).astype(np.float32)
        image *= np.kron(tint, np.ones((step, step), np.float32))[..., None] if size % step == 0 else 1
        image[::step] *= 0.7
        image[:, ::step] *= 0.7
    return np.clip(image, 0, 255).astype(np.uint8)


def ground_shadow(
    image: np.ndarray, camera: Camera, light: Light, half_width: float, half_depth: float, height: float
) -> None:
    """Darkens, in place, the ground in the shadow of the building's block."""
    strength = float(np.clip(light.direct.mean(), 0, 0.6))
    length = np.minimum(1 / max(light.sun[1], 0.2), 3.0) * height * 0.8
    base = np.array([(x, 0, z) for x in (-half_width, half_width) for z in (-half_depth, half_depth)])
    thrown = base - length * np.array([light.sun[0], 0, light.sun[2]])
    pixels, depth = camera.project(np.concatenate([base, thrown]))
    if depth.min() < 0.2:
        return
    hull = cv2.convexHull(pixels.astype(np.float32)).reshape(-1, 2)
    mask = np.zeros(image.shape[:2], np.uint8)
    tx.fill(mask, np.clip(hull, -4000, 4000), 255)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5).astype(np.float32) / 255
    image[:] = image * (1 - 0.9 * strength * mask)[..., None]


def occluders(rng: np.random.Generator, image: np.ndarray, box, count: int, light: Light) -> np.ndarray:
    """Draws `count` trees, people, cars, poles or posters into the image, in place, mostly in front of `box` (x0, y0,
    x1, y1 of the building). Returns the pixels that they cover, bool [H, W]."""
    layer, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    dim = np.clip(light.ambient + 0.7 * light.direct, 0, 1.2)
    x0, y0, x1, y1 = box
    tall = y1 - y0
    for _ in range(count):
        draw = _OCCLUDERS[int(rng.choice(len(_OCCLUDERS), p=[0.34, 0.24, 0.16, 0.14, 0.12]))]
        x = rng.uniform(x0 - 0.1 * (x1 - x0), x1 + 0.1 * (x1 - x0))
        foot = min(y1 + rng.uniform(0.0, 0.15) * tall, image.shape[0] * 1.05)
        for target, colours in ((layer, dim), (mask, None)):
            # The same numbers draw the colour and the mask, so that both agree to the pixel.
            state = rng.bit_generator.state
            draw(rng, target, x, foot, tall, colours)
            if target is layer:
                rng.bit_generator.state = state
    image[:] = blend(image, layer, cv2.GaussianBlur(mask, (0, 0), 0.5).astype(np.float32) / 255)
    return mask > 127


def _tone(colour, dim, factor=1.0):
    return 255 if dim is None else tx.shade(colour, dim * factor)


def _foliage(rng, image, x, y, radius, dim, blobs):
    green = np.array([50, 105, 75]) * rng.uniform(0.6, 1.25, 3)
    spread = rng.normal(0, 0.45, (blobs, 2)) * radius
    sizes, tones = rng.uniform(0.14, 0.38, blobs) * radius, rng.uniform(0.55, 1.25, blobs)
    for (dx, dy), size, tone in zip(spread, sizes, tones, strict=True):
        tx.disc(image, x + dx, y + dy, size, _tone(green, dim, tone - 0.25 * dy / radius))


def _tree(rng, image, x, foot, tall, dim):
    height = tall * rng.uniform(0.35, 0.95)
    trunk = max(2.0, height * 0.05)
    crown = foot - height * 0.7
    tx.fill(
        image,
        [(x - trunk / 2, foot), (x + trunk / 2, foot), (x + trunk / 3, crown), (x - trunk / 3, crown)],
        _tone((50, 65, 80), dim),
    )
    if rng.random() < 0.3:
        for _ in range(14):
            start = np.array([x, foot - height * rng.uniform(0.4, 0.7)])
            tip = start + (rng.uniform(-0.3, 0.3) * height, -rng.uniform(0.1, 0.4) * height)
            tx.stroke(image, [start, tip], _tone((45, 55, 65), dim), max(1.0, trunk * 0.4))
        return
    _foliage(rng, image, x, foot - height * 0.72, height * rng.uniform(0.26, 0.38), dim, 45)


def _people(rng, image, x, foot, tall, dim):
    for _ in range(int(rng.integers(1, 5))):
        h = tall * rng.uniform(0.12, 0.32)
        at, base = x + rng.normal(0, 0.12) * tall, min(foot + rng.uniform(0, 0.04) * tall, image.shape[0] + h * 0.3)
        coat, legs = rng.uniform(20, 230, 3), rng.uniform(20, 120, 3)
        for side in (-1, 1):
            step = side * h * rng.uniform(0.03, 0.1)
            tx.stroke(image, [(at + side * h * 0.04, base - h * 0.45), (at + step, base)], _tone(legs, dim), h * 0.09)
        body = np.array([(-0.12, -0.8), (0.12, -0.8), (0.1, -0.4), (-0.1, -0.4)]) * h
        tx.fill(image, body + (at, base), _tone(coat, dim))
        tx.disc(image, at, base - h * 0.88, h * 0.075, _tone((120, 150, 190), dim, rng.uniform(0.4, 1.1)))


def _car(rng, image, x, foot, tall, dim):
    w = tall * rng.uniform(0.3, 0.6)
    h, paint_colour = w * rng.uniform(0.2, 0.26), rng.uniform(20, 220, 3)
    body = np.array(
        [(-0.5, 0), (-0.5, -1), (-0.28, -1.15), (-0.16, -1.9), (0.2, -1.9), (0.36, -1.1), (0.5, -0.9), (0.5, 0)]
    )
    windows = np.array([(-0.23, -1.15), (-0.13, -1.75), (0.17, -1.75), (0.28, -1.15)])
    tx.fill(image, body * (w, h) + (x, foot), _tone(paint_colour, dim))
    tx.fill(image, windows * (w, h) + (x, foot), _tone((70, 60, 50), dim))
    for side in (-0.3, 0.3):
        tx.disc(image, x + side * w, foot, h * 0.42, _tone((30, 30, 30), dim))
        tx.disc(image, x + side * w, foot, h * 0.2, _tone((150, 150, 150), dim))


def _pole(rng, image, x, foot, tall, dim):
    height, iron = tall * rng.uniform(0.6, 1.4), _tone(np.full(3, rng.uniform(30, 110)), dim)
    thick = max(1.5, tall * rng.uniform(0.01, 0.03))
    tx.rectangle(image, x - thick / 2, foot - height, x + thick / 2, foot, iron)
    side = rng.choice([-1, 1])
    tx.stroke(image, [(x, foot - height), (x + side * tall * 0.1, foot - height)], iron, thick * 0.7)
    tx.disc(image, x + side * tall * 0.1, foot - height + thick, thick * 1.4, _tone((200, 210, 215), dim))


def _poster(rng, image, x, foot, tall, dim):
    """A flat image on a stand: texture that belongs to no landmark."""
    w, h = tall * rng.uniform(0.18, 0.42), tall * rng.uniform(0.2, 0.5)
    low = foot - tall * rng.uniform(0.0, 0.25)
    colours = rng.uniform(20, 235, (3, 3))
    lean = rng.normal(0, 0.05, 2) * h
    left, right, top = x - w / 2, x + w / 2, low - h
    corners = np.array([(left, top), (right, top + lean[0]), (right, low), (left, low + lean[1])])
    poster = np.empty((64, 64, 3), np.uint8)
    tx.paint(poster, tx.motif(int(rng.integers(1 << 30)), 64), 0, 0, colours)
    word = tx.lettering(rng, 56, 14, int(rng.integers(3, 7)))
    tx.paint(poster, word, 4, 46, [colours[0], colours[2], colours[2]])
    if dim is None:
        tx.fill(image, corners, 255)
        return
    square = np.array([(0, 0), (64, 0), (64, 64), (0, 64)], np.float32)
    homography = cv2.getPerspectiveTransform(square, corners.astype(np.float32))
    warped = warp_antialiased(pyramid(poster), homography, (image.shape[1], image.shape[0]))
    mask = np.zeros(image.shape[:2], np.uint8)
    tx.fill(mask, corners, 255)
    cv2.copyTo(np.clip(warped * dim, 0, 255).astype(np.uint8), mask, image)


_OCCLUDERS = (_tree, _people, _car, _pole, _poster)
