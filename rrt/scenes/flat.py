"""A data set of flat objects photographed by phones (covers, posters, signs). The gallery is the images of the objects,
and other images; each phone photographs each object once, from the side, on some ground and in some light.

Each image is written as a whole or not at all, and images that exist are kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import guard_settings, write_bytes
from rrt.files.images import size_of
from rrt.files.jobs import run_jobs
from rrt.files.machine import usable_cores
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.scenes import textures
from rrt.scenes.augment import (
    add_noise,
    apply_tone,
    blend,
    jpeg_bytes,
    motion_blur,
    pyramid,
    smooth_noise,
    vignette,
    warp_antialiased,
)
from rrt.scenes.photo_views import read_photograph

DRAWING = 1  # raised when the same seed no longer gives the same images


@dataclass(frozen=True)
class Phone:
    """side: longer side of its photographs in pixels; blur: standard deviation in pixels; motion: length in pixels;
    noise: grey levels; reflections: number of lamps or windows that the object reflects; tone: strength of changes of
    light and colour, 0..1; tilt: largest shift of a corner, share of the side; quality: of JPEG."""

    side: int
    blur: float
    motion: int
    noise: float
    reflections: int
    tone: float
    tilt: float
    quality: int


PHONES = {
    "clear": Phone(1200, 0.7, 0, 2, 0, 0.3, 0.06, 90),
    "dim": Phone(960, 1.3, 3, 11, 0, 0.8, 0.10, 75),
    "glare": Phone(960, 0.9, 0, 4, 2, 0.5, 0.14, 80),
    "old": Phone(560, 1.0, 4, 7, 0, 0.7, 0.10, 45),
}


@dataclass(frozen=True)
class FlatSettings:
    """objects: number of objects photographed; others: number of further images in the gallery; side: longer side of a
    gallery image in pixels."""

    objects: int = 100
    others: int = 900
    side: int = 640
    seed: int = 0

    def check(self) -> None:
        """Raises InputError for settings out of range."""
        for name, low in (("objects", 1), ("others", 0), ("side", 64)):
            if getattr(self, name) < low:
                raise InputError(f"flat: {name} is {getattr(self, name)}; give a number of {low} or more")


@dataclass(frozen=True)
class _Image:
    """An image of the gallery: its number, the file it comes from (None: a drawn poster), the grounds of its
    photographs, and the files to write: {phone, or "" for the image itself: file}."""

    number: int
    source: Path | None
    ground: Path | None
    targets: dict[str, Path]
    settings: FlatSettings


def make_flat(
    out, settings: FlatSettings = FlatSettings(), train_txt=None, image_dir=None, num_workers: int | None = None
) -> Path:
    """Draws `<out>/jpg/`, `test_query.txt`, `test_gallery.txt`, `gnd_flat.pkl` and, of a list, `gnd_flat_places.pkl`;
    returns the folder.

    train_txt: an image list from which the gallery images are drawn at random, with names relative to image_dir (None:
    the folder of the list); None = posters are drawn instead. In gnd_flat_places.pkl the other images of a query's
    label are ignored, since they may well show the same thing. Raises InputError, also for images that cannot be read.
    """
    settings.check()
    out, number = Path(out), settings.objects + settings.others
    sources: list[Path | None] = [None] * number
    places = None
    if train_txt:
        listed = read_image_list(train_txt)
        names = listed.names
        if len(names) < number:
            raise InputError(f"{train_txt}: {len(names)} images, {number} are asked for; give fewer objects or others")
        chosen = np.random.default_rng(settings.seed).permutation(len(names))[:number]
        root = (Path(image_dir) if image_dir else Path(train_txt).parent).resolve()
        sources = [root / names[i] for i in chosen]
        places = listed.labels[chosen]
    guard_settings(out / "flat.json", {"drawing": DRAWING, "pictures": [*map(str, sources)], **asdict(settings)})
    jobs = [_image_of(out / "jpg", i, sources, settings) for i in range(number)]
    sizes = run_jobs(_draw, jobs, usable_cores() if num_workers is None else num_workers, "pictures")
    rows = [(f"jpg/{job.targets[''].name}", job.number, size[""]) for job, size in zip(jobs, sizes)]
    asked = [
        (f"jpg/{job.targets[phone].name}", job.number, size[phone])
        for job, size in zip(jobs[: settings.objects], sizes)
        for phone in PHONES
    ]
    write_image_list(out / "test_gallery.txt", *zip(*rows))
    write_image_list(out / "test_query.txt", *zip(*asked))
    gnd = [{"bbx": [0, 0, *map(float, size)], "easy": [label], "hard": [], "junk": []} for _, label, size in asked]
    stems = [Path(row[0]).stem for row in rows], [Path(row[0]).stem for row in asked]
    save_ground_truth(out / "gnd_flat.pkl", *stems, gnd)
    if places is not None:
        for entry, (_, label, _) in zip(gnd, asked):
            entry["junk"] = [int(i) for i in np.flatnonzero(places == places[label]) if i != label]
        save_ground_truth(out / "gnd_flat_places.pkl", *stems, gnd)
    return out


def _image_of(folder: Path, number: int, sources: list[Path | None], settings: FlatSettings) -> _Image:
    targets = {"": folder / f"picture_{number:05d}.jpg"}
    if number < settings.objects:
        targets |= {phone: folder / f"query_{number:05d}_{phone}.jpg" for phone in PHONES}
    return _Image(number, sources[number], sources[(number * 7 + 1) % len(sources)], targets, settings)


def _draw(job: _Image) -> dict[str, tuple[int, int]]:
    if not all(target.is_file() for target in job.targets.values()):
        image = _pixels_of(job.source, job.settings, job.number)
        for place, (phone, target) in enumerate(job.targets.items()):
            rng = np.random.default_rng([job.settings.seed, job.number, place, 2])
            if phone:
                ground = _ground(rng, job.ground, job.settings)
                write_bytes(target, photograph(rng, image, ground, PHONES[phone]))
            else:
                write_bytes(target, jpeg_bytes(image, 92))
    return {phone: size_of(target) for phone, target in job.targets.items()}


def _pixels_of(source: Path | None, settings: FlatSettings, number: int) -> np.ndarray:
    if source is None:
        return draw_poster(np.random.default_rng([settings.seed, number, 1]), settings.side)
    image = read_photograph(source)
    scale = settings.side / max(image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)


def _ground(rng: np.random.Generator, source: Path | None, settings: FlatSettings) -> np.ndarray:
    """What is behind the object: another image out of focus, or a wall."""
    if source is not None and rng.random() < 0.5:
        return cv2.GaussianBlur(_pixels_of(source, settings, 0), (0, 0), settings.side / 60)
    colour = rng.uniform(60, 220, 3)
    kind = str(rng.choice(["plaster", "brick", "panel"]))
    return textures.wall(rng, kind, (settings.side, settings.side), colour, settings.side / 16)


def photograph(rng: np.random.Generator, image: np.ndarray, ground: np.ndarray, phone: Phone) -> bytes:
    """An object uint8 [h, w, 3] on its ground, photographed by a phone: the bytes of a JPEG."""
    width, height = phone.side, round(phone.side * 0.75)
    if image.shape[0] > image.shape[1]:
        width, height = height, width
    homography = place(rng, image.shape[1::-1], (width, height), phone.tilt)
    below = cv2.resize(ground, (width, height), interpolation=cv2.INTER_LINEAR)
    cover = warp_antialiased([np.full(image.shape[:2], 255, np.uint8)], homography, (width, height)) / np.float32(255)
    seen = blend(below, warp_antialiased(pyramid(image), homography, (width, height)), cover)
    light = 1 + 0.35 * phone.tone * smooth_noise(rng, (height, width), 1, 1)
    seen = np.clip(seen * light[..., None], 0, 255).astype(np.uint8)
    for _ in range(phone.reflections):
        seen = _reflection(rng, seen)
    seen = vignette(apply_tone(rng, seen, phone.tone), 0.3 * phone.tone)
    seen = motion_blur(rng, cv2.GaussianBlur(seen, (0, 0), phone.blur), phone.motion)
    return jpeg_bytes(add_noise(rng, seen, phone.noise), phone.quality)


def place(rng: np.random.Generator, size: tuple[int, int], frame: tuple[int, int], tilt: float) -> np.ndarray:
    """Homography [3, 3] from an object's pixels (width, height) to those of a frame. The object fills 55 to 95 percent
    of the frame's side and is turned by up to 12 degrees, with shifted corners."""
    corners = np.array([(0, 0), (size[0], 0), size, (0, size[1])], float)
    turn = np.radians(rng.uniform(-12, 12))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    goal = (corners - np.array(size) / 2) @ rotation.T
    goal *= rng.uniform(0.55, 0.95) * min(np.array(frame) / np.ptp(goal, axis=0))
    goal += rng.uniform(-tilt, tilt, (4, 2)) * np.ptp(goal, axis=0)
    free = (np.array(frame) - np.ptp(goal, axis=0)) / 2
    goal += np.array(frame) / 2 - (goal.min(0) + goal.max(0)) / 2 + rng.uniform(-0.8, 0.8, 2) * np.maximum(free, 0)
    return cv2.getPerspectiveTransform(corners.astype(np.float32), goal.astype(np.float32))


