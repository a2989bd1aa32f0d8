"""Reranking of a test set of ROxford's shape, ours against the plain way (tools/benchmark.py rerank)."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rrt.datasets.sets import TestSet
from rrt.devices import multiplication_rate
from rrt.errors import check_count
from rrt.evaluation.metrics import evaluate
from rrt.evaluation.reranking import evaluate_reranked, junk_last, score_shortlists
from rrt.formats.ground_truth import GroundTruth
from rrt.formats.lists import ImageList
from rrt.formats.revisited import RevisitedSet
from rrt.network.int8 import multiplies_exactly
from rrt.network.model import RRT
from rrt.network.precision import DTYPES, ScoringSettings
from rrt.network.scorer import Scorer
from rrt.network.settings import ScoringPrecision
from rrt.store.records import ImageRecord
from rrt.store.store import Store
from rrt.store.writer import PartWriter
from tools.benchmarks.common import SCALES, Row, add_options, peak_memory, unit_rows
from tools.benchmarks.plain_rrt import QUICK, PlainRRT, plain_logits

HELP = (
    "reranking 70 queries x 100 of 4,993 images: rrt.network.scorer against padded pairs through nn.MultiheadAttention"
)
# Means of ROxford5k's ground truth.
NUM_GRADED = {"easy": 43, "hard": 36, "junk": 19}
# How much more similar to its query than a foreign image (standard deviations): gives about the published mAP of
# R50 v2-clean descriptors, and so a like overlap of Medium's and Hard's shortlists.
LEAD = {"easy": 4.6, "hard": 2.6, "junk": 2.6}
CURVE = (25, 50, 100, 200, 500)
# Of the query and of a candidate.
ASYMMETRIC = (500, 100)
TARGETS = {"cpu": {"float32": ">= 5", "bfloat16": ">= 10", "int8": ">= 13"}, "cuda": {"bfloat16": ">= 30"}}


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=[*DTYPES, "int8"],
        help="default: float32, bfloat16, and int8 on a processor that multiplies it",
    )
    parser.add_argument(
        "--plain_batches",
        type=int,
        default=6,
        help="batches (a rank of all queries under a protocol) of"
        " the plain way that are measured, of 200; its whole time follows (default %(default)s)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile in ours")
    add_options(parser, "device", "seed", quick="a tiny set")


def run(args):
    """Rows for both ways of the whole evaluation, and for the cost curve of ours."""
    check_count("plain_batches", args.plain_batches)
    images, queries, locals_ = (300, 2, 12) if args.quick else (4993, 70, 500)
    side = 256 if args.quick else 2048 if args.device == "cpu" else 8192
    curve = [(n, n) for n in ((5, 10) if args.quick else CURVE)] + [(10, 5) if args.quick else ASYMMETRIC]
    args.precisions = args.precisions or default_precisions(args.device)
    torch.manual_seed(args.seed)
    model = sharpened(RRT(**QUICK if args.quick else {})).to(args.device)
    plain = PlainRRT(model.settings).to(args.device)
    plain.load_state_dict(model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        test = make_test_set(Path(folder), images, queries, locals_, model.settings["num_global_features"], args.seed)
        shown = PlainWay(plain, test, locals_, args.device, args.plain_batches)
        rows, rates = [], {}
        for precision in dict.fromkeys(["float32", *args.precisions]):
            rates[precision] = multiplication_rate(held_in(precision), torch.device(args.device), (side, side, side))
            if precision in DTYPES:
                rows.append(Row(f"matrix products, {precision}", rates[precision] / 1e9, "GFLOP/s", f"{side} a side"))
        ours = []
        for precision in args.precisions:
            shown.measure(len(shown.batches) // (len(args.precisions) + 1) or 1)
            settings = ScoringSettings(precision=precision, compile=args.compile)
            scorer = Scorer(model, test.store, locals_, device=args.device, settings=settings)
            ours.append((precision, *evaluate_ours(test, scorer, warm=args.compile or args.device == "cuda")))
        shown.measure(len(shown.batches))
        rows += shown.rows()
        for precision, scored, seconds in ours:
            rows += our_rows(args.device, precision, scored, seconds, shown, rates, model.settings, locals_)
        rows += curve_rows(args, model, test, curve, rates, shown)
        rows.append(Row("peak memory", peak_memory() / 1024, "GiB", "both ways, in one process"))
    if args.device == "cpu":
        rows.append(
            Row("one GPU: ours against plain", None, "times as fast", "no GPU at hand", TARGETS["cuda"]["bfloat16"])
        )
        rows.append(Row("one GPU: linear layers", None, "of matrix products", "no GPU at hand", ">= 0.4"))
    elif "bfloat16" in rates:
        rows.append(linear_row(model, test, locals_, rates["bfloat16"]))
    return rows


def sharpened(model):
    """Random weights scaled up, so that logits spread as a trained network's do."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)
    return model.eval()


