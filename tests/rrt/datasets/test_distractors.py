"""rrt/datasets/distractors.py: a second store in the gallery gives what one store and one list with all images give."""

import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import records_in
from reranking import NETWORK, make_test_world, make_world

from rrt.datasets.distractors import add_distractors
from rrt.datasets.sets import open_test_set
from rrt.errors import InputError
from rrt.evaluation.reranking import evaluate_global, evaluate_reranked, score_shortlists
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.network.model import RRT
from rrt.network.scorer import Scorer
from rrt.rerankers.fusion import PLAIN, Fusion
from rrt.search.exact import load_globals, query_expansion, search
from rrt.search.table import load_neighbors, save_neighbors
from rrt.search.whitening import fit_pca_whitening
from rrt.store.store import Store
from rrt.store.writer import write_store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A test set (5 queries, 45 in the gallery), a store of 54 distractors, and in ``both`` everything as one test
    set."""
    root = tmp_path_factory.mktemp("distractors")
    for name in ("set", "other", "both"):
        (root / name).mkdir()
    make_test_world(root / "set", landmarks=5, images=10, seed=3)
    make_world(root / "other", landmarks=6, images=9, seed=4)
    distractors = [
        replace(record, name=f"r1m/{record.name}") for record in records_in(Store(root / "other/delg_toy.h5"))
    ]
    write_store(root / "distractors.h5", distractors, "toy", {})
    write_store(root / "both/delg_toy.h5", [*records_in(Store(root / "set/delg_toy.h5")), *distractors], "toy", {})
    gallery = read_image_list(root / "set/test_gallery.txt")
    names = gallery.names + [record.name for record in distractors]
    write_image_list(root / "both/test_gallery.txt", names, [0] * len(names), [(640, 480)] * len(names))
    shutil.copy(root / "set/test_query.txt", root / "both")
    truth = load_ground_truth(root / "set/gnd_toy.pkl")
    save_ground_truth(root / "both/gnd_toy.pkl", names, truth.qimlist, truth.gnd)
    rank(root)
    return root


def rank(root, whitening=None):
    """Neighbours of both test sets."""
    for name in ("set", "both"):
        lists = [read_image_list(root / name / f"test_{part}.txt") for part in ("query", "gallery")]
        queries, gallery = load_globals(root / name / "delg_toy.h5", *lists, whitening=whitening)
        save_neighbors(root / name / "nn_inds_toy.pkl", search(gallery, queries)[1])


def opened(root, name="set"):
    return open_test_set(root / name, "toy", "gnd_toy.pkl")


class NamedScores:
    """A logit for every pair of names, whatever store they lie in."""

    def __init__(self, store):
        self.names = store.names

    def score(self, queries, shortlists):
        return [
            np.array([zlib.crc32(f"{self.names[q]} {self.names[c]}".encode()) / 2**31 for c in shortlist], np.float32)
            for q, shortlist in zip(queries, shortlists)
        ]


def figures(test, num_rerank, fusion=PLAIN, whitening=None, scorer=NamedScores):
    scored = score_shortlists(test, scorer(test.store), num_rerank, whitening)
    for results in (evaluate_global(test), evaluate_reranked(test, scored, fusion)):
        for result in results.values():
            yield np.column_stack([result.aps, result.ps, result.rs])


@pytest.mark.parametrize("num_rerank, block", [(1, 7), (5, 1000), (30, 1), (60, 13), (10_000, None)])
def test_figures_are_those_of_one_store_and_list(world, num_rerank, block):
    enlarged = add_distractors(opened(world), world / "distractors.h5", num_rerank, block=block)
    for fusion in (Fusion(), Fusion(0.5)):
        for ours, expected in zip(
            figures(enlarged, num_rerank, fusion), figures(opened(world, "both"), num_rerank, fusion)
        ):
            np.testing.assert_array_equal(ours, expected)


def test_distractors_cost_precision_before_and_change_the_result(world):
    plain, enlarged = opened(world), add_distractors(opened(world), world / "distractors.h5", 10)
    assert evaluate_global(enlarged)["medium"].map < evaluate_global(plain)["medium"].map - 0.02


def test_the_network_scores_distractors_by_their_own_local_descriptors(world):
    torch.manual_seed(0)
    network = RRT(**NETWORK)
    enlarged, both = add_distractors(opened(world), world / "distractors.h5", 40), opened(world, "both")
    ours, expected = (score_shortlists(test, Scorer(network, test.store), 40) for test in (enlarged, both))
    for row in range(5):
        np.testing.assert_array_equal(ours.candidates[row], expected.candidates[row])
        np.testing.assert_allclose(ours.logits[row], expected.logits[row], atol=1e-5)
        np.testing.assert_allclose(ours.similarities[row], expected.similarities[row], atol=1e-6)
    assert max(map(np.max, ours.candidates)) >= 45


def test_under_a_whitening_distractors_are_compared_in_the_same_space(world, tmp_path):
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    whitening = fit_pca_whitening(Store(world / "distractors.h5").global_descriptors, 6)
    rank(tmp_path, whitening.save(tmp_path / "w.npz"))
    enlarged = add_distractors(opened(tmp_path), world / "distractors.h5", 20, whitening)
    fusion = Fusion(0.5)
    for ours, expected in zip(
        figures(enlarged, 20, fusion, whitening), figures(opened(tmp_path, "both"), 20, fusion, whitening)
    ):
        np.testing.assert_array_equal(ours, expected)
    with pytest.raises(InputError, match="not ordered by the similarities.*give the whitening="):
        add_distractors(opened(tmp_path), world / "distractors.h5", 20)


def test_neighbours_of_expanded_queries_are_refused(world, tmp_path):
    shutil.copytree(world / "set", tmp_path / "set")
    test = opened(world)
    queries, gallery = (np.array(test.store.global_descriptors[i]) for i in (test.query_index, test.gallery_index))
    save_neighbors(tmp_path / "set/nn_inds_toy.pkl", search(gallery, query_expansion(queries, gallery, 3))[1])
    with pytest.raises(InputError, match="not ordered by the similarities.*without query expansion"):
        add_distractors(opened(tmp_path), world / "distractors.h5", 20)


def test_rankings_end_behind_the_last_graded_picture_and_measure_the_same(world):
    """The whole ranking, merged by sorting all similarities, against the cut one."""
    test, store = opened(world), Store(world / "distractors.h5")
    cut = add_distractors(test, store.path)
    descriptors = np.concatenate([test.store.global_descriptors[test.gallery_index], store.global_descriptors])
    whole = np.argsort(-(test.store.global_descriptors[test.query_index] @ descriptors.T), axis=1, kind="stable")
    for row, entry in enumerate(test.gnd):
        last = np.flatnonzero(np.isin(whole[row], np.concatenate([entry["easy"], entry["hard"], entry["junk"]])))[-1]
        listed = cut.ranks[row][cut.ranks[row] >= 0]
        assert len(listed) == max(last + 1, 9)  # 9 are graded: what the shortest of shortlists could need
        np.testing.assert_array_equal(listed, whole[row, : len(listed)])
    assert cut.ranks.shape[1] < whole.shape[1] and cut.ranks.dtype == np.int32
    for ours, expected in zip(evaluate_global(cut).values(), evaluate_global(replace(cut, ranks=whole)).values()):
        np.testing.assert_array_equal(
            np.hstack([ours.aps[:, None], ours.ps, ours.rs]),
            np.hstack([expected.aps[:, None], expected.ps, expected.rs]),
        )


def test_equal_similarities_rank_the_gallery_first(world, tmp_path):
    """Distractors with the very descriptors of gallery images, whose products are exact on every processor."""
    test, path, generator = opened(world), tmp_path / "exact.h5", np.random.default_rng(0)

    def exact(record):
        """With quarters in 16 of the 24 dimensions: of unit length, all products are sixteenths."""
        signs = generator.choice([-0.25, 0.25], 24)
        signs[generator.permutation(24)[:8]] = 0
        return replace(record, global_=signs.astype(np.float32))

    records = [exact(record) for record in records_in(test.store)]
    write_store(path, records, "toy", {})
    write_store(
        tmp_path / "copies.h5", [replace(records[i], name=f"copy/{i}") for i in test.gallery_index[:6]], "toy", {}
    )
    store = Store(path)
    vectors = np.asarray(store.global_descriptors)
    ranks = np.argsort(-vectors[test.query_index] @ vectors[test.gallery_index].T, axis=1, kind="stable")
    test = replace(test, store=store, ranks=ranks)
    enlarged = add_distractors(test, tmp_path / "copies.h5", 1000)
    for row in enlarged.ranks:
        place = {image: i for i, image in enumerate(row)}
        assert all(place[45 + i] > place[i] for i in range(6))


def test_a_cut_neighbour_table_stays_cut(world, tmp_path):
    shutil.copytree(world / "set", tmp_path / "set")
    save_neighbors(tmp_path / "set/nn_inds_toy.pkl", load_neighbors(world / "set/nn_inds_toy.pkl")[:, :4])
    enlarged = add_distractors(opened(tmp_path), world / "distractors.h5", 1000)
    assert {len(row[row >= 0]) for row in enlarged.ranks} == {4 + 54}
    evaluate_global(enlarged)


def spoilt(world, folder, change):
    store = Store(world / "distractors.h5")
    return write_store(folder / "spoilt.h5", list(map(change, records_in(store))), "toy", {})


def test_distractors_that_do_not_fit_are_refused(world, tmp_path):
    test = opened(world)
    query = test.images.query.names[2]
    with pytest.raises(InputError, match=f"'{query}' is in .*delg_toy.h5, too"):
        add_distractors(
            test, spoilt(world, tmp_path, lambda r: replace(r, name=query) if r.name.endswith("3_3.jpg") else r)
        )
    with pytest.raises(InputError, match="spoilt.h5: global descriptors have 7 dimensions"):
        add_distractors(test, spoilt(world, tmp_path, lambda r: replace(r, global_=np.ones(7))))
    with pytest.raises(InputError, match="missing.h5"):
        add_distractors(test, tmp_path / "missing.h5")


@pytest.mark.parametrize("column, what", [("global", "global descriptor"), ("local/descriptors", "local descriptors")])
def test_nan_among_the_distractors_is_named(world, tmp_path, column, what):
    import h5py

    shutil.copy(world / "distractors.h5", tmp_path)
    with h5py.File(tmp_path / "distractors.h5", "r+") as file:
        file[column][7] = np.nan
    with pytest.raises(InputError, match=f"distractors.h5: {what} of 'r1m.*NaN"):
        add_distractors(opened(world), tmp_path / "distractors.h5", 1000)


def test_distractors_of_another_network_are_refused(world, tmp_path):
    stores = [
        Store(write_store(tmp_path / f"{name}.h5", list(records_in(Store(path))), "toy", {}, model_sha256=name))
        for name, path in (("one", world / "set/delg_toy.h5"), ("two", world / "distractors.h5"))
    ]
    with pytest.raises(InputError, match="two.h5: made by another network than .*one.h5"):
        add_distractors(replace(opened(world), store=stores[0]), stores[1].path)
