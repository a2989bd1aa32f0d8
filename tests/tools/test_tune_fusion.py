"""tools/tune_fusion.py: which lambda and temperature win."""

from types import SimpleNamespace

import numpy as np
import pytest
from commands import assert_one_line_error, run_tool
from reranking import NETWORK

from rrt.errors import InputError
from rrt.evaluation.fusion_tuning import tune_fusion
from rrt.evaluation.reranking import ScoredShortlists


def scored(similarities, logits, positive):
    """One query over four gallery images, of which ``positive`` is right."""
    gnd = [{"easy": np.array([positive]), "hard": np.array([], int), "junk": np.array([], int)}]
    ranks = np.argsort(-np.array(similarities), kind="stable")[None]
    validation = SimpleNamespace(gnd=gnd, gallery_index=np.arange(4), ranks=ranks)
    shortlists = ScoredShortlists(
        4, {"medium": ranks}, [np.arange(4)], [np.array(logits)], [np.array(similarities)], 0.0, 4
    )
    return validation, shortlists


def test_a_reranker_that_knows_better_gets_the_weight_it_needs():
    tuned = tune_fusion(*scored([0.9, 0.5, 0.4, 0.3], [-9.0, 9.0, -9.0, -9.0], positive=1), [0.0, 0.5, 0.8, 1.0], [1.0])
    # 0.5 * 0.9 = 0.45 against 0.25 + 0.5: fine; 0.8 * 0.9 = 0.72 against 0.4 + 0.2: not.
    assert tuned.fusion.weight == 0.5
    assert tuned.grid[:, 0].tolist() == [1.0, 1.0, 0.25, 0.25]
    assert tuned.before == 0.25
    assert tuned.alone == tuned.grid[0, 0]  # lambda 0


def test_of_equal_figures_the_more_global_and_the_smaller_temperature_win():
    tuned = tune_fusion(*scored([0.9, 0.5, 0.4, 0.3], [9.0, 1.0, 1.0, 1.0], positive=0), [0.4, 0.0, 0.9], [2.0, 0.5])
    assert (tuned.fusion.weight, tuned.fusion.temperature) == (0.9, 0.5)


def test_an_empty_grid_is_refused():
    with pytest.raises(InputError, match="at least one value"):
        tune_fusion(*scored([1.0] * 4, [0.0] * 4, 0), [], [1.0])


def test_without_a_checkpoint_or_validation_set_the_setting_is_named():
    network = [f"model.{name}={value}" for name, value in NETWORK.items()]
    assert_one_line_error(run_tool("tools/tune_fusion.py", "with", "dataset.scenes", *network), "resume is not set")
    finished = run_tool("tools/tune_fusion.py", "with", "dataset.roxford_r50_gldv2", "resume=x.pt")
    assert_one_line_error(finished, "dataset.val_data_dir is not set")
