"""tools/benchmark.py: figures with their targets; the targets themselves are for a quiet machine, not for a test."""

import json
from types import SimpleNamespace

import pytest
from commands import assert_one_line_error, files_below, run_tool
from places import GOLDEN

from rrt.formats.delf import read_features
from tools import benchmark
from tools.benchmarks import late
from tools.benchmarks.common import Row, format_rows, median_seconds
from tools.benchmarks.store import read_by_messages

TOOL = "tools/benchmark.py"


def test_the_store_benchmark_measures_every_target_and_leaves_nothing_but_its_figures(tmp_path):
    (tmp_path / "work").mkdir()
    finished = run_tool(TOOL, "store", "--quick", "--dir", tmp_path / "work", "--json", tmp_path / "figures.json")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "cores" in finished.stdout and "numpy" in finished.stdout
    assert files_below(tmp_path) == ["figures.json", "work"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["benchmark"] == "store" and figures["machine"]["cores"] >= 1
    assert [row["target"] for row in figures["rows"] if row["target"]] == [
        ">= 10",
        ">= 50",
        "<= 0.52",
        "<= 0.28",
        ">= 0.5",
        "<= 1",
    ]
    for row in figures["rows"]:
        assert row["label"] in finished.stdout
        assert row["value"] > 0
    assert 0.4 < next(row["value"] for row in figures["rows"] if row["label"] == "store of float16, size") < 0.6


def test_what_the_reader_is_compared_with_reads_the_same_numbers():
    path = GOLDEN / "legacy_mini/delg_r50_gldv2/lm0_000.delg_local"
    features = read_features(path)
    for slow, fast in zip(
        read_by_messages(path), (features.descriptors, features.keypoints, features.scales, features.attention)
    ):
        assert slow.dtype == fast.dtype and (slow == fast).all()


@pytest.mark.parametrize(
    "value, target, met",
    [
        (10, ">= 10", True),
        (9.9, ">= 10", False),
        (0.5, "<= 0.52", True),
        (0.6, "<= 0.52", False),
        (None, ">= 1", None),
        (3, "", None),
    ],
)
def test_a_target_is_met_or_missed(value, target, met):
    assert Row("x", value, "s", target=target).met is met


def test_rows_make_a_table():
    table = format_rows([Row("reading", 12.3456, "ms", "a note", ">= 10"), Row("writing", None, "ms")]).splitlines()
    assert [cell.strip() for cell in table[2].split("|")] == [
        "",
        "reading",
        "12.35",
        "ms",
        ">= 10",
        "yes",
        "a note",
        "",
    ]
    assert [cell.strip() for cell in table[3].split("|")] == ["", "writing", "-", "ms", "", "", "", ""]
    assert len({len(line) for line in table}) == 1


def test_functions_take_turns_over_the_arguments():
    calls = []
    seconds = median_seconds({"a": lambda x: calls.append(("a", x)), "b": lambda x: calls.append(("b", x))}, [1, 2])
    assert calls == [("a", 1), ("b", 1), ("a", 2), ("b", 2)] and min(seconds.values()) > 0


def test_a_benchmark_that_is_not_there_ends_with_one_line_and_hides_no_other(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "BENCHMARKS", ("absent", "store"))
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--help"])
    with pytest.raises(SystemExit):
        benchmark.main()
    shown = capsys.readouterr().out
    assert "tools.benchmarks.absent is not installed" in shown and "store     feature files" in shown
    monkeypatch.setattr("sys.argv", ["benchmark.py", "absent"])
    with pytest.raises(benchmark.InputError, match="benchmark absent: tools.benchmarks.absent is not installed"):
        benchmark.main()


def test_a_setting_that_cannot_be_is_one_line(tmp_path):
    assert_one_line_error(run_tool(TOOL, "store", "--images", "0"), "images=0", "at least 1")
    assert_one_line_error(run_tool(TOOL, "train", "--image_size", "20"), "image_size=20", "at least 33")
    assert_one_line_error(run_tool(TOOL, "loader", "--images", "39"), "--images 39", "at least 40")


@pytest.mark.slow
def test_the_extraction_benchmark_compares_every_precision_with_the_plain_way(tmp_path):
    pytest.importorskip("tensorflow")
    finished = run_tool(
        TOOL,
        "extract",
        "--quiet",
        "--quick",
        "--rounds",
        "1",
        "--pictures",
        "1",
        "--num_workers",
        "1",
        "--json",
        tmp_path / "x.json",
        forked=True,
        tiny_delg=True,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = {row["label"]: row for row in json.loads((tmp_path / "x.json").read_text())["rows"]}
    for precision in ("float32", "bfloat16"):
        assert rows[f"extract.py, {precision}"]["value"] > 0
        assert rows[f"{precision}: same keypoints"]["met"] and rows[f"{precision}: cosine of global descriptors"]["met"]
        assert rows[f"{precision}: cosine of local descriptors"]["met"]


@pytest.mark.slow
def test_the_training_benchmark_compares_every_precision_with_the_plain_way(tmp_path):
    pytest.importorskip("tensorflow")
    finished = run_tool(
        TOOL,
        "train",
        "--quiet",
        "--quick",
        "--rounds",
        "1",
        "--steps",
        "1",
        "--num_classes",
        "3",
        "--json",
        tmp_path / "x.json",
        forked=True,
        tiny_delg=True,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = {row["label"]: row for row in json.loads((tmp_path / "x.json").read_text())["rows"]}
    assert rows["plain way"]["value"] > 0
    for precision, target in (("float32", ">= 1"), ("bfloat16", ">= 1.5")):
        assert rows[f"train.py, {precision}"]["value"] > 0 and rows[f"train.py, {precision}"]["target"] == target
        assert rows[f"{precision}: first loss"]["met"]


def test_the_reranking_benchmark_measures_both_ways_and_they_agree(tmp_path):
    finished = run_tool(
        TOOL, "rerank", "--quick", "--device", "cpu", "--plain_batches", "2", "--json", tmp_path / "x.json"
    )
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    labels = [row["label"] for row in rows]
    for precision, target in (("float32", ">= 5"), ("bfloat16", ">= 10")):
        whole = [row for row in rows if row["label"] == f"ours, {precision}, whole evaluation"]
        assert [row["target"] for row in whole] == ["", target] and all(row["value"] > 0 for row in whole)
        assert {f"ours, {precision}, 10 descriptors", f"ours, {precision}, 10 x 5 descriptors"} <= set(labels)
    assert next(row for row in rows if row["label"] == "ours, float32, logits")["met"]
    assert [row["note"] for row in rows if row["value"] is None] == ["no GPU at hand"] * 2


@pytest.mark.slow
def test_the_loading_benchmark_measures_every_target(tmp_path):
    options = ("--quiet", "--quick", "--rounds", "1", "--steps", "2", "--num_workers", "1", "--device", "cpu")
    finished = run_tool(TOOL, "loader", *options, "--dir", tmp_path, "--json", tmp_path / "x.json")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert files_below(tmp_path) == ["x.json"]
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["target"] for row in rows if row["target"]] == [">= 3000", ">= 3000", "<= 64", "<= 0.02", "<= 0.02"]
    assert all(row["value"] > 0 for row in rows if row["unit"] in ("images/s", "times as fast"))


@pytest.mark.slow
def test_the_input_benchmark_measures_every_target(tmp_path):
    pytest.importorskip("tensorflow")
    finished = run_tool(TOOL, "input", "--quiet", "--quick", "--json", tmp_path / "x.json", tiny_delg=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["target"] for row in rows if row["target"]] == [">= 1.5", "<= 0.1", "<= 0.05", "<= 0.05", ">= 2"]
    assert all(row["value"] > 0 for row in rows if row["unit"] != "share")
    assert all(row["value"] < 1 for row in rows if row["unit"] == "share")


def test_pictures_that_do_not_divide_or_are_not_there_are_one_line(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert_one_line_error(run_tool(TOOL, "extract", "--images", tmp_path), str(tmp_path), "0 images of 1024x768")


def test_the_benchmark_of_training_the_reranker_measures_both_ways_and_they_agree(tmp_path):
    finished = run_tool(
        TOOL, "train_rrt", "--quick", "--repeats", "1", "--device", "cpu", "--json", tmp_path / "x.json"
    )
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["target"] for row in rows if row["target"]] == [">= 4", ">= 10"]
    assert [row["note"] for row in rows if row["value"] is None] == ["no GPU at hand"]
    agreeing = [row for row in rows if row["unit"] == "times as fast" and "float32" in row["label"]]
    assert len(agreeing) == 2
    for row in agreeing:
        assert float(row["note"].removeprefix("first loss ").split(" from")[0]) < 1e-5


def test_the_benchmark_of_late_measures_both_networks_in_every_precision():
    options = SimpleNamespace(precisions=["float32"], pairs=1, device="cpu", seed=0, quick=True)
    rows = late.run(options)
    assert [row.target for row in rows if row.target] == [">= 30", "<= 1"]
    assert all(row.value is not None and row.value > 0 for row in rows)
    assert any(row.label.startswith("RRT, float32") for row in rows)
