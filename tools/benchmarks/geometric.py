"""Geometric verification of pairs: rrt/rerankers/geometric.py against a KD-tree and scikit-image's RANSAC."""

import time
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from rrt.errors import InputError
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.geometric import Geometric
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from tools.benchmarks.common import Row, add_options, check_counts, unit

HELP = "milliseconds a pair of geometric verification, against scipy's KD-tree and scikit-image's RANSAC"
SIZE = (1024, 768)
TRIALS, THRESHOLD, MAX_DISTANCE = 1000, 20.0, 1.0  # docs/delg.md 6.2
SHARED = 0.2  # of the features lie on the planted transform; as many resemble features that lie elsewhere
MISSED = 0.9  # of the planted matches that a way may not stay below in half of the pairs


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--descriptors", type=int, nargs="+", default=[500, 1000], help="of each image (default: 500 1000)"
    )
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=200, help="a query and its shortlist (default %(default)s)")
    parser.add_argument(
        "--plain_pairs", type=int, default=6, help="of them that the plain way verifies (default %(default)s)"
    )
    add_options(parser, "device", "seed", quick="few small pairs")


def run(args):
    """Rows of milliseconds a pair; without scikit-image of ours alone. Raises InputError for a way that misses the
    plant."""
    check_counts(args, "dimensions", "pairs", "plain_pairs")
    if args.quick:
        args.descriptors, args.pairs, args.plain_pairs = [150], 6, 2
    if min(args.descriptors) < 50:
        raise InputError(f"--descriptors {min(args.descriptors)}: at least 50 are needed")
    return [row for count in args.descriptors for row in _measure(args, count)]


def _measure(args, count):
    rng = np.random.default_rng(args.seed)
    store = planted_pairs(rng, args.pairs, count, args.dimensions)
    space = SearchSpace(store, np.array([0]), np.arange(1, args.pairs + 1))
    candidates = np.arange(args.pairs)
    shortlist = Shortlist(0, candidates, np.zeros(args.pairs, np.float32))
    limits = {"max_distance": MAX_DISTANCE, "threshold": THRESHOLD, "max_trials": TRIALS}
    geometric = partial(Geometric, mode="one_way", max_local=None, border=0, seed=args.seed, **limits)
    plain = candidates[: args.plain_pairs]
    images = [store.read(index) for index in range(len(plain) + 1)]
    threads = torch.get_num_threads()
    seconds, inliers = {}, {}
    # The plain way between two runs of ours, so that both meet the same disturbances of a busy machine.
    ways = [("before", args.device, None), ("plain", None, None), ("after", args.device, None)]
    lacking = find_spec("skimage") is None
    if lacking:
        ways.remove(("plain", None, None))
    ways += [("one thread", "cpu", 1)] + [("cpu", "cpu", None)] * (args.device != "cpu")
    geometric(device=args.device).scores(space, [shortlist])  # libraries are loaded, memory is there
    for name, device, own_threads in ways:
        began = time.perf_counter()
        if name == "plain":
            found = [plain_inliers(images[0], image, args.seed) for image in images[1:]]
        else:
            found = geometric(device=device, threads=own_threads).scores(space, [shortlist])[0]
        seconds[name], inliers[name] = (time.perf_counter() - began) / len(found), np.asarray(found)
        if np.median(inliers[name]) < MISSED * SHARED * count:
            raise InputError(
                f"{name}: {np.median(inliers[name]):g} inliers where {SHARED * count:g} are planted; do not use it here"
            )
    ours, where = (seconds["before"] + seconds["after"]) / 2, args.device
    label = f"{count} descriptors"
    note = f"scipy and scikit-image, {TRIALS} trials"
    if lacking:
        note = "not measured: skimage is not installed"
    else:
        note += f"; median {np.median(inliers['plain']):g} inliers of {len(plain)} pairs"
    slow = None if lacking else seconds["plain"]
    own, against = f"{label}: geometric, {where}", note if lacking else ""
    inner = f"{threads} threads; median {np.median(inliers['before']):g} inliers of {args.pairs} pairs"
    rows = [
        Row(f"{label}: KD-tree and RANSAC", slow and 1e3 * slow, "ms a pair", note),
        Row(own, 1e3 * ours, "ms a pair", inner),
        Row(f"{own}, against it", slow and slow / ours, "times as fast", against, ">= 10"),
        Row(f"{label}: geometric, one thread", 1e3 * seconds["one thread"], "ms a pair"),
    ]
    if "cpu" in seconds:
        rows.append(Row(f"{label}: geometric, cpu", 1e3 * seconds["cpu"], "ms a pair"))
    return rows


def planted_pairs(rng, pairs, count, dimensions) -> MemoryStore:
    """A query and ``pairs`` images of ``count`` features each: SHARED of them are the query's, moved by an affine map
    of the image's own, with noise; as many resemble features of the query and lie anywhere; others are foreign."""
    part = int(SHARED * count)
    query, query_points = unit(rng.standard_normal((count, dimensions))), rng.uniform(0, SIZE, (count, 2))
    records = [_record("query", query, query_points)]
    for pair in range(pairs):
        descriptors, points = unit(rng.standard_normal((count, dimensions))), rng.uniform(0, SIZE, (count, 2))
        alike = rng.permutation(count)[: 2 * part]
        descriptors[: 2 * part] = unit(query[alike] + 0.3 * descriptors[: 2 * part])
        matrix, shift = np.eye(2) + rng.uniform(-0.2, 0.2, (2, 2)), rng.uniform(-50, 50, 2)
        # From the image to the query, as residuals count in pixels of the query.
        points[:part] = (query_points[alike[:part]] + rng.normal(0, 3, (part, 2)) - shift) @ np.linalg.inv(matrix)
        order = rng.permutation(count)
        records.append(_record(f"image {pair}", descriptors[order], points[order]))
    return MemoryStore.of(records)


def plain_inliers(query, image, seed) -> int:
    """Inliers of docs/delg.md 6.2, for two images as ``Store.read`` gives them: the nearest feature of the image to
    each of the query within MAX_DISTANCE, and the best of TRIALS random affine transforms, residuals in its pixels."""
    from scipy.spatial import KDTree
    from skimage.measure import ransac
    from skimage.transform import AffineTransform

    tree = KDTree(image.descriptors)
    distances, nearest = tree.query(query.descriptors, distance_upper_bound=MAX_DISTANCE, workers=-1)
    matched = np.isfinite(distances)
    if matched.sum() <= 3:
        return 0
    points = image.keypoints[np.asarray(nearest)[matched]], query.keypoints[matched]
    chosen = {"min_samples": 3, "residual_threshold": THRESHOLD, "max_trials": TRIALS, "rng": seed}
    _, inliers = ransac(points, AffineTransform, **chosen)
    return 0 if inliers is None else int(np.count_nonzero(inliers))


def _record(name, descriptors, points):
    count = len(points)
    return ImageRecord(name, SIZE, np.ones(1), descriptors, points, np.ones(count), np.zeros(count))
