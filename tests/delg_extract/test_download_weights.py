"""Fetching published models from a mirror on this machine: small archives of the same shape."""

import hashlib
import json
import re

import pytest
from commands import ROOT, assert_one_line_error, files_below, run_main, run_tool
from loopback import serving, tar_bytes

from delg_extract.download_weights import main

DELG = ["r101delg_gld_20200814", "r101delg_gldv2clean_20200914", "r50delg_gld_20200814", "r50delg_gldv2clean_20200914"]
R50 = "r50delg_gldv2clean_20200914"


def model_archive(name):
    return tar_bytes({f"{name}/saved_model.pb": name.encode(), f"{name}/variables/variables.index": b"index"})


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DELG_MODELS", raising=False)
    with serving() as site:
        site.files |= {f"/delf/{name}.tar.gz": model_archive(name) for name in [*DELG, "rn101_af_gldv2clean_20200814"]}
        yield site


@pytest.fixture
def fetch(mirror, tmp_path):
    def fetch(*arguments):
        return run_main(main, *arguments, "--output_dir", tmp_path, "--base_url", f"{mirror.base_url}/delf/")

    return fetch


def test_a_short_name_fetches_a_model_and_notes_what_came(mirror, fetch, tmp_path):
    done = fetch("r50_gldv2")
    assert done.returncode == 0, done.stderr
    assert files_below(tmp_path) == [
        R50,
        f"{R50}.json",
        f"{R50}/saved_model.pb",
        f"{R50}/variables",
        f"{R50}/variables/variables.index",
    ]
    content = mirror.files[f"/delf/{R50}.tar.gz"]
    note = json.loads((tmp_path / f"{R50}.json").read_text())
    assert note == {
        "url": f"{mirror.base_url}/delf/{R50}.tar.gz",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert note["sha256"] in done.stdout


def test_all_are_the_four_delg_models_and_a_second_run_fetches_nothing(mirror, fetch, tmp_path):
    assert fetch("all", "r50_gldv1", DELG[0]).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == DELG
    assert len(mirror.requests) == 4
    mirror.files.clear()
    again = fetch("all")
    assert again.returncode == 0 and again.stdout.count("already there") == 4
    assert len(mirror.requests) == 4


def test_the_folder_can_come_from_the_environment(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("DELG_MODELS", str(tmp_path / "models"))
    assert (
        run_tool("delg_extract/download_weights.py", "r101_gldv1", "--base_url", f"{mirror.base_url}/delf").returncode
        == 0
    )
    assert (tmp_path / "models/r101delg_gld_20200814/saved_model.pb").read_bytes() == b"r101delg_gld_20200814"


@pytest.mark.parametrize("around", ["", "./", "parameters/", "a/b/"])
def test_folders_around_the_model_do_not_matter(mirror, fetch, tmp_path, around):
    mirror.files[f"/delf/{R50}.tar.gz"] = tar_bytes(
        {
            f"{around}saved_model.pb": b"model",
            f"{around}variables/v": b"v",
            f"{around}variables/old/saved_model.pb": b"other",
        }
    )
    assert fetch("r50_gldv2").returncode == 0
    assert (tmp_path / R50 / "saved_model.pb").read_bytes() == b"model"
    assert (tmp_path / R50 / "variables" / "v").read_bytes() == b"v"


@pytest.mark.parametrize(
    "name, members, main_file",
    [
        (
            "delf_gld_20190411",
            {"delf_gld_20190411/model/saved_model.pb": b"m", "delf_gld_20190411/pca/mean.datum": b"p"},
            "model/saved_model.pb",
        ),
        (
            "resnet50_imagenet_weights",
            {"resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5": b"h"},
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
    ],
)
def test_the_other_archives_keep_their_inner_folders(mirror, fetch, tmp_path, name, members, main_file):
    mirror.files[f"/delf/{name}.tar.gz"] = tar_bytes(members)
    assert fetch(name).returncode == 0
    assert (tmp_path / name / main_file).is_file()
    assert len(list((tmp_path / name).rglob("*.*"))) == len(members)


def test_one_missing_model_does_not_keep_the_others_away(mirror, fetch, tmp_path):
    del mirror.files[f"/delf/{DELG[0]}.tar.gz"]
    done = fetch("all")
    assert_one_line_error(done, "1 of 4 models are missing", DELG[0], "HTTP status 404", "--base_url")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == DELG[1:]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"<html>not found</html>", "not a tar archive"),
        (b"", "not a tar archive"),
        (model_archive(R50)[:-20], "damaged archive"),
        (tar_bytes({f"{R50}/saved_model.pbtxt": b"x"}), "no saved_model.pb in it"),
        (tar_bytes({"../saved_model.pb": b"x"}), "leads out"),
    ],
)
def test_a_wrong_archive_is_one_line_and_is_fetched_anew(mirror, fetch, tmp_path, content, reason):
    good = mirror.files[f"/delf/{R50}.tar.gz"]
    mirror.files[f"/delf/{R50}.tar.gz"] = content
    assert_one_line_error(fetch("r50_gldv2"), f"{R50}.tar.gz: ", reason)
    assert files_below(tmp_path) == []
    mirror.files[f"/delf/{R50}.tar.gz"] = good
    assert fetch("r50_gldv2").returncode == 0


