"""rrt/evaluation/gldv2.py and its command: the published metric's own test values, from files as they are handed in."""

import re

import numpy as np
import pytest
from commands import error_of

from rrt.commands.measure_run import main
from rrt.evaluation.gldv2 import measure_answers, retrieval_figures
from rrt.evaluation.trec import write_run
from rrt.formats.gldv2 import image_name
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list

Q = [f"0{n}23456789abcdef" for n in range(1, 7)]
I = [f"fedcba98765432{n}0" for n in range(6)]  # noqa: E741
LANDMARKS = [(Q[0], "0 12,Public"), (Q[1], "100 200 300,Public"), (Q[2], "1,Private"), (Q[3], ",Private")]
LANDMARKS += [(Q[4], ",Public"), (Q[5], "5,Ignored")]
PREDICTED = [(Q[1], "0 0.01"), (Q[2], "1 10.0"), (Q[3], "150 15.0"), (Q[4], ""), (Q[5], "5 99")]
IMAGES = [(Q[0], f"{I[1]} {I[2]},Public"), (Q[1], f"{I[1]},Public"), (Q[2], f"{I[3]} {I[4]} {I[5]},Private")]
IMAGES += [(Q[3], f"{I[3]},Private"), (Q[5], "None,Ignored")]
RETRIEVED = [(Q[1], f"{I[0]} {I[1]}"), (Q[2], I[4]), (Q[3], f"{I[3]} {I[4]}"), (Q[5], I[0])]
FILES = {
    "l.csv": ("id,landmarks,Usage", LANDMARKS),
    "i.csv": ("id,images,Usage", IMAGES),
    "pl.csv": ("id,landmarks", PREDICTED),
    "pi.csv": ("id,images", RETRIEVED),
}


@pytest.fixture
def files(tmp_path):
    for name, (header, rows) in FILES.items():
        (tmp_path / name).write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return tmp_path


def test_recognition_has_the_published_values(files):
    figures, note = measure_answers(files / "pl.csv", files / "l.csv")
    assert figures == {"GAP": pytest.approx(0.166667, abs=1e-6), "GAP of landmarks": pytest.approx(0.333333, abs=1e-6)}
    assert note == "5 queries of Public and Private, 1 of them without an answer, which counts as nothing found"
    private, _ = measure_answers(files / "pl.csv", files / "l.csv", ["Private"])
    assert private == {"GAP": pytest.approx(1 / 2), "GAP of landmarks": pytest.approx(1)}


def test_retrieval_has_the_published_values_from_answers_and_from_a_run(files):
    run = {
        image_name("test", query): [image_name("index", image) for image in found]
        for query, found in ((Q[1], I[:2]), (Q[2], [I[4]]), (Q[3], I[3:5]))
    }
    write_run(files / "x.run", list(run), list(run.values()), "mine")
    for answers in ("pi.csv", "x.run"):
        figures, _ = measure_answers(files / answers, files / "i.csv")
        assert figures["mAP@100"] == pytest.approx(0.458333, abs=1e-6)
        assert figures["mP@1"] == 0.5 and figures["mP@10"] == pytest.approx(3 / 40)
        assert measure_answers(files / answers, files / "i.csv", ["Public"])[0]["mAP@100"] == pytest.approx(1 / 4)


def test_precision_divides_by_k_and_leaves_out_queries_without_right_images():
    figures = retrieval_figures(np.array([[3, 1, -1], [0, 1, 2], [2, 1, 0]]), [[1, 2, 3], [], [0]], ks=(1, 2, 5))
    expected = {"mAP@100": (2 / 3 + 1 / 3) / 2, "mP@1": 0.5, "mP@2": 0.5, "mP@5": 0.3}
    assert figures == {name: pytest.approx(value) for name, value in expected.items()}
    assert all(map(np.isnan, retrieval_figures(np.array([[0]]), [[]]).values()))


def test_the_command_prints_them_and_measures_runs_by_lists(files, monkeypatch, capsys):
    def printed(*arguments):
        monkeypatch.setattr("sys.argv", ["x", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    told = printed(files / "pi.csv", "--solution", files / "i.csv")
    assert "mAP@100: 45.83 (0.458333)\n" in told and "mP@1: 50.00 (0.500000)\n" in told
    assert "GAP: 16.67 (0.166667)\n" in printed(files / "pl.csv", "--solution", files / "l.csv")
    queries, right = Q[:4], [[1, 2], [1], [3, 4, 5], [3]]
    gnd = [{"bbx": [0.0, 0.0, 9.0, 9.0], "easy": easy, "hard": [], "junk": []} for easy in right]
    save_ground_truth(files / "gnd_gldv2.pkl", I, queries, gnd)
    for name, split, ids in (("test_query", "test", queries), ("test_gallery", "index", I)):
        paths = [image_name(split, each) for each in ids]
        write_image_list(files / f"{name}.txt", paths, [-1] * len(ids), [(10, 10)] * len(ids))
    found = [[I[0], I[1]], [I[4]], I[3:5]]
    names = [[image_name("index", image) for image in each] for each in found]
    write_run(files / "x.run", [image_name("test", query) for query in queries[1:]], names, "mine_easy")
    told = printed(*(files / "x.run", "--measure", "gldv2", "--data_dir", files, "--ground_truth", "gnd_gldv2.pkl"))
    assert "4 queries, 1 of them not in the run" in told and "mAP@100: 45.83 (0.458333)\n" in told


@pytest.mark.parametrize(
    "name, text, solution, message",
    [
        ("a.csv", f"id,landmarks\n{Q[1]},7\n", "l.csv", "a.csv:2: '7' is not a landmark's number and a confidence"),
        ("a.csv", f"id,landmarks\n{Q[1]},x 1\n", "l.csv", "a.csv:2: 'x' is no landmark's number"),
        ("a.csv", f"id,landmarks\n{Q[1]},1 nan\n", "l.csv", "a.csv:2: the confidence nan is not a finite number"),
        ("a.csv", f"id,landmarks\n{Q[1]},\n{Q[1]},\n", "l.csv", "a.csv:3: a second row for the query"),
        ("a.csv", f"id,images\n{Q[1]},{I[0]} {I[1]} {I[0]}\n", "i.csv", "a.csv:2: the image '.*' is listed twice"),
        ("a.csv", f"id,images\n{Q[4]},{I[0]}\n", "i.csv", "not one of its 1 answers is for a query of .*i.csv"),
        ("a.csv", f"id,images\n{Q[1]},{I[0]}\n", "l.csv", "a.csv: has the columns 'id,images'; expected id,landmarks"),
        ("a.csv", f"id,landmarks\n{Q[1]},1 1\n", "i.csv", "expected id,images"),
        ("a.run", "nonsense\n", "i.csv", "a.run:1: 1 fields"),
    ],
)
def test_what_is_no_answer_is_one_line(files, name, text, solution, message, monkeypatch, capsys):
    (files / name).write_text(text)
    told = error_of(main, [files / name, "--solution", files / solution], monkeypatch, capsys)
    assert re.search(message, told), told
