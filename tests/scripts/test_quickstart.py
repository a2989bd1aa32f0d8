"""The walk from images to a reranked, measured result, by the script of the README, at a small size."""

import json
import os
import re
import shutil
import subprocess

import pytest
from commands import ROOT, warm_python
from report_page import check_report
from small_delg import write_small_delg

from rrt.formats.lists import read_image_list
from rrt.report.pages import make_report
from rrt.store.store import Store

TRAINING = (
    "model.num_global_features=512 model.dim_feedforward=64 model.num_encoder_layers=2 model.initialisation=matching "
    "distil.steps=2 distil.teacher=0.6*maxsim+0.4*global distil.pool=4 distil.nearest=8 epochs=1 steps_per_epoch=2 "
    "max_train_local=16 min_positives=1 select_on=last"
)


def quickstart(folder, python, *arguments, **environment):
    environment = (
        os.environ
        | {
            "RRT_PYTHON": str(python),
            "DATA": str(folder / "data"),
            "LOGS": str(folder / "logs"),
            "SIZE": "160",
            "TRAINING": TRAINING,
        }
        | environment
    )
    return subprocess.run(
        ["bash", str(ROOT / "rrt_scripts/quickstart.sh"), *map(str, arguments)],
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=580,
    )


def assert_measured(printed, *rows):
    for method, protocol in rows:
        assert re.search(rf"\| {method} +\| {protocol} ", printed), printed


@pytest.fixture(scope="module")
def python():
    return warm_python("tensorflow", "torch", forked=True)


SCENES = (
    "--num_train_landmarks 4 --views 4 --num_test_landmarks 4 --test_views 4 --family 2 --num_distractors 0 --size 160"
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, python):
    """(folder of a quickstart on scenes, what it printed)"""
    folder = tmp_path_factory.mktemp("quickstart")
    done = quickstart(folder, python, SCENES=SCENES)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_pictures_go_in_and_a_measured_result_comes_out(scenes, python):
    tmp_path, printed = scenes
    assert_measured(printed, ("global", "Easy"), ("global", "Hard"), ("maxsim", "Medium"), ("RRT", "Medium"))
    # All that it is to beat, on as many descriptors and candidates, and by how much it does.
    for method in ("maxsim", "geometric"):
        assert re.search(rf"\| {method}\[local=100.*?\] +\| Medium", printed)
        assert re.search(rf"RRT over {method}\[local=100.*?\]: [+-]", printed)
    results = json.loads((tmp_path / "logs/quickstart_scenes/results.json").read_text())
    assert {"global", "RRT", "ms_per_query", "protocol"} <= results.keys()

    photos = tmp_path / "my photos"
    images = read_image_list(tmp_path / "data/scenes_train/train.txt")
    for name, label in zip(images.names, images.labels):
        (photos / f"landmark {label}").mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "data/scenes_train" / name, photos / f"landmark {label}")
    whole = next((photos / "landmark 1").iterdir()).read_bytes()
    bad = {
        "no.jpg": b"no image",
        "cut.jpg": whole[: len(whole) // 2],
        "x.heic": b"\0\0\0\x18ftypheic",
        "empty.png": b"",
    }
    for landmark in (0, 1, 2):
        for name, data in bad.items():
            (photos / f"landmark {landmark}" / name).write_bytes(data)
    done = quickstart(tmp_path, python, photos, QUERIES="1")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in bad:
        assert f"skipped landmark 0/{name}: " in done.stdout or "3 .heic" in done.stdout
    assert_measured(done.stdout, ("RRT", "Medium"))
    listed = [path.read_text() for part in ("train", "test") for path in tmp_path.glob(f"data/my_photos_{part}/*.txt")]
    assert len(listed) == 3 and not any(name in text for name in bad for text in listed)
    assert (tmp_path / "logs/quickstart_my_photos/report/index.html").exists()
    for line in ("report/index.html", f"tools/search.py build '{photos}' --index '{photos}.index'", "experiment.py -F"):
        assert line in done.stdout


@pytest.mark.slow
def test_the_way_of_delg_leads_from_images_to_a_reranked_table_too(tmp_path):
    weights = write_small_delg(tmp_path / "small.h5", tiny=True)
    python = warm_python("tensorflow", "torch", tiny_delg=True)  # one part of few images needs no other process
    training = TRAINING.replace("num_global_features=512", "num_global_features=48")
    done = quickstart(tmp_path, python, SCENES=SCENES, WEIGHTS=str(weights), TRAINING=training)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_measured(done.stdout, ("global", "Medium"), ("RRT", "Medium"))
    with Store(tmp_path / "data/scenes_test/delg_delg.h5") as store:
        assert store.config["model"]["backbone"] == "small" and store.local_dim == 128
    assert not list((tmp_path / "data").rglob("*lite0*"))


@pytest.mark.slow
def test_the_report_of_its_result_works_in_a_browser(scenes, browser, tmp_path):
    folder, _ = scenes
    make_report([folder / "logs/quickstart_scenes"], tmp_path / "report", folder / "data/scenes_test")
    check_report(browser, tmp_path / "report", read_image_list(folder / "data/scenes_test/test_query.txt").names)


def test_fewer_than_three_landmarks_are_told_at_once(tmp_path):
    for name in ("a/x.jpg", "b/x.jpg", "@eaDir/x.jpg", ".trash/x.jpg", "__MACOSX/x.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "photos/empty").mkdir()
    done = quickstart(tmp_path, "unused", tmp_path / "photos")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert "photos: 2 landmarks (sub-folders with photographs); three are needed" in done.stderr


def test_a_missing_folder_is_one_line(tmp_path):
    done = quickstart(tmp_path, "unused", tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
