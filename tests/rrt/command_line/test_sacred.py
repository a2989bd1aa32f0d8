"""Commands on Sacred: quiet when all is well, one line when the user erred, a traceback only for a bug."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import files_below, run_tool
from example_command import ex
from places import ROOT

from rrt.command_line import sacred_runs
from rrt.command_line.sacred_runs import as_experiment
from rrt.errors import InputError

SCRIPT = "tests/helpers/example_command.py"


def run(*arguments, cwd):
    return run_tool(SCRIPT, *arguments, cwd=cwd)


def record_of(folder):
    return json.loads((folder / "1" / "run.json").read_text())


def test_a_run_prints_what_its_main_prints_and_nothing_else(tmp_path):
    finished = run("with", "rate=2", "params.k=5", "dataset.paris", "flag=True", cwd=tmp_path)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "paris 2 5 6 True\n", "to standard error\n")
    assert files_below(tmp_path) == []


def test_help_shows_the_commands_own_text(tmp_path):
    finished = run("--help", cwd=tmp_path)
    assert finished.returncode == 0
    assert "Its second paragraph." in finished.stdout and "tests/helpers/example_command.py" in finished.stdout


@pytest.mark.parametrize(
    "given, double", [(["flag=True"], 1.0), (["rate=2.0"], 4.0), (["rate=2.0", "double=7.0"], 7.0)]
)
def test_a_default_follows_from_the_settings_it_depends_on(tmp_path, given, double):
    run("-F", "log", "with", *given, cwd=tmp_path)
    assert json.loads((tmp_path / "log/1/config.json").read_text())["double"] == double


def test_sources_are_noted_with_the_commit_of_the_clone_and_without_one_where_git_fails(monkeypatch):
    found = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True, capture_output=True)
    head = found.stdout.strip() if found.returncode == 0 else None
    sources = as_experiment(ex).sources
    assert {Path(source.filename).name: source.commit for source in sources} == dict.fromkeys(
        ("example_command.py", "sacred.py", "errors.py", "__init__.py"), head
    )

    def fail(*_):
        raise OSError("no git")

    monkeypatch.setattr(sacred_runs, "get_commit_if_possible", fail)
    assert {source.commit for source in as_experiment(ex).sources} == {None}


def test_print_config_says_what_a_setting_means(tmp_path):
    printed = run("print_config", cwd=tmp_path).stdout
    (line,) = [line for line in printed.splitlines() if "rate = 0.5" in line]
    assert "# how often" in line


def test_a_recorded_run_keeps_settings_output_sources_and_result(tmp_path):
    finished = run("-F", "log", "with", "dataset.paris", cwd=tmp_path)
    assert finished.stdout.splitlines()[-1] == "run recorded in log/1"
    record = record_of(tmp_path / "log")
    assert record["status"] == "COMPLETED" and record["result"] == {"rate": 0.5}
    assert {"tests/helpers/example_command.py", "rrt/errors.py"} <= {
        source[0] for source in record["experiment"]["sources"]
    }
    assert record["experiment"]["mainfile"] == "tests/helpers/example_command.py"
    assert json.loads((tmp_path / "log/1/config.json").read_text())["dataset"]["name"] == "paris"
    assert (tmp_path / "log/1/cout.txt").read_text() == "paris 0.5 2 3 False\nto standard error\n"


@pytest.mark.parametrize(
    "fail, message",
    [("input", "error: data/x.h5: no such file; make it"), ("file", "error: absent/file: No such file or directory")],
)
def test_an_input_error_is_one_line_and_the_record_says_failed(tmp_path, fail, message):
    finished = run("-F", "log", "with", f"fail={fail}", cwd=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.splitlines() == ["to standard error", message]
    assert record_of(tmp_path / "log")["status"] == "FAILED"


def test_an_interrupt_is_one_line_and_status_130(tmp_path):
    finished = run("-F", "log", "with", "fail=interrupt", cwd=tmp_path)
    assert finished.returncode == 130
    assert finished.stderr.splitlines() == ["to standard error", "error: interrupted"]
    assert record_of(tmp_path / "log")["status"] == "INTERRUPTED"


def test_a_bug_keeps_its_traceback(tmp_path):
    finished = run("with", "fail=bug", cwd=tmp_path)
    assert finished.returncode == 1 and "ZeroDivisionError: a bug" in finished.stderr and "line " in finished.stderr


def test_debug_shows_the_traceback_of_an_input_error(tmp_path):
    finished = run("-d", "with", "fail=input", cwd=tmp_path)
    assert finished.returncode == 1 and "Traceback" in finished.stderr


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["with", "rat=1"], ["unknown setting 'rat'", "did you mean 'rate'"]),
        (["with", "dataset.nam=1"], ["unknown setting 'dataset.nam'", "did you mean 'dataset.name'"]),
        (["with", "data.name=1"], ["unknown setting 'data.name'", "params.k"]),
        (["with", "dataset.pari"], ["unknown named configuration 'dataset.pari'", "did you mean 'dataset.paris'"]),
        (["with", "rate"], ["unknown named configuration 'rate'", "name=value"]),
        (["with", "rate=fast"], ["rate='fast'", "a number"]),
        (["with", "flag=1"], ["flag=1", "True or False"]),
        (["with", "dataset.name=2021"], ["dataset.name=2021", "a text", "dataset.name='2021'"]),
        (["with", "params=2"], ["params=2", "a dict"]),
        (["rate=1"], ["unknown command 'rate=1'", "with rate=1"]),
        (["train"], ["unknown command 'train'", "main"]),
        (["help", "train"], ["unknown command 'train'"]),
        (["--verbose"], ["cannot read the arguments '--verbose'", "--help"]),
        (["-F", "file"], ["file"]),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_1(tmp_path, arguments, parts):
    (tmp_path / "file").write_text("")
    finished = run(*arguments, cwd=tmp_path)
    lines = finished.stderr.splitlines()
    assert finished.returncode == 1 and finished.stdout == "" and len(lines) == 1 and lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def test_from_python_the_error_comes_as_it_is():
    with pytest.raises(InputError, match="data/x.h5"):
        ex.run(config_updates={"fail": "input"})
    assert ex.run(config_updates={"rate": 3}).result == {"rate": 3}