def make_test_set(folder, images, queries, locals_, global_dim, seed) -> TestSet:
    """A made-up set: random unit descriptors; rankings in which the right images lead as in ROxford."""
    generator = np.random.default_rng(seed)
    names = [f"q{i}" for i in range(queries)] + [f"g{i}" for i in range(images)]

    def record(name):
        global_, local = unit_rows(generator, 1, global_dim)[0], unit_rows(generator, locals_, 128)
        scales, attention = generator.choice(SCALES, locals_), np.linspace(9, 1, locals_)
        return ImageRecord(name, (1024, 768), global_, local, np.zeros((locals_, 2)), scales, attention)

    path = folder / "delg_made_up.h5"
    writer = PartWriter(path, names, {}, block=256)
    for part in range(writer.num_parts):
        writer.write_part(part, [record(name) for name in writer.block_names(part)])
    writer.merge()
    store = Store(path)
    gnd, similarities = [], generator.standard_normal((queries, images))
    for row in similarities:
        counts = [number if images > 500 else 3 for number in NUM_GRADED.values()]
        drawn = np.split(generator.choice(images, sum(counts), replace=False), np.cumsum(counts)[:-1])
        gnd.append({"bbx": [0, 0, 1023, 767]} | dict(zip(NUM_GRADED, drawn)))
        for grade, lead in LEAD.items():
            row[gnd[-1][grade]] += lead
    query, gallery = (
        ImageList(Path(f"{part}.txt"), part_names, np.zeros(len(part_names), int), np.full((len(part_names), 2), 9))
        for part, part_names in (("query", names[:queries]), ("gallery", names[queries:]))
    )
    truth = GroundTruth(Path("gnd"), gallery.names, query.names, gnd)
    ranks = np.argsort(-similarities, axis=1)
    index = np.arange(len(names))
    return TestSet(folder, RevisitedSet(query, gallery, truth), store, index[:queries], index[queries:], ranks)


