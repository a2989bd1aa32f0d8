"""Photometric changes and antialiased warps shared by the synthetic scenes and the self-made views.

Images are uint8 [H, W, 3] in OpenCV's channel order (blue, green, red). Every random choice comes from the
`numpy.random.Generator` passed in, so that an image depends only on its own seed.
"""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 3) -> np.ndarray:
    """Cloud-like noise, float32 [H, W], about -1..1; `cells` = waves across the longer side in the coarsest octave."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        n = max(2, cells << octave)
        grid = rng.uniform(-1, 1, [max(2, n * side // max(shape)) for side in shape]).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total / 1.4


def pyramid(image: np.ndarray, levels: int = 4, smallest: int = 12) -> list[np.ndarray]:
    """The image and its halvings by area averaging, for `warp_antialiased`."""
    result = [image]
    while len(result) < levels and min(result[-1].shape[:2]) >= 2 * smallest:
        height, width = result[-1].shape[:2]
        result.append(cv2.resize(result[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return result


def warp_antialiased(levels, homography, size, border_mode=cv2.BORDER_CONSTANT):
    """Warps an image (given as its `pyramid`) by a 3x3 homography from its pixels to those of the result.

    Of the pyramid it uses the level whose pixels are closest in size to those of the result, so that shrinking does not
    alias; the middle of the image decides. `size` is (width, height) of the result.
    """
    height, width = levels[0].shape[:2]
    shrink = 1 / max(magnification(homography, width / 2, height / 2), 1e-6)
    level = int(np.clip(np.floor(np.log2(max(shrink, 1e-6)) + 0.4), 0, len(levels) - 1))
    source = levels[level]
    to_full = np.diag([width / source.shape[1], height / source.shape[0], 1.0])
    return cv2.warpPerspective(source, homography @ to_full, size, flags=cv2.INTER_LINEAR, borderMode=border_mode)


def magnification(homography: np.ndarray, x, y):
    """Square root of the area scale of a homography at the point or points (x, y)."""
    denominator = np.abs(homography[2, 0] * x + homography[2, 1] * y + homography[2, 2])
    return np.sqrt(abs(np.linalg.det(homography)) / np.maximum(denominator, 1e-9) ** 3)


def blend(below: np.ndarray, above: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """`above` over `below`, both uint8 [H, W, 3]; `cover` float32 [H, W] in 0..1 says how much of it shows."""
    cover = np.asarray(cover, np.float32)
    return cv2.blendLinear(above, below, cover, 1 - cover)


def apply_tone(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """Exposure, gamma, contrast, colour cast and saturation in one table per channel; `strength` 0 leaves all as is."""
    gain = 2.0 ** rng.normal(0, 0.35 * strength)
    gamma = 2.0 ** rng.normal(0, 0.35 * strength)
    contrast = 2.0 ** rng.normal(0, 0.25 * strength)
    warmth, tint = rng.normal(0, 0.10 * strength), rng.normal(0, 0.04 * strength)
    saturation = np.clip(1 + rng.normal(0, 0.35 * strength), 0, 1.8)
    grey_only = rng.random() < 0.04 * strength
    if grey_only:
        saturation = 0.0
    if abs(saturation - 1) > 0.03:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        image = cv2.addWeighted(image, float(saturation), grey, float(1 - saturation), 0)
    cast = np.array([1 - warmth, 1 + tint, 1 + warmth])
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain * (1.0 if grey_only else cast)
    levels = (levels - 0.45) * contrast + 0.45
    # A soft shoulder in place of a hard clip keeps detail in bright walls, as cameras do.
    levels = np.where(levels > 0.8, 0.8 + 0.2 * np.tanh((levels - 0.8) / 0.2), levels)
    table = np.clip(levels * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def cast_shadow(rng: np.random.Generator, image: np.ndarray, depth: float) -> np.ndarray:
    """Darkens a random soft-edged polygon, as the shadow of something outside the image."""
    height, width = image.shape[:2]
    centre = rng.uniform((-0.1, -0.1), (1.1, 1.1)) * (width, height)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
    radii = rng.uniform(0.3, 0.9, len(angles)) * max(width, height)
    corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 5.0))
    return blend(image, np.zeros_like(image), mask / np.float32(255 / rng.uniform(0.3, depth)))


def motion_blur(rng: np.random.Generator, image: np.ndarray, length: int) -> np.ndarray:
    """Blurs along a random direction over `length` pixels."""
    if length < 2:
        return image
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    middle = (length - 1) / 2
    start, end = np.rint(middle - reach).astype(int), np.rint(middle + reach).astype(int)
    cv2.line(kernel, tuple(map(int, start)), tuple(map(int, end)), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def add_noise(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Adds Gaussian noise with a standard deviation of about `sigma` grey levels, most of it the same in all
    channels."""
    if sigma <= 0:
        return image
    noise = rng.standard_normal(image.shape, np.float32)
    noise = 0.6 * noise + 0.8 * noise[..., 1:2]
    return np.clip(image + np.float32(sigma) * noise, 0, 255).astype(np.uint8)


def vignette(image: np.ndarray, depth: float) -> np.ndarray:
    """Darkens the image towards its corners, where it loses the share `depth` (0..1)."""
    height, width = image.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    return (image * (1 - depth * (x + y) / 2)[..., None]).astype(np.uint8)


def camera_effects(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """What light and camera do to a scene: tone, shadow, vignette, blur and noise, each at random.

    `strength` 0 changes nothing, 1 is hard but recognisable.
    """
    if strength <= 0:
        return image
    if rng.random() < 0.25 * strength:
        image = cast_shadow(rng, image, 0.3 + 0.4 * strength)
    image = apply_tone(rng, image, strength)
    if rng.random() < 0.3 * strength:
        image = vignette(image, rng.uniform(0.1, 0.5))
    if rng.random() < 0.3 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 0.6 + 0.9 * strength))
    elif rng.random() < 0.12 * strength:
        image = motion_blur(rng, image, int(rng.integers(2, 3 + round(4 * strength))))
    if rng.random() < 0.6 * strength:
        image = add_noise(rng, image, rng.uniform(1, 2 + 9 * strength))
    return image


def jpeg_bytes(image: np.ndarray, quality: int) -> bytes:
    """The image as a JPEG file's bytes."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1].tobytes()


def paste_patch(image: np.ndarray, patch: np.ndarray, x: int, y: int) -> np.ndarray:
    """A copy of the image with `patch` over it, its left upper corner at (x, y), cut at the borders."""
    height, width = image.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + patch.shape[1], width), min(y + patch.shape[0], height)
    result = image.copy()
    if right > left and bottom > top:
        result[top:bottom, left:right] = patch[top - y : bottom - y, left - x : right - x]
    return result