def test_a_cut_download_is_continued_by_the_run(mirror, fetch, tmp_path):
    mirror.faults[f"/delf/{R50}.tar.gz"] = [("cut", 50)]
    assert fetch("r50_gldv2").returncode == 0
    assert [wanted for _, wanted in mirror.requests] == [None, "bytes=50-"]


def test_a_known_checksum_is_compared(mirror, fetch, tmp_path):
    right, wrong = hashlib.sha256(mirror.files[f"/delf/{R50}.tar.gz"]).hexdigest(), "0" * 64
    assert_one_line_error(fetch("r50_gldv2", "--sha256", f"{R50}={wrong}"), f"sha256 is {right}, expected {wrong}")
    assert files_below(tmp_path) == []
    assert fetch("r50_gldv2", "--sha256", f"r50_gldv2={right}", "--keep_archives").returncode == 0
    assert (tmp_path / f"{R50}.tar.gz").is_file()
    assert fetch("r50_gldv2", "--sha256", f"r50_gldv2={right}").returncode == 0
    assert_one_line_error(fetch("r50_gldv2", "--sha256", f"r50_gldv2={wrong}"), f"{R50}.json", right)


def test_a_folder_that_is_no_model_is_not_taken_for_one(mirror, fetch, tmp_path):
    (tmp_path / R50).mkdir()
    assert_one_line_error(fetch("r50_gldv2"), f"{tmp_path / R50}: no saved_model.pb in it")
    (tmp_path / R50 / "saved_model.pb").touch()
    assert fetch("r50_gldv2").returncode == 0  # put there by hand: no note, and nothing to compare with
    assert_one_line_error(fetch("r50_gldv2", "--sha256", f"r50_gldv2={'0' * 64}"), "not known")
    assert mirror.requests == []


@pytest.mark.parametrize(
    "arguments", [("r50",), ("all", "x"), ("all", "--sha256", "x=1"), ("all", "--sha256", "r50_gldv1=1")]
)
def test_a_wrong_name_or_checksum_is_one_line(mirror, fetch, arguments):
    assert_one_line_error(fetch(*arguments))
    assert mirror.requests == []


def test_the_script_needs_no_tensorflow():
    # It is run as a file, so that the package delg_extract, which loads TensorFlow, is not imported.
    source = (ROOT / "delg_extract/download_weights.py").read_text()
    assert not re.search(r"^(from|import) (delg_extract|tensorflow)", source, re.MULTILINE)
