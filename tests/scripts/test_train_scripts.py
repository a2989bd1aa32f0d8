"""The scripts of the whole training: what they refuse. What they do is walked through in test_walk_training.py."""

import os
import subprocess
import sys

import pytest
from commands import ROOT

SCRIPTS = ROOT / "delg_extract" / "scripts"


def run(script, *arguments, **environment):
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *arguments],
        text=True,
        capture_output=True,
        timeout=60,
        env=os.environ | {"RRT_PYTHON": sys.executable} | environment,
    )


def test_there_are_three_scripts_of_at_most_three_lines():
    found = sorted(path.name for path in SCRIPTS.glob("train_*.sh"))
    assert found == ["train_delf_r50_gldv2.sh", "train_delg_r101_gldv2.sh", "train_delg_r50_gldv2.sh"]
    for script in found:
        assert len((SCRIPTS / script).read_text().splitlines()) <= 3 and os.access(SCRIPTS / script, os.X_OK)


@pytest.mark.parametrize(
    "script, arguments, words",
    [
        ("train.sh", (), "expected delg or delf"),
        ("train.sh", ("delg",), "expected r50, r101 or small"),
        ("train_delg_r50_gldv2.sh", (), "download_weights.py resnet50_imagenet_weights"),
        ("train_delg_r101_gldv2.sh", (), "IMAGENET="),
    ],
)
def test_what_is_missing_is_one_line_before_anything_is_downloaded(script, arguments, words, tmp_path):
    done = run(script, *arguments, DATA=str(tmp_path / "data"), LOGS=str(tmp_path / "logs"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and words in done.stderr
    assert not list(tmp_path.iterdir())
