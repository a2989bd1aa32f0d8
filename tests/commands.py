"""Running the project's commands as a user does, for tests."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rrt.errors import run_command

ROOT = Path(__file__).resolve().parents[1]


def run_tool(*arguments, cwd=ROOT):
    """`python arguments...` -> subprocess.CompletedProcess with text output; the script is named from the root."""
    return subprocess.run(_command(arguments), cwd=cwd, env=_environment(), text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=300)


def error_of(main, arguments, monkeypatch, capsys):
    """The one `error: ...` line with which a command's `main` ends in this process, where starting TensorFlow anew would take long."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    lines = [line for line in capsys.readouterr().err.splitlines() if "\r" not in line and "%|" not in line]
    assert ended.value.code == 1 and len(lines) == 1 and lines[0].startswith("error: "), (arguments, lines)
    return lines[0]


def kill_tool_when(happened, *arguments, cwd=ROOT):
    """Starts `python arguments...` and ends it with SIGKILL as soon as `happened()` is true; it must still be running then."""
    process = subprocess.Popen(_command(arguments), cwd=cwd, env=_environment(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not happened() and time.time() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() < 0, "the command ended before it could be killed"


def _command(arguments):
    script, *rest = (str(argument) for argument in arguments)
    return [sys.executable, str(ROOT / script), *rest]


def _environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def assert_one_line_error(finished, *parts):
    """Exit status 1, nothing but one `error: ...` line on standard error, and every part in it."""
    assert finished.returncode == 1, finished.stdout + finished.stderr
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), finished.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def files_below(folder):
    """Relative paths of everything in a folder, to see what a command left."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
