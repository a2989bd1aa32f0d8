"""The descriptor store against files of one protobuf message an image: reading, size, writing (tools/benchmark.py
store)."""

import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from rrt.formats.delf import LocalFeatures, parse_feature_messages, read_features, serialize_datum, serialize_features
from rrt.store.finished import remove_store
from rrt.store.records import ImageRecord
from rrt.store.store import Store
from rrt.store.writer import PartWriter, write_store
from tools.benchmarks.common import SCALES, Row, add_options, check_counts, median_seconds, unit_rows

HELP = "feature files and descriptor store: reading, size on disk, writing"
LOCAL_DIM, GLOBAL_DIM, SIZE = 128, 2048, (1024, 768)
MAX_LOCAL = 500  # local descriptors of an image that the reranker takes


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--images", type=int, default=200, help="images in the store (default %(default)s)")
    parser.add_argument("--num_local", type=int, default=650, help="local descriptors an image (default %(default)s)")
    add_options(parser, "dir", "seed", quick="a few small images")


def run(args):
    """Rows of every figure; descriptors are drawn at random, files are in the page cache. Raises InputError."""
    check_counts(args, "images", "num_local")
    images, num_local, readings, writings = (6, 40, 5, 2) if args.quick else (args.images, args.num_local, 60, 7)
    generator = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        folder = Path(folder)
        records = [_random_record(f"{i:06d}.jpg", num_local, generator) for i in range(images)]
        locals_, globals_ = _write_files(folder, records)
        return [
            *_reading(folder, records, locals_, generator, readings),
            *_sizes(folder, records, locals_, globals_),
            *_writing(folder, records, writings),
            *_opening(folder, 5 if args.quick else 1000),
        ]


def read_by_messages(path):
    """descriptors [n, D], keypoints, scales, attention of a feature file: an object a feature, its values read in
    turn."""
    features = parse_feature_messages(path.read_bytes())
    descriptors = [feature.descriptor for feature in features]
    found = [np.array(each.float_list.value, np.float32).reshape(each.shape.dim) for each in descriptors]
    more = [(x.x, x.y) for x in features], [x.scale for x in features], [x.strength for x in features]
    return np.array(found), *(np.array(values, np.float32) for values in more)


def _reading(folder, records, paths, generator, repeats):
    files = [paths[i] for i in generator.integers(len(paths), size=repeats)]
    images = generator.integers(len(records), size=20 * repeats)
    # One after the other: what a reader finds in the processor's caches is what its own last image left there.
    seconds = median_seconds({"messages": read_by_messages}, files)
    seconds |= median_seconds({"fast": read_features}, files * 5)
    with Store(write_store(folder / "read.h5", records)) as store:
        seconds |= median_seconds({"packed": lambda i: store.read_packed([i], MAX_LOCAL)}, images)
        seconds |= median_seconds({"float32": lambda i: store.read(i, MAX_LOCAL)}, images)
    name = f"{len(records[0].attention)} features of {LOCAL_DIM} dimensions"
    ratio = {way: seconds["messages"] / time for way, time in seconds.items()}
    compared, packed = "the reading all others are compared with", "read_packed: half floats, as training reads them"
    return [
        Row(f"{name}: an object a feature", 1e3 * seconds["messages"], "ms", compared),
        Row(f"{name}: rrt.formats.delf", 1e3 * seconds["fast"], "ms"),
        Row("rrt.formats.delf against objects", ratio["fast"], "times as fast", "", ">= 10"),
        Row(f"an image's {MAX_LOCAL} from the store", 1e3 * seconds["packed"], "ms", packed),
        Row("store against objects", ratio["packed"], "times as fast", "read_packed", ">= 50"),
        Row("store against objects, float32", ratio["float32"], "times as fast", "read: half floats converted"),
    ]


