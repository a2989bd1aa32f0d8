"""Calibrations as files and in checkpoints (rrt/calibration.py)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reranking import NETWORK
from scipy.special import expit

import rrt
from rrt.calibration import Calibration, calibration_of, fitting, read_calibration, sigmoid, write_calibration
from rrt.errors import InputError
from rrt.network.checkpoint import attach_calibration, load_checkpoint, save_checkpoint, strip_checkpoint
from rrt.network.model import RRT
from rrt.rerankers.build import identity_of, make_method
from rrt.rerankers.shipped import SETTINGS, shipped_calibration
from rrt.store.records import ImageRecord

PLATT = Calibration("platt", 2.0, -1.0, method=[{"method": "maxsim", "weight": 0.2}], descriptors={"image_size": 384})
STEPS = Calibration("isotonic", scores=[0.0, 1.0, 3.0], probabilities=[0.1, 0.5, 0.9])


def test_platt_is_a_sigmoid_and_isotonic_is_straight_between_its_knots():
    np.testing.assert_allclose(PLATT([0.5, 1.5, np.nan]), [0.5, 1 / (1 + np.exp(-2)), np.nan])
    np.testing.assert_allclose(STEPS([-5, 0.5, 2, 99]), [0.1, 0.3, 0.7, 0.9])


def test_the_sigmoid_is_that_of_scipy():
    x = np.array([-np.inf, -1e4, -700, -3.5, -1e-9, 0, 0.3, 40, 1e4, np.inf, np.nan])
    np.testing.assert_allclose(sigmoid(x), expit(x), rtol=1e-12)
    np.testing.assert_allclose(sigmoid(x.astype(np.float32)), expit(x.astype(np.float32)), rtol=1e-5)


def test_a_file_gives_the_same_calibration_back(tmp_path):
    for each in (PLATT, STEPS, replace(PLATT, thresholds={"same": 0.9, "maybe": 0.5, "uniformity": 0.4})):
        assert read_calibration(write_calibration(tmp_path / "c.json", each)) == each


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"slope": -1.0},
        {"slope": float("nan")},
        {"slope": "steep"},
        {"version": 2},
        {"more": 1},
        {"method": [1]},
        {"descriptors": 5},
        {"kind": "isotonic"},
        {"kind": "isotonic", "scores": [0, 0], "probabilities": [0, 1]},
        {"kind": "isotonic", "scores": [0, 1], "probabilities": [1, 0]},
        {"kind": "isotonic", "scores": [0, 1], "probabilities": [0, 1.5]},
        {"kind": "isotonic", "scores": [0, 1], "probabilities": [0.5]},
        {"thresholds": {"same": 0.9}},
        {"thresholds": {"same": 0.9, "maybe": 0.95, "uniformity": 0.5}},
        {"thresholds": {"same": 0.9, "maybe": 0.5, "uniformity": 0.5, "more": 1}},
        {"thresholds": {"same": "high", "maybe": 0.5, "uniformity": 0.5}},
        {"thresholds": [0.9, 0.5, 0.5]},
    ],
)
def test_damaged_files_are_one_line(tmp_path, change):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(PLATT.as_dict() | change))
    with pytest.raises(InputError, match=r"c\.json: no calibration .*tools/calibrate\.py"):
        read_calibration(path)


def test_other_texts_and_missing_files_are_one_line(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("{")
    for name, part in (("list", "no calibration"), ("text", "not valid JSON"), ("none", "no such file")):
        with pytest.raises(InputError, match=part):
            read_calibration(tmp_path / f"{name}.json")


def test_what_gave_the_scores_must_be_the_same():
    own = PLATT.method, PLATT.descriptors, None
    assert PLATT.difference(*own) == "" and fitting([STEPS, PLATT], *own) is PLATT
    for scored, part in (
        (([{"method": "maxsim", "weight": 0.3}], *own[1:]), "maxsim.weight=0.2, not 0.3"),
        (([{"method": "rrt"}], *own[1:]), "of maxsim, not of rrt"),
        (([*PLATT.method, *PLATT.method], *own[1:]), "not of maxsim+maxsim"),
        ((PLATT.method, {"image_size": 512}, None), "another image_size"),
        ((PLATT.method, {}, None), "another image_size"),
        ((*own[:2], "abc"), "another whitening"),
    ):
        assert part in PLATT.difference(*scored)
    assert PLATT.difference(PLATT.method) == ""  # of descriptors nothing is known
    assert fitting([STEPS], *own) is None


def test_a_checkpoint_carries_the_calibrations_of_its_scores(tmp_path):
    torch.manual_seed(0)
    path, settings = tmp_path / "best.pt", {"model": NETWORK, "max_sequence_len": 9}
    save_checkpoint(path, RRT(**NETWORK), settings=settings, progress={"epoch": 3})
    before = load_checkpoint(path)
    plain = rrt.Reranker.from_checkpoint(path, device="cpu")
    assert plain.calibration is None
    scored = [plain.scored_as()]
    attach_calibration(path, Calibration("platt", 9.0, 0.0, method=scored))
    attach_calibration(path, Calibration("platt", 0.5, -0.25, method=scored))
    attach_calibration(path, Calibration("platt", 7.0, 0.0, method=[plain.scored_as(0.5, 2.0)]))
    after = load_checkpoint(path)
    assert after.progress == before.progress and after.settings.keys() - before.settings.keys() == {"calibrations"}
    assert all(torch.equal(after.state[name], tensor) for name, tensor in before.state.items())
    for file in (path, strip_checkpoint(path, tmp_path / "half.pt", half=True)):
        reranker = rrt.Reranker.from_checkpoint(file, device="cpu")
        assert [each.slope for each in reranker.calibrations] == [0.5, 7.0]
        assert reranker.calibration is reranker.calibrations[0]
    generator = np.random.default_rng(0)

    def image(name):
        global_, rows = generator.normal(size=24), generator.normal(size=(3, 16))
        return ImageRecord(name, (9, 9), global_, rows, np.zeros((3, 2)), np.ones(3), np.ones(3))

    found = rrt.Reranker.from_checkpoint(path, device="cpu").rerank(image("q"), [image("a"), image("b")])
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(0.25 - found.logits / 2)), rtol=1e-6)
    other = rrt.Reranker.from_checkpoint(path, device="cpu", gallery_local=2)
    assert other.calibration is None
    np.testing.assert_allclose(other.probabilities(np.zeros(1)), 0.5)


@pytest.mark.parametrize("name", ["late", "maxsim", "none"])
def test_the_shipped_ones_are_of_the_methods_as_search_uses_them(name):
    shipped = shipped_calibration(name)
    own = [] if name == "none" else identity_of(make_method(name, SETTINGS[name]))
    assert shipped.method == own and shipped.whitening is None
    assert shipped.about["held_out"]["ece_equal_mass"] <= 0.05
    chosen = shipped.about["groups"]["chosen_on"]
    assert chosen["wrong_same"] <= 0.05 and chosen["unknown_same"] <= 0.05
    assert shipped.thresholds["maybe"] < shipped.thresholds["same"]


def test_in_a_search_a_score_counts_by_how_far_it_stands_above_the_middle():
    calibration = replace(PLATT, in_search={"weight": 2.0, "level": 1.0, "slope": 0.5, "offset": -1.0})
    scores = np.array([np.nan, 4.0, -3.0, 0.0, -1.0, 0.5])  # the middle is 0
    wanted = 1 / (1 + np.exp(1 - 0.5 * (scores + 2 * scores)))
    np.testing.assert_allclose(calibration.of_search(scores), wanted)
    many = np.concatenate([scores[1:] + 0.2, np.full(200, -50.0)])  # of which the best hundred count
    assert calibration.of_search(many)[0] == pytest.approx(1 / (1 + np.exp(1 - 0.5 * (4.2 + 2 * 54.2))))
    # Where most are right, or only one is there, the level stands for the middle.
    np.testing.assert_allclose(calibration.of_search([8.0] * 9), 1 / (1 + np.exp(1 - 0.5 * (8 + 2 * 7))))
    assert np.isnan(calibration.of_search([np.nan])).all() and calibration.of_search([]).shape == (0,)
    assert (PLATT.of_search(scores[1:]) == PLATT(scores[1:])).all()


@pytest.mark.parametrize(
    "wrong", [{"weight": 1.0}, {"weight": 0.0}, {"slope": -1.0}, {"level": float("nan")}, {"a": 1.0}]
)
def test_what_cannot_be_is_refused_in_a_search(wrong):
    good = {"weight": 2.0, "level": 1.0, "slope": 0.5, "offset": -1.0}
    with pytest.raises(InputError, match="no calibration .*make it with"):
        calibration_of(PLATT.as_dict() | {"in_search": wrong if wrong == {"weight": 1.0} else good | wrong}, "file")


def test_groups_begin_at_their_thresholds():
    calibration = replace(PLATT, thresholds={"same": 0.9, "maybe": 0.5, "uniformity": 0.4})
    found = calibration.groups(np.array([1.0, 0.9, 0.89, 0.5, 0.49, 0.0, np.nan]))
    assert found == ["same", "same", "maybe", "maybe", "similar", "similar", None]
    assert PLATT.groups(np.array([0.9, 0.1])) == [None, None]
