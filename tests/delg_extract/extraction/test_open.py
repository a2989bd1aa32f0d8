"""What a path holds that describes images: where a SavedModel lies, its hash, and damaged ones."""

import os
import shutil

import pytest
from failing_workers import describe_or_fail

from delg_extract.extraction.open import (
    in_another_process,
    is_saved_model,
    open_network,
    saved_model_folder,
    saved_model_sha256,
)
from delg_extract.extraction.saved_models import open_saved_model
from rrt.errors import InputError


def test_the_model_may_lie_one_folder_below(toys, tmp_path):
    shutil.copytree(toys / "tf1", tmp_path / "delf_gld/model")
    for path in (tmp_path / "delf_gld", str(tmp_path / "delf_gld/model/"), tmp_path / "delf_gld/model/saved_model.pb"):
        assert is_saved_model(path)
        assert open_network(path).folder == tmp_path / "delf_gld/model"
    with pytest.raises(InputError, match=r"2 SavedModels lie below \(tf1, tf2\); give the folder of one"):
        open_network(toys)


def test_weight_files_are_no_saved_models(tmp_path):
    (tmp_path / "small.h5").write_bytes(b"weights")
    assert not is_saved_model(tmp_path / "small.h5") and not is_saved_model(tmp_path / "missing.h5")


def test_the_hash_depends_on_graph_and_variables_and_not_on_the_place(toys, tmp_path):
    moved = shutil.copytree(toys / "tf2", tmp_path / "elsewhere/model")
    (moved / "notes.txt").write_text("mine")
    before = saved_model_sha256(toys / "tf2")
    assert saved_model_sha256(tmp_path / "elsewhere") == before != saved_model_sha256(toys / "tf1")
    for file in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        whole = (moved / file).read_bytes()
        (moved / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert saved_model_sha256(moved) != before
        (moved / file).write_bytes(whole)
    (moved / "variables/variables.index").rename(moved / "variables/other.index")
    assert saved_model_sha256(moved) != before


def test_a_folder_without_a_model_is_refused(tmp_path):
    for use in (saved_model_folder, saved_model_sha256):
        with pytest.raises(InputError, match="nowhere: no such folder"):
            use(tmp_path / "nowhere")
        with pytest.raises(InputError, match="no saved_model.pb here or one folder below"):
            use(tmp_path)


@pytest.mark.parametrize("style", ["tf1", "tf2"])
def test_damaged_models_are_refused_in_one_line(style, toys, tmp_path):
    graph, index, data = "saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"
    size = (toys / style / graph).stat().st_size
    cuts = [
        (graph, 0),
        (graph, 100),
        (graph, size // 2),
        (index, None),
        (index, 0),
        (index, 50),
        (data, None),
        (data, 2),
    ]
    for number, (file, kept) in enumerate(cuts):
        broken = shutil.copytree(toys / style, tmp_path / str(number))
        whole = (broken / file).read_bytes()
        (broken / file).unlink()
        if kept is not None:
            (broken / file).write_bytes(whole[:kept])
        with pytest.raises(
            InputError, match=r"not a SavedModel that can be read \([^()]*.*\); unpack, copy or export it again"
        ) as caught:
            open_saved_model(broken)
        assert str(broken) in str(caught.value) and len(str(caught.value)) < 500


def test_what_fails_in_another_process_is_one_line_here():
    assert in_another_process(describe_or_fail, "", "good", None)[0] != os.getpid()
    for path, words in (("bad", "is bad"), ("deadly", "a process that runs the network died")):
        with pytest.raises(InputError, match=words):
            in_another_process(describe_or_fail, "", path, None)
