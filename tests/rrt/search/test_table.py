"""rrt/search/table.py: a neighbour table serves the lists and descriptors it was made from, or is from elsewhere."""

import json

import numpy as np
import pytest
from builders import make_store
from reranking import make_test_world

from rrt.datasets.sets import open_test_set, open_train_set
from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.formats.ground_truth import save_pickle
from rrt.formats.lists import ImageList, write_image_list
from rrt.search import table as neighbor_origin
from rrt.search.neighbors import prepare_topk_gldv2
from rrt.search.table import check_origin, describe_origin, digest_rows, load_neighbors, origin_path, save_neighbors
from rrt.search.whitening import fit_pca_whitening
from rrt.store.store import Store


@pytest.fixture
def folder(tmp_path):
    """A test set whose table the tool made, with query expansion and whitening."""
    make_test_world(tmp_path, landmarks=3)
    whitening = fit_pca_whitening(Store(tmp_path / "delg_toy.h5").global_descriptors, 8).save(tmp_path / "w.npz")
    prepare_topk_revisited(tmp_path, "toy", "gnd_toy.pkl", use_aqe=True, whitening=whitening)
    return tmp_path


def open_folder(folder):
    return open_test_set(folder, "toy", "gnd_toy.pkl")


def test_a_table_says_how_it_was_found(folder):
    search = open_folder(folder).search
    assert search["aqe"] == {"k": 2, "alpha": 0.3}
    assert search["whitening"] == str(folder / "w.npz") and len(search["whitening_sha256"]) == 64


def test_a_table_from_elsewhere_is_taken_as_it_is(folder):
    origin_path(folder / "nn_inds_toy.pkl").unlink()
    assert open_folder(folder).search is None


def test_another_table_under_the_same_name_is_noticed(folder):
    table = load_neighbors(folder / "nn_inds_toy.pkl")
    save_pickle(folder / "nn_inds_toy.pkl", table[:, ::-1].copy())
    with pytest.raises(InputError, match="not the table that nn_inds_toy.pkl.json beside it describes; delete"):
        open_folder(folder)


def test_a_table_saved_without_its_origin_leaves_none_beside_it(folder):
    save_neighbors(folder / "nn_inds_toy.pkl", load_neighbors(folder / "nn_inds_toy.pkl")[:, ::-1])
    assert not origin_path(folder / "nn_inds_toy.pkl").exists() and open_folder(folder).search is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"queries": 3}', '{"queries": {"count": 1}}', "\udcff", "[" * 99999]
)
def test_a_damaged_file_is_named(folder, content):
    origin_path(folder / "nn_inds_toy.pkl").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="nn_inds_toy.pkl.json: does not say"):
        open_folder(folder)


def some_list(names, path="list.txt"):
    return ImageList(path, names, np.zeros(len(names), np.int64), np.ones((len(names), 2), np.int32))


@pytest.fixture
def made(tmp_path):
    """A store of ten images, and a table over the first two and the others."""
    store = make_store(tmp_path, n=10)
    queries, gallery = some_list(store.names[:2], "queries.txt"), some_list(store.names[2:], "gallery.txt")
    save_neighbors(tmp_path / "nn.pkl", [[0, 1], [2, 3]], describe_origin(store, queries, gallery), {"aqe": None})
    return tmp_path / "nn.pkl", store, queries, gallery


def test_what_was_recorded_is_checked_against_itself(made):
    assert check_origin(*made) == {"aqe": None}


@pytest.mark.parametrize(
    "names, what",
    [
        (slice(2, 9), "for 8 images as gallery, gallery.txt has 7"),
        (slice(None, 1, -1), "for other gallery: gallery.txt has other names, or another order"),
    ],
)
def test_another_gallery_is_refused(made, names, what):
    table, store, queries, _ = made
    with pytest.raises(InputError, match=f"nn.pkl: made {what}; make it again"):
        check_origin(table, store, queries, some_list(store.names[names], "gallery.txt"))


def test_other_descriptors_under_the_same_names_are_refused(made, tmp_path):
    table, _, queries, gallery = made
    with pytest.raises(InputError, match="made from other global descriptors of the queries than .*other.h5 holds"):
        check_origin(table, make_store(tmp_path, n=10, seed=1, file_name="other.h5"), queries, gallery)


def test_the_same_descriptors_in_another_file_are_accepted(made, tmp_path):
    table, _, queries, gallery = made
    other = make_store(tmp_path, n=10, file_name="other.h5", local_dtype="int8")
    assert check_origin(table, other, queries, gallery) == {"aqe": None}


def test_a_sample_of_the_rows_is_compared_in_large_lists(made, monkeypatch):
    _, store, queries, gallery = made
    monkeypatch.setattr(neighbor_origin, "COMPARED_ROWS", 3)
    described = describe_origin(store, queries, gallery)
    assert described["gallery"]["globals_sha256"] == digest_rows(store.global_descriptors, np.array([2, 5, 8]))


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_a_digest_depends_on_the_numbers_not_on_the_blocks(monkeypatch, block):
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    expected = digest_rows(table)
    monkeypatch.setattr(neighbor_origin, "_ROWS_PER_BLOCK", block)
    assert digest_rows(table) == digest_rows(table[::-1], np.array([3, 2, 1, 0])) == expected
    assert digest_rows(table[::-1]) != expected and digest_rows(table.reshape(3, 4)) != expected


def test_a_training_table_says_where_it_comes_from(tmp_path):
    store = make_store(tmp_path, n=9)
    write_image_list(tmp_path / "train.txt", store.names, [0] * 9, [(640, 480)] * 9)
    path = prepare_topk_gldv2(tmp_path, "test", k=4)
    recorded = json.loads(origin_path(path).read_text())
    assert recorded["gallery"] == recorded["queries"] and recorded["gallery"]["count"] == 9
    assert open_train_set(tmp_path, "test", "train.txt", True).neighbors.shape == (9, 4)
    write_image_list(tmp_path / "train.txt", store.names[::-1], [0] * 9, [(640, 480)] * 9)
    with pytest.raises(InputError, match="another order"):
        open_train_set(tmp_path, "test", "train.txt", True)


@pytest.mark.parametrize("table, refused", [([[1, 2], [1, 0], [0, 1]], False), ([[0, 1], [1, 0], [0, 1]], True)])
def test_images_among_their_own_neighbours_are_refused_for_training_where_they_are_the_rule(tmp_path, table, refused):
    store = make_store(tmp_path, n=3)
    write_image_list(tmp_path / "train.txt", store.names, [0] * 3, [(640, 480)] * 3)
    save_neighbors(tmp_path / "nn_inds_test.pkl", table)
    if refused:
        with pytest.raises(InputError, match="2 of 3 rows list the image itself, the first is row 0"):
            open_train_set(tmp_path, "test", "train.txt", True)
    else:
        assert open_train_set(tmp_path, "test", "train.txt", True).neighbors.tolist() == table
