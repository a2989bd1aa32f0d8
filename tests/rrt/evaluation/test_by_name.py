"""Measures of rankings of names: those of positions, told in plain dictionaries."""

import numpy as np
import pytest
from builders import make_store

import rrt
from rrt.errors import InputError
from rrt.evaluation import metrics


def test_graded_names_are_measured_as_positions_are():
    generator, names = np.random.default_rng(0), [f"{i}.jpg" for i in range(30)]
    gnd, truth, rankings = [], {}, {}
    for query in "abc":
        order = generator.permutation(30)
        grades = dict(zip(("easy", "hard", "junk"), np.split(generator.permutation(30)[:12], 3)))
        gnd.append(grades)
        truth[query] = {grade: [names[i] for i in images] for grade, images in grades.items()}
        rankings[query] = [names[i] for i in order]
    ranks = np.array([[names.index(name) for name in rankings[query]] for query in "abc"])
    expected, found = metrics.evaluate(ranks, gnd, (1, 3)), rrt.evaluate(rankings, truth, (1, 3))
    assert list(found) == ["easy", "medium", "hard"]
    for protocol, result in expected.items():
        assert found[protocol]["map"] == result.map and list(found[protocol]["aps"].values()) == result.aps.tolist()
        assert [found[protocol][f"mp@{k}"] for k in (1, 3)] == result.mp.tolist()
        assert [found[protocol][f"mr@{k}"] for k in (1, 3)] == result.mr.tolist()


def test_a_list_of_right_names_is_one_protocol_and_names_out_of_the_truth_are_wrong():
    # Right at ranks 1 and 3 of three: precision 1, then 1/2 and 2/3; the area is (1 + 1 + 1/2 + 2/3) / 4.
    found = rrt.evaluate({"q": ["a", "x", "b"], "unused": []}, {"q": ["a", "b"]}, ks=(1,))
    assert found == {
        "all": {"map": pytest.approx(19 / 24), "mp@1": 1, "mr@1": 0.5, "aps": {"q": pytest.approx(19 / 24)}}
    }
    assert rrt.evaluate({"q": []}, {"q": ["a"]})["all"]["map"] == 0


def test_what_a_retriever_finds_is_measured(tmp_path):
    store = make_store(tmp_path, n=5)
    queries = store.names[:2]
    found = dict(zip(queries, rrt.Retriever(store).retrieve(queries, k=4)))
    right = {query: [found[query].names[0]] for query in queries}
    assert rrt.evaluate(found, right)["all"]["map"] == 1


@pytest.mark.parametrize(
    "rankings, truth, said",
    [
        ({}, {"q": ["a"]}, "none for the query 'q'"),
        ({"q": ["a", "a"]}, {"q": ["a"]}, "ranking of 'q': 'a' is named twice"),
        ({"q": ["a"]}, {"q": {"easy": ["a"], "hard": ["a"]}}, "ground truth of 'q': 'a' is named twice"),
        ({"q": ["a"]}, {"q": {"good": ["a"]}}, "'good' is no grade; known: easy, hard, junk"),
        ({"q": ["a"]}, {"q": "a"}, "'a' is one name; give a list"),
        ({"q": "a"}, {"q": ["a"]}, "'a' is one name; give a list"),
        ({"q": ["a"], "r": ["a"]}, {"q": ["a"], "r": {"easy": ["a"]}}, "keep to one of the two"),
        ({"q": ["a"]}, {}, "no queries"),
        ([["a"]], {"q": ["a"]}, "rankings: a list; give a dictionary"),
        ({"q": ["a"]}, [["a"]], "ground truth: a list; give a dictionary"),
        ({"q": None}, {"q": ["a"]}, "ranking of 'q': None is no list of names"),
    ],
)
def test_what_does_not_fit_together_is_one_line(rankings, truth, said):
    with pytest.raises(InputError, match=said):
        rrt.evaluate(rankings, truth)
