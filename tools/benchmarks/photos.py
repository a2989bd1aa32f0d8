"""An index of one's own photographs: what manifest, search, queries and updates take, with made-up descriptors."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from rrt.photo_index import extraction, update
from rrt.store.records import ImageRecord
from rrt.store.writer import write_store
from tools.benchmarks.common import (
    PeakMemory,
    Row,
    add_options,
    check_counts,
    clustered_rows,
    in_new_process,
    unit_rows,
)

_WITHOUT = "without describing"
HELP = "an index of 10,000 photographs: update, opening, queries, memory, bytes (the network aside: benchmark extract)"


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--photographs", "--images", type=int, default=10_000)
    parser.add_argument("--global_dim", type=int, default=512, help="as the shipped model has (default %(default)s)")
    parser.add_argument("--local_dim", type=int, default=128)
    parser.add_argument(
        "--num_local", type=int, default=200, help="local descriptors a photograph (default %(default)s)"
    )
    parser.add_argument(
        "--file_bytes", type=int, default=100_000, help="size of a file, which is read and hashed (default %(default)s)"
    )
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--reranker", help="checkpoint that fits the dimensions: time of reranking 100, too")
    add_options(parser, "dir", quick="few photographs")


def run(args):
    """Rows of figures. Raises InputError for counts below 1."""
    if args.quick:
        args.photographs, args.queries, args.num_local = 60, 3, 5
    check_counts(args, "photographs", "global_dim", "local_dim", "num_local", "file_bytes", "queries")
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        return [row for step in (_build, _change, _search) for row in in_new_process(step, args, folder)]


def write_photographs(folder, count, size, start=0):
    """Files that no two are alike of, in folders of a thousand. They are no images: nothing here decodes them."""
    for i in range(start, start + count):
        path = Path(folder) / f"{i // 1000:03d}" / f"photograph_{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.random.default_rng(i).bytes(size))


def _made_up(args, flags, table, output, count, num_workers, lock):
    """Stands for the extraction: a store of made-up descriptors of the images of a table."""
    names = list(json.loads(Path(table).read_text()))
    generator = np.random.default_rng(len(names))
    globals_ = clustered_rows(generator, len(names), args.global_dim, 0.75)
    scales = np.full(args.num_local, 2, np.float32)
    attention = np.linspace(2, 1, args.num_local, dtype=np.float32)
    keypoints = generator.uniform(0, 480, (args.num_local, 2)).astype(np.float32)
    pool = unit_rows(generator, 4096 + args.num_local, args.local_dim).astype(np.float16)
    records = [  # parts of one pool, so that many take no memory
        ImageRecord(name, (640, 480), row, pool[start : start + args.num_local], keypoints, scales, attention)
        for name, row, start in zip(names, globals_, generator.integers(0, 4096, len(names)).tolist())
    ]
    write_store(output, records, "photographs")


def _updated(args, folder, **more):
    """(seconds without those of describing, what update() tells)."""
    described = 0.0

    def timed(*given):
        nonlocal described
        began = time.perf_counter()
        _made_up(args, *given)
        described += time.perf_counter() - began

    extraction.extract = timed
    extraction.describe_extraction = lambda flags: {"flags": flags, "model_sha256": "0" * 64, "settings": {}}
    began = time.perf_counter()
    done = update.update(Path(folder) / "index", str(Path(folder) / "photographs"), update.BuildSettings(**more))
    return time.perf_counter() - began - described, done


def _build(args, folder):
    write_photographs(Path(folder) / "photographs", args.photographs, args.file_bytes)
    return [Row("first build", _updated(args, folder)[0], "s", _WITHOUT)]


def _change(args, folder):
    photos, index, memory = Path(folder) / "photographs", Path(folder) / "index", PeakMemory()
    with memory:
        nothing, _ = _updated(args, folder)
    few = max(1, args.photographs // 100)
    write_photographs(photos, few, args.file_bytes, start=args.photographs)
    for i in range(few):
        (photos / "000" / f"photograph_{i:06d}.jpg").unlink()
    with memory:
        changed, _ = _updated(args, folder)
        whitened, done = _updated(args, folder, whiten=min(256, args.global_dim))
        store = update.open_segments(index, done.manifest.segments)
        assert store is not None
        began = time.perf_counter()
        update.write_rows(store, update.alive_rows(store, done.manifest), Path(folder) / "merged.h5", {}, "")
        merging = time.perf_counter() - began
    size = sum(path.stat().st_size for path in (index / "segments").glob("*.h5"))
    return [
        Row("update without changes", nothing, "s"),
        Row("update, 1 % new and 1 % removed", changed, "s", _WITHOUT),
        Row("learning a whitening of 256 dimensions", whitened, "s"),
        Row("merging all segments", merging, "s"),
        Row("peak memory of updates", memory.total, "MB", "without page cache"),
        Row("index.json", (index / "index.json").stat().st_size / 1e6, "MB"),
        Row("descriptors", size / 1e6, "MB", f"{size / args.photographs / 1e3:.0f} kB a photograph"),
    ]


def _search(args, folder):
    from rrt.photo_index.listing import Wanted
    from rrt.photo_index.query import PhotoIndex
    from rrt.photo_index.ranking import Ranker, make_ranker
    from rrt.photo_index.service import Service

    with PeakMemory() as memory:
        began = time.perf_counter()
        index = PhotoIndex(Path(folder) / "index")
        assert len(index.gallery)
        opening = time.perf_counter() - began
        rankers = {"global search": Ranker("none"), "100 reranked by default": make_ranker(index.manifest)}
        if args.reranker:
            rankers["100 reranked by rrt"] = make_ranker(index.manifest, checkpoint=args.reranker)
        numbers = np.random.default_rng(0).integers(0, len(index.entries), args.queries)
        taken = {}
        for name, ranker in rankers.items():
            index.search(0, ranker)
            times = []
            for number in numbers.tolist():
                began = time.perf_counter()
                index.search(number, ranker)
                times.append(time.perf_counter() - began)
            taken[name] = times
        service, asked = Service(index, rankers["global search"], describer=None), {}  # pyright: ignore[reportArgumentType]
        for name, more in (
            ("the first page of the list", {}),
            ("the last page, by date", {"offset": len(index.entries) - 60, "sort": "newest"}),
            ("a page of names with a word", {"wanted": Wanted(text="graph 99")}),
        ):
            began = time.perf_counter()
            service.about()
            service.photographs(**{"offset": 0, "limit": 60, **more})
            asked[name] = time.perf_counter() - began
    rows = [Row("opening the index", opening, "s")]
    rows += [Row(name, 1e3 * seconds, "ms", "with folders and dates read") for name, seconds in asked.items()]
    rows += [
        Row(f"a query, {name}", 1e3 * float(np.median(times)), "ms", f"slowest {1e3 * max(times):.0f}")
        for name, times in taken.items()
    ]
    return rows + [Row("peak memory of searching", memory.total, "MB", "without page cache")]
