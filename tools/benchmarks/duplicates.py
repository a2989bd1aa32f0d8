"""Near-duplicates in an index of photographs: how many of the made copies are found, and how many pairs that are none
are called copies."""

import random
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rrt.errors import InputError
from rrt.files.images import SUFFIXES, decode, size_of
from rrt.photo_index.duplicates import find_groups
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.update import BuildSettings, update
from rrt.progress import bar
from tools.benchmarks.common import Row, check_counts

HELP = "near-duplicates: precision and recall on copies made of one's own photographs by ten kinds of change"


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--image_dir", required=True, help="folder of photographs, no two of which are copies")
    parser.add_argument(
        "--sources", type=int, default=100, help="photographs that copies are made of (default %(default)s)"
    )
    parser.add_argument("--others", type=int, default=300, help="at most so many photographs beside them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", help="folder to keep the copies and their index in (default: they are removed)")


def run(args):
    """Rows of figures. Raises InputError for a folder with too few photographs."""
    check_counts(args, "sources", "others")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.dir or temporary)
        source_of = make_copies(Path(args.image_dir), folder / "photographs", args.sources, args.others, args.seed)
        update(folder / "index", str(folder / "photographs"), BuildSettings())
        index = PhotoIndex(folder / "index")
        began = time.perf_counter()
        groups = [[member.path for member in group.members] for group in find_groups(index)]
        seconds = time.perf_counter() - began
    return [*figures(groups, source_of), Row("time", seconds, "s", f"{len(source_of)} photographs, the index aside")]


def figures(groups, source_of):
    """Rows of precision and recall. groups: names that are called copies of each other; source_of {name: name of the
    photograph it was made of}."""
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    pairs = [source_of[a] == source_of[b] for group in groups for a, b in combinations(group, 2)]
    rows = [
        Row("precision", float(np.mean(pairs or [True])), "share", f"of {len(pairs)} pairs called copies", ">= 0.99")
    ]
    found = {}
    for name, source in source_of.items():
        if name != source:
            same = name in group_of and group_of[name] == group_of.get(source)
            found.setdefault(name.split("/")[0], []).append(same)
    everything = [same for kind in found.values() for same in kind]
    rows.append(
        Row("recall", float(np.mean(everything)), "share", f"of {len(everything)} copies, with their source", ">= 0.95")
    )
    return rows + [Row(f"recall: {kind}", float(np.mean(same)), "share") for kind, same in found.items()]


# ---- copies ----------------------------------------------------------------------------------------------------------


def make_copies(image_dir: Path, folder: Path, sources: int, others: int, seed: int) -> dict[str, str]:
    """Writes photographs and a copy of some of them for every kind of change -> {name below folder: name of the
    photograph it was made of, itself where it is none}. What is there already is kept."""
    files = sorted(path for path in image_dir.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = [file for file in files if min(size_of(file)) >= 200]
    if len(files) <= sources:
        raise InputError(
            f"{image_dir}: {len(files)} photographs of 200 pixels or more; more than --sources {sources} needed"
        )
    random.Random(seed).shuffle(files)
    source_of = {}
    for number, file in enumerate(bar(files[: sources + others], "making copies", "photograph")):
        stem = f"{number:04d}_{file.stem}"
        original = f"originals/{stem}.jpg"
        source_of[original] = original
        pixels = None
        for kind, change in {"originals": None, **(CHANGES if number < sources else {})}.items():
            name = f"{kind.replace(' ', '_')}/{stem}.jpg"
            source_of[name] = original
            if (folder / name).exists():
                continue
            pixels = decode(file, turned=True).pixels if pixels is None else pixels
            changed = change(pixels, np.random.default_rng([seed, number, len(source_of)])) if change else pixels
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            quality = 30 if kind == "saved anew" else 95 if change is None else 88
            Image.fromarray(changed).save(folder / name, "JPEG", quality=quality)
    return source_of


def half_size(pixels, generator):
    """Half the width and height."""
    return cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def cropped(pixels, generator):
    """70 % of width and height, anywhere."""
    height, width = pixels.shape[:2]
    h, w = round(0.7 * height), round(0.7 * width)
    y, x = generator.integers(0, height - h + 1), generator.integers(0, width - w + 1)
    return pixels[y : y + h, x : x + w]


def retouched(pixels, generator):
    """A patch of a fifth to a third of width and height painted over with what lies beside it."""
    height, width = pixels.shape[:2]
    h, w = (int(side * generator.uniform(0.2, 0.33)) for side in (height, width))
    y, x = generator.integers(0, height - h), generator.integers(0, width - w)
    changed = pixels.copy()
    blurred = cv2.resize(cv2.resize(pixels, (6, 6), interpolation=cv2.INTER_AREA), (width, height))
    changed[y : y + h, x : x + w] = blurred[y : y + h, x : x + w]
    return changed


def lighter(pixels, generator):
    """Contrast and brightness up, or down."""
    gain, shift = (1.35, 15) if generator.random() < 0.5 else (0.7, -10)
    return np.clip((pixels.astype(np.float32) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)


def grey(pixels, generator):
    """Without colours."""
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def framed(pixels, generator):
    """A border of 4 to 10 % in one colour."""
    side = int(max(pixels.shape) * generator.uniform(0.04, 0.1))
    colour = [int(generator.choice((0, 255, 60)))] * 3
    return cv2.copyMakeBorder(pixels, side, side, side, side, cv2.BORDER_CONSTANT, value=colour)


def written_on(pixels, generator):
    """Half transparent letters across the middle, others below."""
    height, width = pixels.shape[:2]
    over, scale = pixels.copy(), width / 400
    for text, y, size in (("(c) PHOTOGRAPHER", 0.55, 1.3), ("www.example.org 2019-07-21", 0.95, 0.7)):
        at = int(0.05 * width), int(y * height)
        cv2.putText(over, text, at, cv2.FONT_HERSHEY_SIMPLEX, size * scale, (255, 255, 255), max(1, int(3 * scale)))
    return cv2.addWeighted(over, 0.6, pixels, 0.4, 0)


def turned(pixels, generator):
    """Turned by 2 to 6 degrees, with black corners."""
    height, width = pixels.shape[:2]
    angle = generator.uniform(2, 6) * generator.choice((-1, 1))
    return cv2.warpAffine(pixels, cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1), (width, height))


CHANGES: dict[str, Callable[..., np.ndarray]] = {
    "saved anew": lambda pixels, generator: pixels,
    "half the size": half_size,
    "cropped": cropped,
    "mirrored": lambda pixels, generator: np.ascontiguousarray(pixels[:, ::-1]),
    "retouched": retouched,
    "lighter or darker": lighter,
    "grey": grey,
    "framed": framed,
    "written on": written_on,
    "turned": turned,
}
