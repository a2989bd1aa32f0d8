"""How images of an index are described: options of the models, what a manifest keeps, single images."""

import argparse

import pytest
from photo_folders import draw

from rrt.errors import InputError
from rrt.photo_index.delg import DelgDescriber
from rrt.photo_index.extraction import (
    add_extraction_options,
    describe_extraction,
    flags_of,
    is_shipped,
    merged_flags,
    open_describer,
)


def given(*words):
    parser = argparse.ArgumentParser()
    add_extraction_options(parser)
    return flags_of(parser.parse_args(words))


def test_given_options_replace_known_ones():
    known = [["--model", "/a"], ["--max_features", "10"], ["--no-block3_strides"]]
    given = [["--block3_strides"], ["--model", "/b"]]
    assert merged_flags(known, given) == [["--max_features", "10"], *given]
    args = argparse.ArgumentParser()
    add_extraction_options(args)
    args = args.parse_args([])
    assert flags_of(args) == []
    vars(args).update(scales=[0.5, 1.0], normalize_scales=False, global_scales=[])
    assert flags_of(args) == [["--scales", "0.5", "1.0"], ["--global_scales"], ["--no-normalize_scales"]]
    args.use_local = False
    with pytest.raises(InputError, match="--no-use_local: search needs"):
        flags_of(args)


def test_models_keep_their_names_and_files_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").touch()
    for model, kept in (
        ("lite0", "lite0"),
        ("onnx:a.onnx", f"onnx:{tmp_path}/a.onnx"),
        ("transformers:owner/name", "transformers:owner/name"),
        ("delg.h5", f"{tmp_path}/delg.h5"),
    ):
        assert given("--model", model) == [["--model", kept]]
    assert is_shipped([]) and is_shipped(given("--model", "lite0", "--image_size", "320"))
    for words in (("--model", "delg.h5"), ("--preset", "r50_gldv2"), ("--model", "onnx:a.onnx")):
        assert not is_shipped(given(*words))


def test_options_of_other_models_are_refused():
    for words, part in (
        (("--pca_dim", "3"), "--pca_dim: an option of DELG models"),
        (("--no-block3_strides",), "--no-block3_strides: an option of DELG models"),
        (("--model", "x.h5", "--image_size", "320"), "--image_size: not an option of DELG"),
        (("--image_size", "0"), "image_size=0"),
        (("--model", "onnx:no.onnx"), "no.onnx"),
    ):
        with pytest.raises(InputError, match=part):
            describe_extraction(given(*words))


def test_settings_are_kept_with_the_model(tmp_path):
    kept = describe_extraction(given("--image_size", "320", "--scales", "1", "--max_features", "7"))
    assert kept["settings"]["image_size"] == 320 and kept["settings"]["exif_rotation"] is True
    describer = open_describer(tmp_path, kept)
    record = describer.describe(draw(tmp_path / "a.png", 1, (320, 240)))
    assert len(record.attention) == 7 and set(record.scales) == {1}


def test_single_images_are_upright_and_a_box_is_an_image_of_its_own(tmp_path):
    describer = open_describer(tmp_path, describe_extraction([]))
    assert describer.describe(draw(tmp_path / "a.png", 1, (320, 240), orientation=6)).size == (240, 320)
    assert describer.describe(tmp_path / "a.png", (10, 20, 110, 310)).size == (100, 290)
    for box, part in (
        ((500, 0, 600, 50), r"^the box 500,0,600,50 \(x1,y1,x2,y2\) goes beyond the image of 240 x 320 pixels"),
        ((10, 20, 110, 400), "^the box 10,20,110,400 .* goes beyond the image"),
        ((0, 0, 5, 90), "^a side is shorter"),
    ):
        with pytest.raises(InputError, match=part):
            describer.describe(tmp_path / "a.png", box)
    with pytest.raises(InputError, match="^no such file$"):
        describer.describe(tmp_path / "b.png")


def test_an_index_of_another_model_is_refused_in_one_line(tmp_path):
    kept = describe_extraction([])
    describer = open_describer(tmp_path / "i", kept | {"model_sha256": "0" * 64})
    with pytest.raises(InputError, match=r"/i: its photographs are described by the model of SHA-256 0{12}\.\.\."):
        describer.start()
    describer = open_describer(tmp_path / "i", kept | {"settings": kept["settings"] | {"image_size": 7}})
    with pytest.raises(InputError, match="described with image_size = 7"):
        describer.start()
    assert isinstance(open_describer(tmp_path, {"flags": [["--model", "/x.h5"]]}), DelgDescriber)
