"""Fetching the Revisited test sets from a mirror on this machine: a few small images under the published names."""

import hashlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, assert_one_line_error, files_below, run_tool
from loopback import serving, tar_bytes
from PIL import Image

from rrt.configs import dataset_configs
from rrt.datasets.downloads import SOURCES
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list
from rrt.formats.revisited import load_revisited_set

OXFORD = ["all_souls_000013", "oxford_002904", "oxford_000001"]
PARIS = ["paris_defense_000605", "paris_louvre_000001", "paris_general_000002"]
ARCHIVE = {"oxford5k": "/vgg/oxbuildings/oxbuild_images.tgz", "paris6k": "/vgg/parisbuildings/paris_2.tgz"}
ANY_GND = ("--sha256", "gnd_roxford5k.pkl=none", "--sha256", "gnd_rparis6k.pkl=none")


def jpg(size):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def ground_truth(folder, stems):
    path = folder / "gnd.pkl"
    save_ground_truth(
        path, stems[1:], stems[:1], [{"bbx": [1.0, 2.0, 20.0, 15.0], "easy": [0], "hard": [], "junk": []}]
    )
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def mirror(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    scratch = tmp_path_factory.mktemp("scratch")
    with serving() as site:
        site.files = {
            "/vgg/oxbuildings/oxbuild_images.tgz": tar_bytes({f"{name}.jpg": jpg((40, 30)) for name in OXFORD}),
            "/vgg/parisbuildings/paris_1.tgz": tar_bytes(
                {
                    f"paris/defense/{PARIS[0]}.jpg": jpg((50, 30)),
                    "paris/defense/paris_defense_000999.jpg": b"damaged at its source",
                }
            ),
            "/vgg/parisbuildings/paris_2.tgz": tar_bytes(
                {f"paris/{name.split('_')[1]}/{name}.jpg": jpg((30, 50)) for name in PARIS[1:]}
                | {"paris/README": b"text", "paris/louvre/._x.jpg": b"x"}
            ),
            "/gnd/roxford5k/gnd_roxford5k.pkl": ground_truth(scratch, OXFORD),
            "/gnd/rparis6k/gnd_rparis6k.pkl": ground_truth(scratch, PARIS),
        }
        yield site


@pytest.fixture
def fetch(mirror, tmp_path):
    def fetch(*arguments):
        return run_tool(
            "tools/download_revisited.py",
            *arguments,
            "--data_dir",
            tmp_path,
            "--base_url",
            f"{mirror.base_url}/vgg",
            "--gnd_base_url",
            f"{mirror.base_url}/gnd/",
        )

    return fetch


def test_both_test_sets_are_made_where_the_configurations_expect_them(mirror, fetch, tmp_path):
    done = fetch(*ANY_GND)
    assert done.returncode == 0, done.stderr
    assert [name for name in files_below(tmp_path) if name.startswith("paris6k")] == sorted(
        [
            "paris6k",
            *(
                f"paris6k/{name}"
                for name in (
                    "gnd_rparis6k.pkl",
                    "jpg",
                    "paris_1.tgz.json",
                    "paris_2.tgz.json",
                    "test_gallery.txt",
                    "test_query.txt",
                    "jpg/paris_defense_000999.jpg",
                    *(f"jpg/{name}.jpg" for name in PARIS),
                )
            ),
        ]
    )
    for configuration, stems, query_size in (
        ("roxford_r50_gldv2", OXFORD, (20, 14)),
        ("rparis_r101_gldv1", PARIS, (50, 30)),
    ):
        config = dataset_configs()[configuration]
        folder = tmp_path / os.path.relpath(config["test_data_dir"], "data")
        images = load_revisited_set(
            folder / "test_query.txt", folder / "test_gallery.txt", folder / config["test_gnd_file"]
        )
        assert images.query.names + images.gallery.names == [f"jpg/{name}.jpg" for name in stems]
        # The published list of Paris has the images' sizes, that of Oxford those of the boxes.
        assert read_image_list(folder / "test_query.txt").sizes.tolist() == [list(query_size)]


def test_what_the_archives_were_is_noted(mirror, fetch, tmp_path):
    assert fetch("oxford5k", *ANY_GND).returncode == 0
    content = mirror.files[ARCHIVE["oxford5k"]]
    assert json.loads((tmp_path / "oxford5k/oxbuild_images.tgz.json").read_text()) == {
        "url": mirror.base_url + ARCHIVE["oxford5k"],
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_second_run_fetches_nothing(mirror, fetch, tmp_path):
    assert fetch(*ANY_GND).returncode == 0
    (tmp_path / "oxford5k/test_query.txt").write_text("mine")
    asked = len(mirror.requests)
    done = fetch(*ANY_GND)
    assert done.returncode == 0 and done.stdout.count("all images are already in") == 2
    assert len(mirror.requests) == asked
    assert (tmp_path / "oxford5k/test_query.txt").read_text() == "mine"


def test_pictures_that_were_there_before_are_used(mirror, fetch, tmp_path):
    (tmp_path / "oxford5k/jpg").mkdir(parents=True)
    for name in OXFORD:
        (tmp_path / f"oxford5k/jpg/{name}.jpg").write_bytes(jpg((8, 8)))
    assert fetch("oxford5k", *ANY_GND).returncode == 0
    assert [path for path, _ in mirror.requests] == ["/gnd/roxford5k/gnd_roxford5k.pkl"]
    assert len(read_image_list(tmp_path / "oxford5k/test_gallery.txt").names) == 2


def test_an_archive_put_there_by_hand_is_used(mirror, fetch, tmp_path):
    (tmp_path / "oxford5k").mkdir()
    (tmp_path / "oxford5k/oxbuild_images.tgz").write_bytes(mirror.files.pop(ARCHIVE["oxford5k"]))
    assert fetch("oxford5k", *ANY_GND, "--keep_archives").returncode == 0
    assert (tmp_path / "oxford5k/oxbuild_images.tgz").exists()


def test_other_ground_truth_than_the_published_is_refused(mirror, fetch, tmp_path):
    done = fetch("oxford5k")
    assert_one_line_error(done, "gnd_roxford5k.pkl: sha256 is", SOURCES["oxford5k"].gnd_sha256)
    assert files_below(tmp_path) == ["oxford5k"]


@pytest.mark.parametrize("name", SOURCES)
def test_the_known_checksum_is_that_of_the_published_ground_truth(shared_data, name):
    source = SOURCES[name]
    path = shared_data / "revisited" / name / source.ground_truth.split("/")[1]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == source.gnd_sha256


def test_the_published_ground_truth_is_taken_without_options(shared_data, mirror, fetch, tmp_path):
    lacking = []
    for (name, source), there in zip(SOURCES.items(), (OXFORD, PARIS)):
        path = shared_data / "revisited" / name / source.ground_truth.split("/")[1]
        mirror.files[f"/gnd/{source.ground_truth}"] = path.read_bytes()
        truth = load_ground_truth(path)
        lacking.append(len(set(truth.qimlist + truth.imlist) - set(there)))
    done = fetch()
    assert_one_line_error(
        done, "2 of 2 test sets are missing", f"{lacking[0]} images of", "first all_souls_000026.jpg", "--base_url"
    )
    assert f"{lacking[1]} images of" in done.stdout
    assert not list(tmp_path.rglob("*.tgz")) and not list(tmp_path.rglob("test_*.txt"))


def test_a_missing_picture_is_named_and_a_whole_mirror_mends_it(mirror, fetch, tmp_path):
    whole = mirror.files[ARCHIVE["paris6k"]]
    mirror.files[ARCHIVE["paris6k"]] = tar_bytes({f"paris/louvre/{PARIS[1]}.jpg": jpg((30, 50))})
    assert_one_line_error(fetch("paris6k", *ANY_GND), "paris6k/jpg: 1 images of", f"first {PARIS[2]}.jpg")
    mirror.files[ARCHIVE["paris6k"]] = whole
    assert fetch("paris6k", *ANY_GND).returncode == 0


@pytest.mark.parametrize("content, reason", [(b"<html>", "not a tar archive"), (None, "HTTP status 404")])
def test_a_wrong_archive_is_one_line_and_the_other_set_is_made(mirror, fetch, tmp_path, content, reason):
    if content is None:
        del mirror.files[ARCHIVE["oxford5k"]]
    else:
        mirror.files[ARCHIVE["oxford5k"]] = content
    assert_one_line_error(fetch(*ANY_GND), "1 of 2 test sets are missing", "oxbuild_images.tgz", reason)
    assert (tmp_path / "paris6k/test_gallery.txt").exists()
    assert files_below(tmp_path / "oxford5k") == ["gnd_roxford5k.pkl"]


def test_a_picture_that_is_none_leaves_no_lists(mirror, fetch, tmp_path):
    mirror.files[ARCHIVE["oxford5k"]] = tar_bytes({f"{name}.jpg": b"no image" for name in OXFORD})
    assert_one_line_error(fetch("oxford5k", *ANY_GND), "can be read", "oxford_002904.jpg", "delete", "run again")
    assert not list(tmp_path.rglob("test_*.txt"))


def test_checksums_of_the_archives_can_be_given(mirror, fetch):
    assert_one_line_error(
        fetch("oxford5k", *ANY_GND, "--sha256", f"oxbuild_images.tgz={'0' * 64}"), "oxbuild_images.tgz: sha256 is"
    )


@pytest.mark.parametrize("arguments", [("oxford",), ("--sha256", "x.tgz=none"), ("--sha256", "paris_1.tgz=12")])
def test_a_wrong_name_or_checksum_is_one_line(mirror, fetch, arguments):
    assert_one_line_error(fetch(*arguments))
    assert mirror.requests == []


def test_the_script_passes_its_options_on(mirror, tmp_path):
    done = subprocess.run(
        [
            "bash",
            str(ROOT / "delg_extract/scripts/download_revisited.sh"),
            "oxford5k",
            "--base_url",
            f"{mirror.base_url}/vgg",
            "--gnd_base_url",
            f"{mirror.base_url}/gnd",
            *ANY_GND,
        ],
        env=os.environ | {"RRT_PYTHON": sys.executable, "DATA": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "oxford5k/test_gallery.txt").exists()
