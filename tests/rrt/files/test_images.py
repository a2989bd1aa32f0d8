"""Small copies of images: their size, orientation, box, and what they do not tell."""

import io

import numpy as np
import pytest
from photo_folders import draw
from PIL import Image

from rrt.files.images import Unreadable, decode, small_jpeg


def opened(jpeg):
    return Image.open(io.BytesIO(jpeg))


def test_a_small_copy_keeps_the_form_and_drops_the_metadata(tmp_path):
    small = opened(small_jpeg(draw(tmp_path / "a.jpg", 1, (800, 400), orientation=6), 100))
    assert small.format == "JPEG" and small.size == (100, 50) and not small.getexif()


def test_an_image_is_turned_only_where_that_is_asked_for(tmp_path):
    path = draw(tmp_path / "a.jpg", 1, (800, 400), orientation=6)
    assert opened(small_jpeg(path, 100, turned=True)).size == (50, 100)


def test_a_box_is_in_pixels_of_the_whole_image(tmp_path):
    path, box = draw(tmp_path / "a.jpg", 1, (3200, 1600)), (1600, 0, 3200, 1600)
    small = np.asarray(opened(small_jpeg(path, 64, box)), float)
    expected = np.asarray(Image.fromarray(decode(path, box).pixels).resize((64, 64)), float)
    assert small.shape == (64, 64, 3) and np.abs(small - expected).mean() < 3


def test_an_image_smaller_than_asked_for_is_not_enlarged(tmp_path):
    assert opened(small_jpeg(draw(tmp_path / "a.png", 1, (40, 30)), 100)).size == (40, 30)


@pytest.mark.parametrize("make", [small_jpeg, decode])
def test_what_cannot_be_read_is_told_by_its_reason(tmp_path, make):
    more = (64,) if make is small_jpeg else ()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    for path, box, reason in (
        ("none.jpg", None, "no such file"),
        ("text.jpg", None, "not an image"),
        ("folder.jpg", None, "^Is a directory$"),
        ("a.png", (5, 5, 5, 9), "is empty"),
        ("a.png", (9, 5, 5, 9), "less than"),
    ):
        draw(tmp_path / "a.png", 1)
        with pytest.raises(Unreadable, match=reason):
            make(tmp_path / path, *more, box)
