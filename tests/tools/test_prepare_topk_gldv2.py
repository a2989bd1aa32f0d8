"""tools/prepare_topk_gldv2.py: right neighbours, resumed block by block, one clear line for bad input."""

import h5py
import numpy as np
import pytest
from builders import make_record, make_store
from commands import assert_one_line_error, files_below, run_tool

import rrt.search.neighbors as tool
from rrt.errors import InputError
from rrt.formats.lists import write_image_list
from rrt.search.table import load_neighbors
from rrt.search.whitening import fit_pca_whitening
from rrt.store.store import Store
from rrt.store.writer import write_store

TOOL = "tools/prepare_topk_gldv2.py"


@pytest.fixture
def train_set(tmp_path):
    """Twenty random images, of which the list names fifteen in another order."""
    store = make_store(tmp_path, n=20)
    write_list(tmp_path, store.names[14::-1])
    return tmp_path


def write_list(folder, names):
    write_image_list(folder / "train.txt", names, [0] * len(names), [(640, 480)] * len(names))


def slow_neighbours(folder, k):
    x = Store(folder / "delg_test.h5").global_descriptors[14::-1]
    sims = x @ x.T
    np.fill_diagonal(sims, -2)
    return np.argsort(-sims, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("k, block", [(4, 4), (4, 1024), (100, 7)])
def test_every_image_gets_its_nearest_others(train_set, k, block):
    path = tool.prepare_topk_gldv2(train_set, "test", k=k, block=block)
    assert path == train_set / "nn_inds_test.pkl"
    np.testing.assert_array_equal(load_neighbors(path), slow_neighbours(train_set, min(k, 14)))
    assert files_below(train_set) == ["delg_test.h5", "nn_inds_test.pkl", "nn_inds_test.pkl.json", "train.txt"]


def test_an_exact_duplicate_stays_among_the_neighbours(tmp_path):
    generator = np.random.default_rng(0)
    original = make_record("a.jpg", generator)
    records = [original] + [make_record(name, generator) for name in ("b.jpg", "c.jpg")]
    records.append(type(original)("copy.jpg", *list(vars(original).values())[1:]))
    write_store(tmp_path / "delg_test.h5", records, "test", {})
    write_list(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "copy.jpg"])
    inds = load_neighbors(tool.prepare_topk_gldv2(tmp_path, "test", k=1))
    assert inds[0, 0] == 3 and inds[3, 0] == 0