class PlainWay:
    """Medium's and Hard's shortlists of 100, a rank of all queries at a time; some of the batches are measured."""

    def __init__(self, model, test, max_local, device, wanted):
        self.model, self.test, self.max_local, self.device = model, test, max_local, device
        tops = [junk_last(test.ranks, test.gnd, protocol)[:, :100] for protocol in ("medium", "hard")]
        self.all = [top[:, rank] for top in tops for rank in range(top.shape[1])]
        step = max(1, len(self.all) // wanted)
        self.batches = self.all[step // 2 :: step][:wanted]
        self.seconds, self.logits = [], []
        self._score(self.batches[0][:2], slice(2))  # warms up

    def measure(self, number):
        """The next ``number`` batches that are left."""
        for candidates in self.batches[len(self.seconds) :][:number]:
            start = time.perf_counter()
            self.logits.append(self._score(candidates, slice(None)))
            self.seconds.append(time.perf_counter() - start)

    def _score(self, candidates, rows):
        test = self.test
        gallery = test.gallery_index[candidates]
        return plain_logits(self.model, test.store, test.query_index[rows], gallery, self.max_local, device=self.device)

    @property
    def pair_seconds(self):
        """Seconds a pair, the mean of the measured batches."""
        return float(np.mean(self.seconds)) / len(self.test.query_index)

    @property
    def num_pairs(self):
        """Pairs of the whole evaluation."""
        return len(self.all) * len(self.test.query_index)

    def rows(self):
        """Rows of the plain way: a pair, and the whole evaluation."""
        note = f"{len(self.seconds)} batches of {len(self.test.query_index)} pairs, {min(self.seconds):.2f} to"
        note += f" {max(self.seconds):.2f} s each"
        whole = "measured whole" if len(self.seconds) == len(self.all) else "from the time a pair"
        seconds, pairs = self.pair_seconds * self.num_pairs, f"{self.num_pairs} pairs, {whole}"
        return [
            Row("plain way", 1000 * self.pair_seconds, "ms a pair", note),
            Row("plain way, whole evaluation", seconds, "s", pairs),
        ]


def evaluate_ours(test, scorer, warm):
    """(scored shortlists, seconds) of the whole evaluation: Easy, Medium and Hard from one pass, measures included."""
    if warm:  # compiling and loading kernels is not what is measured
        scorer.score(test.query_index[:1], [test.gallery_index[:100]])
    start = time.perf_counter()
    scored = score_shortlists(test, scorer, 100, protocols=("medium", "hard"))
    evaluate_reranked(test, scored)
    return scored, time.perf_counter() - start


def our_rows(device, precision, scored, seconds, plain, rates, settings, locals_):
    """Rows of our way in one precision, against the measured batches of the plain one."""
    name, pairs = f"ours, {precision}", scored.num_pairs
    target = TARGETS["cpu" if device == "cpu" else "cuda"].get(precision, "")
    work = pair_operations(settings, locals_, locals_) * pairs / seconds
    measured = {}
    for row, candidates in enumerate(scored.candidates):
        measured |= {(row, int(c)): logit for c, logit in zip(candidates, scored.logits[row])}
    ours = np.array([[measured[row, int(c)] for row, c in enumerate(batch)] for batch in plain.batches])
    difference = float(np.abs(ours - np.stack(plain.logits)).max() / np.ptp(plain.logits))
    medium = evaluate(plain.test.ranks, plain.test.gnd, (1,))["medium"].map
    once = f"{pairs} pairs, each once (global Medium mAP {100 * medium:.0f})"
    products = f"those of {precision if precision in DTYPES else 'bfloat16'}"
    exact = "<= 0.0001" if precision == "float32" else ""
    faster = plain.pair_seconds / seconds
    found = [
        ("whole evaluation", seconds, "s", once),
        ("whole evaluation", faster * plain.num_pairs, "times as fast", "", target),
        ("a pair", faster * pairs, "times as fast", f"{1000 * seconds / pairs:.1f} ms"),
        ("speed", pairs / seconds, "pairs/s", f"{work / 1e9:.0f} GFLOP/s"),
        ("work", work / rates[precision], "of matrix products", products),
        ("logits", difference, "of their spread", "largest difference to the plain way's", exact),
    ]
    return [Row(f"{name}, {what}", *figures) for what, *figures in found]


def default_precisions(device) -> list[ScoringPrecision]:
    """What is measured unless told."""
    return ["float32", "bfloat16", "int8"] if device == "cpu" and multiplies_exactly() else ["float32", "bfloat16"]


def held_in(precision):
    """The type of a precision's tokens and attention."""
    return DTYPES.get(precision, torch.bfloat16)


def pair_operations(settings, query_local, gallery_local):
    """Floating-point operations that a pair of images with as many descriptors needs, CLS alone in the last layer; what
    is shared between pairs is counted for each."""
    tokens, dim, inner = query_local + gallery_local + 4, settings["num_local_features"], settings["dim_feedforward"]
    layer = 2 * tokens * dim * (4 * dim + 2 * inner) + 4 * tokens * tokens * dim
    return layer * (settings["num_encoder_layers"] - 1) + 4 * tokens * dim * settings["nhead"]


def curve_rows(args, model, test, curve, rates, plain):
    """Rows of the time a pair takes with as many local descriptors of the query and of a candidate as ``curve`` names,
    and of what the plain way, with all of them, takes."""
    rows = []
    for precision in args.precisions:
        for query_local, gallery_local in curve:
            settings = ScoringSettings(precision=precision, compile=args.compile)
            scorer = Scorer(model, test.store, query_local, device=args.device, settings=settings)
            scorer = scorer.with_local(query_local, gallery_local)
            shortlists = list(test.gallery_index[test.ranks[:, :100]])
            seconds = done = 0
            scorer.score(test.query_index[:1], shortlists[:1])
            while done < len(shortlists) and seconds < 6:
                queries = slice(done, done + max(1, 2 * curve[-1][0] // query_local))
                start = time.perf_counter()
                scored = scorer.score(test.query_index[queries], shortlists[queries])
                seconds, done = seconds + time.perf_counter() - start, done + len(scored)
            pairs = 100 * done
            work = pair_operations(model.settings, query_local, gallery_local) * pairs / seconds
            numbers = query_local if query_local == gallery_local else f"{query_local} x {gallery_local}"
            note = f"{100 * seconds / pairs * 1000:.0f} ms for 100, {work / rates[precision]:.2f} of matrix products,"
            note += f" {plain.pair_seconds * pairs / seconds:.1f} times the plain way's pairs with all"
            rows.append(Row(f"ours, {precision}, {numbers} descriptors", pairs / seconds, "pairs/s", note))
    return rows


def linear_row(model, test, locals_, rate):
    """How fast a GPU's linear layers multiply in bfloat16, from a profile of two queries."""
    scorer = Scorer(model, test.store, locals_, device="cuda", settings=ScoringSettings(precision="bfloat16"))
    work = test.query_index[:2], list(test.gallery_index[test.ranks[:2, :100]])
    scorer.score(*work)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], with_flops=True) as profile:
        scorer.score(*work)
    products = [event for event in profile.key_averages() if event.key in ("aten::addmm", "aten::mm")]
    seconds = sum(event.device_time_total for event in products) / 1e6
    share = sum(event.flops for event in products) / seconds / rate
    note = "aten::addmm and aten::mm of two queries"
    return Row("one GPU: linear layers", share, "of matrix products", note, ">= 0.4")
