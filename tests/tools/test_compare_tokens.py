"""tools/compare_tokens.py on a made-up test set, in the test's own process."""

import json

import pytest
from commands import assert_one_line_error, run_tool
from reranking import make_measured_world, toy_dataset, typed

from rrt.errors import InputError
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.evaluation.token_costs import TokenSettings, compare_tokens, families
from rrt.files.locks import owned


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_measured_world(tmp_path_factory.mktemp("tokens"))


def settings(world, **given):
    given = {"resume": str(world / "published.pt"), "temp_dir": str(world / "out"), "cpu": True} | given
    small = {"counts": [4, 2], "most": 4, "num_first": 6, "num_last": 3}
    return typed(TokenSettings, toy_dataset(world), **small | given)


def test_both_methods_are_measured_alone_and_in_cascades_by_every_number(world, tmp_path):
    found = compare_tokens(settings(world))
    assert found["families"]["rrt, as many of both"] == {2: "rrt[local=2,num=6]", 4: "rrt[local=4,num=6]"}
    assert found["families"]["maxsim, then rrt of 4 for 3"] == {2: "maxsim[local=2,num=6]+rrt[local=4,num=3]"}
    rows = {row["method"]: row for row in found["rows"]}
    assert {method for group in found["families"].values() for method in group.values()} == rows.keys() - {"global"}
    name = "maxsim[query_local=4,gallery_local=2,num=6]"
    given = {"reranker": "maxsim", "maxsim": {"query_local": 4, "gallery_local": 2}, "num_rerank": 6}
    numbers = evaluate_run(typed(EvaluationSettings, toy_dataset(world), temp_dir=str(tmp_path), **given)).numbers
    assert rows[name]["map"]["medium"] == numbers["maxsim"]["M_map"]
    assert json.loads((world / "out/tokens.json").read_text())["rows"] == json.loads(json.dumps(found["rows"]))
    assert (world / "out/tokens.png").stat().st_size > 20_000


def test_two_runs_do_not_write_one_folder(tmp_path):
    with owned(tmp_path, "comparing there"):
        finished = run_tool("tools/compare_tokens.py", "with", f"temp_dir={tmp_path}")
    assert_one_line_error(finished, "another process is comparing there")


def test_without_a_network_matching_is_measured_alone_and_wrong_settings_are_refused(world):
    groups = families(settings(world, resume=None)).values()
    assert not any("rrt" in method for group in groups for method in group.values())
    for wrong, part in (
        ({"methods": ["maxsim"]}, "leave methods out"),
        ({"num_last": 7}, "num_last=7: more than num_first=6"),
        ({"counts": []}, "counts=\\[\\]: expected a list of numbers"),
    ):
        with pytest.raises(InputError, match=part):
            compare_tokens(settings(world, **wrong))
