"""tools/compare.py: every method on one made-up test set, in the test's own process."""

import csv
import io
import itertools
import json

import numpy as np
import pytest
import torch
from reranking import NETWORK, make_test_world, toy_dataset, typed

from rrt.commands import compare as tool
from rrt.errors import InputError
from rrt.evaluation.comparison import (
    CompareSettings,
    as_csv,
    as_latex,
    as_markdown,
    compare,
    names_compared,
    randomisation_p,
)
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.rerankers.build import all_default_settings

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


def test_without_methods_all_that_have_what_they_need_are_compared(world):
    names = names_compared(settings(world))
    assert "rrt" in names and "superglobal+rrt" in names and "asmk" not in names
    names = names_compared(settings(world, resume=None))
    assert "geometric" in names and not any("rrt" in name for name in names)
    for wrong in ([], "aqe", [3]):
        with pytest.raises(InputError, match="expected a list of names"):
            compare(settings(world, methods=wrong))
    with pytest.raises(InputError, match="'nosuch': no such method"):
        compare(settings(world, methods=["nosuch"]))
