"""Search in a million images: exact, streaming from the file, and approximate by faiss with its recall against
exact."""

import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from rrt.errors import InputError
from rrt.search.exact import search
from tools.benchmarks.common import (
    PeakMemory,
    Row,
    add_options,
    check_counts,
    clustered_rows,
    exact_products,
    format_figures,
    in_new_process,
    median_seconds,
)

HELP = "a million images on disk: exact search in blocks, and faiss indexes with recall, build time and memory"
MOST_MEMORY_MB = 3000
RECALLS = (1, 10, 100)
CHECKED = 2  # queries whose similarities with all rows are computed in float64, too
_CHUNK = 20_000

format_rows = format_figures


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--images", type=int, default=1_000_000, help="2 bytes a dimension each on disk (default %(default)s)"
    )
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=70)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument(
        "--indexes",
        nargs="*",
        metavar="FACTORY[;SETTING ...]",
        help="faiss factory strings, each with settings to search with, as 'PCA512,IVF4096,PQ128np;nprobe=16"
        ";nprobe=64' (default: IVF-PQ, HNSW and scalar quantizer for the size); none: exact search alone",
    )
    parser.add_argument(
        "--training_images", type=int, default=65_536, help="sample that indexes are trained on, at most"
    )
    parser.add_argument(
        "--again",
        type=int,
        default=400,
        help="candidates of an index whose similarity is computed again from the file; 0: none (default %(default)s)",
    )
    parser.add_argument(
        "--decay", type=float, default=0.75, help="the d-th principal variance falls as d**-decay (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default %(default)s)")
    add_options(parser, "dir", "seed", quick="few short rows")


def default_indexes(count, width):
    """Factory strings with settings. The lists of IVF grow as the square root of the images."""
    kept = max(4, width // 4)
    lists = 2 ** round(np.log2(4 * count**0.5))
    # np: without polysemous training, which takes minutes and changes the order of the codes alone.
    return [
        f"PCA{kept},IVF{lists},PQ{kept // 4}np;nprobe=8;nprobe=32;nprobe=128",
        f"PCA{kept},HNSW32_SQ8;efSearch=64;efSearch=256",
        "SQ8",
    ]


def run(args):
    """Rows `way: figure`. Raises InputError for settings that cannot be, and when exact search is not exact."""
    check_counts(args, "images", "dimensions", "queries", "k", "training_images", "rounds")
    if args.quick:
        args.images, args.dimensions, args.queries, args.rounds = 3000, 64, 10, 1
        args.k, args.again, args.training_images = min(args.k, 100), min(args.again, 400), 2000
    if args.k > args.images:
        raise InputError(f"--k {args.k}: there are {args.images} images only")
    if args.again and args.again < args.k:
        raise InputError(f"--again {args.again}: at least --k {args.k} candidates are needed, or 0")
    indexes = default_indexes(args.images, args.dimensions) if args.indexes is None else args.indexes
    for text in indexes:
        _new_index(text.split(";")[0], args.dimensions)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "rows.npy"
        queries = write_rows(path, args.images, args.dimensions, args.queries, args.decay, args.seed)
        exact, rows = in_new_process(_exact, path, queries, args.k, args.rounds)
        for text in indexes:
            rows += in_new_process(
                _approximate, path, queries, exact, text, args.training_images, args.again, args.rounds
            )
    return rows


def write_rows(path, count, width, num_queries, decay, seed, first=None):
    """Write unit rows float16 [count, width] to a .npy -> queries float32 [num_queries, width], further images of
    landmarks among the ``first`` rows (None: among all), whose number alone then decides about them and about the head
    of the file. The rows come in chunks of landmarks of their own, so that memory does not grow with them."""
    table = np.lib.format.open_memmap(path, "w+", np.float16, (count, width))
    queries, heads = [], len(range(0, first or count, _CHUNK))
    for number, start in enumerate(range(0, count, _CHUNK)):
        size = min(_CHUNK, count - start)
        # Spread evenly over the chunks.
        own = num_queries * (number + 1) // heads - num_queries * number // heads if number < heads else 0
        # The last of the first rows may share a chunk with later ones: landmarks are drawn for all of it.
        drawn = own + (_CHUNK if first else size)
        rows = clustered_rows(np.random.default_rng([seed, number]), drawn, width, decay)
        table[start : start + size] = rows[own:][:size]
        # A view would keep all rows.
        queries.append(rows[:own].copy())
    table.flush()
    return np.concatenate(queries)


def _exact(path, queries, k, rounds):
    table = np.load(path, mmap_mode="r")
    with PeakMemory() as memory:
        seconds = median_seconds(
            {
                "all": lambda turn: search(table, queries, k),
                "one": lambda turn: search(table, queries[turn : turn + 1], k),
            },
            np.arange(rounds) % len(queries),
        )
        found = search(table, queries, k)[1]
    _check_exact(table, queries, found)
    note = f"{len(queries)} queries together, peak without page cache; {1e3 * seconds['one']:.0f} ms a query one by one"
    way = "exact, from the file"
    size = table.nbytes / 1e6
    rows = [
        Row(f"{way}: build", 0.0, "s"),
        Row(f"{way}: index", size, "MB", "on disk"),
        Row(f"{way}: peak memory", memory.total, "MB", "", f"<= {MOST_MEMORY_MB}"),
        Row(f"{way}: time", 1e3 * seconds["all"] / len(queries), "ms a query", note),
    ]
    return found, rows + [Row(f"{way}: recall@{n}", 1.0, "") for n in RECALLS if n <= k]


def _check_exact(table, queries, found):
    for query, own in zip(queries[:CHECKED], found):
        products = exact_products(table, query)
        best = np.sort(products)[::-1][: len(own)]
        if np.abs(products[own] - best).max() > 1e-5:
            raise InputError("exact search gives other neighbours than float64 products; do not use it here")


def _new_index(factory, width):
    # L2: unit rows rank as by inner product, also after PCA has taken off their mean.
    try:
        return faiss.index_factory(width, factory, faiss.METRIC_L2)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][-80:]
        raise InputError(f"--indexes {factory!r}: faiss cannot make it for {width} dimensions ({reason})") from None


