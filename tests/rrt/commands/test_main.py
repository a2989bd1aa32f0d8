"""`rrt NAME` and `python -m rrt.commands NAME`: one way to every command."""

import importlib
import os
import resource
import subprocess
import sys
import tomllib

import pytest
from places import ROOT

from rrt.command_line.parser import as_called
from rrt.commands import __main__ as main_module
from rrt.commands.__main__ import COMMANDS, DOORS, main
from rrt.evaluation.rankings import command_line


def run(*arguments, cwd=ROOT, options=()):
    return subprocess.run(
        [sys.executable, *options, "-m", "rrt.commands", *map(str, arguments)],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=300,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def call(monkeypatch, capsys, *arguments):
    """(exit status, standard output, standard error) of `rrt arguments` in this process."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/rrt", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize("name, given, threads", [("search", None, "1"), ("search", "4", None), ("report", None, None)])
def test_search_multiplies_by_one_thread_unless_told_otherwise(monkeypatch, name, given, threads):
    def load(module):
        assert os.environ.get("OPENBLAS_NUM_THREADS") == threads, module
        raise KeyboardInterrupt

    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")  # so that it is as before afterwards
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(main_module, "import_module", load)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        main_module.run(name)


def test_every_command_stands_in_the_list_with_one_line():
    modules = {path.stem for path in (ROOT / "rrt/commands").glob("[a-z]*.py")}
    assert COMMANDS.keys() == modules and list(COMMANDS) == sorted(COMMANDS)
    assert all(meaning and len(meaning) <= 90 and "\n" not in meaning for meaning in COMMANDS.values())


def test_every_command_has_a_front_that_calls_it():
    fronts = {"experiment": "experiment.py", "evaluate_revisited": "evaluate_revisited.py"}
    for name in COMMANDS:
        assert f'\n    run("{name}")\n' in (ROOT / fronts.get(name, f"tools/{name}.py")).read_text()


def test_the_console_script_is_this_function():
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["rrt"]
    module, _, function = script.partition(":")
    assert getattr(importlib.import_module(module), function) is main


def test_the_list_of_commands_loads_none_of_them():
    finished = run("--help", options=("-X", "importtime"))
    assert finished.returncode == 0
    assert finished.stdout.startswith("usage: python -m rrt.commands NAME ...")
    called = {command: name for name, command in DOORS.items() if isinstance(command, str)}
    for name, door in DOORS.items():
        called |= {command: f"{name} {kind}" for kind, command in door.items()} if isinstance(door, dict) else {}
    for command, meaning in COMMANDS.items():
        assert f"\n  {called.get(command, command):<24}{meaning}\n" in finished.stdout
    loaded = {line.rsplit("|", 1)[1].strip() for line in finished.stderr.splitlines() if "|" in line}
    ours = {name for name in loaded if name.startswith("rrt")}
    assert ours == {"rrt", "rrt.version", "rrt.commands", "rrt.command_line", "rrt.command_line.output"}
    assert not loaded & {"numpy", "torch", "faiss", "sacred", "h5py", "tqdm", "argparse"}


def test_no_command_and_a_wrong_one_end_with_status_2(monkeypatch, capsys):
    status, printed, told = call(monkeypatch, capsys)
    assert status == 2 and not printed and told.startswith("usage: rrt NAME ...")
    assert call(monkeypatch, capsys, "reprt") == (2, "", "error: no command 'reprt'; did you mean 'report'?\n")
    assert call(monkeypatch, capsys, "x=1") == (2, "", "error: no command 'x=1'; see rrt --help\n")


def test_a_door_is_the_command_behind_it(monkeypatch, capsys, tmp_path):
    status, printed, _ = call(monkeypatch, capsys, "topk", "--help")
    assert status == 0 and printed.startswith("usage: rrt topk {revisited,gldv2} ...\n")
    assert call(monkeypatch, capsys, "topk", "revisted")[2].startswith(
        "error: rrt topk: expected revisited or gldv2, got"
    )
    assert call(monkeypatch, capsys, "import")[::2] == (
        2,
        "error: rrt import: expected delg or hloc or arrays, got nothing; see rrt import --help\n",
    )
    status, printed, _ = call(monkeypatch, capsys, "import", "hloc", "--help")
    assert status == 0 and printed.startswith("usage: rrt import hloc [-h]")
    for door in ("train", "evaluate"):
        status, printed, _ = call(monkeypatch, capsys, door, "--help")
        assert status == 0 and printed.startswith(f"Usage:\n  rrt {door} [(with UPDATE...)]")
        assert "\n  temp_dir='" in printed and "\n  model.nhead=4 " in printed


def test_who_called_rrt_is_told_of_rrt_and_who_called_a_file_of_files(monkeypatch, capsys, tmp_path):
    _, printed, _ = call(monkeypatch, capsys, "evaluate", "--help")
    assert "tools/" not in printed and "evaluate_revisited.py" not in printed and "rrt tune_fusion" in printed
    _, printed, _ = call(monkeypatch, capsys, "match", "--help")
    assert "rrt match_images jpg/a.jpg" in printed and "python -m delg_extract.match_images" in printed
    _, _, told = call(monkeypatch, capsys, "search", "info", tmp_path)
    assert "rrt search build" in told and "tools/" not in told
    text = "make it with tools/learn_whitening.py; python tools/benchmark.py; torchrun --nproc_per_node 2 experiment.py"
    assert as_called(text, "rrt x") == text.replace("tools/learn_whitening.py", "rrt learn_whitening")
    assert as_called(text, "tools/x.py") == text


def seconds_of(work):
    """Processor seconds that commands take, which other work on the machine does not change much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert work().returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_comes_at_once_and_loads_no_library_of_the_work():
    loading = seconds_of(lambda: subprocess.run([sys.executable, "-c", "import numpy"]))  # 0.1 to 0.2 by the machine
    assert any(seconds_of(lambda: run("--help")) < 0.3 for _ in range(2))
    assert any(seconds_of(lambda: run("evaluate", "--help")) < max(1, 10 * loading) for _ in range(2))


def test_no_door_loads_a_library_of_the_work_for_its_help():
    calls = [
        [name, *kind, "--help"]
        for name, door in DOORS.items()
        for kind in ([[]] if isinstance(door, str) else [[each] for each in door])
    ]
    script = "\n".join(
        [
            "import sys, io, contextlib",
            "from rrt.commands.__main__ import main",
            f"for call in {calls}:",
            "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):",
            "        main(['rrt', *call])",
            "    heavy = {'torch', 'sacred', 'tensorflow', 'matplotlib.pyplot'} & sys.modules.keys()",
            "    assert not heavy, (call, heavy)",
        ]
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_of_options_gets_its_own_and_is_named_as_it_was_called(monkeypatch, capsys, tmp_path):
    status, printed, _ = call(monkeypatch, capsys, "check_store", "--help")
    assert status == 0 and printed.startswith("usage: rrt check_store [-h]")
    status, printed, told = call(monkeypatch, capsys, "check_store", tmp_path / "no.h5")
    assert status == 1 and not printed and told.startswith(f"error: {tmp_path / 'no.h5'}")
    assert command_line() == f"rrt check_store {tmp_path / 'no.h5'}"


def test_a_command_of_settings_is_named_as_it_was_called_from_any_folder(tmp_path):
    finished = run("export_delg", "--help", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "\n  python -m rrt.commands export_delg [(with UPDATE...)]" in finished.stdout
    finished = run("export_delg", "-u", "with", "nonsense=1", cwd=tmp_path)
    assert finished.returncode == 1 and finished.stderr.startswith("error: unknown setting 'nonsense'")
    finished = run("export_delg", "--nonsense", cwd=tmp_path)
    assert finished.stderr.endswith("see python -m rrt.commands export_delg --help\n")


def test_a_command_writes_what_its_front_writes(tmp_path):
    scenes = ("--num_train_landmarks", 2, "--views", 2, "--num_test_landmarks", 2, "--test_views", 1, "--queries", 1)
    size = ("--num_distractors", 0, "--size", 64, "--num_workers", 1, "--family", 2)
    finished = run("make_scenes", "--out", tmp_path / "a", *scenes, *size)
    assert finished.returncode == 0, finished.stderr
    finished = subprocess.run(
        [sys.executable, "tools/make_scenes.py", "--out", str(tmp_path / "b"), *map(str, scenes + size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr
    a, b = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in "ab")
    assert [path.relative_to(tmp_path / "a") for path in a] == [path.relative_to(tmp_path / "b") for path in b]
    assert a and all(x.read_bytes() == y.read_bytes() for x, y in zip(a, b))
