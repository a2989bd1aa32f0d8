"""rrt/evaluation/rankings.py: what evaluations leave for reports, and what is said of files that are not that."""

import json
import shutil

import numpy as np
import pytest
from evaluations import make_evaluation
from reranking import make_measured_world, typed

from rrt.datasets.sets import open_test_set
from rrt.errors import InputError
from rrt.evaluation.comparison import CompareSettings, compare
from rrt.evaluation.metrics import evaluate
from rrt.evaluation.rankings import LISTED, command_line, load_rankings
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.search.table import describe_origin, load_neighbors, save_neighbors


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_measured_world(tmp_path_factory.mktemp("rankings"))


def dataset(root, gnd="gnd_toy.pkl"):
    toy = {"desc_name": "toy", "test_data_dir": str(root / "test"), "test_gnd_file": gnd, "max_sequence_len": 20}
    return toy


@pytest.mark.parametrize(
    "given",
    [
        {"resume": "published.pt"},
        {"resume": "published.pt", "distractors": "distractors.h5"},
        {"reranker": "aqe"},
        {"gnd": "gnd_classic.json", "reranker": "geometric"},
        {},
    ],
)
def test_the_file_holds_what_was_measured(root, tmp_path, given):
    settings = {
        name: str(root / value) if name in ("resume", "distractors") else value for name, value in given.items()
    }
    data = dataset(root, settings.pop("gnd", "gnd_toy.pkl"))
    report = evaluate_run(typed(EvaluationSettings, data, **settings, temp_dir=tmp_path, cpu=True))
    saved = load_rankings(tmp_path)
    assert [method.label for method in saved.methods] == list(report.results)
    for method in saved.methods:
        for protocol, result in report.results[method.label].items():
            np.testing.assert_array_equal(method.aps[protocol], result.aps)
            np.testing.assert_array_equal(method.ps[protocol], result.ps)
            # Here the rankings are shorter than what is kept: measured again they say the same.
            again = evaluate(method.rankings[protocol], saved.gnd)[protocol]
            np.testing.assert_array_equal(again.aps, result.aps)
    if "resume" in given:
        details = saved.methods[1].details
        assert details["checkpoint"] == str(root / "published.pt") and len(details["checkpoint_sha256"]) == 64
    last = int(max(ranks.max() for ranks in saved.methods[0].rankings.values()))
    assert saved.name(last).startswith("r1m/" if "distractors" in given else "jpg/")
    assert saved.about["protocol"]["queries"] == 4 and {"numpy", "torch", "python"} <= saved.about["software"].keys()


def test_a_table_of_expanded_queries_is_not_called_global_search(root, tmp_path):
    shutil.copytree(root / "test", tmp_path / "test")
    table = load_neighbors(tmp_path / "test/nn_inds_toy.pkl")
    for search, label in (({"aqe": {"k": 2, "alpha": 0.3}}, "global+aQE"), ({"aqe": None}, "global")):
        test = open_test_set(tmp_path / "test", "toy", "gnd_toy.pkl")
        origin = describe_origin(test.store, test.images.query, test.images.gallery)
        save_neighbors(tmp_path / "test/nn_inds_toy.pkl", table, origin, search)
        given = {"temp_dir": str(tmp_path / label), "cpu": True}
        report = evaluate_run(typed(EvaluationSettings, dataset(tmp_path), **given, reranker="aqe", trec=True))
        assert list(report.results) == [label, "aqe"] and report.numbers[label]["M_map"] > 0
        assert report.numbers["protocol"]["neighbors_search"] == search
        assert f"{label}_medium_ap" in report.paths[1].read_text() and len(report.trec) == 9
        rows = compare(typed(CompareSettings, dataset(tmp_path), **given, methods=["aqe"]))
        assert [row["method"] for row in rows] == [label, "aqe"]


def test_a_comparison_saves_all_its_methods(root, tmp_path):
    given = {"resume": str(root / "published.pt"), "temp_dir": str(tmp_path), "cpu": True, "methods": ["aqe", "rrt"]}
    rows = compare(typed(CompareSettings, dataset(root), **given))
    saved = load_rankings(tmp_path)
    assert [method.label for method in saved.methods] == [row["method"] for row in rows] == ["global", "aqe", "RRT"]
    for method, row in zip(saved.methods, rows):
        assert row["map"] == {p: pytest.approx(100 * np.nanmean(aps), abs=0.006) for p, aps in method.aps.items()}
    assert "checkpoint" in saved.methods[2].details and "checkpoint" not in saved.methods[1].details


def test_only_the_beginning_of_a_long_ranking_is_kept(tmp_path):
    make_evaluation(tmp_path, gallery=LISTED + 20)
    saved = load_rankings(tmp_path)
    assert saved.methods[0].rankings["easy"].shape == (6, LISTED)


def test_a_test_set_is_known_by_names_boxes_and_grades(tmp_path):
    folders = [tmp_path / name for name in "abcd"]
    make_evaluation(folders[0])
    make_evaluation(folders[1], labels=("global", "aqe"), others=["r1m/x.jpg"], data_dir=tmp_path / "elsewhere")
    make_evaluation(folders[2], seed=1)
    make_evaluation(folders[3], hostile=True)
    digests = [load_rankings(folder).test_set() for folder in folders]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_kill_leaves_the_old_file(tmp_path, monkeypatch):
    make_evaluation(tmp_path)
    before = (tmp_path / "rankings.npz").read_bytes()
    monkeypatch.setattr("numpy.savez_compressed", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_evaluation(tmp_path, seed=1)
    assert (tmp_path / "rankings.npz").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [
        "rankings.npz"
    ]


def changed(path, **arrays):
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    np.savez(path, **kept | arrays)


def about(path, **values):
    with np.load(path) as file:
        content = json.loads(file["about"].tobytes()) | values
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


DAMAGES = {
    "no such file": lambda path: path.unlink(),
    "not the rankings": cut,
    "not the rankings of": lambda path: path.write_bytes(b""),
    "'version': 7": lambda path: changed(path, about=about(path, version=7)),
    "not a row for each of 6 queries": lambda path: changed(path, ranks_0=np.zeros((2, 3), np.int32)),
    "without a name": lambda path: changed(path, ranks_1=np.full((6, 3), 999, np.int32)),
    "do not fit together": lambda path: changed(path, about=about(path, methods=[{}])),
    "no query or no method": lambda path: changed(path, about=about(path, methods=[])),
    "of Python objects": lambda path: changed(path, about=np.array([{"code": print}], dtype=object)),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, said):
    make_evaluation(tmp_path)
    DAMAGES[said](tmp_path / "rankings.npz")
    with pytest.raises(InputError, match=said) as caught:
        load_rankings(tmp_path)
    assert str(tmp_path / "rankings.npz") in str(caught.value) and "\n" not in str(caught.value)
    assert "evaluate_revisited.py" in str(caught.value)


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(InputError, match="no such folder; give the temp_dir"):
        load_rankings(tmp_path / "nosuch")


def test_the_command_can_be_read_and_run(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x.py", "with", "methods=['a','b']", "a b", "it's $5"])
    assert command_line() == """python x.py with "methods=['a','b']" 'a b' 'it'"'"'s $5'"""
