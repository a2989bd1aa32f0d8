"""One progress bar: on a terminal, and neither with --quiet nor in a log."""

import hashlib
import io
import re
import runpy
import sys
import time
from contextlib import redirect_stderr

import numpy as np
import pytest
from builders import make_store
from commands import ROOT, run_on_terminal, run_tool
from PIL import Image

from rrt import progress
from rrt.command_line.parser import CommandParser
from rrt.files.atomic import sha256_of_file
from rrt.formats.lists import write_image_list

COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "tools", "delg_extract")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns for `redirect_stderr`."""
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("RRT_QUIET", "")):
        monkeypatch.setenv(name, value)
    yield Terminal()
    progress.set_quiet(False)


def torch_command(folder):
    """Arguments that find neighbours of twenty images, and what the bar says."""
    store = make_store(folder, n=20)
    write_image_list(folder / "train.txt", store.names, [0] * 20, [(640, 480)] * 20)
    return (
        ["tools/prepare_topk_gldv2.py", "-u", "with", f"data_dir={folder}", "feature_name=test"],
        "neighbours (float32): 100%|",
        "image/s",
    )


def tensorflow_command(folder):
    """Arguments that build shards of three images, and what the bar says."""
    (folder / "pictures").mkdir()
    for name in "abc":
        Image.fromarray(np.full((32, 32, 3), ord(name), np.uint8)).save(folder / "pictures" / f"{name}.jpg")
    (folder / "train.csv").write_text("id,landmark_id\na,0\nb,1\nc,2\n")
    return (
        [
            "delg_extract/build_image_dataset.py",
            "--train_directory",
            folder / "pictures",
            "--train_csv_path",
            folder / "train.csv",
            "--num_shards",
            "1",
            "--output_directory",
            folder / "shards",
        ],
        "train: 100%|",
        "image/s",
    )


@pytest.mark.parametrize("command_of", [torch_command, tensorflow_command])
def test_a_command_shows_a_bar_on_a_terminal_and_none_when_quiet_or_elsewhere(command_of, tmp_path):
    runs = {"shown": {}, "quiet": {}, "environment": {"RRT_QUIET": "1"}}
    sent = {}
    for name, environment in runs.items():
        (tmp_path / name).mkdir()
        arguments, title, rate = command_of(tmp_path / name)
        status, _, sent[name] = run_on_terminal(*arguments, *["--quiet"] * (name == "quiet"), **environment)
        assert status == 0, sent
    assert title in sent["shown"] and rate in sent["shown"] and re.search(r"\[\d\d:\d\d<\d\d:\d\d, ", sent["shown"]), (
        sent["shown"]
    )
    assert sent["quiet"] == sent["environment"] == ""
    (tmp_path / "log").mkdir()
    log = run_tool(*command_of(tmp_path / "log")[0])
    assert log.returncode == 0 and log.stdout and log.stderr == "" and "\r" not in log.stdout


@pytest.mark.parametrize("script", COMMANDS)
def test_every_command_has_quiet(script, monkeypatch, capsys):
    # In this process: a start of TensorFlow for each of them would take minutes.
    if script.startswith("delg_extract/"):
        pytest.importorskip("tensorflow")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert not ended.value.code and "--quiet" in capsys.readouterr().out


def test_there_are_commands_of_all_kinds():
    assert {"experiment.py", "tools/check_store.py", "delg_extract/extract.py"} <= set(COMMANDS)


def test_nothing_else_draws_bars():
    users = [
        path
        for folder in ("rrt", "tools", "delg_extract")
        for path in (ROOT / folder).rglob("*.py")
        if "tqdm" in path.read_text()
    ]
    assert users == [ROOT / "rrt" / "progress.py"]


def test_quiet_takes_lines_of_progress_away_and_leaves_the_others(terminal, capsys):
    progress.set_quiet(True)
    progress.say("wrote a")
    progress.report_progress("step 1")
    with redirect_stderr(terminal):
        assert list(progress.bar(range(3), "work", "step")) == [0, 1, 2]
    assert terminal.getvalue() == "" and capsys.readouterr().out == "wrote a\n"


def test_quiet_is_forgotten_by_the_next_command_of_a_process():
    parser = CommandParser("A command.")
    parser.add_argument("--other", action="store_true")
    assert vars(parser.parse_args(["--quiet"])) == {"other": False}
    assert progress.is_quiet()
    parser.parse_args(["--other"])
    assert not progress.is_quiet()


def test_quiet_stands_before_or_behind_the_name_of_a_sub_command():
    parser = CommandParser("A command.")
    parser.add_subparsers(dest="mode").add_parser("one")
    for arguments in (["--quiet", "one"], ["one", "--quiet"]):
        assert parser.parse_args(arguments).mode == "one" and progress.is_quiet()
    parser.parse_args(["one"])
    assert not progress.is_quiet()


def test_a_bar_of_bytes_counts_in_kilobytes(terminal):
    with redirect_stderr(terminal), progress.bar(what="a.tar", unit="B", total=2048) as shown:
        shown.update(2048)
    assert "2.00k/2.00k" in terminal.getvalue() and "B/s" in terminal.getvalue()


def test_a_passing_bar_appears_only_where_the_work_takes_long_and_leaves_nothing(terminal, monkeypatch):
    with redirect_stderr(terminal):
        assert list(progress.bar(range(3), "short", "step", passing=True)) == [0, 1, 2]
    assert terminal.getvalue() == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with redirect_stderr(terminal):
        for _ in progress.bar(range(4), "long", "step", passing=True, mininterval=0):
            time.sleep(0.06)
    assert "long:  50%" in terminal.getvalue() and not terminal.getvalue().split("\r")[-2].strip()


def test_work_in_one_piece_shows_how_long_it_takes(terminal, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setattr(progress, "TICK", 0.02)
    with redirect_stderr(terminal), progress.waiting("solving"):
        time.sleep(0.3)
    assert "solving: 00:00" in terminal.getvalue()
    with redirect_stderr(terminal), progress.waiting("means", lambda: 2, unit="iteration", total=4):
        time.sleep(0.3)
    assert "means:  50%" in terminal.getvalue() and "2/4" in terminal.getvalue()


def test_a_log_gets_a_line_now_and_then_and_no_bars(terminal, monkeypatch):
    log = io.StringIO()
    with redirect_stderr(log):
        assert list(progress.bar(range(3), "short", "step")) == [0, 1, 2]
        with progress.waiting("solving"):
            pass
    assert log.getvalue() == ""
    for name, value in (("LINES_EVERY", 0.1), ("TICK", 0.02)):
        monkeypatch.setattr(progress, name, value)
    with redirect_stderr(log):
        for _ in progress.bar(range(8), "long", "step"):
            time.sleep(0.06)
        with progress.bar(what="a.tar", unit="B", total=4096) as outer, progress.waiting("solving"):
            time.sleep(0.3)
            outer.update(2048)
        assert list(progress.bar(range(3), "hidden", shown=False)) == [0, 1, 2]
        progress.set_quiet(True)
        for _ in progress.bar(range(3), "quiet", "step"):
            time.sleep(0.06)
    lines = log.getvalue().splitlines()
    assert 2 <= sum(line.startswith("long: ") for line in lines) <= 5 and "\r" not in log.getvalue()
    assert re.fullmatch(r"long: \d\d %, [2-7] of 8 steps \[00:00<00:00\]", lines[0]), lines
    assert [progress._several(unit) for unit in ("image", "query", "batch")] == ["images", "queries", "batches"]
    assert {line.split(":")[0] for line in lines} == {"long", "solving", "a.tar"}
    assert "a.tar: 50 %, 2.00k of 4.00kB [00:00<00:00]" in lines


def test_a_fault_of_work_in_one_piece_comes_through(terminal):
    with pytest.raises(ZeroDivisionError), redirect_stderr(terminal), progress.waiting("solving"):
        raise ZeroDivisionError


def test_the_bytes_of_a_file_are_the_same_with_a_bar(tmp_path, terminal):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5)
    with open(tmp_path / "a", "rb") as file, redirect_stderr(terminal):
        assert [len(data) for data in progress.read_shown(file, "a", chunk=1000)] == [1000, 280]
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 5).hexdigest()


def test_what_changes_behind_the_bar_makes_no_lines_in_a_log(capsys):
    with progress.bar(what="files", unit="file", total=3) as shown:
        for number in range(3):
            shown.set_postfix_str(f"file {number}")
            shown.refresh()
            shown.update()
    assert capsys.readouterr().err == ""
