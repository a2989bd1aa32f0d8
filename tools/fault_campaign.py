"""Kills builds, extractions and trainings at every file operation in turn (docs/faults.md); takes an hour or so."""

import os
import sys

import pytest

if __name__ == "__main__":
    os.environ["RRT_KILL_EVERY"] = "1"
    sys.exit(pytest.main(["-rP", "-q", "-k", "killed", "tests/rrt", *sys.argv[1:]]))
