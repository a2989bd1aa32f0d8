"""What runs on a Ray cluster (on_ray.py), in a process of its own: Ray may end the process that is connected to it, and
its cluster is of that process's group."""

import importlib.util
import os
import subprocess
import sys

import pytest
from places import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_a_cluster_gives_what_one_process_gives_although_workers_are_killed():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/tools/on_ray.py"]
    how = {"cwd": ROOT, "env": environment, "stdin": subprocess.DEVNULL, "start_new_session": True}
    finished = subprocess.run(command, **how, text=True, capture_output=True, timeout=500)
    told = finished.stdout[-20_000:] + finished.stderr[-5_000:]
    assert finished.returncode == 0 and "passed" in finished.stdout, told
