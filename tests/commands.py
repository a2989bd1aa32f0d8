"""Running the project's commands as a user does, for tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_tool(*arguments, cwd=ROOT):
    """`python arguments...` -> subprocess.CompletedProcess with text output; the script is named from the root."""
    script, *rest = (str(argument) for argument in arguments)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(ROOT / script), *rest], cwd=cwd, env=environment, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=300)


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
