"""The extraction benchmark: the plain way, one image at a time and every scale through the whole network in float32,
against delg_extract/extract.py with its worker processes. All ways take turns over the same images of one run."""

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from delg_extract.extraction.extractor import Extractor, LocalAndGlobal
from delg_extract.extraction.parts import Plan
from delg_extract.extraction.pyramid import level_size, receptive_boxes
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.extraction.workers import LocalWorkers, default_workers
from rrt.errors import InputError
from rrt.formats.image_jobs import Job, read_image
from rrt.store.store import Store
from tools.benchmarks.common import add_options, check_counts, in_new_process, peak_memory

HELP = "extraction of 1024x768 images: speed, memory and agreement with the plain way (TensorFlow)"
TARGETS = {"float32": ">= 1.3", "bfloat16": ">= 2.5"}
_plain = {}


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--model", help="weight file of delg_extract/train.py (default: a ResNet-50 with made-up weights)"
    )
    parser.add_argument("--images", help="folder with images, those of 1024x768 are taken (default: made-up ones)")
    parser.add_argument("--rounds", type=int, default=3, help="times that the ways take turns (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=4, help="images of each turn (default %(default)s)")
    parser.add_argument(
        "--max_features", type=int, default=1000, help="local descriptors an image (default %(default)s)"
    )
    parser.add_argument(
        "--num_workers", type=int, default=0, help="worker processes of extract.py (default: its own choice)"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=list(TARGETS),
        choices=list(TARGETS),
        help="precisions of extract.py to measure (default both)",
    )
    add_options(parser, quick="the small network and images of 256x192")


def run(args):
    """Rows of the benchmark."""
    check_counts(args, "rounds", "pictures", "max_features")
    size = (256, 192) if args.quick else (1024, 768)
    settings = ExtractionSettings(max_features=args.max_features)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        needed = args.pictures * (args.rounds + 1)
        jobs = _found(args.images, size, needed) if args.images else _made_up(folder, size, needed)
        # In a process of its own, so that this one never loads TensorFlow.
        made_up = _write_weights, folder / "weights.h5", "small" if args.quick else "resnet50"
        model = args.model or in_new_process(*made_up)
        num_workers = args.num_workers or default_workers()
        return _rows(folder, model, settings, jobs, args, num_workers)


def _rows(folder, model, settings, jobs, args, num_workers):
    block = -(-args.pictures // num_workers)
    how = {"block": block, "layout": {"local_dtype": "float32"}}
    plans = {
        precision: Plan(str(model), settings, jobs, str(folder / f"{precision}.h5"), {}, precision=precision, **how)
        for precision in args.precision
    }
    turns = [range(first, min(first + args.pictures, len(jobs))) for first in range(0, len(jobs), args.pictures)]
    parts_of = [sorted({index // block for index in turn}) for turn in turns]
    if sum(len(parts) for parts in parts_of) != len({part for parts in parts_of for part in parts}):
        raise InputError(
            f"{args.pictures} images of a turn do not divide among {num_workers} workers; give another --pictures"
        )
    seconds, memory, plain = {name: [] for name in ("plain", *plans)}, {}, []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as reference:
        pools = {precision: LocalWorkers(plan, num_workers) for precision, plan in plans.items()}
        for turn, parts in zip(turns, parts_of):  # the first turn warms everything up
            began = time.perf_counter()
            plain += reference.submit(extract_plainly, str(model), settings, [jobs[index] for index in turn]).result()
            seconds["plain"].append(time.perf_counter() - began)
            memory["plain"] = reference.submit(peak_memory).result()
            for precision, pool in pools.items():
                began = time.perf_counter()
                pool.run(parts, lambda count: None)
                seconds[precision].append(time.perf_counter() - began)
                memory[precision] = max(each.submit(peak_memory).result() for each in pool.executors)
        for pool in pools.values():
            pool.__exit__(None)
    seconds = {name: [took / args.pictures for took in turns[1:]] for name, turns in seconds.items()}
    most = f"{memory['plain']:.0f} MB at most"
    rows: list[tuple] = [("plain way", statistics.median(seconds["plain"]), "s an image", most)]
    for precision, plan in plans.items():
        took = statistics.median(seconds[precision])
        ratio = statistics.median(slow / fast for slow, fast in zip(seconds["plain"], seconds[precision]))
        note = f"{took:.2f} s an image, {num_workers} workers of at most {memory[precision]:.0f} MB"
        rows.append((f"extract.py, {precision}", ratio, "times as fast", note, TARGETS[precision]))
        plan.writer().merge()
        rows += _agreement(precision, plain, plan.output)
    return rows


def _agreement(precision, plain, store_path):
    """Rows: how far a store is from the descriptors of the plain way."""
    shares, global_cosines, local_cosines = [], [], []
    with Store(store_path) as store:
        for i, exact in enumerate(plain):
            global_cosines.append(float(exact.global_descriptor @ store.global_descriptors[i]))
            local = store.read(i)
            ours = {point: row for row, point in enumerate(_points(local.keypoints, local.scales))}
            points = _points(exact.locations[:, ::-1], exact.scales)
            both = [(row, ours[point]) for row, point in enumerate(points) if point in ours]
            shares.append(len(both) / max(1, len(points)))
            local_cosines += [float(exact.descriptors[a] @ local.descriptors[b]) for a, b in both]
    worst = f"worst of {len(local_cosines)}: {min(local_cosines):.5f}"
    found = [
        ("same keypoints", float(np.mean(shares)), "share", f"worst image {min(shares):.4f}", ">= 0.98"),
        ("cosine of global descriptors", min(global_cosines), "worst", f"{len(plain)} images", ">= 0.999"),
        ("cosine of local descriptors", float(np.mean(local_cosines)), "mean", worst, ">= 0.999"),
    ]
    return [(f"{precision}: {what}", *figures) for what, *figures in found]


def _points(keypoints, scales):
    return [
        (round(float(x), 1), round(float(y), 1), round(float(scale), 3)) for (x, y), scale in zip(keypoints, scales)
    ]


# ---- the plain way ---------------------------------------------------------------------------------------------------


class _PlainNetwork:
    """Every scale through the whole network as it was trained."""

    def __init__(self, model):
        from delg_extract.network.tensorflow import tf

        self.model = model

        @tf.function(input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([2], tf.int32)], autograph=False)
        def level(image, size):
            conv4 = model.conv4(tf.image.resize(image[None], size))
            maps = model.local(model.block3(conv4))
            return maps.attention[0], maps.descriptors[0], model.embed(model.conv5(conv4))[0]

        self.level = level

    def local_and_global(self, images, settings):
        from delg_extract.network.model import normalize_pixels

        return [self._one(normalize_pixels(image), settings) for image in images]

    def _one(self, image, settings):
        levels = []
        for scale in settings.scales:
            size = [level_size(side, scale) for side in image.shape[:2]]
            attention, descriptors, embedding = (x.numpy() for x in self.level(image, size))
            height, width = attention.shape
            boxes = receptive_boxes(height, width, self.model.stride) / scale
            features = descriptors.reshape(attention.size, -1)
            scales = np.full(attention.size, 1 / scale, np.float32)
            levels.append((boxes, features, scales, attention.ravel(), embedding))
        *local, embeddings = zip(*levels)
        boxes, features, scales, scores = map(np.concatenate, local)
        best = np.argsort(-scores, kind="stable")[: settings.max_features]
        chosen = np.array([embeddings[i] for i in settings.global_positions])
        return LocalAndGlobal(boxes[best], features[best], scales[best], scores[best], chosen)


def extract_plainly(weights, settings, jobs):
    """Descriptors of images one after the other; the network is kept from call to call."""
    if "extractor" not in _plain:
        from delg_extract.network.weights import load_weights

        _plain["extractor"] = Extractor(_PlainNetwork(load_weights(weights)), settings)
    return [_plain["extractor"](_pixels(job)) for job in jobs]


def _pixels(job):
    pixels = read_image(job).pixels
    assert pixels is not None, job
    return pixels


# ---- what is extracted -----------------------------------------------------------------------------------------------


def _found(folder, size, count):
    jobs = []
    for path in sorted(Path(folder).rglob("*.jpg")):
        job = Job(path.name, path)
        pixels = read_image(job).pixels  # None for an image that cannot be read
        if pixels is not None and pixels.shape[1::-1] == size:
            jobs.append(job)
        if len(jobs) == count:
            return tuple(jobs)
    raise InputError(
        f"{folder}: {len(jobs)} images of {size[0]}x{size[1]}, {count} are needed; give fewer --pictures or --rounds"
    )


def _made_up(folder, size, count):
    rng, jobs = np.random.default_rng(0), []
    for i in range(count):
        patches = [Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (6, 24, 96)]
        layers = [np.asarray(each.resize(size, Image.Resampling.BICUBIC), float) for each in patches]
        path = folder / f"{i}.jpg"
        Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).save(path, quality=90)
        jobs.append(Job(path.name, path))
    return tuple(jobs)


def _write_weights(path, backbone):
    from delg_extract.network.model import Delg
    from delg_extract.network.weights import save_weights

    model = Delg(backbone)
    rng = np.random.default_rng(0)
    for name, variable in model.variables_by_name.items():
        shape = variable.numpy().shape
        if name.endswith("/kernel") and len(shape) == 4:  # He: the signal keeps its size from layer to layer
            variable.assign((rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))).astype(np.float32))
        if name.endswith("2c/gamma"):
            variable.assign(np.full(shape, 0.3, np.float32))
    return save_weights(path, model)
