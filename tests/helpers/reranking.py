"""A made-up landmark world for tests of the reranker: images of one landmark share local descriptors, globals say
little."""

from dataclasses import replace

import numpy as np
import torch
from builders import records_in, unit_rows

from rrt.commands import calibrate
from rrt.configs import read_settings
from rrt.datasets.sets import neighbors_path, open_train_set, store_path
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.network.networks import make_network
from rrt.search.exact import search
from rrt.search.table import describe_origin, save_neighbors
from rrt.store.records import ImageRecord
from rrt.store.store import Store
from rrt.store.writer import write_store
from rrt.training.batches import BatchSource
from rrt.training.planted import PlantedSettings, PlantedSource
from rrt.training.sampler import TripletSampler

SIZE = (640, 480)
SCALES = np.float32([4, 2.828427, 2, 1.4142135, 1, 0.70710677, 0.5])
GLOBAL_DIM, LOCAL_DIM = 24, 16
# A network that fits the world above; experiment.py takes it as `model.name=value`.
NETWORK = {
    "num_global_features": GLOBAL_DIM,
    "num_local_features": LOCAL_DIM,
    "dim_feedforward": 32,
    "num_encoder_layers": 2,
}


def small_network(**settings) -> RRT:
    """A network of global descriptors of 12 and local ones of 16 dimensions, the same random weights each time."""
    torch.manual_seed(0)
    return RRT(12, 16, **{"dim_feedforward": 24, "num_encoder_layers": 3} | settings).eval()


