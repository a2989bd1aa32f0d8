"""rrt/training/loader.py: the same batches however many processes make them; nothing wrong is hidden, nobody is left
behind."""

import multiprocessing
import os
import pickle
import select
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from commands import started_tool
from places import HELPERS
from reranking import NETWORK, assert_same, batches, make_batch, make_dataset, make_source
from warm_python import status_of

from rrt.datasets.sets import store_path
from rrt.errors import InputError
from rrt.network.model import RRT
from rrt.training.loader import load_batches, pack, packed_size, unpacked
from tools.benchmarks.common import anonymous_bytes
from tools.benchmarks.loader import PlainImages, make_store, memory_over_epoch
from tools.benchmarks.loader import make_source as synthetic_source


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("num_workers, prefetch", [(0, 0), (0, 3), (2, 2)])
def test_the_number_of_processes_changes_no_batch(world, num_workers, prefetch):
    source = make_source(world, planted_fraction=0.3, min_local=2, max_local=5)
    expected = batches(source)
    loaded = list(load_batches(source, source.plan(0, 1), num_workers=num_workers, prefetch=prefetch))
    assert len(loaded) == len(expected) > 5
    for ours, theirs in zip(loaded, expected):
        assert_same(ours, theirs)
    assert not multiprocessing.active_children()


def test_a_run_goes_on_at_any_step_with_a_process_share(world):
    source = make_source(world, planted_fraction=0.3)
    plan = source.plan(0, 1)
    for first_step in (0, 3, len(plan)):
        loaded = list(load_batches(source, plan, first_step, rank=1, world_size=2))
        assert len(loaded) == len(plan) - first_step
        for step, batch in enumerate(loaded, first_step):
            assert_same(batch, make_batch(source, plan, step, 1, 2))


def test_the_planted_steps_are_loaded_like_all_others(world):
    source = make_source(world, planted_steps=4)
    for ours, theirs in zip(load_batches(source, source.plan(0, 0)), batches(source, epoch=0), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "settings", [{}, {"max_local": 3}, {"negatives": 4}, {"planted_fraction": 0.7}, {"batch_size": 3}]
)
def test_a_packed_batch_is_unpacked_as_it_was_and_fits_the_largest(world, settings):
    source = make_source(world, **settings)
    if "planted_fraction" not in settings:
        source = replace(source, planted_source=None)
    memory = torch.empty(source.maker.largest_batch(), dtype=torch.uint8)
    sizes = []
    for batch in batches(source):
        layout = pack(batch, memory)
        assert_same(unpacked(memory, pickle.loads(pickle.dumps(layout))), batch)
        assert all(start % 64 == 0 for _, _, start in layout[0])
        sizes.append(packed_size(batch))
    assert 0.5 * len(memory) < max(sizes) <= len(memory)


def test_tensors_of_a_packed_batch_lie_in_its_memory_and_give_the_same_logits(world):
    batch = batches(make_source(world))[0]
    memory = torch.empty(packed_size(batch), dtype=torch.uint8)
    again = unpacked(memory, pack(batch, memory), as_tensors=True)
    assert_same(unpacked(memory, pack(batch, memory)), batch)
    images = again.images
    for tensor in (images.global_, images.descriptors, images.scales):
        assert tensor.untyped_storage().data_ptr() == memory.data_ptr()
    model = RRT(**NETWORK).eval()
    with torch.inference_mode():
        assert torch.equal(again.logits(model), batch.logits(model))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_descriptor_that_is_no_number_arrives_as_its_one_line(world, tmp_path, num_workers):
    shutil.copytree(world["train_data_dir"], tmp_path / "train")
    source = make_source(world | {"train_data_dir": tmp_path / "train"})
    with h5py.File(store_path(tmp_path / "train", "toy"), "r+") as file:
        file["local/descriptors"][-1, 3] = np.nan
    with pytest.raises(InputError) as caught:
        list(load_batches(source, source.plan(0, 1), num_workers=num_workers))
    assert str(caught.value) == (
        f"{tmp_path}/train/delg_toy.h5: local descriptors of 'jpg/landmark5_7.jpg' hold NaN or"
        " infinity; extract the image again"
    )
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_store_that_is_gone_when_a_worker_opens_it_is_one_line(world, tmp_path):
    shutil.copytree(world["train_data_dir"], tmp_path / "train")
    source = make_source(world | {"train_data_dir": tmp_path / "train"})
    store_path(tmp_path / "train", "toy").unlink()
    with pytest.raises(InputError, match="delg_toy.h5: no such descriptor store"):
        list(load_batches(source, source.plan(0, 1), num_workers=1))


