"""Photographs of flat things (rrt/scenes/flat.py)."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from rrt.errors import InputError
from rrt.formats.lists import write_image_list
from rrt.formats.revisited import load_revisited_set
from rrt.scenes.flat import PHONES, FlatSettings, draw_poster, make_flat, photograph, place
from rrt.scenes.photo_views import read_photograph

SMALL = FlatSettings(objects=2, others=1, side=72)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        for name, phone in PHONES.items():
            patched.setitem(PHONES, name, replace(phone, side=96))
        yield make_flat(tmp_path_factory.mktemp("flat") / "out", SMALL, num_workers=1)


def test_every_object_is_photographed_by_each_phone_and_is_right_for_it(drawn):
    images = load_revisited_set(drawn / "test_query.txt", drawn / "test_gallery.txt", drawn / "gnd_flat.pkl")
    assert len(images.gallery) == 3 and len(images.query) == 2 * len(PHONES)
    for name, label, entry in zip(images.query.names, images.query.labels, images.truth.gnd):
        assert entry["easy"].tolist() == [label] and f"_{label:05d}_" in name
        assert max(read_photograph(drawn / name).shape) == 96
    assert len({(drawn / name).read_bytes() for name in images.query.names + images.gallery.names}) == 11


def test_what_is_there_is_kept_and_other_settings_are_refused(drawn):
    files = sorted((drawn / "jpg").iterdir())
    before = [file.read_bytes() for file in files]
    files[0].unlink()
    make_flat(drawn, SMALL, num_workers=1)
    assert [file.read_bytes() for file in files] == before
    with pytest.raises(InputError, match="seed"):
        make_flat(drawn, replace(SMALL, seed=1), num_workers=1)


def test_pictures_of_a_list_are_the_objects(tmp_path):
    sizes = [(80, 60), (60, 80), (90, 90)]
    for number, (width, height) in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), draw_poster(np.random.default_rng(number), 90)[:height, :width])
    names = [f"{number}.png" for number in range(3)]
    write_image_list(tmp_path / "train.txt", names, [7, 8, 7], sizes)
    out = make_flat(tmp_path / "out", replace(SMALL, objects=1, others=2), tmp_path / "train.txt", num_workers=1)
    order = np.random.default_rng(SMALL.seed).permutation(3).tolist()
    alike = [place for place, image in enumerate(order) if place and {image, order[0]} == {0, 2}]
    for truth, ignored in (("gnd_flat", []), ("gnd_flat_places", alike)):
        lists = load_revisited_set(out / "test_query.txt", out / "test_gallery.txt", out / f"{truth}.pkl")
        assert [entry["junk"].tolist() for entry in lists.truth.gnd] == [ignored] * len(PHONES)
    longest = [max(read_photograph(out / "jpg" / f"picture_{number:05d}.jpg").shape) for number in range(3)]
    assert longest == [72, 72, 72]
    with pytest.raises(InputError, match="3 images, 4 are asked for"):
        make_flat(tmp_path / "more", replace(SMALL, others=2), tmp_path / "train.txt")


def test_the_object_lies_where_its_homography_says():
    rng = np.random.default_rng(0)
    for _ in range(20):
        to_frame = place(rng, (60, 80), (120, 160), 0.1)
        corners = cv2.perspectiveTransform(np.array([[(0, 0), (60, 0), (60, 80), (0, 80)]], np.float32), to_frame)[0]
        area = cv2.contourArea(corners)
        assert cv2.isContourConvex(corners) and 0.1 < area / (120 * 160) < 0.9
        assert (corners > -25).all() and (corners < (145, 185)).all()
    plain = replace(PHONES["clear"], side=160, blur=0.3, noise=0, tone=0.0, quality=95)
    red, grey = np.full((80, 60, 3), (0, 0, 255), np.uint8), np.full((80, 80, 3), 128, np.uint8)
    seen = cv2.imdecode(np.frombuffer(photograph(np.random.default_rng(1), red, grey, plain), np.uint8), 1)
    inside = cv2.warpPerspective(
        np.full((80, 60), 255, np.uint8), place(np.random.default_rng(1), (60, 80), (120, 160), plain.tilt), (120, 160)
    )
    assert seen.shape == (160, 120, 3)
    assert seen[inside > 250][:, 2].mean() > 240 and seen[inside < 5][:, 2].mean() < 140


@pytest.mark.parametrize("change", [{"objects": 0}, {"others": -1}, {"side": 20}])
def test_what_cannot_be_drawn_is_refused(tmp_path, change):
    with pytest.raises(InputError, match=f"flat: {next(iter(change))} is"):
        make_flat(tmp_path / "out", replace(SMALL, **change))
