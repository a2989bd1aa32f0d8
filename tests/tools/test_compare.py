"""tools/compare.py: every method on one made-up test set, in the test's own process."""

import csv
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reranking import NETWORK, make_test_world, toy_dataset, typed

from rrt.commands import compare as tool
from rrt.datasets.configured import open_test
from rrt.errors import InputError
from rrt.evaluation.comparison import CompareSettings, as_csv, as_latex, as_markdown, compare, names_compared
from rrt.evaluation.metrics import ProtocolResult
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.evaluation.significance import holm, paired_gains, randomisation_p
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.rerankers.build import all_default_settings
from rrt.store.memory import MemoryStore

NAMES = ["aqe", "superglobal", "geometric", "superglobal+rrt", "rrt"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    (root / "test").mkdir()
    make_test_world(root / "test", landmarks=4, seed=1)
    torch.manual_seed(0)
    save_checkpoint(root / "rrt.pt", RRT(**NETWORK))
    return root


def settings(root, **given):
    given = {"resume": str(root / "rrt.pt"), "temp_dir": str(root / "out"), "cpu": True} | given
    return typed(CompareSettings, toy_dataset(root), **given)


@pytest.fixture(scope="module")
def rows(world):
    return compare(settings(world, methods=NAMES))


def test_every_row_has_the_figures_that_the_evaluation_has(world, rows, tmp_path):
    assert [row["method"] for row in rows] == ["global", "aqe", "superglobal", "geometric", "superglobal+rrt", "RRT"]
    for row in rows[1:]:
        name = "rrt" if row["method"] == "RRT" else row["method"]
        given = {"reranker": name, "temp_dir": str(tmp_path), "cpu": True}
        given["resume"] = str(world / "rrt.pt") if "rrt" in name else None
        numbers = evaluate_run(typed(EvaluationSettings, toy_dataset(world), **given)).numbers
        for protocol in ("easy", "medium", "hard"):
            assert row["map"][protocol] == numbers[row["method"]][f"{protocol[0].upper()}_map"]
            assert rows[0]["map"][protocol] == numbers["global"][f"{protocol[0].upper()}_map"]
        assert row["bytes_per_image"] >= rows[0]["bytes_per_image"] > 0


def test_tables_hold_a_line_for_each_row(rows):
    markdown, latex = as_markdown(rows), as_latex(rows)
    assert len(markdown.splitlines()) == 2 + len(rows) and markdown.startswith("| method | candidates | Easy |")
    assert latex.count(r" \\") == 1 + len(rows) and "superglobal+rrt" in latex
    table = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [float(line["medium_map"]) for line in table] == [row["map"]["medium"] for row in rows]
    assert table[1]["candidates"] == "" and table[2]["candidates"] == str(rows[2]["candidates"])


def test_the_command_writes_tables_and_pictures(world, tmp_path, monkeypatch, rows, capsys):
    monkeypatch.setattr(tool, "compare", lambda *args: rows)
    config = {"temp_dir": str(tmp_path / "out"), "dataset": {}, "model": {}} | all_default_settings()
    found = tool.main(config)
    assert found["aqe"] == rows[1]["map"]
    assert json.loads((tmp_path / "out/comparison.json").read_text())["rows"][1]["map"] == rows[1]["map"]
    for name in ("accuracy_time.png", "accuracy_memory.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out/comparison.md").read_text() in capsys.readouterr().out


def test_p_is_that_of_all_signs():
    differences = np.array([0.3, -0.1, 0.2, 0.25, 0.05, np.nan])
    given = differences[:5]
    means = [abs(np.mean(given * signs)) for signs in itertools.product((-1, 1), repeat=5)]
    expected = np.mean(np.array(means) >= abs(given.mean()) - 1e-12)
    assert randomisation_p(differences) == pytest.approx(expected)
    assert randomisation_p(np.zeros(4)) is None
    assert randomisation_p(np.array([np.nan, 0.5])) == 1.0


def test_holm_is_as_worked_by_hand():
    # Of three tests 0.01 counts three times, 0.04 twice; 0.03 is the second smallest, and what follows is no less.
    assert np.allclose(
        [p or np.nan for p in holm([0.04, 0.01, None, 0.03])], [0.06, 0.03, np.nan, 0.06], equal_nan=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([None]) == [None] and holm([]) == []


def test_gains_are_paired_and_over_the_method_that_is_named(world, rows):
    found = compare(settings(world, methods=NAMES, against="geometric"))
    of = {row["method"]: row for row in found}
    assert of["geometric"]["gain"] is of["geometric"]["p_holm"] is None
    for row in rows[1:]:
        assert row["gain"] == pytest.approx(row["map"]["medium"] - rows[0]["map"]["medium"], abs=0.011)
        assert row["p"] is None or row["p_holm"] >= row["p"]
    assert of["global"]["gain"] == -rows[NAMES.index("geometric") + 1]["gain"]
    with pytest.raises(InputError, match="against=maxsim: not among methods; choose one of global, aqe"):
        compare(settings(world, methods=["aqe"], against="maxsim"))
    assert paired_gains([{"classic": evaluation(0.5)}, {"classic": evaluation(0.75)}], 0)[1]["gain"] == 25.0


def evaluation(value):
    aps = np.full(4, value)
    return ProtocolResult(value, aps, aps[:1], aps[:, None], aps[:1], aps[:, None], (1,))


def test_the_baselines_see_the_same_descriptors_and_candidates(world):
    methods = names_compared(settings(world, methods="baselines", weight=0.5), None)
    assert methods[0] == "maxsim[local=20]" and methods[-2:] == ["rrt[local=20,weight=0]", "rrt[local=20]"]
    found = compare(settings(world, methods="baselines", weight=0.5))
    plain = {row["method"]: row for row in compare(settings(world, methods=["rrt"], weight=0.5))}
    of = {row["method"]: row for row in found}
    assert [row["method"] for row in found] == ["global", *methods]
    assert of["rrt[local=20]"]["map"] == plain["RRT"]["map"]
    assert {row["candidates"] for row in found[1:]} == {min(100, found[1]["candidates"])}
    assert "rrt" not in " ".join(names_compared(settings(world, methods="baselines", resume=None), None))


def test_without_methods_all_that_have_what_they_need_are_compared(world):
    lite0 = MemoryStore(np.eye(2, 512), [np.eye(3, 128)] * 2)
    names = names_compared(settings(world), lite0)
    assert "rrt" in names and "superglobal+rrt" in names and "asmk" not in names
    names = names_compared(settings(world, resume=None), lite0)
    assert "geometric" in names and not any("rrt" in name for name in names)
    # The shipped network is of descriptors of other sizes.
    store = open_test(settings(world).dataset).store
    assert set(names) - set(names_compared(settings(world, resume=None), store)) == {"late"}
    named = replace(settings(world), rerankers={"late": {"model": "mine.safetensors"}})
    assert "late" in names_compared(named, store)
    without = MemoryStore(np.eye(4), local_dim=8)
    assert set(names_compared(settings(world), without)) == {
        *("aqe", "alpha_qe", "database_augmentation", "diffusion", "k_reciprocal", "superglobal"),
        *("database_augmentation+diffusion", "superglobal+k_reciprocal", "database_augmentation+k_reciprocal"),
    }
    for wrong in ([], "aqe", [3]):
        with pytest.raises(InputError, match="expected a list of names"):
            compare(settings(world, methods=wrong))
    with pytest.raises(InputError, match="'nosuch': no such method"):
        compare(settings(world, methods=["nosuch"]))
