"""Settings of files and of the command line are plain values; none of them can run code."""

import json
import pickle
from pathlib import Path

import pytest
from commands import error_of
from example_command import ex

from rrt.command_line.parser import CommandParser
from rrt.command_line.sacred import run_sacred

CALL = {"py/reduce": [{"py/function": "pathlib.Path.touch"}, {"py/tuple": [{"py/object": "pathlib.Path"}]}]}


class Touches:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")


def settings_with(name, content, *words):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return run_sacred_with(name, *words)


def run_sacred_with(*words):
    assert run_sacred(ex, ["example.py", "-u", "with", *words]) is None
    return ex.current_run.config


@pytest.mark.parametrize(
    "name, content",
    [
        ("s.json", '{"rate": 2, "params": {"k": 5}, "dataset": {"name": "~/paris"}, "fail": ["a", "~/b"]}'),
        (
            "s.json",
            b'\xef\xbb\xbf{"rate": 2, "params": {"k": 5}, "dataset": {"name": "~/paris"}, "fail": ["a", "~/b"]}',
        ),
        ("s.yaml", "rate: 2\nparams: {k: 5}\ndataset:\n  name: ~/paris\nfail:\n- a\n- ~/b\n"),
        ("s.yml", "\ufeffrate: 2\nparams: {k: 5}\ndataset:\n  name: ~/paris\nfail: [a, ~/b]\n"),
    ],
)
def test_plain_files_of_settings_are_read(name, content):
    config = settings_with(name, content, "flag=True")
    assert (config["rate"], config["params"], config["flag"]) == (2, {"k": 5}, True)
    assert config["dataset"]["name"] == "/home/me/paris" and config["fail"] == ["a", "/home/me/b"]


DEEP = "[" * 5000 + "]" * 5000
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("s.json", json.dumps({"fail": CALL}), ["s.json", "'py/reduce'"]),
        ("s.json", json.dumps({"fail": [{"deeper": CALL}]}), ["s.json", "'py/reduce'"]),
        ("s.json", json.dumps({"fail": {"json://{}": 1}}), ["s.json", "json://"]),
        ("s.pickle", pickle.dumps({"fail": Touches()}), ["s.pickle", ".json, .yaml, .yml"]),
        ("s.JSON", "{}", ["s.JSON", ".json, .yaml, .yml"]),
        ("settings", "{}", ["settings", ".json, .yaml, .yml"]),
        ("s.yaml", "fail: !!python/object/apply:os.mkdir [ran]", ["s.yaml: line 1", "python/object/apply"]),
        ("s.yml", "fail: !!python/name:os.mkdir", ["s.yml: line 1", "python/name"]),
        ("s.yml", "fail: !!python/tuple [1, 2]", ["s.yml: line 1", "python/tuple"]),
        ("s.yaml", BOMB, ["s.yaml: line 2", "(*name)"]),
        ("s.yaml", "rate: 1\n\tparams", ["s.yaml: line 2"]),
        ("s.yaml", "rate: 2020-01-01", ["s.yaml", "date"]),
        ("s.yaml", "1: 2", ["s.yaml", "1 cannot be the name"]),
        ("s.yaml", "rate: \0", ["s.yaml"]),
        ("s.yaml", "fail: " + DEEP, ["s.yaml", "nested too deeply"]),
        ("s.json", '{"fail": ' + DEEP + "}", ["s.json", "nested too deeply"]),
        ("s.json", '{"fail": ' + "[" * 60 + "]" * 60 + "}", ["s.json", "nested too deeply"]),
        ("s.json", '{"rate": 2', ["s.json", "line 1"]),
        ("s.json", b'{"rate": "\xff"}', ["s.json", "UTF-8"]),
        ("s.json", "[1]", ["s.json", "name: value"]),
        ("s.json", '{"dataset.name": "x"}', ["s.json", "{dataset: {name: ...}}"]),
        ("s.json", '{"": 1}', ["s.json", "''"]),
        ("s.json", '{"rate": "fast"}', ["rate='fast'", "a number"]),
        ("s.json", '{"seed": "x"}', ["seed='x'", "an integer"]),
        ("dataset.paris", "{}", ["dataset.paris", "start elsewhere"]),
    ],
)
def test_other_files_of_settings_are_refused_in_one_line(name, content, parts, tmp_path, monkeypatch, capsys):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    line = error_of(lambda: run_sacred(ex), ["-u", "with", name], monkeypatch, capsys)
    assert [part for part in parts if part not in line] == [], line
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "words, parts",
    [
        (["with", f"fail={CALL!r}"], ["'py/reduce'"]),
        (["with", "params={1, 2}"], ["type set"]),
        (["with", "rate=1+2j"], ["type complex", "in quotes"]),
        (["with", "fail=b'x'"], ["type bytes"]),
        (["with", "params={1: 2}"], ["1 cannot be the name"]),
        (["with", "=3"], ["''"]),
        (["with", "rate=1", "rate.x=2"], ["both a value and settings of its own"]),
        (["with", "seed=x"], ["seed='x'", "an integer"]),
        (["with", "absent.yaml"], ["absent.yaml: no such file"]),
        (["-b", "x"], ["--beat-interval=x", "a number"]),
        (["-P", "x"], ["--priority=x", "a number"]),
        (["-C", "xx"], ["--capture='xx'", "sys"]),
        (["-l", "loud"], ["--loglevel=loud", "WARNING"]),
        (["-i", "../x"], ["--id=../x"]),
        (["-S", "x/y"], ["s3://"]),
        (["-s", "sqlite:///x"], ["--sql needs the package sqlalchemy"]),
        (["-S", "s3://x/y"], ["--s3 needs the package boto3"]),
        (["-t", "x"], ["--tiny_db needs the package hashfs"]),
    ],
)
def test_other_values_and_options_are_refused_in_one_line(words, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rrt.command_line.sacred_runs._is_installed", lambda package: False)
    line = error_of(lambda: run_sacred(ex), words, monkeypatch, capsys)
    assert [part for part in parts if part not in line] == [], line
    assert list(tmp_path.iterdir()) == []


def test_values_on_the_command_line_are_literals_or_texts():
    config = run_sacred_with("params={'k': 4}", "fail=(1, 'x', ['~/y'], None)", "dataset.name=~/oxford")
    assert (config["params"], config["dataset"]["name"]) == ({"k": 4}, "/home/me/oxford")
    assert config["fail"] == [1, "x", ["/home/me/y"], None]
    assert run_sacred_with("fail=[1")["fail"] == "[1"


def test_a_template_beside_the_records_is_not_filled_in(monkeypatch):
    """Mako, where it is installed, runs the Python in a template."""
    monkeypatch.setattr("sacred.optional.has_mako", True)
    Path("log").mkdir()
    Path("log/template.html").write_text("<% import pathlib; pathlib.Path('ran').touch() %>")
    run_sacred(ex, ["example.py", "-F", "log"])
    assert sorted(path.name for path in Path("log/1").iterdir()) == [
        "config.json",
        "cout.txt",
        "metrics.json",
        "run.json",
    ]
    assert not Path("ran").exists()


def test_the_users_folder_is_meant_behind_an_options_equals_sign():
    parser = CommandParser()
    parser.add_argument("--index")
    assert [parser.parse_args([word]).index for word in ("--index=~/x", "--index=~", "--index=a~/x", "--index=~x")] == [
        "/home/me/x",
        "/home/me",
        "a~/x",
        "~x",
    ]