def test_a_loop_that_ends_early_leaves_no_process(world):
    source = make_source(world)
    for _ in load_batches(source, source.plan(0, 1), num_workers=1):
        assert len(multiprocessing.active_children()) == 1
        break
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_one_line(world):
    source = make_source(world, batch_size=3)
    loading = load_batches(source, source.plan(0, 1), num_workers=2)
    next(loading)
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(InputError, match="process that reads batches was ended from outside.*lower num_workers="):
        list(loading)
    assert not multiprocessing.active_children()


FOREVER = """
import multiprocessing, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from reranking import make_dataset, make_source
from rrt.training.loader import load_batches

if __name__ == "__main__":
    source = make_source(make_dataset(Path(sys.argv[2])), batch_size=3)
    for batch in load_batches(source, source.plan(0, 1), num_workers=1):
        Path(sys.argv[2], "writing").write_text(f"{os.getpid()} {multiprocessing.active_children()[0].pid}")
        Path(sys.argv[2], "writing").rename(Path(sys.argv[2], "running"))
        time.sleep(600)
"""


@pytest.mark.slow
def test_workers_end_when_the_run_is_killed(tmp_path):
    script = tmp_path / "forever.py"
    script.write_text(FOREVER)
    with started_tool(script, HELPERS, tmp_path) as ended:
        while not (tmp_path / "running").exists():
            assert not select.select([ended], [], [], 0.01)[0], "it ended without a batch"
        run, worker = map(int, (tmp_path / "running").read_text().split())
        assert Path(f"/proc/{worker}").exists()
        os.kill(run, signal.SIGKILL)  # it alone
        assert status_of(ended) == 128 + signal.SIGKILL
    until = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"num_workers": -1}, "num_workers=-1"),
        ({"num_workers": "many"}, "num_workers='many'"),
        ({"prefetch": -2}, "prefetch=-2"),
        ({"world_size": 3}, "shared evenly by 3 processes"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_started(world, settings, said):
    source = make_source(world)
    with pytest.raises(InputError, match=said):
        load_batches(source, source.plan(0, 1), **settings)


def test_what_a_worker_is_given_holds_neither_names_nor_neighbours(world):
    source = replace(make_source(world), planted_source=None)
    given = pickle.dumps(source.maker)
    assert len(given) < 2000 and b"landmark" not in given
    maker = pickle.loads(given)
    assert "names" not in vars(maker.store) and len(maker.store) == len(source.train.store)
    assert maker.store.names == source.train.store.names


def test_an_epoch_over_50000_images_holds_nothing_of_the_store_in_memory(tmp_path):
    store = make_store(tmp_path / "large.h5", 50_000, 24, 8, 32)
    source = synthetic_source(store, 24, batch_size=600)
    size = store.local_descriptors.nbytes / 2**20
    used, images = memory_over_epoch(source, source.plan(0, 1), 0)
    assert images > 100_000 and size > 70
    assert max(used) - used[1] < size / 10
    # The measure itself sees a table that is read whole.
    before = anonymous_bytes()
    whole = np.array(store.local_descriptors)
    assert anonymous_bytes() - before > 0.8 * size and len(whole)


def test_the_plain_way_reads_the_same_descriptors(tmp_path):
    store = make_store(tmp_path / "small.h5", 60, 7, 8, 32)
    source = synthetic_source(store, 9)
    plan = source.plan(0, 1)
    batch = make_batch(source, plan, 0)
    plain = PlainImages(store, 9)
    for triplet, place in zip(plan.triplets[:12], batch.query):
        global_, descriptors, scales, padding = plain[int(triplet[0])]
        rows = slice(*batch.images.offsets[place : place + 2])
        np.testing.assert_array_equal(batch.images.descriptors[rows], descriptors[~padding])
        np.testing.assert_array_equal(batch.images.scales[rows], scales[~padding])
        np.testing.assert_array_equal(batch.images.global_[place], global_)
        assert padding.tolist() == [False] * 7 + [True] * 2
