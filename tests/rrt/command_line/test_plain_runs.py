"""Commands of settings without Sacred: the same settings, results and errors."""

import importlib.util
import json

import pytest
from example_command import ex

from rrt.command_line import sacred
from rrt.command_line.plain_runs import settings_of

COMMAND = "tests/helpers/example_command.py"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command line as if Sacred were not installed, or with it -> (exit status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.json").write_text(json.dumps({"rate": 7.0, "dataset": {"size": 9}}))
    find_spec = importlib.util.find_spec

    def run(*words, recorded=False):
        lacking = lambda name: None if name == "sacred" and not recorded else find_spec(name)  # noqa: E731
        monkeypatch.setattr(sacred, "find_spec", lacking)
        try:
            sacred.run_sacred(ex, [COMMAND, *words])
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["with", "rate=2", "params.k=5", "dataset.paris", "flag=True"],
        ["with", "dataset.name=rome", "dataset.paris"],
        ["with", "params={'k': 4}"],
        ["with", "some.json", "rate=3"],
        ["with", "fail=input"],
        ["with", "fail=file"],
        ["with", "fail=interrupt"],
        ["with", "rat=1"],
        ["with", "dataset.nam=1"],
        ["with", "dataset.pari"],
        ["with", "rate=fast"],
        ["with", "flag=1"],
        ["with", "dataset.name=2021"],
        ["with", "params=2"],
        ["with", "absent.json"],
    ],
)
def test_a_run_without_sacred_prints_what_one_of_sacred_prints(run, words):
    status, printed, told = run(*words, recorded=True)
    assert run(*words) == (status, printed, told.replace(", seed\n", "\n"))  # Sacred's own setting


def test_a_default_follows_from_the_settings_it_depends_on():
    assert settings_of(ex, ["rate=2.0"])["double"] == 4.0
    assert settings_of(ex, ["rate=2.0", "double=7.0"])["double"] == 7.0


def test_settings_are_printed_and_nothing_runs(run):
    status, printed, _ = run("print_config", "with", "rate=2")
    assert (
        status == 0 and "rate = 2" in printed and "dataset.size = 3" in printed and "to standard error" not in printed
    )


@pytest.mark.parametrize("words", [["-F", "logs"], ["-m", "db"], ["train"], ["rate=1"]])
def test_what_only_sacred_does_is_refused_in_one_line(run, words):
    status, printed, told = run(*words)
    assert status == 1 and not printed and told.count("\n") == 1 and told.startswith("error: ")
    assert "pip install 'rrt[experiments]'" in told or "unknown command" in told