def _sizes(folder, records, locals_, globals_):
    files = {
        "local": sum(path.stat().st_size for path in locals_),
        "global": sum(path.stat().st_size for path in globals_),
    }
    global_bytes = 4 * GLOBAL_DIM * len(records)
    rows = []
    for dtype, target in (("float16", "<= 0.52"), ("int8", "<= 0.28")):
        size = write_store(folder / "size.h5", records, local_dtype=dtype).stat().st_size
        name, share = f"store of {dtype}, size", (size - global_bytes) / files["local"]
        rows += [
            Row(name, share, "of .delg_local", "without global descriptors on both sides", target),
            Row(name, size / sum(files.values()), "of all files", "with them on both sides"),
        ]
    return rows


def _writing(folder, records, repeats):
    path, array_path = folder / "write.h5", folder / "array.npy"
    content = np.frombuffer(write_store(path, records).read_bytes(), np.uint8)

    def save(flush):
        array_path.unlink(missing_ok=True)
        with open(array_path, "wb") as file:
            np.save(file, content)
            if flush:
                file.flush()
                os.fsync(file.fileno())

    def write_parts(_):
        remove_store(path)
        writer = PartWriter(path, [record.name for record in records], {})
        by_name = {record.name: record for record in records}
        for part in range(writer.num_parts):
            writer.write_part(part, [by_name[name] for name in writer.block_names(part)])
        writer.merge()

    seconds = median_seconds(
        {
            "save": lambda _: save(True),
            "unsafe": lambda _: save(False),
            "parts": write_parts,
            "store": lambda _: write_store(path, records),
        },
        range(repeats),
    )
    speed = {way: len(content) / time / 1e6 for way, time in seconds.items()}
    whole, parts = (speed[way] / speed["save"] for way in ("store", "parts"))
    return [
        Row("numpy.save, flushed to disk", speed["save"], "MB/s", "as the store is"),
        Row("numpy.save, not flushed", speed["unsafe"], "MB/s"),
        Row("write_store", speed["store"], "MB/s"),
        Row("write_store against numpy.save", whole, "times as fast", "both flushed to disk", ">= 0.5"),
        Row("parts and merge against numpy.save", parts, "times as fast", "writes everything twice"),
    ]


def _opening(folder, parts):
    """A folder of parts, opened for the first time and by what that found."""
    path, generator = folder / "parts.h5", np.random.default_rng(0)
    path.mkdir()
    for part in range(parts):
        record = _random_record("", 20, generator)
        write_store(path / f"{part}.h5", [replace(record, name=f"{part}/{i}.jpg") for i in range(4)])
    seconds = [median_seconds({"opened": lambda _: Store(path)}, [0])["opened"] for _ in range(6)]
    several = f"{parts} parts"
    return [
        Row(f"{several} opened for the first time", seconds[0], "s", "each looked at"),
        Row(f"{several} opened again", statistics.median(seconds[1:]), "s", "by parts.json", "<= 1"),
    ]


def _random_record(name, num_local, generator):
    keypoints = generator.uniform(0, SIZE, (num_local, 2)).astype(np.float32)
    attention = np.sort(generator.exponential(100, num_local).astype(np.float32))[::-1]
    global_, local = unit_rows(generator, 1, GLOBAL_DIM)[0], unit_rows(generator, num_local, LOCAL_DIM)
    return ImageRecord(name, SIZE, global_, local, keypoints, generator.choice(SCALES, num_local), attention)


def _write_files(folder, records):
    """The records as feature files -> their paths: local, global."""
    locals_, globals_ = [], []
    for record in records:
        features = LocalFeatures(
            record.descriptors, record.keypoints, record.scales, record.attention, np.zeros(len(record.attention))
        )
        for paths, suffix, content in (
            (locals_, ".delg_local", serialize_features(features)),
            (globals_, ".delg_global", serialize_datum(record.global_)),
        ):
            paths.append(folder / f"{Path(record.name).stem}{suffix}")
            paths[-1].write_bytes(content)
    return locals_, globals_
