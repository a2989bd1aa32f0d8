"""rrt/evaluation/trec.py and tools/measure_run.py: runs and qrels of TREC, written and read back."""

import numpy as np
import pytest
from commands import error_of
from hypothesis import given
from hypothesis import strategies as st
from reranking import make_test_world

from rrt.commands.measure_run import main
from rrt.datasets.sets import TEST_LISTS
from rrt.errors import InputError
from rrt.evaluation.trec import measure_run, read_run, run_positions, write_qrels, write_run
from rrt.formats.revisited import load_revisited_set

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_a_line_has_rank_and_a_score_that_falls_strictly_with_it(tmp_path):
    path = write_run(tmp_path / "a.run", ["q"], [["c", "a", "b"]], "RRT_hard")
    assert path.read_text() == "q Q0 c 1 3 RRT_hard\nq Q0 a 2 2 RRT_hard\nq Q0 b 3 1 RRT_hard\n"
    assert read_run(path) == ({"q": ["c", "a", "b"]}, "RRT_hard")


def test_scores_of_a_million_documents_stay_apart_in_single_precision():
    scores = np.arange(1_000_000, 0, -1)
    assert (np.diff(scores.astype(np.float32)) < 0).all()


@given(
    st.lists(st.tuples(NAMES, st.lists(NAMES, unique=True, min_size=1)), unique_by=lambda row: row[0], min_size=1),
    NAMES,
)
def test_any_names_come_back_in_their_order(tmp_path_factory, rows, tag):
    path = tmp_path_factory.getbasetemp() / "names.run"
    write_run(path, [query for query, _ in rows], [documents for _, documents in rows], tag)
    assert read_run(path) == (dict(rows), tag)


def test_a_run_of_another_program_is_ordered_by_score_and_equal_scores_by_rank(tmp_path):
    path = tmp_path / "other.run"
    path.write_text("q Q0 a 1 0.5 x\nq Q0 b 3 1e1 x\n\nq\tQ0\tc\t2\t10.0\tx\r\n")
    assert read_run(path)[0] == {"q": ["c", "b", "a"]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("q Q0 a 1 2\n", "other.run:1: 5 fields; expected 'query Q0 document rank score tag'"),
        ("q Q0 a 1 2 t\nq Q0 a 2 1 t\n", "other.run:2: 'a' is listed twice for query 'q'"),
        ("q Q0 a 1 high t\n", "other.run:1: rank '1' and score 'high'"),
        ("q Q0 a 1 nan t\n", "other.run:1: the score is not a number"),
        ("\n", "other.run: the run is empty"),
        ("q Q0 \udcff 1 2 t\n", "not a UTF-8"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, text, message):
    (tmp_path / "other.run").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_run(tmp_path / "other.run")


def test_documents_outside_the_gallery_are_refused_or_wrong_ones():
    run = {"q1": ["x", "b", "y"], "q2": ["y"]}
    with pytest.raises(InputError, match="'x' .query 'q1'. is not in the gallery"):
        run_positions("r", run, ["q1", "q2"], ["a", "b"])
    ranks, size = run_positions("r", run, ["q1", "q0", "q2"], ["a", "b"], others=True)
    assert ranks.tolist() == [[2, 1, 3], [-1, -1, -1], [3, -1, -1]] and size == 4
    with pytest.raises(InputError, match="r: 'q2' is no query"):
        run_positions("r", run, ["q1"], ["a", "b", "x", "y"])


def test_qrels_name_what_the_protocol_counts_as_right(tmp_path):
    gnd = [{"easy": np.array([2]), "hard": np.array([0]), "junk": np.array([1])}]
    for protocol, lines in (("easy", ["q 0 c%20c 1"]), ("medium", ["q 0 a 1", "q 0 c%20c 1"]), ("hard", ["q 0 a 1"])):
        path = write_qrels(tmp_path / "qrels", ["q"], ["a", "b", "c c"], gnd, protocol)
        assert path.read_text().splitlines() == lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_test_world(tmp_path_factory.mktemp("trec"), landmarks=3)


def write_backwards(folder, path, tag, queries=3):
    """A run that lists the gallery from its end for every query."""
    images = load_revisited_set(*(folder / name for name in TEST_LISTS), folder / "gnd_toy.pkl")
    write_run(path, images.query.names[:queries], [images.gallery.names[::-1]] * queries, tag)
    return images


def test_the_command_measures_all_protocols_or_the_one_of_the_tag(folder, tmp_path, capsys, monkeypatch):
    images = write_backwards(folder, tmp_path / "all.run", "mine")
    write_backwards(folder, tmp_path / "hard.run", "mine_hard")
    everything = measure_run(tmp_path / "all.run", images)[1]
    assert list(everything) == ["easy", "medium", "hard"]
    tag, hard, _ = measure_run(tmp_path / "hard.run", images)
    assert tag == "mine_hard" and list(hard) == ["hard"] and hard["hard"].map == everything["hard"].map
    monkeypatch.setattr(
        "sys.argv", ["x", str(tmp_path / "all.run"), "--data_dir", str(folder), "--ground_truth", "gnd_toy.pkl"]
    )
    main()
    assert f"{100 * hard['hard'].map:.2f}" in capsys.readouterr().out


def test_a_query_that_the_run_lacks_has_found_nothing_and_is_counted(folder, tmp_path):
    images = write_backwards(folder, tmp_path / "two.run", "mine", queries=2)
    _, results, missing = measure_run(tmp_path / "two.run", images)
    assert missing == 1 and results["medium"].aps[2] == 0


def test_the_commands_errors_are_one_line(folder, tmp_path, monkeypatch, capsys):
    common = ["--data_dir", folder, "--ground_truth", "gnd_toy.pkl"]
    (tmp_path / "x.run").write_text("nobody Q0 a 1 1 t\n")
    assert "'nobody' is no query" in error_of(main, [tmp_path / "x.run", *common], monkeypatch, capsys)
    assert "none.run: cannot be read" in error_of(main, [tmp_path / "none.run", *common], monkeypatch, capsys)
