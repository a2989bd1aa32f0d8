"""Descriptors of other networks than DELG, imported, through training and evaluation: sizes come from the store."""

import json

import numpy as np
import pytest
from builders import records_in
from commands import run_tool
from hloc_files import write_features
from reranking import NETWORK, make_test_world, make_world

from rrt.store.arrays import import_arrays
from rrt.store.hloc import import_hloc
from rrt.store.store import Store

SIZES = {"global_dim": 1024, "local_dim": 256}


def take_records(path):
    """The records of a store, which is removed."""
    with Store(path) as store:
        records = list(records_in(store))
    path.unlink()
    return records


@pytest.fixture
def world(tmp_path):
    """A training set whose store comes from a file of hloc, a test set whose store comes from arrays."""
    store, *_ = make_world(tmp_path / "train", landmarks=3, **SIZES)
    import_hloc(write_features(tmp_path / "feats.h5", take_records(store)), store, local_dtype="int8").close()
    make_test_world(tmp_path / "test", landmarks=2, seed=1, **SIZES)
    store = tmp_path / "test" / "delg_toy.h5"
    records = take_records(store)
    columns = {
        name: np.concatenate([getattr(record, name) for record in records])
        for name in ("descriptors", "keypoints", "scales", "attention")
    }
    np.savez(
        tmp_path / "arrays.npz",
        names=[record.name for record in records],
        **columns,
        image_size=[record.size for record in records],
        offsets=np.cumsum([0, *(len(r.scales) for r in records)]),
        **{"global": [record.global_ for record in records]},
    )
    import_arrays(tmp_path / "arrays.npz", store, compression="gzip").close()
    return tmp_path


def test_imported_descriptors_train_a_reranker_and_are_measured(world):
    folder = world / "logs"
    network = NETWORK | {"num_global_features": SIZES["global_dim"], "num_local_features": SIZES["local_dim"]}
    data = [f"dataset.{part}_data_dir={world / part}" for part in ("train", "test")]
    data += [
        "dataset.desc_name=toy",
        "dataset.test_gnd_file=gnd_toy.pkl",
        "dataset.sampler=triplet",
        "model.RRT",
        "cpu=True",
    ]
    network = [f"model.{name}={value}" for name, value in network.items()]
    steps = [
        "epochs=1",
        "steps_per_epoch=1",
        "planted_steps=1",
        "planted.min_local=2",
        "min_positives=2",
        "select_on=last",
    ]
    trained = run_tool("experiment.py", "with", f"temp_dir={folder}", *data, *network, *steps)
    assert trained.returncode == 0, trained.stderr
    measured = run_tool("evaluate_revisited.py", "with", f"temp_dir={folder}", *data, f"resume={folder / 'last.pt'}")
    assert measured.returncode == 0, measured.stderr
    numbers = json.loads((folder / "results.json").read_text())
    assert 0 <= numbers["RRT"]["M_map"] <= 100 and numbers["global"]["M_map"] > 0
