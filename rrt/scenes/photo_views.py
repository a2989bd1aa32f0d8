"""Self-made views of real photographs: under strong changes, every photograph becomes a class of its own.

A view is a random crop seen through a perspective warp and a small rotation, with pieces of other photographs pasted
over it, other light and colour, blur, noise and JPEG. Thus any training list gives as many identities as it has images.
A view depends only on the seed, the photograph's position in the list and the number of the view.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import guard_settings, write_bytes
from rrt.files.images import Unreadable, decode, size_of
from rrt.files.jobs import run_jobs
from rrt.files.machine import usable_cores
from rrt.formats.lists import ImageList, read_image_list, write_image_list
from rrt.scenes.augment import camera_effects, jpeg_bytes, paste_patch, pyramid, warp_antialiased

DRAWING = 1  # raised when the same seed no longer gives the same images
SMALLEST_SIDE = 32  # pixels; a smaller photograph has nothing to crop


@dataclass(frozen=True)
class ViewSettings:
    """Everything that determines the views.

    views: number for each photograph. size: longest side of a view in pixels. smallest_crop: least share of the
    photograph's area in a view. perspective: largest shift of a corner, share of the side. rotation: degrees. strength:
    of changes of light, colour, blur and noise, 0..1. patches: mean number of pieces of other photographs in a view.
    """

    views: int = 4
    size: int = 480
    smallest_crop: float = 0.25
    perspective: float = 0.18
    rotation: float = 12.0
    strength: float = 0.7
    patches: float = 0.7
    seed: int = 0

    def check(self) -> None:
        """Raises InputError naming the first setting out of range."""
        ranges = {
            "views": (1, 10000),
            "size": (64, 4096),
            "smallest_crop": (0.01, 1),
            "perspective": (0, 0.4),
            "rotation": (0, 180),
            "strength": (0, 1),
            "patches": (0, 10),
            "seed": (0, 2**63),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"views: {name} is {getattr(self, name)}; give a number from {low} to {high}")


@dataclass(frozen=True)
class _Photograph:
    """A photograph to make views of: its file, and the photographs from which pieces may be cut."""

    source: Path
    index: int
    targets: tuple  # the files to write
    others: tuple
    settings: ViewSettings


def make_views(
    train_txt,
    out,
    settings: ViewSettings = ViewSettings(),
    num_workers: int | None = None,
    allow_missing: bool = False,
    image_dir=None,
    keep_labels: bool = False,
) -> Path:
    """Makes the views of every image of an image list under `out`, and `<out>/train.txt`; returns the path of that
    list.

    image_dir: folder to which the names in the list are relative, None = the folder of the list.

    The label of a view is the position of its photograph in the list, or with ``keep_labels`` that photograph's label
    (further positives of a landmark); its name is `views/<thousands>/<position>_<stem>_v<number>.jpg`. Photographs that
    cannot be read are left out and listed with their reason in `<out>/views.skipped.csv`; unless `allow_missing`,
    InputError is raised at the end.
    """
    settings.check()
    train_txt, out = Path(train_txt), Path(out)
    photographs = read_image_list(train_txt)
    guard_settings(out / "views.json", {"drawing": DRAWING, "photographs": photographs.names, **asdict(settings)})
    root = Path(image_dir) if image_dir else train_txt.parent
    jobs = [_job(photographs, root, i, out, settings) for i in range(len(photographs))]
    results = run_jobs(_make_photograph, jobs, usable_cores() if num_workers is None else num_workers, "views")
    skipped = [(photographs.names[i], result) for i, result in enumerate(results) if isinstance(result, str)]
    _write_skipped(out / "views.skipped.csv", skipped)
    rows = [
        (target.relative_to(out).as_posix(), photographs.labels[job.index] if keep_labels else job.index, size)
        for job, result in zip(jobs, results, strict=True)
        if not isinstance(result, str)
        for target, size in zip(job.targets, result, strict=True)
    ]
    if not rows:
        raise InputError(f"{train_txt}: none of its {len(jobs)} images could be read; first: {skipped[0][1]}")
    write_image_list(out / "train.txt", *zip(*rows, strict=True))
    if skipped and not allow_missing:
        raise InputError(
            f"{train_txt}: {len(skipped)} of {len(jobs)} images could not be read "
            f"(first: {skipped[0][1]}), listed in {out / 'views.skipped.csv'}; the rest is made; "
            "repair them or give --allow_missing"
        )
    return out / "train.txt"


def _job(photographs: ImageList, root: Path, index: int, out: Path, settings: ViewSettings) -> _Photograph:
    stem = Path(photographs.names[index]).stem
    folder = out / "views" / f"{index // 1000:03d}"
    targets = tuple(folder / f"{index:06d}_{stem}_v{k:02d}.jpg" for k in range(settings.views))
    rng = np.random.default_rng([settings.seed, index, 1])
    others = tuple(root / photographs.names[int(i)] for i in rng.integers(len(photographs), size=3) if i != index)
    return _Photograph(root / photographs.names[index], index, targets, others, settings)


def _make_photograph(job: _Photograph) -> list[tuple[int, int]] | str:
    """Writes the views that are missing; returns the sizes (width, height) of all, or why there are none."""
    if not all(target.is_file() for target in job.targets):
        try:
            image = read_photograph(job.source)
        except InputError as error:
            return str(error)
        levels, others = pyramid(image), _readable(job.others)
        focus = focus_point(np.random.default_rng([job.settings.seed, job.index, 3]), image)
        for k, target in enumerate(job.targets):
            if not target.is_file():
                rng = np.random.default_rng([job.settings.seed, job.index, k, 2])
                write_bytes(target, draw_view(levels, focus, others, rng, job.settings))
    return [size_of(target) for target in job.targets]


def read_photograph(path: Path) -> np.ndarray:
    """An image as uint8 [H, W, 3] (blue, green, red), turned upright. Raises InputError when it cannot be used."""
    try:
        image = np.ascontiguousarray(decode(path, turned=True).pixels[..., ::-1])
    except Unreadable as reason:
        raise InputError(f"{path}: not a readable image ({reason}); leave it out of the list") from None
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels, less than {SMALLEST_SIDE} on a side; leave it out of "
            "the list"
        )
    return image


def _readable(paths) -> list[np.ndarray]:
    photographs = []
    for path in paths:
        try:
            photographs.append(read_photograph(path))
        except InputError:
            continue  # reported when views of it are made
    return photographs


def focus_point(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A random point (x, y in pixels) with detail, outside of the photograph's outer fifths.

    All views of the photograph show it, so that they overlap and none shows only sky.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32)
    detail = cv2.magnitude(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    detail = cv2.GaussianBlur(detail, (0, 0), 3)[13:51, 13:51].astype(np.float64) ** 2 + 1e-6
    cell = int(rng.choice(detail.size, p=detail.ravel() / detail.sum()))
    row, column = divmod(cell, detail.shape[1])
    return (np.array([column, row]) + 13.5) / 64 * image.shape[1::-1]


def draw_view(
    levels: list[np.ndarray], focus, others: list[np.ndarray], rng: np.random.Generator, settings: ViewSettings
) -> bytes:
    """One view, as the bytes of a JPEG, of the photograph with this `pyramid` and `focus_point`."""
    size = _frame(rng, settings.size)
    homography = crop_homography(rng, levels[0].shape[1::-1], focus, size, settings)
    image = warp_antialiased(levels, homography, size, cv2.BORDER_REFLECT_101)
    for _ in range(int(rng.poisson(settings.patches)) if others else 0):
        patch = _piece(rng, others[int(rng.integers(len(others)))], size)
        corner = rng.uniform(-0.3, 1.0, 2) * size
        image = paste_patch(image, patch, int(corner[0]), int(corner[1]))
    image = camera_effects(rng, image, settings.strength)
    return jpeg_bytes(image, int(rng.integers(round(90 - 45 * settings.strength), 95)))


def _frame(rng, size) -> tuple[int, int]:
    short = round(size * rng.choice([0.6667, 0.75, 0.75, 1.0]))
    return (size, short) if rng.random() < 0.6 else (short, size)


def crop_homography(rng: np.random.Generator, source, focus, target, settings: ViewSettings) -> np.ndarray:
    """Homography [3, 3] from the photograph's pixels (width, height `source`) to the view's (`target`).

    It maps a rectangle to the corners of the view. The rectangle has the view's proportions and a random area between
    smallest_crop and the whole; it is turned, and its corners are moved inwards at random (the perspective). It lies
    inside the photograph and contains `focus` (x, y), away from its border where possible; when it is turned it may
    reach over the border, where the photograph is mirrored.
    """
    width, height = source
    aspect = target[0] / target[1] * 2.0 ** rng.uniform(-0.25, 0.25)
    area = width * height * rng.uniform(settings.smallest_crop, 1)
    w, h = min(np.sqrt(area * aspect), width), min(np.sqrt(area / aspect), height)
    x, y = _start(rng, focus[0], w, width), _start(rng, focus[1], h, height)
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)])
    inward = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    corners = corners + inward * rng.uniform(0, settings.perspective, (4, 2)) * (w, h)
    angle = np.radians(rng.normal(0, settings.rotation / 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (corners - (w / 2, h / 2)) @ turn.T + (x + w / 2, y + h / 2)
    goal = np.array([(0, 0), (target[0], 0), target, (0, target[1])])
    return cv2.getPerspectiveTransform(corners.astype(np.float32), goal.astype(np.float32))


def _start(rng, focus, length, whole):
    """Start of an interval of `length` inside 0..whole, such that `focus` is not in its outer fifths, where
    possible."""
    low, high = (min(max(focus - part * length, 0), whole - length) for part in (0.8, 0.2))
    return rng.uniform(low, high)


def _piece(rng, other, size) -> np.ndarray:
    """A rectangle of another photograph, with sides of 15 to 45 percent of the view's sides."""
    w, h = (max(8, int(side * rng.uniform(0.15, 0.45))) for side in size)
    height, width = other.shape[:2]
    scale = max(w / width, h / height, 0.2, rng.uniform(0.2, 1.0))
    cut_w, cut_h = min(int(w / scale), width), min(int(h / scale), height)
    x, y = int(rng.integers(width - cut_w + 1)), int(rng.integers(height - cut_h + 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(other[y : y + cut_h, x : x + cut_w], (w, h), interpolation=interpolation)


def _write_skipped(path: Path, skipped) -> None:
    if not skipped:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("name", "reason"))
    writer.writerows(skipped)
    write_bytes(path, text.getvalue().encode())
