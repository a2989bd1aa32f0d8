"""tools/report.py and rrt/viz: frames, rank changes, gains and thumbnails against slow obvious computations; errors."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT, assert_one_line_error, error_of, files_below, kill_tool_when, run_tool
from evaluations import HOSTILE, SIZE, make_evaluation, make_pictures
from faults import fork_workers
from PIL import Image

from rrt.commands import report as tool
from rrt.errors import InputError
from rrt.evaluation.metrics import bootstrap_interval
from rrt.evaluation.rankings import load_rankings
from rrt.formats.ground_truth import IGNORED_GRADES, PROTOCOLS
from rrt.report import data as report_data
from rrt.report import pages as report
from rrt.report import thumbnails
from rrt.report.data import combine, summary_lines
from rrt.report.pairs import parse_pairs


@pytest.fixture
def evaluated(tmp_path):
    names = make_evaluation(tmp_path / "rrt")
    make_pictures(tmp_path / "rrt/data", [*names[0], *names[1]])
    return tmp_path


def compared(*folders):
    return combine([load_rankings(folder) for folder in folders])


def slow_results(ranking, before, entry, protocol, shown):
    """[(image, rank, rank before)] by walking down the lists."""
    ignored = {int(p) for grade in IGNORED_GRADES[protocol] for p in entry[grade]}

    def rank_of(picture, ranking):
        counted = [p for p in ranking if p >= 0 and p not in ignored]
        return counted.index(picture) + 1 if picture in counted else 0

    found = []
    for picture in ranking:
        if picture < 0:
            break
        found.append((picture, rank_of(picture, ranking), rank_of(picture, before)))
        if found[-1][1] == shown:
            break
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shown", [1, 10, 25, 1000])
def test_ranks_and_changes_are_those_of_walking_down_the_lists(tmp_path, protocol, shown):
    make_evaluation(tmp_path / "rrt")
    comparison = compared(tmp_path / "rrt")
    for row, entry in enumerate(comparison.gnd):
        data = report_data.query_data(comparison, row, shown)
        for method, found in zip(comparison.methods, data["results"]):
            before = comparison.methods[0].rankings[protocol][row].tolist()
            expected = slow_results(method.rankings[protocol][row].tolist(), before, entry, protocol, shown)
            assert list(zip(*found[protocol].values())) == expected
            for picture, *_ in expected:
                grades = [grade for grade in ("easy", "hard", "junk") if picture in entry[grade]]
                assert data["grades"][picture] == (grades[0] if grades else "negative")
                assert data["names"][picture] == comparison.names[picture]


def test_a_picture_that_global_search_does_not_list_is_new():
    ranking, before = np.array([5, 1, 7, -1, -1]), np.array([1, 9, 7, 2, -1])
    found = report_data.results(ranking, before, np.array([9]))
    assert found == {"images": [5, 1, 7], "ranks": [1, 2, 3], "before": [0, 1, 2]}


def test_every_right_picture_has_its_rank_in_every_method(tmp_path):
    make_evaluation(tmp_path / "rrt")
    comparison = compared(tmp_path / "rrt")
    data = report_data.query_data(comparison, 0, 10)
    for protocol in PROTOCOLS:
        for method, places in zip(comparison.methods, data["places"]):
            rank = {
                p: r
                for p, r, _ in slow_results(
                    method.rankings[protocol][0].tolist(), [], comparison.gnd[0], protocol, 1000
                )
            }
            assert places[protocol] == [rank[picture] for picture in data["positives"][protocol]]
    assert len(data["positives"]["medium"]) == 7


def test_gains_are_ordered_as_sorting_pairs_orders_them():
    gains = np.array([0.1, np.nan, -0.2, 0.1, 0.0, 0.5])
    assert report_data.gains_order(gains) == [
        row for _, row in sorted((-g, row) for row, g in enumerate(gains) if g == g)
    ]
    assert report_data.gains_order(-gains)[0] == 2


def test_figures_are_those_of_the_evaluation(tmp_path):
    make_evaluation(tmp_path / "rrt")
    comparison = compared(tmp_path / "rrt")
    summary = report_data.summary_data(comparison)
    for protocol in PROTOCOLS:
        before, after = (method.aps[protocol] for method in comparison.methods)
        assert summary["methods"][1]["map"][protocol] == np.nanmean(after)
        assert summary["methods"][1]["interval"][protocol] == list(bootstrap_interval(after))
        assert summary["methods"][1]["mp"][protocol] == pytest.approx(
            np.nanmean(comparison.methods[1].ps[protocol], axis=0)
        )
        for k, interval in enumerate(summary["methods"][1]["mp_interval"][protocol]):
            assert interval == list(bootstrap_interval(comparison.methods[1].ps[protocol][:, k]))
        assert summary["gains"][0][1][protocol] == [
            pytest.approx(np.nanmean(after - before)),
            *bootstrap_interval(after - before),
        ]
        mean, low, high = summary["gains"][1][0][protocol]
        assert [-mean, -high, -low] == summary["gains"][0][1][protocol]
    assert report_data.aps_data(comparison.methods[0])["easy"][-1] is None


def test_several_evaluations_stand_side_by_side(tmp_path):
    make_evaluation(tmp_path / "a", labels=("global", "RRT"))
    rankings = load_rankings(tmp_path / "a").methods
    other = {
        "global": rankings[0].rankings["easy"],
        "RRT": rankings[0].rankings["easy"][:, ::-1],
        "aqe": rankings[1].rankings["easy"],
    }
    make_evaluation(tmp_path / "b", rankings=other)
    make_evaluation(tmp_path / "c", rankings={"global": other["RRT"], "aqe+RRT": other["aqe"]})
    comparison = compared(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    labels = [method.label for method in comparison.methods]
    assert labels == ["global (a)", "RRT (a)", "RRT (b)", "aqe", "global (c)", "aqe+RRT"]
    # Each is compared with the global search that it started from.
    assert [method.before for method in comparison.methods] == [0, 0, 0, 0, 4, 4]


def test_distractors_are_told_apart_by_name(tmp_path):
    ranks = np.tile(np.array([40, 0, 41]), (6, 1))
    gnd = [{"bbx": [0, 0, 9, 9], "easy": np.array([0]), "hard": np.array([1]), "junk": np.array([2])}] * 6
    make_evaluation(tmp_path / "a", gnd=gnd, rankings={"global": ranks}, others=["r1m/x.jpg", "r1m/y.jpg"])
    make_evaluation(tmp_path / "b", gnd=gnd, rankings={"global": ranks}, others=["r1m/y.jpg", "r1m/z.jpg"])
    comparison = compared(tmp_path / "a", tmp_path / "b")
    listed = [[comparison.names[p] for p in method.rankings["easy"][0]] for method in comparison.methods]
    assert listed == [["r1m/x.jpg", "jpg/g_0000.jpg", "r1m/y.jpg"], ["r1m/y.jpg", "jpg/g_0000.jpg", "r1m/z.jpg"]]
    assert report_data.query_data(comparison, 0)["grades"][40] == "negative"


def received(path):
    """What a data file of a report hands to the page, as JSON."""
    text = path.read_text(encoding="ascii")
    assert text.startswith("RRT.receive(") and text.endswith(");\n")
    return json.loads("[" + text[len("RRT.receive(") : -3] + "]")


def test_a_report_is_a_folder_of_files(evaluated):
    out = evaluated / "out"
    report.make_report([evaluated / "rrt"], out)
    (data,) = out.glob("data-*")
    kind, meta = received(data / "meta.js")
    assert kind == "meta" and data.name in (out / "index.html").read_text()
    assert [query["whole"][1:] for query in meta["queries"]] == [list(SIZE)] * 6
    assert meta["queries"][0]["box"] == [8, 6, 56, 40]
    with Image.open(out / "thumbs" / meta["queries"][0]["crop"][0]) as crop:
        assert crop.size == (48, 34)
    kind, page, row = received(data / "q00003.js")
    assert (kind, row) == ("query", 3) and all(
        (out / "thumbs" / file).is_file() for file, *_ in page["thumbs"].values()
    )
    assert meta["evaluations"][0]["folder"] == str(evaluated / "rrt")


def test_no_name_can_end_a_script(tmp_path):
    make_evaluation(tmp_path / "a", hostile=True)
    report.make_report([tmp_path / "a"], tmp_path / "out")
    for file in (tmp_path / "out").glob("data-*/*[0-9a].js"):
        assert "<" not in file.read_text(encoding="ascii")


def test_a_second_run_makes_no_thumbnail_and_leaves_no_older_data(evaluated, monkeypatch):
    out = evaluated / "out"
    report.make_report([evaluated / "rrt"], out)
    before = {file.name: file.stat().st_mtime_ns for file in (out / "thumbs").iterdir()}
    monkeypatch.setattr(thumbnails, "_make", None)
    report.make_report([evaluated / "rrt"], out)
    assert {file.name: file.stat().st_mtime_ns for file in (out / "thumbs").iterdir()} == before
    assert len(list(out.glob("data-*"))) == 1


def test_a_changed_picture_gets_a_new_thumbnail_and_the_old_one_goes(evaluated):
    out, file = evaluated / "out", evaluated / "rrt/data/jpg/q_000.jpg"
    report.make_report([evaluated / "rrt"], out)
    before = set(files_below(out / "thumbs"))
    Image.new("RGB", (70, 50)).save(file)
    os.utime(file, ns=(1, 1))
    report.make_report([evaluated / "rrt"], out)
    after = set(files_below(out / "thumbs"))
    assert len(after) == len(before) and len(after - before) == 2
    assert sum("_70x50.jpg" in name for name in after) == 2


def test_processes_make_the_thumbnails_that_one_makes(tmp_path, monkeypatch):
    names = [f"{i}.png" for i in range(4)]
    make_pictures(tmp_path / "in", names)
    jobs = [thumbnails.Job(tmp_path / "in" / name) for name in names]
    one = thumbnails.make_thumbnails(tmp_path / "one", jobs)
    fork_workers(monkeypatch)
    monkeypatch.setattr(thumbnails, "_FEW", 0)
    two = thumbnails.make_thumbnails(tmp_path / "two", jobs, num_workers=2)
    assert one == two and files_below(tmp_path / "one") == files_below(tmp_path / "two")
    for name in files_below(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_large_pictures_become_small_and_keep_their_shape(tmp_path):
    make_pictures(tmp_path, ["a.jpg"], (2000, 500))
    job, crop = thumbnails.Job(tmp_path / "a.jpg"), thumbnails.Job(tmp_path / "a.jpg", (0, 0, 300, 500))
    made = thumbnails.make_thumbnails(tmp_path / "thumbs", [job, crop])
    assert made[job].size == made[crop].size == (2000, 500)
    assert [Image.open(tmp_path / "thumbs" / made[each].file).size for each in (job, crop)] == [(256, 64), (154, 256)]


def test_missing_and_broken_pictures_stop_nothing(evaluated, monkeypatch, capsys):
    (evaluated / "rrt/data/jpg/q_000.jpg").unlink()
    (evaluated / "rrt/data/jpg/q_001.jpg").write_bytes(b"no image")
    monkeypatch.setattr(sys, "argv", ["report.py", str(evaluated / "rrt"), "--out", str(evaluated / "out")])
    tool.main()
    assert "2 images cannot be read" in capsys.readouterr().out
    (data,) = (evaluated / "out").glob("data-*")
    queries = received(data / "meta.js")[1]["queries"]
    assert [query["crop"] is None for query in queries] == [True, True] + [False] * 4


@pytest.mark.slow
def test_a_kill_costs_the_thumbnail_being_made_alone(tmp_path):
    names = make_evaluation(tmp_path / "rrt", queries=4, gallery=24)
    make_pictures(tmp_path / "rrt/data", [*names[0], *names[1]], (800, 600))
    out = tmp_path / "out"
    arguments = ("tools/report.py", tmp_path / "rrt", "--out", out, "--num_workers", 1)
    kill_tool_when(lambda: len(list(out.glob("thumbs/*[0-9].jpg"))) > 3, *arguments)
    kept = {file.name: file.stat().st_mtime_ns for file in out.glob("thumbs/*.jpg") if ".tmp" not in file.name}
    assert not (out / "index.html").exists() and len(kept) > 3
    finished = run_tool(*arguments)
    assert finished.returncode == 0 and (out / "index.html").exists(), finished.stderr
    assert {name: (out / "thumbs" / name).stat().st_mtime_ns for name in kept} == kept


def test_the_command_names_what_gained_and_lost_most(evaluated, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", str(evaluated / "rrt"), "--out", str(evaluated / "out")])
    tool.main()
    comparison, printed = compared(evaluated / "rrt"), capsys.readouterr().out
    gains = comparison.methods[1].aps["medium"] - comparison.methods[0].aps["medium"]
    best, worst = int(np.nanargmax(gains)), int(np.nanargmin(gains))
    assert f"gained most (medium): {comparison.queries[best]} {100 * gains[best]:+.1f}" in printed
    assert f"lost most (medium): {comparison.queries[worst]} {100 * gains[worst]:+.1f}" in printed
    assert f"wrote {evaluated / 'out/index.html'}" in printed


# ---- pairs ----


def stub(monkeypatch, calls):
    def write_pair(
        folder, store, query_name, candidate_name, image_dir, reranker=None, *, ground_truth=None, query_store=None
    ):
        assert query_store is not None
        calls.append((query_name, candidate_name, str(image_dir), reranker))
        Image.new("RGB", (60, 20), "navy").save(folder / "matches 1.png")
        picture = {"file": "matches 1.png", "title": "Matches", "caption": "12 inliers <of> 40"}
        return {"images": [picture], "numbers": {"inliers": 12, "logit": 1.25}}

    monkeypatch.setitem(sys.modules, "rrt.report.pair", SimpleNamespace(write_pair=write_pair))


def test_pairs_are_drawn_with_the_checkpoint_of_the_evaluation(tmp_path, monkeypatch, make_store):
    calls, checkpoint = [], tmp_path / "rrt.pt"
    checkpoint.write_text("")
    make_evaluation(tmp_path / "a", details={"checkpoint": str(checkpoint)})
    make_store(tmp_path / "a/data", desc_name="toy")
    stub(monkeypatch, calls)
    opened = SimpleNamespace(from_checkpoint=lambda path: f"reranker of {path}")
    monkeypatch.setitem(sys.modules, "rrt.network.reranker", SimpleNamespace(Reranker=opened))
    report.make_report([tmp_path / "a"], tmp_path / "out", pairs=["q_001:g_0007", "jpg/q_002.jpg:jpg/g_0001.jpg"])
    expected = [("jpg/q_001.jpg", "jpg/g_0007.jpg"), ("jpg/q_002.jpg", "jpg/g_0001.jpg")]
    assert calls == [(*pair, str(tmp_path / "a/data"), f"reranker of {checkpoint}") for pair in expected]
    (data,) = (tmp_path / "out").glob("data-*")
    pairs = received(data / "meta.js")[1]["pairs"]
    assert [(pair["query"], pair["image"], pair["numbers"]["inliers"]) for pair in pairs] == [(1, 7, 12), (2, 1, 12)]
    assert all((tmp_path / "out/pairs" / pair["images"][0]["file"]).is_file() for pair in pairs)
    report.make_report([tmp_path / "a"], tmp_path / "out")
    assert not files_below(tmp_path / "out/pairs")


def test_a_checkpoint_that_is_not_there_ends_the_command_before_the_thumbnails(tmp_path, monkeypatch, capsys):
    make_evaluation(tmp_path / "a")
    stub(monkeypatch, [])
    arguments = [
        tmp_path / "a",
        "--out",
        tmp_path / "out",
        "--pairs",
        "q_001:g_0007",
        "--resume",
        tmp_path / "nosuch.pt",
    ]
    assert "nosuch.pt" in error_of(tool.main, arguments, monkeypatch, capsys)
    assert files_below(tmp_path / "out") == ["rrt-report.json"]


def test_pairs_are_named_as_in_the_lists_or_by_stems(tmp_path):
    make_evaluation(tmp_path / "a", hostile=True)
    comparison = compared(tmp_path / "a")
    colon = "back\\slash:colon"
    assert parse_pairs([f"{HOSTILE[1]}:g_0007", f"q_005:{colon}", f"{colon}:{colon}"], comparison) == [
        (1, 7),
        (5, 4),
        (4, 4),
    ]
    wrong = {
        "q_005": "expected QUERY:CANDIDATE",
        "nosuch:g_0007": "no query 'nosuch'",
        "q_005:nosuch": "no gallery image 'nosuch'",
    }
    for text, said in wrong.items():
        with pytest.raises(InputError, match=said):
            parse_pairs([text], comparison)


# ---- what can be wrong ----


def test_wrong_input_is_one_line(tmp_path, monkeypatch, capsys):
    make_evaluation(tmp_path / "a")
    make_evaluation(tmp_path / "b", seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("all of it")
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    cases = {
        "no such folder": [tmp_path / "nosuch"],
        "rankings.npz: no such file": [tmp_path / "mine"],
        "another test set": [a, b],
        "given twice": [a, tmp_path / "b/../a"],
        "--image_dir the folder": [a, "--image_dir", tmp_path / "nosuch"],
        "--num_workers 0": [a, "--num_workers", "0"],
        "no query 'x'": [a, "--pairs", "x:y"],
        "expected QUERY:CANDIDATE": [a, "--pairs", "x"],
    }
    for said, arguments in cases.items():
        assert said in error_of(tool.main, [*arguments, "--out", out], monkeypatch, capsys)
        assert not out.exists()
    assert "holds files that are no report's" in error_of(
        tool.main, [a, "--out", tmp_path / "mine"], monkeypatch, capsys
    )
    assert files_below(tmp_path / "mine") == ["thesis.tex"]
    assert "thesis.tex" in error_of(tool.main, [a, "--out", tmp_path / "mine/thesis.tex"], monkeypatch, capsys)


def test_the_command_ends_with_one_line_and_loads_no_torch(tmp_path):
    assert_one_line_error(run_tool("tools/report.py", tmp_path / "nosuch"), "nosuch: no such folder")
    code = "import sys, rrt.commands.report; sys.exit('torch' in sys.modules or 'faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_methods_that_nothing_was_measured_of_say_so():
    method = SimpleNamespace(label="maxsim", before=0, aps={"medium": np.array([np.nan])})
    comparison = SimpleNamespace(methods=[method], protocols=["medium"], queries=["q"])
    assert summary_lines(comparison, {"methods": [{"map": {"medium": None}}]}) == ["maxsim: no query has a right image"]
