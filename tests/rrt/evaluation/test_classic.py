"""Ground truth graded good and ok goes through search, reranking and their figures as the Revisited one does."""

import numpy as np
import pytest
from reranking import make_test_world

from rrt.datasets.configured import open_test
from rrt.datasets.sets import TEST_LISTS, open_test_set
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError
from rrt.evaluation.metrics import format_table
from rrt.evaluation.reranking import evaluate_global, evaluate_reranked, score_shortlists, summary
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth


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
