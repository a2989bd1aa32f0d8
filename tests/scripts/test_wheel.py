"""The wheel where only its dependencies are installed, away from the clone: three doors, and doctor."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from photo_folders import draw
from places import ROOT

pytestmark = pytest.mark.slow
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

ELSEWHERE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True, cwd="/", env=ELSEWHERE)


def closure(requirements):
    """Distributions of this environment that these packages need, themselves among them."""
    found, waiting = {}, [Requirement(text) for text in requirements]
    while waiting:
        asked = waiting.pop()
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        if name in found or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = distribution(asked.name)
        except PackageNotFoundError:
            continue
        waiting += map(Requirement, found[name].requires or [])
    return found.values()


def link_packages(distributions, folder):
    for each in distributions:
        for top in {path.parts[0] for path in each.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            target, link = Path(str(each.locate_file(top))), folder / top
            if target.exists() and not link.exists():
                link.symlink_to(target)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves files beside the packages
    for name in ("rrt", "delg_extract", "rrt_gld_ckpts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source)
    (path,) = folder.glob("rrt-*.whl")
    return path


# Runs commands in one process, which loads PyTorch once, as long as lines of JSON come: a folder, and its commands. A
# line of what each printed, said of errors, and ended with.
SERVER = """
import contextlib, io, json, os, sys
from rrt.commands.__main__ import main
for line in sys.stdin:
    folder, commands = json.loads(line)
    os.chdir(folder)
    ended = []
    for arguments in commands:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as said:
            status = 0
            try:
                main(["rrt", *arguments])
            except SystemExit as end:
                status = end.code or 0
        ended.append((printed.getvalue(), said.getvalue(), status))
    print(json.dumps(ended), flush=True)
"""


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of an environment with the wheel and its dependencies."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    packages = home / "packages"
    packages.mkdir()
    link_packages(closure(PROJECT["dependencies"]), packages)
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    (site / "core.pth").write_text(f"{packages}\n")
    python = home / "venv" / "bin" / "python"
    pip("--python", python, "install", "-q", "--no-deps", "--no-index", "--no-compile", wheel)  # few are imported
    return python


@pytest.fixture(scope="module")
def in_one_process(python):
    """Runs `rrt arguments` of the installed wheel, one after the other in a folder -> [(output, errors, status)]."""
    command = [str(python), "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd="/", env=ELSEWHERE, **pipes) as server:

        def run(*commands, cwd="/"):
            given = [[str(word) for word in command] for command in commands]
            print(json.dumps([str(cwd), given]), file=server.stdin, flush=True)
            return [tuple(each) for each in json.loads(server.stdout.readline())]

        yield run
        server.kill()  # which takes no leave of PyTorch


def test_two_packages_stand_at_top_level_and_the_models_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"rrt", "delg_extract"}
    assert "rrt/shipped/lite0.onnx" in names and "rrt/photo_index/page/page.html" in names
    for file in ("htm-preact.js", "cropper.js", "LICENSE.htm", "LICENSE.preact", "LICENSE.cropperjs"):
        assert f"rrt/photo_index/page/vendor/{file}" in names


def test_every_door_says_what_it_takes(python, in_one_process):
    listed = subprocess.run([python.with_name("rrt"), "--help"], cwd="/", env=ELSEWHERE, text=True, capture_output=True)
    for door in (
        "search",
        "match",
        "extract",
        "import delg",
        "topk revisited",
        "train",
        "evaluate",
        "report",
        "doctor",
    ):
        assert f"\n  {door} " in listed.stdout, listed
    doors = [(door, "--help") for door in ("topk", "import", "train", "evaluate", "search")]
    for door, (printed, said, status) in zip(doors, in_one_process(*doors), strict=True):
        assert printed.lower().startswith("usage:") and not status, (door, printed, said)


def test_photographs_are_searched_and_matched(in_one_process, tmp_path):
    for seed in range(6):
        draw(tmp_path / "photos" / f"{seed}.jpg", seed, (160, 120))
    commands = (
        ("search", "build", "photos", "--index", "index"),
        ("search", "query", "index", "photos/3.jpg", "--json", "-", "--html", "found.html"),
        ("search", "serve", "index"),
        ("match", "photos/0.jpg", "photos/0.jpg"),
    )
    built, found, served, matched = in_one_process(*commands, cwd=tmp_path)
    assert "6 photographs" in built[0] and not built[2], built
    assert len(json.loads(found[0])["results"]) == 5 and (tmp_path / "found.html").is_file() and not found[2]
    assert served[1:] == ("error: the package uvicorn is not installed; pip install 'rrt[web]'\n", 1)
    assert "inliers" in matched[0] and (tmp_path / "match.png").is_file() and not matched[2]


def test_descriptors_are_extracted_searched_reranked_and_measured_and_a_reranker_is_trained(in_one_process, tmp_path):
    data = tmp_path / "data"
    lists = {"test_query.txt": ["q"], "test_gallery.txt": ["a", "b", "c"], "train.txt": ["t0", "t1", "t2", "t3"]}
    for list_name, images in lists.items():
        for name in images:
            draw(data / f"{name}.jpg", sum(map(ord, name)), (96, 96), scene=int(name in "qa"))
        (data / list_name).write_text("".join(f"{name}.jpg,{i},96,96\n" for i, name in enumerate(images)))
    truth = {
        "qimlist": ["q"],
        "imlist": ["a", "b", "c"],
        "gnd": [{"bbx": [0, 0, 96, 96], "easy": [0], "hard": [1], "junk": []}],
    }
    (data / "gnd.json").write_text(json.dumps(truth))
    given = [word for name in lists for word in ("--list", data / name)]
    test = ["dataset.desc_name=lite0", "dataset.test_data_dir=data", "dataset.test_gnd_file=gnd.json"]
    size = ["model.num_global_features=512", "model.dim_feedforward=16", "model.num_encoder_layers=1"]
    plan = ["epochs=0", "planted_steps=1", "dataset.batch_size=6", "dataset.train_data_dir=train", "cpu=True"]
    (tmp_path / "train").mkdir()
    for name in ("train.txt", "delg_lite0.h5"):
        (tmp_path / "train" / name).symlink_to(data / name)
    commands = (
        ("extract", "--model", "lite0", "--image_dir", data, *given, "--output", data / "delg_lite0.h5"),
        ("topk", "revisited", "with", "data_dir=data", "feature_name=lite0", "gnd_name=gnd.json"),
        ("topk", "gldv2", "with", "data_dir=train", "feature_name=lite0"),
        ("train", "with", "temp_dir=trained", "model.RRT", *size, *plan, "dataset.desc_name=lite0"),
        ("evaluate", "with", "temp_dir=out", *test, "reranker=maxsim"),
        ("evaluate", "-F", "logs", "with", *test),
    )
    *done, (_, refused, status) = in_one_process(*commands, cwd=tmp_path)
    assert not any(status for *_, status in done), done
    assert "maxsim" in done[-1][0] and (tmp_path / "out/results.json").is_file()
    assert (tmp_path / "trained/best.pt").is_file()
    assert status == 1 and "pip install 'rrt[experiments]'" in refused


def test_the_doctor_says_what_is_missing_and_how_to_get_it(in_one_process):
    (told, *_), (shown, *_) = in_one_process(("doctor", "--json"), ("doctor",))
    found = json.loads(told)
    assert found["models"]["lite0.onnx"] > 7_000_000 and found["packages"]["sacred"] is None
    assert found["doors"]["rerank, evaluate"] is None
    assert found["doors"]["page for the browser"].endswith("not installed: pip install 'rrt[web]'")
    assert "ready" in shown