def build(table, factory, training_images, seed=0):
    """A faiss index over a table [N, D] of any float type, trained on a sample of it and filled block by block."""
    index = _new_index(factory, table.shape[1])
    sample = np.sort(np.random.default_rng(seed).choice(len(table), min(training_images, len(table)), replace=False))
    if "IVF" in factory:
        # What it is the stubs cannot say: the factory's text does.
        lists: Any = faiss.downcast_index(faiss.extract_index_ivf(index))
        # Fewer rows for each list than faiss would like; it says so on the console otherwise.
        lists.cp.min_points_per_centroid = 1
        if hasattr(lists, "pq"):
            lists.pq.cp.min_points_per_centroid = 1
    index.train(table[sample].astype(np.float32))
    for start in range(0, len(table), 8192):
        index.add(table[start : start + 8192].astype(np.float32))
    return index


def search_again(table, queries, candidates, k):
    """The k best [Q, k] of each query's candidates [Q, n] (-1: none) by their similarities in the table."""
    found = np.full((len(queries), k), -1)
    for row, (query, indices) in enumerate(zip(queries, candidates)):
        indices = np.sort(indices[indices >= 0])
        order = np.argsort(-(table[indices].astype(np.float32) @ query), kind="stable")[:k]
        found[row, : len(order)] = indices[order]
    return found


def recall(found, exact, n):
    """The share of the n exact neighbours of each query that are among the first n found; the mean over queries."""
    return float(np.mean([np.isin(right[:n], own[:n]).mean() for own, right in zip(found, exact)]))


def _approximate(path, queries, exact, text, training_images, again, rounds):
    table, k = np.load(path, mmap_mode="r"), exact.shape[1]
    factory, *settings = text.split(";")
    with PeakMemory() as memory:
        began = time.perf_counter()
        index = build(table, factory, training_images)
        seconds = time.perf_counter() - began
    rows = []
    for setting in settings or [""]:
        if setting:
            try:
                faiss.ParameterSpace().set_index_parameters(index, setting)
            except RuntimeError:
                raise InputError(f"--indexes: faiss does not know the setting {setting!r} of {factory}") from None
        ways = {"": lambda turn: index.search(queries, k)[1]}
        if again:
            ways[f", {again} again"] = lambda turn: search_again(table, queries, index.search(queries, again)[1], k)
        with memory:
            taken = median_seconds(ways, range(rounds))
            found = {name: way(0) for name, way in ways.items()}
        for name in ways:
            way = f"{factory} {setting}".strip() + name
            rows += [
                Row(f"{way}: build", seconds, "s"),
                Row(f"{way}: index", size_of(index) / 1e6, "MB"),
                Row(f"{way}: peak memory", memory.total, "MB"),
                Row(f"{way}: time", 1e3 * taken[name] / len(queries), "ms a query"),
            ]
            rows += [Row(f"{way}: recall@{n}", recall(found[name], exact, n), "") for n in RECALLS if n <= k]
    return rows


def size_of(index):
    """Bytes of the index in a file, which is not written."""
    sizes = []
    writer = faiss.PyCallbackIOWriter(lambda block: sizes.append(len(block)))  # pyright: ignore[reportAttributeAccessIssue]
    faiss.write_index(index, writer)
    return sum(sizes)
