"""From a mirror of GLDv2 to matched images by the commands a user types (walk_training.sh)."""

import os
import subprocess

import pytest
from commands import ROOT, warm_python


@pytest.mark.slow
def test_the_whole_way_from_a_mirror_to_matched_pictures(tmp_path):
    python = warm_python("tensorflow", tiny_delg=True)
    done = subprocess.run(
        ["bash", str(ROOT / "tests/helpers/walk_training.sh"), str(tmp_path / "walk")],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=590,
        env=os.environ | {"RRT_PYTHON": str(python), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
    assert "walked the whole way" in done.stdout
