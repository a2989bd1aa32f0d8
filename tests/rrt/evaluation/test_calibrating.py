"""Calibrations fitted on pairs of known answer (rrt/evaluation/calibrating.py), and the command."""

import json

import numpy as np
import pytest
from commands import error_of
from reranking import make_measured_world, run_calibrate

from rrt.calibration import read_calibration
from rrt.commands import calibrate as command
from rrt.errors import InputError
from rrt.evaluation.calibrating import (
    ScoredPairs,
    across,
    bins_of,
    calibrate,
    expected_calibration_error,
    figures_of,
    fit,
    held_out,
    joined,
    score_pairs,
)
from rrt.formats.revisited import load_revisited_set
from rrt.rerankers.build import make_chain
from rrt.store.store import Store


def made_up(number=6000, slope=6.0, offset=-2.0, seed=0, landmarks=5):
    """Pairs whose probability is known to be sigmoid(slope * score + offset)."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(-1, 1, number)
    right = generator.random(number) < 1 / (1 + np.exp(-slope * scores - offset))
    return ScoredPairs(scores, right, np.arange(number) // 100, np.arange(number) % landmarks)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_measured_world(tmp_path_factory.mktemp("calibrated"))


def test_the_known_law_of_made_up_pairs_is_found():
    pairs, truth = made_up(), 1 / (1 + np.exp(-6 * np.linspace(-1, 1, 9) + 2))
    platt = fit(pairs, "platt")
    assert platt.slope == pytest.approx(6, abs=0.5) and platt.offset == pytest.approx(-2, abs=0.2)
    for kind in ("platt", "isotonic"):
        np.testing.assert_allclose(fit(pairs, kind)(np.linspace(-1, 1, 9)), truth, atol=0.06)


def test_isotonic_levels_are_the_means_of_pooled_neighbours():
    # By hand: 0 | 1 0 pooled to 1/2 | 1, each with half a right and half a wrong pair more.
    scores = np.repeat([0.0, 1.0, 2.0, 3.0], 20)
    right = np.repeat([False, True, False, True], 20)
    found = fit(ScoredPairs(scores, right, np.zeros(80), np.zeros(80)), "isotonic")
    assert found.scores == [0.0, 1.5, 3.0]
    np.testing.assert_allclose(found.probabilities, [0.5 / 21, 20.5 / 41, 20.5 / 21])


def test_no_probability_is_certain_where_scores_separate_the_answers():
    scores = np.linspace(0, 1, 100)
    pairs = ScoredPairs(scores, scores > 0.5, np.zeros(100), np.zeros(100))
    for kind in ("platt", "isotonic"):
        assert 0 < fit(pairs, kind)(-1.0) < 0.02 and 0.98 < fit(pairs, kind)(1.0) < 1


def test_the_error_is_that_of_bins_worked_by_hand():
    probabilities, right = np.array([0.1, 0.2, 0.3, 0.95]), np.array([False, True, False, True])
    # Two bins of two: |0.15 - 0.5| and |0.625 - 0.5|; of equal width: three below 0.5, one above.
    assert expected_calibration_error(probabilities, right, 2) == pytest.approx((0.35 + 0.125) / 2)
    wide = 0.75 * abs(0.2 - 1 / 3) + 0.25 * 0.05
    assert expected_calibration_error(probabilities, right, 2, equal_mass=False) == pytest.approx(wide)
    assert sorted(len(part) for part in bins_of(np.linspace(0, 1, 32))) == [2] * 13 + [3] * 2
    assert figures_of(np.array([1.0, 0.0]), np.array([False, False]))["log_loss"] > 6


def test_no_pair_is_judged_by_a_fit_that_knew_its_landmark(monkeypatch):
    pairs, seen = made_up(500), []

    def watched(part, kind):
        seen.append(set(part.landmark.tolist()))
        return lambda scores: np.full(len(scores), len(seen))

    monkeypatch.setattr("rrt.evaluation.calibrating.fit", watched)
    found = held_out(pairs, "platt")
    for label in range(5):
        (by,) = set(found[pairs.landmark == label])
        assert label not in seen[int(by) - 1] and len(seen[int(by) - 1]) == 4


def test_each_search_is_judged_by_what_the_others_fitted():
    alike, other = [made_up(4000, seed=1), made_up(4000, seed=2)], made_up(4000, offset=1.0, seed=3)
    assert max(across(alike, "platt")) < 0.04
    errors = across([*alike, other], "platt")
    slow = fit(joined(alike), "platt")(other.scores)
    assert errors[2] == pytest.approx(expected_calibration_error(slow, other.right), abs=1e-4) and errors[2] > 0.2
    assert joined([alike[0], other]).query.max() == 79


def test_the_better_kind_is_taken_and_held_out_figures_are_small():
    calibration, probabilities = calibrate(made_up())
    assert calibration.kind == "platt" and calibration.about["held_out"]["ece_equal_mass"] < 0.03
    pairs = made_up()
    step = ScoredPairs(pairs.scores, (pairs.scores > 0) != (np.arange(6000) % 5 == 0), pairs.query, pairs.query % 7)
    assert calibrate(step)[0].kind == "isotonic" and len(probabilities) == 6000


def test_too_little_to_fit_is_said():
    pairs = made_up(200)
    for wrong, part in (
        (pairs.part(pairs.right), "0 wrong pairs"),
        (ScoredPairs(-pairs.scores, pairs.right, pairs.query, pairs.landmark), "no higher than those of wrong ones"),
    ):
        with pytest.raises(InputError, match=part):
            fit(wrong, "platt")
    with pytest.raises(InputError, match="all queries have one label"):
        held_out(made_up(200, landmarks=1), "platt")


@pytest.mark.parametrize("truth", ["gnd_toy.pkl", "gnd_classic.json"])
def test_pairs_are_the_first_candidates_of_every_query_without_junk(world, truth):
    folder = world / "test"
    images = load_revisited_set(folder / "test_query.txt", folder / "test_gallery.txt", folder / truth)
    store = Store(folder / "delg_toy.h5")
    pairs = score_pairs(images, store, make_chain("maxsim"), 6)
    method, grades = make_chain("maxsim"), ("easy", "hard") if "toy" in truth else ("good", "ok")
    row = 0
    for query, entry in enumerate(images.truth.gnd):
        image = store.indices([images.query.names[query]])[0]
        gallery = store.indices(images.gallery.names)
        cosines = np.asarray(store.global_descriptors)[gallery] @ np.asarray(store.global_descriptors)[image]
        first = [i for i in np.argsort(-cosines, kind="stable") if i not in entry["junk"]][:6]
        scores = method.similarities(store, image, gallery[first])
        np.testing.assert_allclose(pairs.scores[row : row + 6], scores, atol=1e-5)
        right = [any(i in entry[grade] for grade in grades) for i in first]
        assert pairs.right[row : row + 6].tolist() == right
        row += 6
    assert row == len(pairs.scores) and pairs.query.tolist() == np.repeat(range(len(images.query.names)), 6).tolist()
    chained = score_pairs(images, store, make_chain("maxsim[num=12]+maxsim[num=6,symmetric=True]"))
    assert len(chained.scores) == row and not np.allclose(chained.scores, pairs.scores)
    with pytest.raises(InputError, match="'k_reciprocal': its scores depend on all candidates"):
        score_pairs(images, store, make_chain("maxsim+k_reciprocal"))


def test_the_command_fits_measures_and_fills_a_checkpoint(world, monkeypatch, capsys):
    run_calibrate(world, monkeypatch, "--method", "maxsim[local=5,symmetric=True]")
    file = world / "out" / "calibration.json"
    calibration = read_calibration(file)
    assert calibration.method[0]["gallery_local"] == 5 and calibration.about["queries"] == 4
    assert (world / "out" / "reliability.png").stat().st_size > 10_000
    run_calibrate(world, monkeypatch, "--method", "maxsim[local=5,symmetric=True]", "--measure", file)
    measured = json.loads((world / "out" / "measured.json").read_text())
    assert measured["pairs"] == calibration.about["pairs"] and "equal mass" in capsys.readouterr().out
    run_calibrate(world, monkeypatch, "--method", "maxsim[local=5]", "--kind", "isotonic")
    assert read_calibration(file).kind == "isotonic"
    given = ["--store", "x", "--query_list", "x", "--gallery_list", "x", "--ground_truth", "x"]
    assert "--into_checkpoint" in error_of(command.main, [*given, "--into_checkpoint"], monkeypatch, capsys)
