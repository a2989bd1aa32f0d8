"""A step of training, ours against the plain way (tools/benchmark.py train_rrt)."""

import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from rrt.devices import multiplication_rate
from rrt.errors import check_count
from rrt.network.model import RRT
from rrt.network.pairs import ImageBatch
from rrt.network.precision import DTYPES
from rrt.training.batches import PairBatch
from rrt.training.schedules import make_optimizer
from rrt.training.settings import TrainSettings
from rrt.training.step import GradientComputer
from tools.benchmarks.common import Row, add_options, peak_memory
from tools.benchmarks.plain_rrt import QUICK, PlainRRT

HELP = (
    "a training step of 36 images x 500 descriptors (24 pairs): ours against padded pairs through nn.MultiheadAttention"
)
TARGETS = {"cpu": ">= 4", "cuda": ">= 10"}


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=list(DTYPES))
    parser.add_argument("--compile", action="store_true", help="torch.compile in ours")
    parser.add_argument("--repeats", type=int, default=3, help="steps of each way, taking turns (default %(default)s)")
    add_options(parser, "device", quick="tiny steps")


def run(args):
    """Rows for both ways, on full images and on ones of 100 to 500 descriptors, which only the plain way must pad."""
    check_count("repeats", args.repeats)
    images, locals_, multiplied = (6, 20, 64) if args.quick else (36, 500, 2048)
    device = "cuda" if args.device.startswith("cuda") else "cpu"
    torch.manual_seed(0)
    model = RRT(**QUICK if args.quick else {})
    generator = np.random.default_rng(0)
    full = make_batch(generator, np.full(images, locals_), model.settings)
    mixed = make_batch(generator, generator.integers(locals_ // 5, locals_ + 1, images), model.settings)
    ways: dict[str, PlainWay | OurWay] = {"plain": PlainWay(model, args.device, locals_)}
    for precision in args.precisions:
        ways[f"ours, {precision}"] = OurWay(model, args.device, precision, args.compile)
    rows = []
    for precision in dict.fromkeys(["float32", *args.precisions]):
        rate = multiplication_rate(DTYPES[precision], torch.device(args.device), (multiplied, 128, 1024))
        rows.append(Row(f"matrix products, {precision}", rate / 1e9, "GFLOP/s", f"{multiplied} x 128 by 128 x 1024"))
    for what, batch in (("full images", full), ("100 to 500 descriptors", mixed)):
        rows += measured(ways, batch, args.repeats, what, TARGETS[device] if batch is full else "", args.device)
    if device == "cpu":
        rows.append(Row("one GPU: ours against plain", None, "times as fast", "no GPU at hand", TARGETS["cuda"]))
        memory = peak_memory() / 1024
    else:
        memory = torch.cuda.max_memory_allocated() / 2**30
    rows.append(Row("peak memory", memory, "GiB", "both ways, in one process"))
    return rows


def measured(ways, batch, repeats, what, target, device):
    """Rows of the median step of each way; they take turns. target: of the best of ours."""
    seconds, busy, losses = {name: [] for name in ways}, dict.fromkeys(ways, 0.0), {}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start, busy_before = time.perf_counter(), time.process_time()
            loss = way.step(batch)
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
                busy[name] += (time.process_time() - busy_before) / repeats
            else:
                losses[name] = loss
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    best = min((name for name in ways if name != "plain"), key=lambda name: medians[name])
    rows = []
    for name, median in medians.items():
        note = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f} s, {len(batch.labels) / median:.1f} pairs/s"
        if device == "cpu":  # what a machine busy with other things disturbs least
            note += f"; {busy[name]:.2f} s of processor time"
        rows.append(Row(f"{what}: {name}", median, "s a step", note))
        if name != "plain":
            note = f"first loss {abs(losses[name] - losses['plain']):.1g} from the plain way's"
            ratio = medians["plain"] / median
            rows.append(Row(f"{what}: {name}", ratio, "times as fast", note, target if name == best else ""))
    return rows


def make_batch(generator, counts, settings) -> PairBatch:
    """Triplets of random images with ``counts`` descriptors each."""
    number = int(counts.sum())
    images = ImageBatch(
        generator.standard_normal((len(counts), settings["num_global_features"]), dtype=np.float32),
        generator.standard_normal((number, settings["num_local_features"]), dtype=np.float32),
        generator.integers(0, 7, number),
        np.concatenate([[0], np.cumsum(counts)]),
    )
    return PairBatch.of_triplets(images, np.arange(len(counts)).reshape(-1, 3))


class OurWay:
    """rrt.training.step and a fused AdamW."""

    def __init__(self, model, device, precision, compile):
        self.model = RRT(**model.settings)
        self.model.load_state_dict(model.state_dict())
        self.model.to(device)
        self.computer = GradientComputer(self.model, device, precision, compile=compile)
        self.optimizer = make_optimizer(self.model, TrainSettings())

    def step(self, batch):
        """The loss of a PairBatch, before the step that it makes."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.computer.workers():
            loss = self.computer.add(batch, batch.joined_pairs)[0]
        self.computer.scaler.step(self.optimizer)
        self.computer.scaler.update()
        return loss.item()


class PlainWay:
    """tools.benchmarks.plain_rrt: every image padded to ``padding`` descriptors, one pass over all pairs, AdamW as it
    comes."""

    def __init__(self, model, device, padding):
        self.model = PlainRRT(model.settings).train()
        self.model.load_state_dict(model.state_dict())
        self.model.to(device)
        self.device, self.padding = device, padding
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=5e-4)

    def step(self, batch):
        """As OurWay.step."""
        sides = (self._padded(batch.images, side) for side in (batch.query, batch.candidate))
        loss = F.binary_cross_entropy_with_logits(self.model(*sides), torch.from_numpy(batch.labels).to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _padded(self, images, which):
        local = np.zeros((len(which), self.padding, images.descriptors.shape[1]), np.float32)
        scales = np.zeros((len(which), self.padding), np.int64)
        padding = np.ones((len(which), self.padding), bool)
        for i, image in enumerate(which):
            rows = slice(images.offsets[image], images.offsets[image + 1])
            count = images.counts[image]
            local[i, :count], scales[i, :count] = images.descriptors[rows], images.scales[rows]
            padding[i, :count] = False
        return [torch.from_numpy(array).to(self.device) for array in (images.global_[which], local, scales, padding)]
