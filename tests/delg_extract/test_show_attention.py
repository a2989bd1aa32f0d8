"""The attention figure: maps and kept features equal what an extraction gives, and the command's drawing and errors."""

import sys

import numpy as np
import pytest
from commands import assert_one_line_error, files_below, run_tool
from PIL import Image

from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Descriptors, Extractor
from delg_extract.extraction.pyramid import level_size
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.model import Delg, normalize_pixels
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import save_weights
from delg_extract.show_attention import EVERY_CELL, AttentionMap, attention_maps, kept, main
from rrt.errors import InputError

pytestmark = pytest.mark.usefixtures("opened_once")

SCALES = (0.35355338, 0.7, 1.0)


@pytest.fixture(scope="module")
def model():
    return Delg("small", seed=3)


@pytest.fixture(scope="module")
def picture():
    return np.kron(
        np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8)
    )


@pytest.fixture(scope="module")
def everything(model, picture):
    return Extractor(DelgNetwork(model), ExtractionSettings(SCALES, max_features=EVERY_CELL, use_global=False))(picture)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, picture):
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(picture).save(folder / "a $1 picture.png")
    Image.fromarray(picture[:, :, 0]).save(folder / "grey.png")
    save_weights(folder / "small.h5", model, score_threshold=0.75)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["show_attention.py", *map(str, arguments)])
        assert main() == 0
        return capsys.readouterr().out

    return run


# ---- what is drawn ---------------------------------------------------------------------------------------------------


def test_the_maps_equal_the_attention_of_the_plain_network(model, picture, everything):
    maps = attention_maps(everything)
    assert [level.scale for level in maps] == pytest.approx(SCALES)
    for level, scale in zip(maps, SCALES):
        size = [level_size(side, scale) for side in picture.shape[:2]]
        plain = (
            model.local(model.block3(model.conv4(tf.image.resize(normalize_pixels(picture)[None], size))))
            .attention[0]
            .numpy()
        )
        assert level.attention.shape == plain.shape
        assert np.allclose(level.attention, plain, rtol=5e-5)
        assert np.allclose(level.y, np.arange(len(level.y)) * 32 / scale) and np.allclose(
            level.x, np.arange(len(level.x)) * 32 / scale
        )