def test_a_stopped_run_goes_on_with_the_missing_blocks_alone_and_may_take_another_first_pass(train_set, monkeypatch):
    searched = []
    search = tool.SelfSearch.search

    def stop_after_two(self, own, advance):
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append((self.kind, own.start))
        return search(self, own, advance)

    monkeypatch.setattr(tool.SelfSearch, "search", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        tool.prepare_topk_gldv2(train_set, "test", k=3, block=4, first_pass="float32")
    assert not (train_set / "nn_inds_test.pkl").exists()
    (train_set / "nn_inds_test.pkl.parts" / "block-00001.npy").write_bytes(b"cut")
    monkeypatch.setattr(
        tool.SelfSearch,
        "search",
        lambda self, own, advance: (searched.append((self.kind, own.start)), search(self, own, advance))[1],
    )
    path = tool.prepare_topk_gldv2(train_set, "test", k=3, block=4, first_pass="int8", memory_mb=1000)
    assert searched == [("float32", 0), ("float32", 4), ("int8", 4), ("int8", 8), ("int8", 12)]
    np.testing.assert_array_equal(load_neighbors(path), slow_neighbours(train_set, 3))


def test_whitened_neighbours_are_those_of_the_whitened_table(train_set):
    names = Store(train_set / "delg_test.h5").names[14::-1]
    x = Store(train_set / "delg_test.h5").global_descriptors[14::-1]
    whitening = fit_pca_whitening(x, 5)
    path = tool.prepare_topk_gldv2(train_set, "test", k=3, block=4, whitening=whitening.save(train_set / "w.npz"))
    y = whitening.apply(x)
    sims = y @ y.T
    np.fill_diagonal(sims, -2)
    np.testing.assert_array_equal(load_neighbors(path, rows=len(names)), np.argsort(-sims, axis=1)[:, :3])
    assert files_below(train_set) == ["delg_test.h5", "nn_inds_test.pkl", "nn_inds_test.pkl.json", "train.txt", "w.npz"]


@pytest.mark.parametrize("whitened", [False, True])
def test_a_number_that_is_not_finite_is_named_and_leaves_nothing(train_set, whitened):
    names = Store(train_set / "delg_test.h5").names
    whitening = fit_pca_whitening(Store(train_set / "delg_test.h5").global_descriptors, 5).save(train_set / "w.npz")
    with h5py.File(train_set / "delg_test.h5", "r+") as file:
        file["global"][9, 3] = np.nan
    before = files_below(train_set)
    with pytest.raises(InputError, match=f"delg_test.h5: the global descriptor of '{names[9]}' is not finite"):
        tool.prepare_topk_gldv2(train_set, "test", whitening=whitening if whitened else None)
    assert files_below(train_set) == before


@pytest.mark.parametrize(
    "change, setting",
    [
        ({"k": 2}, "neighbours = 3, this run has 2"),
        ({"block": 5}, "block = 4, this run has 5"),
        ({"train_txt": "other.txt"}, "descriptors"),
    ],
)
def test_blocks_of_other_settings_are_refused(train_set, monkeypatch, change, setting):
    monkeypatch.setattr(tool, "save_neighbors", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tool.prepare_topk_gldv2(train_set, "test", k=3, block=4)
    names = (train_set / "train.txt").read_text().splitlines()
    (train_set / "other.txt").write_text("\n".join(names[::-1]))
    with pytest.raises(InputError, match=f"{setting}.*delete the folder"):
        tool.prepare_topk_gldv2(train_set, "test", **{"k": 3, "block": 4, **change})


def test_the_command_writes_the_table(train_set):
    finished = run_tool(TOOL, "with", f"data_dir={train_set}", "feature_name=test", "k=5")
    assert finished.returncode == 0 and finished.stderr == "", finished.stderr
    assert finished.stdout == f"wrote {train_set / 'nn_inds_test.pkl'}\n"
    assert load_neighbors(train_set / "nn_inds_test.pkl", rows=15, columns_below=15).shape == (15, 5)


@pytest.mark.parametrize(
    "content, settings, parts",
    [
        (None, {"feature_name": "absent"}, ["delg_absent.h5"]),
        (None, {"train_txt": "absent.txt"}, ["absent.txt"]),
        (None, {"whitening": "absent.npz"}, ["absent.npz"]),
        (None, {"k": 0}, ["k=0", "at least 1"]),
        (None, {"block": 2.5}, ["block=2.5"]),
        (None, {"k": "all"}, ["k='all'", "an integer"]),
        (None, {"first_pass": "int4"}, ["first_pass='int4'", "int8"]),
        (None, {"device": "tpu"}, ["device='tpu'", "cuda"]),
        (None, {"memory_mb": 0}, ["memory_mb=0", "at least 1"]),
        ("", {}, ["train.txt", "empty"]),
        ("jpg/img_000.jpg,0,640,480\njpg/new.jpg,0,1,1\n", {}, ["'jpg/new.jpg'", "line 2 of train.txt"]),
        ("jpg/img_000.jpg,0,640,480\njpg/img_001.jpg\n", {}, ["train.txt:2"]),
        ("jpg/img_000.jpg,0,640,480\n", {}, ["train.txt", "at least two"]),
    ],
)
def test_bad_input_is_one_error_and_writes_nothing(train_set, content, settings, parts):
    if content is not None:
        (train_set / "train.txt").write_text(content)
    before = files_below(train_set)
    with pytest.raises(InputError) as error:
        tool.prepare_topk_gldv2(**{"data_dir": train_set, "feature_name": "test", **settings})
    assert all(part in str(error.value) for part in parts), error.value
    assert files_below(train_set) == before


def test_the_command_ends_with_one_line(train_set):
    assert_one_line_error(
        run_tool(TOOL, "with", f"data_dir={train_set}", "feature_name=test", "first_pass=int4"), "int4"
    )


def test_neighbours_that_no_block_was_made_of_are_searched_with_other_settings(train_set, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tool.SelfSearch, "search", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        tool.prepare_topk_gldv2(train_set, "test", k=3)
    assert (train_set / "nn_inds_test.pkl.parts" / "settings.json").exists()
    path = tool.prepare_topk_gldv2(train_set, "test", k=5)
    np.testing.assert_array_equal(load_neighbors(path), slow_neighbours(train_set, 5))