def save_late(folder, **settings):
    """late.pt in the folder, a LATE of the same sizes whose weights and constants all matter -> its path."""
    torch.manual_seed(1)
    sizes = {"kind": "LATE", "num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24}
    made = make_network(sizes | settings)
    with torch.no_grad():
        for parameter in (*made.parameters(), made.constants):
            parameter.add_(0.3 * torch.rand_like(parameter))
        made.log_temperature.fill_(0.01)
    settings = {"model": made.settings, "max_sequence_len": 7, "scale_binning": "exact"}
    return save_checkpoint(folder / "late.pt", made, settings=settings)


def make_world(
    folder, landmarks=6, images=8, seed=0, num_local=(4, 9), desc_name="toy", global_dim=GLOBAL_DIM, local_dim=LOCAL_DIM
):
    """Write a store, train.txt and nn_inds of landmarks x images images to ``folder``; returns the store's path,
    names, labels and global descriptors."""
    generator = np.random.default_rng(seed)
    names, labels, records = [], [], []
    for label in range(landmarks):
        own = unit_rows(generator, 12, local_dim)
        centre = unit_rows(generator, 1, global_dim)[0]
        for image in range(images):
            count = int(generator.integers(*num_local))
            local = np.concatenate(
                [own[generator.permutation(12)[: count - count // 3]], unit_rows(generator, count // 3, local_dim)]
            )
            global_ = centre + 1.5 * unit_rows(generator, 1, global_dim)[0]
            global_ /= np.linalg.norm(global_)
            keypoints = generator.uniform(0, SIZE, (len(local), 2))
            scales = generator.choice(SCALES, len(local))
            name = f"jpg/landmark{label}_{image}.jpg"
            records.append(ImageRecord(name, SIZE, global_, local, keypoints, scales, np.linspace(9, 1, len(local))))
            names.append(name)
            labels.append(label)
    store = write_store(folder / f"delg_{desc_name}.h5", records, desc_name, {})
    write_image_list(folder / "train.txt", names, labels, [SIZE] * len(names))
    globals_ = np.stack([record.global_ for record in records])
    sims = globals_ @ globals_.T
    np.fill_diagonal(sims, -2)
    save_table(folder, desc_name, np.argsort(-sims, axis=1)[:, : min(30, len(sims) - 1)], "train.txt", "train.txt")
    return store, names, np.array(labels), globals_


def make_test_world(folder, desc_name="toy", **world):
    """The same as a test set: the first image of each landmark is a query; three others easy, three hard, the rest
    junk."""
    _, names, labels, globals_ = make_world(folder, desc_name=desc_name, **world)
    queries = np.flatnonzero(np.diff(labels, prepend=-1))
    gallery = np.setdiff1d(np.arange(len(names)), queries)
    gnd = []
    for query in queries:
        same = np.flatnonzero(labels[gallery] == labels[query]).tolist()
        gnd.append({"bbx": [0, 0, 639, 479], "easy": same[:3], "hard": same[3:6], "junk": same[6:]})
    parts = {"test_query.txt": queries, "test_gallery.txt": gallery}
    for file, rows in parts.items():
        write_image_list(folder / file, [names[i] for i in rows], labels[rows], [SIZE] * len(rows))
    save_ground_truth(folder / "gnd_toy.pkl", [names[i] for i in gallery], [names[i] for i in queries], gnd)
    save_table(folder, desc_name, search(globals_[gallery], globals_[queries])[1], *parts)
    return folder


def make_measured_world(root):
    """A test set in ``test`` with Revisited and classic ground truth, distractors.h5, and the network published.pt."""
    (root / "test").mkdir()
    (root / "other").mkdir()
    make_test_world(root / "test", landmarks=4, images=9, seed=2)
    truth = load_ground_truth(root / "test/gnd_toy.pkl")
    classic = [{"bbx": e["bbx"], "good": e["easy"], "ok": e["hard"], "junk": e["junk"]} for e in truth.gnd]
    save_ground_truth(root / "test/gnd_classic.json", truth.imlist, truth.qimlist, classic)
    make_world(root / "other", landmarks=5, seed=5)
    with Store(root / "other/delg_toy.h5") as store:
        renamed = [replace(r, name=f"r1m/{r.name[4:]} 1%.jpg") for r in records_in(store)]
    write_store(root / "distractors.h5", renamed, "toy", {})
    torch.manual_seed(0)
    save_checkpoint(root / "published.pt", RRT(**NETWORK))
    return root


def toy_dataset(root):
    """The dataset configuration of the test set in ``root``/test."""
    return {
        "test_data_dir": str(root / "test"),
        "test_gnd_file": "gnd_toy.pkl",
        "desc_name": "toy",
        "max_sequence_len": 20,
    }


def typed(kind, dataset, model=None, **settings):
    """Settings of a command as its Sacred configuration makes them; model: what differs from a network that fits."""
    return read_settings(kind, settings | {"dataset": dataset, "model": NETWORK if model is None else model})


def save_table(folder, desc_name, table, *lists):
    """A neighbour table and what it was made from, as tools/prepare_topk_*.py leave them."""
    with Store(store_path(folder, desc_name)) as store:
        origin = describe_origin(store, *(read_image_list(folder / name) for name in lists))
    save_neighbors(neighbors_path(folder, desc_name), table, origin)


def make_dataset(root):
    """A ``dataset`` configuration of a made-up world with training, validation and test folders."""
    for part in ("train", "val", "test"):
        (root / part).mkdir()
    make_world(root / "train")
    make_test_world(root / "val", landmarks=3, seed=1)
    make_test_world(root / "test", landmarks=3, seed=2)
    return {
        "desc_name": "toy",
        "train_data_dir": str(root / "train"),
        "test_data_dir": str(root / "test"),
        "test_gnd_file": "gnd_toy.pkl",
        "batch_size": 12,
        "sampler": "triplet",
    }


def make_source(world, negatives=1, **settings):
    train = open_train_set(world["train_data_dir"], "toy", "train.txt", True)
    sampler = TripletSampler(train.labels, train.neighbors, 30, 2, negatives=negatives)
    planted = PlantedSource(train.store, train.index, PlantedSettings(min_local=2, max_local=6), train.labels)
    return BatchSource(train, sampler, planted, **{"batch_size": 12} | settings)


def batches(source, seed=0, epoch=1):
    plan = source.plan(seed, epoch)
    return [make_batch(source, plan, step) for step in range(len(plan))]


def make_batch(source, plan, step, rank=0, world_size=1):
    """A step of an epoch, or the share of a process in it."""
    return source.maker.make(source.task(plan, step, rank, world_size))


def assert_same(left, right):
    """Every number and type of two batches."""
    assert left.joined_pairs == right.joined_pairs
    for ours, theirs in zip(arrays_of(left), arrays_of(right), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def arrays_of(batch):
    return [*vars(batch.images).values(), batch.query, batch.candidate, batch.labels]


def run_calibrate(world, monkeypatch, *arguments):
    """tools/calibrate.py on the toy world's search, into ``world / "out"``."""
    folder = world / "test"
    given = ["--store", folder / "delg_toy.h5", "--query_list", folder / "test_query.txt", "--gallery_list"]
    given += [folder / "test_gallery.txt", "--ground_truth", folder / "gnd_toy.pkl", "--output", world / "out"]
    monkeypatch.setattr("sys.argv", ["calibrate.py", *map(str, given + list(arguments))])
    calibrate.main()
