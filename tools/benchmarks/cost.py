"""What search costs as the gallery grows: points measured here, kept as they are made, and laws fitted to them
(tools/benchmark.py cost)."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from scipy.optimize import nnls

from rrt.errors import InputError
from rrt.files.atomic import read_json, write_json
from rrt.search.exact import search
from tools.benchmarks.common import PeakMemory, Row, add_options, check_counts, format_figures, in_new_process
from tools.benchmarks.scale import build, recall, search_again, size_of, write_rows

HELP = "memory, build, query and recall of IVF-PQ and HNSW at several sizes, and laws that say them for 100 M and 1 B"
AGAIN = (100, 1000)
FOUND = 10  # of the exact neighbours, whose share is the recall

format_rows = format_figures

# {index: {figure: the terms that it is a sum of, none negative}}; lists of IVF grow as sqrt n, and so does the time
# that finding them takes; HNSW's depth grows as log n.
_LAWS: dict[str, dict[str, tuple[str, ...]]] = {
    "exact": {"memory": ("1",), "query": ("n",)},
    "IVF-PQ": {
        "memory": ("1", "sqrt n", "n"),
        "build": ("sqrt n", "n", "n sqrt n"),
        "query 100": ("1", "sqrt n"),
        "query 1000": ("1", "sqrt n"),
    },
    "HNSW": {
        "memory": ("1", "n"),
        "build": ("n", "n log n"),
        "query 100": ("1", "log n"),
        "query 1000": ("1", "log n"),
    },
}
_TERMS: dict[str, Callable[[Any], Any]] = {
    "1": np.ones_like,
    "n": lambda n: n,
    "sqrt n": np.sqrt,
    "log n": np.log,
    "n log n": lambda n: n * np.log(n),
    "n sqrt n": lambda n: n**1.5,
}


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000])
    parser.add_argument("--dimensions", type=int, default=512, help="of made-up descriptors (default %(default)s)")
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--indexes", nargs="+", choices=list(_LAWS), default=list(_LAWS))
    parser.add_argument(
        "--predict", type=int, nargs="*", default=[10**7, 10**8, 10**9], help="sizes that the laws are asked for"
    )
    parser.add_argument("--machine_gb", type=float, default=64, help="memory of a machine (default %(default)s)")
    parser.add_argument(
        "--points", type=Path, help="JSON with the points measured so far; a run that was stopped goes on with it"
    )
    add_options(parser, "dir", "seed", quick="few short rows")


def run(args):
    """Rows `index, images: figure`, measured and by the laws. Raises InputError for points of other settings."""
    if args.quick:
        args.sizes, args.dimensions, args.queries = [2000, 3000, 5000], 32, 8
    check_counts(args, "dimensions", "queries")
    if min(args.sizes) < max(AGAIN):
        raise InputError(f"--sizes {min(args.sizes)}: at least {max(AGAIN)} images are needed")
    settings = {"dimensions": args.dimensions, "queries": args.queries, "seed": args.seed, "first": min(args.sizes)}
    points = read_points(args.points, settings)
    todo = [(size, kind) for size in sorted(args.sizes) for kind in args.indexes if not _of(points, kind, size)]
    if todo:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            path = Path(folder) / "rows.npy"
            most = max(size for size, _ in todo)
            queries = write_rows(path, most, args.dimensions, args.queries, 0.75, args.seed, settings["first"])
            for size, kind in todo:
                points.append(in_new_process(measure_point, path, queries, size, kind))
                if args.points:
                    write_json(args.points, {"settings": settings, "points": points})
    return [row for kind in args.indexes for row in _rows(args, kind, [p for p in points if p["index"] == kind])]


def read_points(path, settings) -> list[dict]:
    """The points of a file, none where there is none. Raises InputError for those of other settings."""
    kept = read_json(path) if path else None
    if kept is None:
        return []
    if not isinstance(kept, dict) or kept.get("settings") != settings:
        raise InputError(f"{path}: its points were measured with other settings; give another --points")
    return kept["points"]


def _of(points, kind, size):
    return next((point for point in points if (point["index"], point["images"]) == (kind, size)), None)


def factory_of(kind, count, width) -> tuple[str, str]:
    """(faiss factory string, setting of the search) of an index for so many images."""
    kept = max(4, width // 4)
    if kind == "HNSW":
        return f"PCA{kept},HNSW16_SQ8", "efSearch=64"
    return f"PCA{kept},IVF{2 ** round(np.log2(4 * count**0.5))},PQ{kept // 2}np", "nprobe=128"


def measure_point(path, queries, size, kind) -> dict:
    """The figures of an index over the first ``size`` rows of a file; seconds are those of processors, of all threads
    together, which other work on the machine disturbs least. Recall: of the exact FOUND neighbours, after the
    similarities of the first candidates were computed again from the file. memory, peak memory: MB of the finished
    index, of exact search what it holds, and of this process while the index was built and searched."""
    table = np.load(path, mmap_mode="r")[:size]
    point = {"index": kind, "images": size}
    began = time.process_time()
    with PeakMemory() as memory:
        exact = search(table, queries, FOUND)[1]
    if kind == "exact":
        spent = time.process_time() - began
        return point | {"memory": memory.total, "query": 1e3 * spent / len(queries)}
    factory, setting = factory_of(kind, *table.shape)
    with PeakMemory() as memory:
        began = time.process_time()
        index = build(table, factory, training_images=65_536)
        point["build"] = time.process_time() - began
        faiss.ParameterSpace().set_index_parameters(index, setting)
        point["recall"] = recall(index.search(queries, FOUND)[1], exact, FOUND)
        for again in AGAIN:
            began = time.process_time()
            found = search_again(table, queries, index.search(queries, again)[1], FOUND)
            point[f"query {again}"] = 1e3 * (time.process_time() - began) / len(queries)
            point[f"recall {again}"] = recall(found, exact, FOUND)
    # While it is built the sample that it is trained on counts, too, whatever the size.
    return point | {"memory": size_of(index) / 1e6, "peak memory": memory.total, "factory": factory}


def fit(sizes, values, terms) -> Callable[[float], float]:
    """The law, a sum of the terms with factors that are not negative, of the least squares of its relative errors."""
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    columns = np.stack([_TERMS[term](sizes) for term in terms], axis=1) / values[:, None]
    # Columns of one size, because the solver's tolerance is the same for all.
    scale = np.linalg.norm(columns, axis=0)
    factors = nnls(columns / scale, np.ones(len(values)))[0] / scale
    return lambda n: float(sum(f * _TERMS[term](np.array(float(n))) for f, term in zip(factors, terms)))


def fit_recall(sizes, values) -> Callable[[float], float]:
    """Recall as a power of n, at most 1. A logistic of log n, tried first, missed the worst left-out point by more."""
    slope, start = np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-4)), 1)
    return lambda n: float(min(1, np.exp(start + slope * np.log(n))))


def left_out(sizes, values, fitted, relative=True) -> list[float]:
    """The error at each point of the law that was fitted to the others, as a share of the point or as it is."""
    errors = []
    for i in range(len(sizes)):
        rest = [j for j in range(len(sizes)) if j != i]
        found = fitted([sizes[j] for j in rest], [values[j] for j in rest])(sizes[i])
        errors.append(abs(found - values[i]) / (values[i] if relative else 1))
    return errors


def _rows(args, kind, points):
    points = sorted(points, key=lambda point: point["images"])
    rows = [row for point in points for row in _figures(f"{kind}, {point['images']:,}", point, args)]
    if len(points) < 3 or not args.predict:
        return rows
    sizes = [point["images"] for point in points]
    laws, errors = {}, {}
    for figure, terms in _LAWS[kind].items():
        values = [point[figure] for point in points]
        # Fewer terms than points, or nothing is left to tell an error by.
        fitted = lambda s, v, t=terms: fit(s, v, t)  # noqa: E731
        laws[figure], errors[figure] = fitted(sizes, values), left_out(sizes, values, fitted)
    for figure in [name for name in points[0] if name.startswith("recall")]:
        values = [point[figure] for point in points]
        laws[figure] = fit_recall(sizes, values)
        errors[figure] = left_out(sizes, values, fit_recall, relative=False)
    for size in args.predict:
        predicted = {figure: law(size) for figure, law in laws.items()}
        way = f"{kind}, {size:,} by the laws"
        rows += _figures(way, predicted, args)
        disk = 2 * args.dimensions * size / 1e9
        machines = max(1, int(np.ceil(predicted["memory"] / 1e3 / (0.9 * args.machine_gb))))
        rows.append(Row(f"{way}: machines", machines, "", f"{disk:,.0f} GB of descriptors on their disks"))
    for which, pick in (
        ("any point left out, the worst", max),
        ("the largest predicted from the others", lambda e: e[-1]),
    ):
        said = ", ".join(
            f"{figure} {pick(found):.2f}" if figure.startswith("recall") else f"{figure} {100 * pick(found):.0f} %"
            for figure, found in errors.items()
        )
        rows.append(Row(f"{kind}, error of the laws ({which}): memory", 100 * pick(errors["memory"]), "", said))
    return rows


def _figures(way, figures, args):
    units = {
        "memory": (1e-3, "GB"),
        "peak": (1e-3, "GB"),
        "build": (1 / 3600, "core hours"),
        "query": (1, "ms of a core"),
    }
    rows = []
    for figure, value in figures.items():
        if not isinstance(value, float):
            continue
        factor, unit = units.get(figure.split(" ")[0], (1, ""))
        rows.append(Row(f"{way}: {figure}", factor * value, unit))
    return rows
