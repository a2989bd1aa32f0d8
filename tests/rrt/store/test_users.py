"""Scoring, training batches and search give the same from every kind of store, from int8 nearly the same."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import records_in
from reranking import LOCAL_DIM, NETWORK, make_batch, make_dataset, make_source

from rrt.datasets.sets import store_path
from rrt.formats.lists import write_image_list
from rrt.network.model import RRT
from rrt.network.scorer import Scorer
from rrt.search.exact import load_globals
from rrt.search.neighbors import prepare_topk_gldv2
from rrt.search.table import load_neighbors
from rrt.store.folder import PartedColumn
from rrt.store.joined import JoinedStore
from rrt.store.memory import MemoryStore
from rrt.store.store import Store
from rrt.store.writer import write_store

EXACT = [{"local_dtype": "float32"}, {"compression": "gzip"}, {"local_dtype": "float32", "compression": "lzf"}]
INT8 = {"local_dtype": "int8", "compression": "gzip"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A made-up dataset and the records of its training store, float16 as they are read."""
    dataset = make_dataset(tmp_path_factory.mktemp("world"))
    return dataset, list(records_in(Store(store_path(dataset["train_data_dir"], "toy"))))


def results(world, parts=0, **layout):
    """The training store written again, in one file or in a folder of so many images a file -> logits of some pairs,
    arrays of two training batches, global descriptors."""
    dataset, records = world
    path = store_path(dataset["train_data_dir"], "toy")
    if parts:
        path.unlink()
        path.mkdir()
    for part, start in enumerate(range(0, len(records), parts or len(records))):
        target = path / f"part_{part}.h5" if parts else path
        write_store(target, records[start : start + (parts or len(records))], **layout)
    torch.manual_seed(0)
    model = RRT(**NETWORK)
    logits = Scorer(model, Store(path), max_local=7).score(np.arange(4), [np.arange(48)] * 4)
    source = make_source(dataset, planted_steps=1)
    batches = [make_batch(source, source.plan(0, epoch), 0) for epoch in (0, 1)]
    arrays = [getattr(batch.images, name) for batch in batches for name in ("global_", "scales", "offsets")]
    # Descriptors travel to the device in the type of the store.
    arrays += [np.asarray(batch.images.descriptors, np.float32) for batch in batches]
    return np.concatenate(logits), [*arrays, *load_globals(path, None)]


def test_a_folder_of_parts_changes_nothing_and_is_never_read_whole(world, tmp_path, monkeypatch):
    dataset, records = world
    logits, arrays = results(world)
    path = store_path(dataset["train_data_dir"], "toy")
    shutil.copy(path, tmp_path / "delg_one.h5")
    monkeypatch.setattr(PartedColumn, "__array__", lambda *_, **__: pytest.fail("read whole"))
    others, other_arrays = results(world, parts=7)
    np.testing.assert_array_equal(logits, others)
    for first, second in zip(arrays, other_arrays, strict=True):
        np.testing.assert_array_equal(first, second)
    names = [record.name for record in records]
    write_image_list(tmp_path / "train.txt", names, [0] * len(names), [record.size for record in records])
    path.rename(tmp_path / "delg_parts.h5")
    one, parts = (Store(tmp_path / f"delg_{name}.h5") for name in ("one", "parts"))
    beside = MemoryStore.of([replace(records[0], name="beside")])
    for rows in ([3, len(records), 9], slice(None, None, 5)):
        found = [JoinedStore(store, beside).global_descriptors[rows] for store in (one, parts)]
        np.testing.assert_array_equal(*found)
    tables = [prepare_topk_gldv2(tmp_path, name, k=9, first_pass="float32", device="cpu") for name in ("one", "parts")]
    np.testing.assert_array_equal(*map(load_neighbors, tables))


@pytest.mark.parametrize("layout", EXACT, ids=str)
def test_the_type_and_the_compression_of_a_store_change_nothing(world, layout):
    logits, arrays = results(world)
    others, other_arrays = results(world, **layout)
    np.testing.assert_array_equal(logits, others)
    for first, second in zip(arrays, other_arrays, strict=True):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == second.dtype


def test_int8_changes_logits_and_batches_by_its_rounding_alone(world):
    logits, arrays = results(world)
    others, other_arrays = results(world, **INT8)
    assert 0 < np.abs(logits - others).max() < 0.02 * np.ptp(logits)
    for first, second in zip(arrays, other_arrays, strict=True):
        np.testing.assert_allclose(first, second, atol=np.sqrt(LOCAL_DIM) / 254)
        assert first.dtype == second.dtype
