"""Groups of results and how often they are right (rrt/evaluation/grouping.py), and the command that chooses them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from reranking import make_measured_world, run_calibrate

from rrt.calibration import Calibration, read_calibration
from rrt.errors import InputError
from rrt.evaluation import grouping
from rrt.evaluation.calibrating import ScoredPairs, score_pairs
from rrt.evaluation.grouping import Answers, choose_thresholds, every_right_image, first_of, group_figures, grouped
from rrt.formats.revisited import load_revisited_set
from rrt.rerankers.build import make_chain
from rrt.store.store import Store

PLATT = Calibration("platt", 1.0, 0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_measured_world(tmp_path_factory.mktemp("grouped"))


def pairs(scores, right, queries, landmarks=5):
    query = np.repeat(np.arange(queries), len(scores) // queries)
    return ScoredPairs(np.asarray(scores, float), np.asarray(right, bool), query, query % landmarks)


def made_up(seed=0, queries=60, each=10):
    generator = np.random.default_rng(seed)
    right = generator.random(queries * each) < 0.3
    scores = generator.normal(2.5 * right - 1, 1)
    unknown = generator.normal(-1, 1, queries * each)
    return Answers(pairs(scores, right, queries), pairs(unknown, unknown > 99, queries), 0.15)


def test_thresholds_are_the_least_that_an_obvious_search_finds():
    answers = made_up()
    found = choose_thresholds(PLATT, answers)
    known, unknown = PLATT(answers.known.scores), PLATT(answers.unknown.scores)
    firsts = [known[answers.known.query == q] for q in range(60)]
    rights = [answers.known.right[answers.known.query == q][p.argmax()] for q, p in enumerate(firsts)]
    alone = np.array([unknown[answers.unknown.query == q].max() for q in range(60)])

    def holds(t):
        wrong = (known[~answers.known.right] >= t).sum() + (unknown >= t).sum()
        return wrong <= 0.05 * ((known >= t).sum() + (unknown >= t).sum()) and (alone >= t).mean() <= 0.05

    assert found["same"] == pytest.approx(min(t for t in [*known, *unknown] if holds(t)), abs=2e-6)
    kept = [p.max() for p, right in zip(firsts, rights) if right]
    assert np.mean(np.array(kept) >= found["maybe"] - 1e-9) >= 0.95 > np.mean(np.array(kept) > found["maybe"] + 1e-6)
    assert found["uniformity"] == 0.3 and found["maybe"] < found["same"]


def test_the_figures_are_those_worked_by_hand():
    calibration = replace(PLATT, thresholds={"same": 0.9, "maybe": 0.5, "uniformity": 1.0})  # logits 2.2 and 0
    known = pairs([3, 2.5, 1, -1, 4, -2], [1, 0, 1, 0, 0, 1], 3)
    unknown = pairs([3, 0, 1, -1, -3, -4], [0] * 6, 3)
    assert first_of(known).tolist() == [0, 2, 4]
    assert group_figures(calibration, Answers(known, unknown)) == {
        "queries": 3,
        "called_same": 4,  # 3, 2.5 and 4; 3
        "first_right": 0.6667,
        "right_first_same": 0.5,
        "right_first_found": 1.0,
        "wrong_same": 0.75,
        "unknown_same": 0.3333,
        "unknown_found": 0.6667,
    }


def test_no_landmark_is_judged_by_thresholds_that_knew_it(monkeypatch):
    answers, seen = made_up(), []
    monkeypatch.setattr(
        grouping,
        "choose_groups",
        lambda given, part: (
            seen.append(set(part.known.landmark.tolist()))
            or replace(given, thresholds={"same": 0.9, "maybe": 0.5, "uniformity": 1})
        ),
    )
    about = grouped(PLATT, answers).about["groups"]
    assert seen[0] == set(range(5)) and [len(each) for each in seen[1:]] == [4] * 5
    assert about["held_out"] == about["chosen_on"]  # the thresholds are the same here


def in_searches_of_many_heights(seed=0):
    """Searches whose scores lie higher or lower altogether, as of queries with more or less texture."""
    answers, generator = made_up(seed), np.random.default_rng(9)
    heights = generator.normal(0, 3, 60)
    moved = (replace(part, scores=part.scores + heights[part.query]) for part in (answers.known, answers.unknown))
    return Answers(*moved, answers.uniformity)


def test_a_score_that_stands_above_its_search_counts_where_scores_of_searches_differ():
    answers = in_searches_of_many_heights()
    chosen = grouping.choose_groups(PLATT, answers)
    alone = replace(PLATT, thresholds=choose_thresholds(PLATT, answers))
    shares = [group_figures(each, answers)["right_first_same"] for each in (chosen, alone)]
    assert chosen.in_search["weight"] > 1 and shares[0] > shares[1] + 0.2
    figures = group_figures(chosen, answers)
    assert figures["wrong_same"] <= 0.05 and figures["unknown_same"] <= 0.05
    again = grouping.choose_groups(chosen, answers)
    assert again == chosen  # what was chosen before has no part in it


def test_where_it_tells_nothing_more_scores_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(grouping, "group_figures", lambda *_: {"right_first_same": 0.5})
    assert not grouping.choose_groups(PLATT, made_up()).in_search


def test_scores_that_tell_nothing_are_one_line():
    answers = made_up()
    turned = replace(answers, known=replace(answers.known, scores=-answers.known.scores - 9))
    with pytest.raises(InputError, match="tells the right first results from wrong ones"):
        choose_thresholds(PLATT, turned)


@pytest.mark.parametrize("truth", ["gnd_toy.pkl", "gnd_classic.json"])
def test_queries_without_an_answer_find_what_is_beside_it(world, truth):
    folder = world / "test"
    images = load_revisited_set(folder / "test_query.txt", folder / "test_gallery.txt", folder / truth)
    grades = ("easy", "hard") if "toy" in truth else ("good", "ok")
    more = every_right_image(images)
    wanted = dict.fromkeys(images.query.names)
    for entry in images.truth.gnd:
        wanted |= dict.fromkeys(images.gallery.names[i] for grade in grades for i in entry[grade])
    assert more.query.names == list(wanted) and len(more.truth.gnd) == len(wanted) > len(images.query.names)
    assert len(more.query.labels) == len(more.query.sizes) == len(wanted)
    with Store(folder / "delg_toy.h5") as store:
        for method in (None, make_chain("maxsim")):
            found = score_pairs(more, store, method, 6, unknown=True)
            assert not found.right.any() and np.bincount(found.query).tolist() == [6] * len(wanted)
        gallery = store.indices(images.gallery.names)
        vectors = np.asarray(store.global_descriptors)
        cosines = score_pairs(more, store, None, 6, unknown=True).scores.reshape(-1, 6)
        for row, (name, entry) in enumerate(zip(more.query.names, more.truth.gnd)):
            out = {*entry["junk"], *(i for grade in grades for i in entry[grade])}
            image = store.indices([name])[0]
            beside = [i for i in range(len(gallery)) if i not in out and gallery[i] != image]
            np.testing.assert_allclose(
                cosines[row], np.sort(vectors[gallery[beside]] @ vectors[image])[::-1][:6], atol=1e-6
            )


def test_the_command_chooses_groups_and_measures_them(world, monkeypatch, capsys):
    run_calibrate(world, monkeypatch, "--method", "none", "--num_rerank", "12")
    file = world / "out" / "calibration.json"
    assert read_calibration(file).method == [] and not read_calibration(file).thresholds
    run_calibrate(world, monkeypatch, "--method", "none", "--num_rerank", "12", "--groups", file)
    found = read_calibration(file)
    told = capsys.readouterr().out
    assert "of queries without an answer" in told and f"same from {found.thresholds['same']:.4f}" in told
    assert found.about["groups"].keys() == {"chosen_on", "held_out"} and found.about["pairs"]
    run_calibrate(world, monkeypatch, "--method", "none", "--num_rerank", "12", "--measure", file)
    assert json.loads((world / "out" / "measured.json").read_text())["groups"]["queries"] == 4
