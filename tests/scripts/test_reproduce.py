"""A published row in one command: fetched from a mirror on this machine, with small stand-ins, and resumed."""

import io
import os
import pickle
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from commands import ROOT, error_of, warm_python
from loopback import serving, tar_bytes
from PIL import Image

from rrt.commands.published import main
from rrt.evaluation.published import EXPECTED, comparison, fetch_checkpoint
from rrt.files.atomic import write_json
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT

NAMES = [f"tower_{i:06}" for i in range(6)]
# A network of few channels in the form of the published models: global [48], local [24].
MODEL = """
import sys
sys.path.insert(0, sys.argv[2])
from delg_exports import save_delg_tf1, tiny_backbone, tiny_model
with tiny_backbone():
    save_delg_tf1(sys.argv[1], tiny_model())
"""
NETWORK = {
    "num_global_features": 48,
    "num_local_features": 24,
    "dim_feedforward": 16,
    "num_encoder_layers": 1,
    "nhead": 2,
}


def picture(seed):
    cells = np.random.default_rng(seed // 3).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((160, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """All that the script fetches, on this machine."""
    if not find_spec("tensorflow"):
        pytest.skip("TensorFlow is not installed")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    script = tmp_path / "save_delg.py"  # a name by which the warm Python knows it
    script.write_text(MODEL)
    command = [warm_python("tensorflow"), script, tmp_path / "saved", ROOT / "tests/helpers"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    files = {
        str(path.relative_to(tmp_path / "saved")): path for path in (tmp_path / "saved").rglob("*") if path.is_file()
    }
    model = "r50delg_gldv2clean_20200914"
    torch.manual_seed(0)
    checkpoint = save_checkpoint(tmp_path / "x.pt", RRT(**NETWORK), settings={"model": RRT(**NETWORK).settings})
    entry = {"bbx": [5.0, 5.0, 150.0, 110.0], "easy": [0], "hard": [1], "junk": []}
    truth = {"qimlist": NAMES[:1], "imlist": NAMES[1:], "gnd": [entry]}
    with serving() as site:
        images = tar_bytes({f"{name}.jpg": picture(i) for i, name in enumerate(NAMES)})
        site.files = {
            "/images/oxbuildings/oxbuild_images.tgz": images,
            "/gnd/roxford5k/gnd_roxford5k.pkl": pickle.dumps(truth),
            f"/delg/{model}.tar.gz": tar_bytes({f"{model}/{name}": path.read_bytes() for name, path in files.items()}),
            "/ckpts/r50_gldv2.pt": checkpoint.read_bytes(),
        }
        yield site


@pytest.mark.slow
def test_a_row_is_reproduced_from_nothing_and_a_second_run_only_measures(mirror, tmp_path):
    environment = os.environ | {
        "RRT_PYTHON": str(warm_python("tensorflow", "torch", forked=True)),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DATA": str(tmp_path / "data"),
        "LOGS": str(tmp_path / "logs"),
        "CHECKPOINTS": str(tmp_path / "ckpts"),
        "IMAGES_URL": f"{mirror.base_url}/images",
        "GND_URL": f"{mirror.base_url}/gnd",
        "DELG_URL": f"{mirror.base_url}/delg",
        "CHECKPOINT_URL": f"{mirror.base_url}/ckpts",
        "DOWNLOAD": "--sha256 gnd_roxford5k.pkl=none",
        "EXTRACTION": "--score_threshold 0 --num_workers 1 --max_features 20",
    }
    environment.pop("DELG_MODELS", None)

    def reproduce():
        command = ["bash", str(ROOT / "rrt_scripts/reproduce.sh"), "r50_gldv2", "roxf", "cpu=True", "num_rerank=3"]
        done = subprocess.run(command, env=environment, text=True, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    printed = reproduce()
    assert "its licence is that of https://github.com/uvavision/RerankingTransformer" in printed
    rows = dict(line.split(maxsplit=1) for line in printed.splitlines()[-2:])
    assert rows["global"].split()[::2] == ["73.6", "51.0"] and rows["reranked"].split()[::2] == ["78.1", "60.2"]
    assert all(0 <= float(value) <= 100 for row in rows.values() for value in row.split())
    asked = len(mirror.requests)
    mirror.files.clear()
    assert reproduce().splitlines()[-2:] == printed.splitlines()[-2:] and len(mirror.requests) == asked


@pytest.mark.parametrize("words", [(), ("r50", "roxf"), ("r50_gldv2",), ("r50_gldv2", "oxford")])
def test_wrong_names_are_one_line(words):
    done = subprocess.run(["bash", str(ROOT / "rrt_scripts/reproduce.sh"), *words], text=True, capture_output=True)
    assert (
        done.returncode == 1
        and done.stdout == ""
        and done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
    )


def test_the_figures_are_those_of_the_documentation():
    lines = [line for line in (ROOT / "docs/reproduce.md").read_text().splitlines() if line.startswith("| `r")]
    shown = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    for descriptors, sets in EXPECTED.items():
        pairs = [f"{medium} / {hard}" for name in ("roxf", "rpar") for medium, hard in sets[name]]
        assert shown[descriptors] == pairs


def test_what_is_no_checkpoint_is_not_kept(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as site:
        site.files = {"/r50_gldv2.pt": b"version https://git-lfs.github.com/spec/v1"}
        words = ("--quiet", "fetch", "r50_gldv2", tmp_path / "x.pt", "--base_url", site.base_url)
        assert "x.pt: " in error_of(main, words, monkeypatch, capsys)
    assert list(tmp_path.glob("*.pt*")) == []


def test_a_checkpoint_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"mine")
    assert fetch_checkpoint("r50_gldv2", tmp_path / "x.pt", "http://127.0.0.1:1").read_bytes() == b"mine"


@pytest.mark.parametrize("numbers", [None, {}, {"global": {"M_map": 1, "H_map": 2}}, [1]])
def test_results_without_both_methods_are_refused_in_one_line(monkeypatch, capsys, tmp_path, numbers):
    path = tmp_path / "results.json"
    if numbers is not None:
        write_json(path, numbers)
    assert "no Medium and Hard mAP" in error_of(main, ("compare", "r50_gldv2", "roxf", path), monkeypatch, capsys)
    write_json(path, {"global": {"M_map": 1, "H_map": 2}, "RRT": {"M_map": 3, "H_map": 4.5}})
    assert comparison("r50_gldv2", "roxf", path).splitlines()[-1].split() == [
        "reranked",
        "78.1",
        "3.00",
        "60.2",
        "4.50",
    ]