def test_the_kept_features_are_those_of_an_extraction(model, picture, everything):
    threshold = float(np.median(everything.attention))
    for limit in (5, EVERY_CELL):
        asked = ExtractionSettings(SCALES, max_features=limit, score_threshold=threshold, use_global=False)
        expected, found = Extractor(DelgNetwork(model), asked)(picture), kept(everything, limit, threshold)
        for name in ("locations", "descriptors", "scales", "attention"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert len(found.scales) == min(limit, (len(everything.scales) + 1) // 2)


def test_maps_of_shrunk_images_lie_on_the_pixels_of_the_image(model, picture):
    asked = ExtractionSettings((1.0,), max_features=EVERY_CELL, max_image_size=85, use_global=False)
    (level,) = attention_maps(Extractor(DelgNetwork(model), asked)(picture))
    assert np.allclose(level.x, np.arange(len(level.x)) * 64) and level.cell == pytest.approx(64)


def test_upsampling_is_bilinear_between_the_cells_and_constant_beyond():
    level = AttentionMap(
        1.0, np.array([0.0, 32.0]), np.array([0.0, 32.0, 64.0]), np.array([[0, 1, 0], [2, 3, 2]], np.float32)
    )
    over = level.over(64, 96, (64, 96))
    assert over[0, 0] == pytest.approx(0.5 / 32 + 2 * 0.5 / 32, abs=0.01)
    assert over[16, 48] == pytest.approx(0.5 + 2 * 0.5, abs=0.1)
    assert over[63, 32] == pytest.approx(3, abs=0.1) and np.allclose(over[40:, 70:], 2)
    half = level.over(64, 96, (32, 48))
    assert np.allclose(half, over.reshape(32, 2, 48, 2).mean((1, 3)), atol=0.02)


def test_cells_that_a_network_leaves_out_count_as_zero_and_a_single_cell_is_a_map():
    found = Descriptors(
        np.empty(0),
        np.array([[0, 0], [32, 32], [0, 0]], np.float32),
        np.empty((3, 0)),
        np.array([1, 1, 2], np.float32),
        np.array([3, 2, 1], np.float32),
    )
    coarse, fine = attention_maps(found)
    assert fine.attention.tolist() == [[3, 0], [0, 2]] and coarse.attention.tolist() == [[1]]
    assert (coarse.over(9, 9, (4, 5)) == 1).all() and coarse.over(9, 9, (4, 5)).shape == (4, 5)


# ---- the command -----------------------------------------------------------------------------------------------------


def drawn(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_figure_shows_kept_features_and_grows_by_the_maps_of_the_scales(run, folder):
    model = ("--model", folder / "small.h5")
    printed = run(
        folder / "a $1 picture.png",
        *model,
        "--scales",
        *SCALES,
        "--output",
        folder / "many.png",
        "--max_features",
        8,
        "--score_threshold",
        0,
    )
    assert "8 features kept" in printed
    run(folder / "a $1 picture.png", *model, "--scales", 1, "--output", folder / "one.png", "--score_threshold", 0)
    run(folder / "a $1 picture.png", *model, "--scales", 1, "--output", folder / "bare.png", "--score_threshold", 99)
    many, one, bare = (drawn(folder / f"{name}.png") for name in ("many", "one", "bare"))
    assert many.shape[1] == one.shape[1] == 1800 and many.shape[0] > one.shape[0] + 200
    assert one.shape == bare.shape
    changed = np.abs(one - bare).max(axis=2) > 30
    assert changed[96:, 900:].mean() > 0.005 and changed[96:, :720].mean() < 0.001


def test_the_threshold_of_the_weight_file_is_the_default(run, folder, everything):
    printed = run(
        folder / "a $1 picture.png",
        "--model",
        folder / "small.h5",
        "--scales",
        *SCALES,
        "--output",
        folder / "default.png",
    )
    assert f"{(everything.attention >= 0.75).sum()} features kept" in printed
    assert 0 < (everything.attention >= 0.75).sum() < len(everything.attention)


@pytest.mark.parametrize("suffix, start", [(".jpg", b"\xff\xd8"), (".svg", b"<?xml")])
def test_grey_images_work_and_the_suffix_chooses_the_format(run, folder, suffix, start):
    run(folder / "grey.png", "--model", folder / "small.h5", "--scales", 1, 2, "--output", folder / f"grey{suffix}")
    assert (folder / f"grey{suffix}").read_bytes().startswith(start)


def test_wrong_input_is_named_in_one_line_and_nothing_is_written(run, folder, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes((folder / "grey.png").read_bytes()[:60])
    Image.fromarray(np.zeros((5, 300), np.uint8)).save(tmp_path / "narrow.png")
    before = files_below(tmp_path)
    for arguments, words in (
        ((folder / "gone.png",), "gone.png: no such file"),
        ((tmp_path / "empty.png",), "empty.png: not an image"),
        ((tmp_path / "cut.png",), "cut.png"),
        ((tmp_path / "narrow.png",), "narrow.png: a side is shorter than 10 pixels"),
        ((folder / "grey.png", "--model", tmp_path / "none.h5"), "none.h5: no such weight file"),
        ((folder / "grey.png", "--output", tmp_path / "a.txt"), "a.txt: an image of unknown kind"),
        ((folder / "grey.png", "--max_features", 0), "--max_features 0"),
    ):
        with pytest.raises(InputError) as raised:
            run("--model", folder / "small.h5", "--output", tmp_path / "out.png", *arguments)
        assert words in str(raised.value)
        assert files_below(tmp_path) == before, words


def test_the_command_ends_with_one_line_and_status_1(folder):
    assert_one_line_error(
        run_tool("delg_extract/show_attention.py", folder / "grey.png", "--max_image_size", 0), "--max_image_size 0"
    )


def test_the_smallest_image_that_is_not_refused_is_drawn(run, folder):
    for side, works in ((9, False), (10, True), (19, True)):
        Image.fromarray(np.zeros((side, 40), np.uint8)).save(folder / "tiny.png")
        arguments = (
            folder / "tiny.png",
            "--model",
            folder / "small.h5",
            "--scales",
            0.25,
            1,
            "--output",
            folder / "tiny_drawn.png",
        )
        if works:
            run(*arguments)
        else:
            with pytest.raises(InputError, match="tiny.png"):
                run(*arguments)
