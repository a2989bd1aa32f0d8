"""Nearest neighbours of a training set among itself: rrt.search.self_search against NumPy's product and full sort."""

import tempfile
import time
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.search.first_pass import KINDS
from rrt.search.rows import DescriptorRows, summarize_rows
from rrt.search.self_search import SelfSearch
from tools.benchmarks.common import (
    PeakMemory,
    Row,
    add_options,
    check_counts,
    clustered_rows,
    exact_products,
    median_seconds,
    usable_device,
)

HELP = "neighbours of every image among all: a fast first pass, exact at the end, against NumPy's product and argsort"
EXTRAPOLATED = (322_000, 1_580_470)  # images of GLDv2 clean that the published training list names, and all of it
CHECKED = 16  # rows compared with float64 products of all


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--images", type=int, default=50_000, help="a quarter and half of them are measured, too (default %(default)s)"
    )
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument(
        "--first_pass", default="auto", choices=("auto", *KINDS), help="compared with float32 and the plain way"
    )
    parser.add_argument(
        "--decay",
        type=float,
        default=0.75,
        help="the d-th principal variance falls as d**-decay; 0 is noise alike in all directions, which"
        " no network makes and which is hard for int8 (default %(default)s: similarities of different"
        " landmarks spread by 0.07)",
    )
    parser.add_argument("--device", type=usable_device, default="cpu", help="of the first passes")
    parser.add_argument("--rounds", type=int, default=5, help="turns; the median counts (default %(default)s)")
    parser.add_argument("--memory_mb", type=int, default=2000)
    add_options(parser, "dir", "seed", quick="few short rows")


def run(args):
    """Rows of milliseconds an image. Raises InputError when a way gives other neighbours than float64 products."""
    check_counts(args, "images", "dimensions", "k", "rounds", "memory_mb")
    if args.quick:
        args.images, args.dimensions, args.rounds, args.k = 1600, 64, 2, 10
    if args.images < 400:
        raise InputError(f"--images {args.images}: at least 400 are needed")
    sizes = [args.images, args.images // 2, args.images // 4]
    rows, points = [], {"float32": [], "fast": []}
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        for size in sizes:
            measured = _measure(args, size, Path(folder))
            # What is fastest for all is measured for the parts, too.
            args.first_pass = measured["fast"].name
            for way in points:
                points[way].append(measured[way])
            rows += _rows_of(size, measured, size == args.images)
    for way, name in (("float32", "float32"), ("fast", args.first_pass)):
        rows += _extrapolate(name, sizes, points[way], args.k)
    return rows


class _Way:
    """One first pass, ready: seconds of preparation and, later, of an image; anonymous memory in MB."""

    def __init__(self, table, first_pass, args, folder):
        with PeakMemory() as memory:
            began = time.perf_counter()
            self.search = self._prepare(table, first_pass, args, folder)
            self.preparation = time.perf_counter() - began
            self.search.search(slice(0, min(64, len(table))))
        self.memory = memory
        self.name = self.search.kind
        self.seconds = None

    @staticmethod
    def _prepare(table, first_pass, args, folder):
        rows = DescriptorRows(table)
        return SelfSearch(rows, args.k, folder, first_pass, args.device, args.memory_mb, summary=summarize_rows(rows))


def _measure(args, size, folder):
    generator = np.random.default_rng(args.seed)
    # As a store's column, read through the page cache.
    path = folder / "rows.npy"
    np.save(path, clustered_rows(generator, size, args.dimensions, args.decay))
    table = np.load(path, mmap_mode="r")
    ways = {}
    for way, first_pass in (("float32", "float32"), ("fast", args.first_pass)):
        (folder / way).mkdir(exist_ok=True)
        ways[way] = _Way(table, first_pass, args, folder / way)
    chosen = np.sort(generator.choice(size, min(CHECKED, size), replace=False))
    exact = exact_neighbours(table, chosen, args.k)
    for way in ways.values():
        if (way.search.search(chosen) != exact).any():
            raise InputError(f"first pass {way.name}: other neighbours than float64 products give; do not use it here")
    plain_rows, own_rows = min(size // 4, 256), min(size // 2, 2048)
    starts = generator.integers(0, size - own_rows + 1, args.rounds)
    seconds = median_seconds(
        {"plain": lambda start: plain_neighbours(table, slice(start, start + plain_rows), args.k)}
        | {name: _searcher(way, own_rows) for name, way in ways.items()},
        starts,
    )
    for name, way in ways.items():
        way.seconds = seconds[name] / own_rows + way.preparation / size
        way.again = way.search.computed_again / (own_rows * args.rounds)
    return ways | {"plain": seconds["plain"] / plain_rows}


def _searcher(way, count):
    def search(start):
        with way.memory:
            way.search.search(slice(start, start + count))

    way.search.computed_again = 0
    return search


def plain_neighbours(table, own, k):
    """[n, k] by NumPy's float32 product and a full sort of every row; the image itself left out as the first."""
    return np.argsort(-(table[own] @ table.T), axis=1)[:, 1 : k + 1]


def exact_neighbours(table, own, k):
    """[n, k] by float64 products with every row, equal ones by index."""
    found = []
    for row in own:
        similarities = exact_products(table, table[row])
        similarities[row] = -np.inf
        found.append(np.argsort(-similarities, kind="stable")[:k])
    return np.array(found)


def _rows_of(size, measured, last):
    rows = [Row(f"{size} images: NumPy, product and argsort", 1e3 * measured["plain"], "ms an image")]
    for way, target in (("float32", ">= 2.5"), ("fast", ">= 5")):
        found = measured[way]
        name, ratio = f"{size} images: first pass {found.name}", measured["plain"] / found.seconds
        note = f"{found.again:.0f} candidates computed again, {found.search.searched_again} rows searched again,"
        note += f" preparation {found.preparation:.1f} s in it"
        exact = f"0 differences from float64 in {CHECKED} rows"
        rows += [
            Row(name, 1e3 * found.seconds, "ms an image", note),
            Row(f"{name}, against NumPy", ratio, "times as fast", exact, target if last else ""),
            Row(f"{name}, memory", found.memory.peak, "MB", "without page cache"),
        ]
    return rows


def _extrapolate(name, sizes, ways, k):
    """Rows for all of GLDv2 from a straight line through (images, seconds an image) and (images, MB)."""
    slope, start = np.polyfit(sizes, [way.seconds for way in ways], 1)
    rows = []
    line = "extrapolated from a straight line through the milliseconds an image above"
    # 32 bytes an image in the search's summaries; the finished table is put together in memory.
    grown = f"extrapolated: the search above and {32 + 8 * k} bytes an image, of which {8 * k} for the finished table"
    for size in EXTRAPOLATED:
        rows.append(Row(f"{size} images: first pass {name}", size * (start + slope * size) / 3600, "hours", line))
        memory = ways[0].memory.peak + (32 + 8 * k) * size / 1e6
        rows.append(Row(f"{size} images: memory of {name}", memory, "MB", grown))
    return rows
