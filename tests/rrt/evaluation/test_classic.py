"""Ground truth graded good and ok goes through search, reranking and their figures as the Revisited one does."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from reranking import make_measured_world, make_test_world, toy_dataset, typed

from rrt.datasets.configured import open_test
from rrt.datasets.sets import TEST_LISTS, open_test_set, query_store_path
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.evaluation.metrics import format_table
from rrt.evaluation.reranking import evaluate_global, evaluate_reranked, score_shortlists, summary
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.evaluation.store_comparison import CompareStoresSettings, compare_stores
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.store.store import Store
from rrt.store.writer import write_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A made-up test set with its ground truth in both manners: gnd_toy.pkl and gnd_classic.json."""
    folder = make_test_world(tmp_path_factory.mktemp("classic"))
    truth = load_ground_truth(folder / "gnd_toy.pkl")
    gnd = [
        {"bbx": entry["bbx"], "good": entry["easy"], "ok": entry["hard"], "junk": entry["junk"]} for entry in truth.gnd
    ]
    save_ground_truth(folder / "gnd_classic.json", truth.imlist, truth.qimlist, gnd)
    return folder


class SameScores:
    def score(self, queries, shortlists):
        return [np.zeros(len(shortlist), np.float32) for shortlist in shortlists]


def test_positives_and_junk_are_those_of_medium(folder):
    revisited, classic = (open_test_set(folder, "toy", name) for name in ("gnd_toy.pkl", "gnd_classic.json"))
    numbers = summary(evaluate_reranked(classic, score_shortlists(classic, SameScores(), 5)), evaluate_global(classic))
    # Equal scores move nothing.
    assert numbers["C_map"] == summary(evaluate_global(revisited))["M_map"] and numbers["C_gain"] == 0
    assert not any(name.startswith(("E_", "M_", "H_")) for name in numbers)
    assert "| global | Classic  |" in format_table({"global": evaluate_global(classic)})


def test_settings_are_not_chosen_on_a_set_without_medium(folder):
    dataset = {
        "val_data_dir": folder,
        "desc_name": "toy",
        "val_gnd_file": "gnd_classic.json",
        "test_txt": list(TEST_LISTS),
    }
    assert list(evaluate_global(open_test(DatasetSettings(**dataset), "val"))) == ["classic"]
    with pytest.raises(
        InputError, match="gnd_classic.json: graded good and ok, but the choice is made by the Medium mAP"
    ):
        open_test(DatasetSettings(**dataset), "val", selects=True)
    assert open_test(DatasetSettings(**dataset | {"val_gnd_file": "gnd_toy.pkl"}), "val", selects=True)


def test_cropped_queries_lie_in_a_store_beside_that_of_the_gallery(tmp_path):
    """The queries' whole images are junk of the gallery, under the same names; else all is as in a single store."""
    root = make_measured_world(tmp_path)
    one, two = root / "test", root / "two"
    shutil.copytree(one, two)
    truth, lists = load_ground_truth(two / "gnd_classic.json"), [read_image_list(two / name) for name in TEST_LISTS]
    with Store(one / "delg_toy.h5") as store:
        crops = [store[name].record() for name in lists[0].names]
        wholes = [replace(record, size=(900, 700), global_=record.global_ + 0.01) for record in crops]
        gallery = [store[name].record() for name in lists[1].names]
    write_store(two / "delg_toy.h5", gallery + wholes, "toy", {"crop_queries": True})
    write_store(query_store_path(two / "delg_toy.h5"), crops, "toy", {"crop_queries": True})
    names = [record.name for record in gallery + wholes]
    write_image_list(two / "test_gallery.txt", names, [0] * len(names), [record.size for record in gallery + wholes])
    whole_rows = np.arange(len(gallery), len(names))
    gnd = [entry | {"junk": np.append(entry["junk"], whole_rows)} for entry in truth.gnd]
    save_ground_truth(two / "gnd_classic.json", names, truth.qimlist, gnd)
    ranked = prepare_topk_revisited(two, "toy", "gnd_classic.json").nn_inds
    before = prepare_topk_revisited(one, "toy", "gnd_classic.json").nn_inds
    assert ranked[:, 0].tolist() == whole_rows.tolist()  # their first result is what they were cut from
    np.testing.assert_array_equal(ranked[ranked < len(gallery)].reshape(before.shape), before)
    found = []
    for folder in (one, two):
        dataset = toy_dataset(root) | {"test_data_dir": str(folder), "test_gnd_file": "gnd_classic.json"}
        given = {"resume": str(root / "published.pt"), "cpu": True, "num_rerank": 9}
        distractors = {"distractors": str(root / "distractors.h5")}
        report = evaluate_run(typed(EvaluationSettings, dataset, **given, **distractors, temp_dir=tmp_path / "log"))
        found.append([result["classic"].aps for result in report.results.values()])
        told = report.numbers["protocol"]
        stores = str(folder / "delg_toy.h5"), str(query_store_path(two / "delg_toy.h5")) if folder == two else None
        assert (told["store"], told["query_store"]) == stores
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)
    settings = typed(CompareStoresSettings, dataset, temp_dir=tmp_path, methods=["maxsim"], variants=["int8"])
    assert [row["store"] for row in compare_stores(settings)] == ["", "int8"]
    assert {path.name for path in (tmp_path / "int8").glob("*.h5")} == {"delg_toy.h5", "delg_toy_queries.h5"}
    with pytest.raises(InputError, match="made for other queries|from other global descriptors of the queries"):
        query_store_path(two / "delg_toy.h5").unlink()
        open_test_set(two, "toy", "gnd_classic.json")
    write_store(query_store_path(two / "delg_toy.h5"), crops, "toy", {}, model_sha256="a" * 64)
    write_store(two / "delg_toy.h5", gallery + wholes, "toy", {}, model_sha256="b" * 64)
    with pytest.raises(InputError, match="delg_toy_queries.h5: made by another network than"):
        open_test_set(two, "toy", "gnd_classic.json")
