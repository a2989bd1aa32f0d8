"""Reading of training batches, ours against an image at a time and default collation (tools/benchmark.py loader)."""

import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from rrt.datasets.sets import TrainSet
from rrt.errors import InputError
from rrt.formats.lists import ImageList
from rrt.network.model import RRT
from rrt.network.pairs import scale_index
from rrt.store.checked import not_finite
from rrt.store.file import Sizes, create_file, write_columns
from rrt.store.schema import SCHEMA, VERSION, write_attributes
from rrt.store.store import Store
from rrt.training.batches import BatchSource
from rrt.training.loader import load_batches
from rrt.training.sampler import TripletSampler
from tools.benchmarks.common import SCALES, Row, add_options, anonymous_bytes, check_counts, unit_rows

HELP = "reading of training batches: images a second, waiting of the training step, memory over an epoch"
IMAGES_OF_A_LANDMARK = 20
_BLOCK = 1000


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--images", type=int, default=3000, help="images in the store (default %(default)s)")
    parser.add_argument("--num_local", type=int, default=500, help="local descriptors an image (default %(default)s)")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that read (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the ways take turns so often (default %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=5, help="training steps whose waiting is measured, 0 = none (default %(default)s)"
    )
    add_options(parser, "dir", "device", "seed", quick="a tiny store")


def run(args):
    """Rows of every figure; descriptors are drawn at random, the store is in the page cache. Raises InputError."""
    check_counts(args, "images", "num_local", "num_workers", "rounds")
    images, num_local, sizes = (200, 10, (16, 128)) if args.quick else (args.images, args.num_local, (2048, 128))
    if images < 2 * IMAGES_OF_A_LANDMARK:
        raise InputError(f"--images {images}: expected at least {2 * IMAGES_OF_A_LANDMARK}, two landmarks")
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        store = make_store(Path(folder) / "delg_made_up.h5", images, num_local, *sizes, args.seed)
        source = make_source(store, num_local, args.seed)
        rows = _speeds(source, args) + _memory(source, args)
        if args.steps:
            model = RRT(*sizes).to(args.device)
            rows += [_waiting(source, model, args, workers) for workers in (0, args.num_workers)]
    return rows


def make_store(path, images, num_local, global_dim, local_dim, seed=0) -> Store:
    """A store of random descriptors, written in blocks: rows of a small pool, drawn again and again."""
    generator = np.random.default_rng(seed)
    pools = [unit_rows(generator, 4096, local_dim).astype(np.float16), unit_rows(generator, 512, global_dim)]

    def blocks():
        for start in range(0, images, _BLOCK):
            count = min(_BLOCK, images - start)
            rows = count * num_local
            yield {
                "image_size": np.full((count, 2), (1024, 768), np.int32),
                "global": pools[1][generator.integers(len(pools[1]), size=count)],
                "local/offsets": np.arange(count + 1) * num_local,
                "local/descriptors": pools[0][generator.integers(len(pools[0]), size=rows)],
                "local/keypoints": np.zeros((rows, 2), np.float32),
                "local/scales": generator.choice(SCALES, rows),
                "local/attention": np.tile(np.linspace(9, 1, num_local, dtype=np.float32), count),
            }

    names = [f"{i:07d}.jpg" for i in range(images)]
    with create_file(path) as file:
        write_columns(file, Sizes(names, images * num_local, global_dim, local_dim), blocks(), np.float16)
        write_attributes(file, schema=SCHEMA, version=VERSION, config="{}", complete=True)
    return Store(path)


def make_source(store, num_local, seed=0, **settings) -> BatchSource:
    """Batches over all images of a store: landmarks of 20, each image's neighbours ten of its own and twenty others."""
    generator = np.random.default_rng(seed)
    rows = np.arange(len(store))
    labels = rows // IMAGES_OF_A_LANDMARK
    own = labels[:, None] * IMAGES_OF_A_LANDMARK + (rows[:, None] + np.arange(1, 11)) % IMAGES_OF_A_LANDMARK
    away = generator.integers(IMAGES_OF_A_LANDMARK, len(rows) - IMAGES_OF_A_LANDMARK, (len(rows), 20))
    neighbors = np.concatenate([own, (rows[:, None] + away) % len(rows)], axis=1)
    images = ImageList(Path("train.txt"), store.names, labels, store.image_size)
    train = TrainSet(Path(store.path).parent, store, images, rows, neighbors)
    return BatchSource(train, TripletSampler(labels, neighbors), None, max_local=num_local, **settings)


class PlainImages(Dataset):
    """An image at a time: as float32, padded, its scales as indices; keypoints and attention are read, too."""

    def __init__(self, store, max_local):
        self.store, self.max_local = store, max_local

    def __getitem__(self, index):
        local = self.store.read(index, self.max_local)
        count = len(local.descriptors)
        if not np.isfinite(local.descriptors).all():
            raise not_finite(self.store, index, "local descriptors")
        descriptors = np.zeros((self.max_local, self.store.local_dim), np.float32)
        scales = np.zeros(self.max_local, np.int64)
        padding = np.ones(self.max_local, bool)
        descriptors[:count], scales[:count], padding[:count] = local.descriptors, scale_index(local.scales), False
        return np.array(self.store.global_descriptors[index]), descriptors, scales, padding


def plain_batches(source, plan, num_workers):
    """(global [36, Dg], local [36, L, Dl], scale index, padding) of each step's triplets."""
    steps = [plan.triplets[step * 12 : step * 12 + 12].ravel().tolist() for step in range(len(plan))]
    return DataLoader(PlainImages(source.train.store, source.max_local), batch_sampler=steps, num_workers=num_workers)


WAYS = {
    "plain way, in the caller": lambda source, plan, workers: plain_batches(source, plan, 0),
    "ours, in the caller": lambda source, plan, workers: load_batches(source, plan, prefetch=0),
    "plain way, {} processes": plain_batches,
    "ours, {} processes": lambda source, plan, workers: load_batches(source, plan, num_workers=workers),
}


def _speeds(source, args):
    """Images a second after the first batches, of each way, and the time that all processors spend; they take turns."""
    plan = source.plan(args.seed, 1)
    figures = {name: [] for name in WAYS}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # collation would wait for its threads
    for _ in range(args.rounds):
        for name, way in WAYS.items():
            figures[name].append(_speed(way(source, plan, args.num_workers)))
    torch.set_num_threads(threads)
    rows = []
    for name, measured in figures.items():
        speeds, spent = zip(*measured)
        note = f"{min(speeds):.0f} to {max(speeds):.0f}; {1e6 * statistics.median(spent):.0f} us of processors an image"
        target = ">= 3000" if name.startswith("ours") else ""
        rows.append(Row(name.format(args.num_workers), statistics.median(speeds), "images/s", note, target))
    for plain, ours in (rows[:2], rows[2:4]):
        rows.append(Row(f"{ours.label} against the plain way", ours.value / plain.value, "times as fast"))
    return rows


def _speed(batches, longest=2.0, warm=3):
    """(images a second, seconds of all processors an image), an image counted once a batch, to the end or ``longest``
    seconds."""
    batches = iter(batches)
    for _ in range(warm):
        next(batches)
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    start, spent, images = time.perf_counter(), sum(map(processor_seconds, processes)), 0
    for number, batch in enumerate(batches):
        images += len(batch[0]) if isinstance(batch, list) else len(batch.images.global_)
        if number % 16 == 0:  # at the end workers have left and can no longer be asked
            seconds = time.perf_counter() - start
            figures = images / seconds, (sum(map(processor_seconds, processes)) - spent) / images
            if seconds > longest:
                break
    return figures


def processor_seconds(process):
    """Time that processors have spent on a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(source, args):
    used, images = memory_over_epoch(source, source.plan(args.seed, 1), args.num_workers)
    settled = used[len(used) // 10 :]
    store = source.train.store
    held = store.local_descriptors.nbytes / 2**20
    return [
        Row(
            "anonymous memory over an epoch, growth",
            max(settled) - settled[0],
            "MiB",
            f"caller and {args.num_workers} processes, {settled[0]:.0f} MiB after a tenth of it;"
            f" {images} images of {len(store)} read, {held:.0f} MiB of descriptors",
            "<= 64",
        )
    ]


def memory_over_epoch(source, plan, num_workers):
    """([MiB of anonymous and shared memory of this process and its workers] over an epoch, images read)."""
    used, images = [], 0
    for step, batch in enumerate(load_batches(source, plan, num_workers=num_workers)):
        images += len(batch.images.global_)
        if step % max(1, len(plan) // 50) == 0:
            processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            used.append(sum(map(anonymous_bytes, processes)) / 2**20)
    return used, images


def _waiting(source, model, args, workers):
    """Share of the training's time in which it waits for a batch."""
    optimizer = torch.optim.AdamW(model.parameters())
    plan = source.plan(args.seed, 2)
    batches = load_batches(source, plan, num_workers=workers, pin_memory=args.device != "cpu")
    steps = min(args.steps, len(plan) - 2)
    waited, start = 0.0, 0.0
    for step in range(steps + 2):
        asked = time.perf_counter()
        batch = next(batches)
        if step < 2:  # the first starts processes and kernels
            start = time.perf_counter()
        else:
            waited += time.perf_counter() - asked
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device != "cpu"):
            logits = batch.logits(model, args.device)
        labels = torch.from_numpy(batch.labels).to(args.device)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
    seconds = time.perf_counter() - start
    batches.close()
    way = f"{workers} processes" if workers else "a thread"
    note = f"{1000 * waited / steps:.2f} of {1000 * seconds / (steps + 1):.0f} ms a step, {args.device}"
    return Row(f"a training step waits for {way}", waited / seconds, "of its time", note, "<= 0.02")
