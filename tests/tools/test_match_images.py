"""tools/match_images.py: a known warp by the shipped model, and wrong input."""

import re

import cv2
import numpy as np
import pytest
from commands import assert_one_line_error, error_of, run_tool
from PIL import Image
from warped_images import WARP, textured

from rrt.commands import match_images
from rrt.extraction.describer import open_describer
from rrt.files.shipped import shipped
from rrt.network.reranker import Reranker
from rrt.rerankers.shipped import shipped_calibration

pytestmark = pytest.mark.usefixtures("levels_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image, its warp, its warp stored on its side with the EXIF orientation that turns it back, no image."""
    folder = tmp_path_factory.mktemp("images")
    pixels = textured(240, 320)
    warped = cv2.warpAffine(pixels, WARP, (320, 240), borderMode=cv2.BORDER_REFLECT)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "one.png")
    Image.fromarray(warped).save(folder / "warped.png")
    Image.fromarray(np.rot90(warped)).save(folder / "turned.png", exif=exif)
    Image.fromarray(textured(240, 320, seed=9)).save(folder / "other.png")
    Image.fromarray(pixels[:5]).save(folder / "thin.png")
    (folder / "text.png").write_text("no image")
    return folder


def inliers(folder, second, monkeypatch, capsys, *arguments):
    given = [folder / "one.png", folder / second, "--output", folder / "match.png", *arguments]
    monkeypatch.setattr("sys.argv", ["match_images.py", *map(str, given)])
    assert match_images.main() == 0
    printed = capsys.readouterr().out
    assert f"wrote {folder / 'match.png'}" in printed
    return int(printed.split(" inliers of ")[0].split()[-1])


def test_the_probability_of_lite0_is_that_of_a_search_and_other_settings_have_none(folder, monkeypatch, capsys):
    def printed(second, *arguments):
        given = [folder / "one.png", folder / second, "--output", folder / "match.png", *arguments]
        monkeypatch.setattr("sys.argv", ["match_images.py", *map(str, given)])
        match_images.main()
        return re.findall(r"probability (\S+) that", capsys.readouterr().out)

    model, calibration = open_describer("lite0"), shipped_calibration()
    one, other = (model.describe(np.asarray(Image.open(folder / f"{name}.png"))) for name in ("one", "other"))
    reranker = Reranker.from_checkpoint(shipped("late_lite0.safetensors"), "cpu", 200)
    wanted = calibration(reranker.score(one, other))
    assert printed("other.png") == [f"{wanted:.2f}"] and float(printed("warped.png")[0]) > wanted - 0.01
    assert printed("warped.png", "--image_size", 256) == []


def test_the_warp_of_an_image_matches_it_and_another_image_does_not(folder, monkeypatch, capsys):
    matched = inliers(folder, "warped.png", monkeypatch, capsys)
    assert matched >= 30 and inliers(folder, "other.png", monkeypatch, capsys) < matched / 3
    assert Image.open(folder / "match.png").size[0] > 800
    assert inliers(folder, "warped.png", monkeypatch, capsys, "--max_features", 20) <= 20


def test_images_are_turned_upright(folder, monkeypatch, capsys):
    assert inliers(folder, "turned.png", monkeypatch, capsys) == inliers(folder, "warped.png", monkeypatch, capsys)


def test_wrong_input_is_one_line(folder, monkeypatch, capsys):
    for second, arguments, part in (
        ("nowhere.png", (), "nowhere.png: no such file"),
        ("text.png", (), "text.png: not an image"),
        ("thin.png", (), "thin.png: a side is shorter"),
        ("warped.png", ("--model", "onnx:no.onnx"), "no.onnx"),
        ("warped.png", ("--model", "x.h5"), "--model x.h5"),
        ("warped.png", ("--border", "0.7"), "--border 0.7"),
        ("warped.png", ("--max_features", "0"), "max_features=0"),
    ):
        given = [folder / "one.png", folder / second, "--output", folder / "no.png", *arguments]
        assert part in error_of(match_images.main, given, monkeypatch, capsys)
    done = run_tool("tools/match_images.py", folder / "one.png", folder / "one.png", "--output", folder / "match.gif")
    assert_one_line_error(done, "match.gif", ".svg")
    assert not (folder / "no.png").exists()