def _reflection(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A lamp or a window that is reflected by the surface."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    centre = tuple(map(int, rng.uniform(0.25, 0.75, 2) * (width, height)))
    axes = tuple(map(int, rng.uniform(0.04, 0.16, 2) * width))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), width / 40)
    return blend(image, np.full_like(image, 255), mask / np.float32(255 / rng.uniform(0.7, 1.0)))


def draw_poster(rng: np.random.Generator, side: int) -> np.ndarray:
    """A poster uint8 [H, W, 3]: lines of an invented script, emblems and bars on a ground of one or two colours."""
    width, height = (side, round(side * 0.72)) if rng.random() < 0.3 else (round(side * 0.72), side)
    colours = rng.uniform(20, 235, (6, 3))
    image = np.full((height, width, 3), colours[0].astype(np.uint8))
    textures.rectangle(image, 0, height * rng.uniform(0.3, 0.8), width, height, colours[1])
    for _ in range(int(rng.integers(3, 8))):
        x, y, w, h = rng.uniform(0, 0.9), rng.uniform(0, 0.9), *rng.uniform(0.08, 0.5, 2)
        textures.rectangle(image, x * width, y * height, (x + w) * width, (y + h * 0.4) * height, colours[2 + _ % 4])
    for _ in range(int(rng.integers(3, 7))):
        size = int(rng.uniform(0.15, 0.5) * min(width, height))
        ink = textures.motif(int(rng.integers(10**6)), size)
        _print(image, ink, rng, colours[int(rng.integers(2, 6))])
    for _ in range(int(rng.integers(3, 7))):
        tall = int(rng.uniform(0.04, 0.14) * height)
        letters = int(rng.integers(3, 10))
        _print(
            image,
            textures.lettering(rng, min(width - 4, tall * letters), tall, letters),
            rng,
            colours[int(rng.integers(6))],
        )
    return image


def _print(image: np.ndarray, ink: np.ndarray, rng: np.random.Generator, colour) -> None:
    x, y = (int(rng.integers(0, max(1, whole - part))) for whole, part in zip(image.shape[1::-1], ink.shape[::-1]))
    part = image[y : y + ink.shape[0], x : x + ink.shape[1]]
    part[ink[: part.shape[0], : part.shape[1]] > 127] = colour
