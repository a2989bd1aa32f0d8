"""A command that is told to end does so with one line, whenever the order comes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from places import ROOT

from rrt.command_line import parser
from rrt.command_line.parser import ended_in_a_line


@pytest.fixture(autouse=True)
def interrupts():
    """Whoever started the tests may ignore them, as a shell does for its jobs in the background, and so would what the
    tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "command, sent, said, status",
    [
        ("tools/compare.py", signal.SIGTERM, "terminated", 143),
        ("-m rrt.commands compare", signal.SIGINT, "interrupted", 130),
        ("experiment.py", signal.SIGTERM, "terminated", 143),
    ],
)
def test_an_order_to_end_while_libraries_are_loaded_is_one_line(tmp_path, command, sent, said, status):
    (tmp_path / "torch.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, *command.split(), "with", f"temp_dir={tmp_path / 'log'}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "loading\n"
    process.send_signal(sent)
    assert process.communicate(timeout=60)[1] == f"error: {said}\n"
    assert process.returncode == status and not (tmp_path / "log").exists()


def ended(work):
    with pytest.raises(SystemExit) as end, ended_in_a_line():
        work()
    return end.value.code


def test_the_same_order_again_does_not_end_the_cleaning_up():
    cleaned = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    assert ended(work) == 143 and cleaned


def test_an_order_that_a_library_swallowed_is_obeyed_when_it_comes_again(monkeypatch):
    monkeypatch.setattr(parser, "_SAME_ORDER", 0.05)

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    assert ended(work) == 143


def ordered_in_a_finaliser(sent):
    """Work that the signal reaches where no exception leaves."""

    class Finalised:
        def __del__(self):
            signal.raise_signal(sent)

    def work():
        Finalised()
        time.sleep(30)

    return work


@pytest.mark.parametrize("sent, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_order_that_comes_in_a_finaliser_is_obeyed(sent, status):
    assert ended(ordered_in_a_finaliser(sent)) == status


@pytest.mark.parametrize("sent, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_order_that_comes_again_too_early_is_obeyed(monkeypatch, sent, status):
    early = []

    class Timer(threading.Timer):
        def start(self):
            super().start()
            if not early:
                early.append(True)
                self.join()
                time.sleep(0.01)  # here the signal comes

    monkeypatch.setattr(threading, "Timer", Timer)
    assert ended(ordered_in_a_finaliser(sent)) == status and early


def test_what_nobody_reads_any_longer_ends_a_command_without_a_word():
    work = "print('x' * 100_000, flush=True)"
    for printing in (work, "print('x')", "raise SystemExit(print('x'))"):
        code = f"from rrt.command_line.parser import run_command\nrun_command(lambda: exec({printing!r}))"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141, printing


def test_a_line_is_in_the_log_as_soon_as_it_is_printed(tmp_path):
    code = "import os\nfrom rrt.command_line.parser import run_command\nrun_command(lambda: (print('x'), os._exit(0)))"
    with open(tmp_path / "log", "w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "x\n"


def test_output_that_a_full_disk_does_not_take_is_one_line():
    code = "from rrt.command_line.parser import run_command\nrun_command(lambda: print('x'))"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("error: ") and "make room" in ended.stderr


@pytest.mark.parametrize(
    "script, program", [("tools/search.py", "python tools/search.py build"), ("rrt search", "rrt search build")]
)
def test_arguments_that_do_not_fit_are_one_line_that_says_where_help_is(monkeypatch, capsys, script, program):
    monkeypatch.setattr(sys, "argv", [script, "build"])
    p = parser.CommandParser("what it does")
    p.add_subparsers().add_parser("build").add_argument("--index", required=True)
    with pytest.raises(SystemExit) as ended:
        p.parse_args()
    said = f"error: the following arguments are required: --index; {program} --help says what it takes\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, said)
