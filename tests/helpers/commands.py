"""Running the project's commands as a user does, for tests."""

import io
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import warm_python as warm
from filelock import FileLock
from places import ROOT

from rrt.command_line.parser import run_command

_SERVER = Path(__file__).with_name("warm_python.py")


def run_tool(*arguments, cwd=ROOT, forked=False, tiny_delg=False):
    """`python arguments...` -> subprocess.CompletedProcess with text output; the script is named from the root.

    It starts with its libraries loaded (warm_python), which takes a tenth of the time, and so do the processes that it
    starts where they are ``forked`` (forked.py). tiny_delg: see tiny_delg.py.
    """
    return subprocess.run(
        _warm_command(arguments, forked, tiny_delg),
        cwd=cwd,
        env=_environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )


def run_on_terminal(*arguments, cwd=ROOT, **environment):
    """The same with standard error on a terminal of 80 columns -> (exit status, standard output, all that the terminal
    was sent)."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    process = subprocess.Popen(
        _warm_command(arguments),
        cwd=cwd,
        env=_environment() | environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    sent = b""
    with suppress(OSError):  # so it ends on Linux
        while data := os.read(terminal, 1 << 16):
            sent += data
    os.close(terminal)
    printed = process.communicate(timeout=60)[0]
    return process.returncode, printed, sent.decode()


def output_of(main, *arguments):
    """What a command's `main` prints in this process, where its libraries have been loaded; it must not fail."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed):
        patched.setattr(sys, "argv", ["command", *map(str, arguments)])
        assert not main()
    return printed.getvalue()


def run_main(main, *arguments):
    """What a command's `main` does in this process, as run_tool() gives it."""
    printed, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed), redirect_stderr(told):
        patched.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_command(main)
    return subprocess.CompletedProcess(arguments, ended.value.code, printed.getvalue(), told.getvalue())


def error_of(main, arguments, monkeypatch, capsys):
    """The one `error: ...` line with which a command's `main` ends in this process, where starting TensorFlow anew
    would take long."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    lines = [line for line in capsys.readouterr().err.splitlines() if "\r" not in line and "%|" not in line]
    assert ended.value.code == 1 and len(lines) == 1 and lines[0].startswith("error: "), (arguments, lines)
    return lines[0]


def usage_error_of(main, arguments, monkeypatch, capsys):
    """The one `error: ...` line with which a command's parser refuses arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ")
    assert line.endswith("; python command --help says what it takes")
    return line


@contextmanager
def started_tool(*arguments, cwd=ROOT, forked=False, tiny_delg=False):
    """Starts the same without output -> a connection, for warm_python.status_of() and kill(); what is running yet at
    the end is killed."""
    command = _command(arguments, forked, tiny_delg)[1:]
    with open(os.devnull, "r+b") as nowhere, socket.socket(socket.AF_UNIX) as connection:
        path = _loaded("tensorflow" if _uses_tensorflow(arguments) else "torch")
        warm.start(connection, path, [nowhere.fileno()] * 3, command, cwd, _environment())
        yield connection


def kill_tool_when(happened, *arguments, cwd=ROOT, patience=120, tiny_delg=False):
    """Starts `python arguments...` and ends it with SIGKILL as soon as `happened()` is true, within `patience` seconds;
    it must still be running then."""
    with started_tool(*arguments, cwd=cwd, tiny_delg=tiny_delg) as connection:
        deadline = time.monotonic() + patience
        try:
            while not happened():
                ended, *_ = select.select([connection], [], [], 0.01)
                assert not ended, "the command ended before it could be killed"
                assert time.monotonic() < deadline, f"what the command was to be killed at did not come in {patience} s"
        finally:
            status = warm.kill(connection)
    assert status == 128 + signal.SIGKILL, "the command ended before it could be killed"


def _command(arguments, forked=False, tiny_delg=False):
    script, *rest = (str(argument) for argument in arguments)
    through = [str(_SERVER.with_name(name)) for name in ["forked.py"] * forked + ["tiny_delg.py"] * tiny_delg]
    return [sys.executable, *through, str(ROOT / script), *rest]


def _warm_command(arguments, forked=False, tiny_delg=False):
    side = "tensorflow" if _uses_tensorflow(arguments) else "torch"
    return [warm_python(side), *_command(arguments, forked, tiny_delg)[1:]]


def _uses_tensorflow(arguments):
    script, first, *_ = (*map(str, arguments), None)
    return "delg_extract/" in script or (script == "tools/benchmark.py" and first in _TENSORFLOW_BENCHMARKS)


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


def stub_python(folder):
    """A Python for scripts (RRT_PYTHON=) that only prints what it was asked to do; read its output with
    `commands_in`."""
    stub = Path(folder) / "py thon"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@" END\n')
    stub.chmod(0o755)
    return stub


def commands_in(printed):
    """What a `stub_python` was asked to do, a list of arguments each; headings of the script in between are left
    out."""
    blocks = [block.strip("\n").split("\n") for block in printed.split("END\n")[:-1]]
    return [
        block[max((i + 1 for i, line in enumerate(block) if line.startswith("== ")), default=0) :] for block in blocks
    ]


_BOTH = ("h5py", "cv2", "pandas", "PIL.Image", "tqdm", "psutil", "filelock", "pydantic", "pydantic.dataclasses")
_BOTH += ("google.protobuf.message", "matplotlib.figure", "matplotlib.backends.backend_agg")
# {library: (commands that use it, what they load)}; the first that fits counts.
_SIDES = {
    "tensorflow": (
        "*delg_extract/*|*two_replicas.py|*_delg.py|*forked.py",
        (*_BOTH, "tensorflow", "tensorboard.summary"),
    ),
    "torch": (
        "*",
        # torch._dynamo is what an optimizer loads when it is made.
        (*_BOTH, "torch", "torch._dynamo", "faiss", "scipy.stats", "onnxruntime", "jinja2", "requests", "git")
        + ("rrt.command_line.sacred_runs", "rrt.commands.experiment", "rrt.training.run")
        + ("rrt.commands.evaluate_revisited", "rrt.evaluation.run"),
    ),
}
_TENSORFLOW_BENCHMARKS = ("extract", "input", "train")
_FOLDER = "RRT_WARM_PYTHONS"
_kept = ExitStack()


def keep_warm_pythons():
    """Lets this process and those that it starts share what warm_python() loads, until stop_warm_pythons() here."""
    folder = Path(_kept.enter_context(TemporaryDirectory()))  # a short path, as a socket needs it
    os.environ[_FOLDER] = str(folder)
    os.mkfifo(folder / "alive")
    _kept.callback(os.close, os.open(folder / "alive", os.O_RDWR))


def stop_warm_pythons():
    _kept.close()
    warm_python.cache_clear()
    _loaded.cache_clear()


@lru_cache
def warm_python(*sides, tiny_delg=False, forked=False):
    """A Python for scripts (RRT_PYTHON=) that has its libraries loaded (warm_python.py) -> its path.

    sides: "tensorflow" (for the commands of delg_extract), "torch" (for all others), in this order; what belongs to
    neither is started anew. A side is loaded once for all tests of all processes. tiny_delg, forked: of commands of
    TensorFlow, see tiny_delg.py and forked.py.
    """
    through = ["forked.py"] * forked + ["tiny_delg.py"] * tiny_delg
    started = {"tensorflow": "".join(f"'{_SERVER.with_name(name)}' " for name in through)}
    serve = f"exec '{sys.executable}' -I -S '{_SERVER}' run"
    cases = [
        "-*) ;;",
        *(f"{_SIDES[side][0]}) {serve} '{_loaded(side)}' {started.get(side, '')}\"$@\" ;;" for side in sides),
    ]
    run = Path(os.environ[_FOLDER], f"{os.getpid()}-{'-'.join(sides)}{'-tiny' * tiny_delg}{'-forked' * forked}")
    run.write_text(f"#!/bin/sh\ncase $1 in\n{chr(10).join(cases)}\nesac\nexec '{sys.executable}' \"$@\"\n")
    run.chmod(0o755)
    return run


@lru_cache
def _loaded(side):
    """The socket of a process that has loaded the libraries of a side."""
    folder = Path(os.environ[_FOLDER])
    path = folder / f"{side}.socket"
    with FileLock(folder / f"{side}.lock"), open(folder / "alive") as alive:
        if not path.exists():
            process = subprocess.Popen(
                [sys.executable, str(_SERVER), "serve", str(path), *_SIDES[side][1]],
                text=True,
                env=_environment() | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"},
                stdin=alive,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdout.readline() == "ready\n"
    return path
