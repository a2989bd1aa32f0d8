"""Pictures are told to be changed copies of each other, with what was changed, and others are not."""

import cv2
import numpy as np
import pytest
from photo_folders import detailed

from rrt.matching.copies import (
    CROPPED,
    FRAMED,
    GREY,
    MIRRORED,
    RESIZED,
    RETOUCHED,
    SAVED,
    SIDE,
    TONES,
    TURNED,
    UNFRAMED,
    WIDER,
    Look,
    compare,
    overlay,
)
from rrt.matching.matches import nearest
from tools.benchmarks.duplicates import CHANGES


def look(pixels):
    """As the index makes small pictures."""
    height, width = pixels.shape[:2]
    scale = min(1, SIDE / max(height, width))
    small = cv2.resize(pixels, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_AREA)
    return Look(small, (width, height))


def changed(kind, pixels):
    return CHANGES[kind](pixels, np.random.default_rng(5))


@pytest.mark.parametrize(
    "kind, change",
    [
        ("saved anew", SAVED),
        ("half the size", RESIZED),
        ("cropped", CROPPED),
        ("mirrored", MIRRORED),
        ("retouched", RETOUCHED),
        ("lighter or darker", TONES),
        ("grey", GREY),
        ("framed", FRAMED),
        ("written on", RETOUCHED),
        ("turned", TURNED),
    ],
)
def test_each_change_is_named(kind, change):
    pixels = detailed(1)
    found = compare(look(pixels), look(changed(kind, pixels)))
    assert found is not None and change in found and len(found) <= 2, found


def test_the_other_way_round_it_is_what_undoes_it():
    pixels = detailed(2)
    assert compare(look(changed("cropped", pixels)), look(pixels)) == (WIDER,)
    assert compare(look(changed("framed", pixels)), look(pixels)) == (UNFRAMED,)


def test_a_picture_stretched_in_one_direction_is_a_copy():
    pixels = detailed(3)
    for size in ((300, 300), (200, 240), (320, 150)):
        assert compare(look(pixels), look(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))) == (RESIZED,)


def test_changes_add_up():
    pixels = detailed(3)
    for first, second, named in (("mirrored", "cropped", {MIRRORED, CROPPED}), ("grey", "turned", {GREY, TURNED})):
        found = compare(look(pixels), look(changed(second, changed(first, pixels))))
        assert found is not None and named <= {*found}


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_picture_on_its_side_is_a_copy(degrees):
    pixels = detailed(4)
    found = compare(look(pixels), look(np.ascontiguousarray(np.rot90(pixels, degrees // 90))))
    assert found == (TURNED,)


def test_other_pictures_and_another_view_of_the_same_things_are_no_copies():
    near, far = detailed(5), detailed(6)
    assert compare(look(near), look(far)) is None
    # A step aside: what is near moves more than what is far.
    y, x = np.mgrid[:240, :320].astype(np.float32)
    for size, part in ((6, 25), (6, 50), (3, 60)):
        other = cv2.remap(near, x + size * np.sin(y / part), y, cv2.INTER_LINEAR)
        assert compare(look(near), look(other)) is None


def test_pictures_without_details_are_no_copies_of_each_other():
    plain, gradient = np.full((240, 320, 3), 90, np.uint8), np.tile(np.linspace(0, 255, 320), (240, 1))
    gradient = np.repeat(gradient.astype(np.uint8)[..., None], 3, axis=2)
    for first in (plain, gradient):
        assert compare(look(first), look(first + 3)) is None
    assert compare(look(plain), look(detailed(7))) is None


def test_mirrored_descriptors_are_those_of_the_mirrored_picture():
    pixels = cv2.resize(detailed(8), (256, 192))
    fast, slow = Look(pixels, (256, 192)).mirrored, Look(np.ascontiguousarray(pixels[:, ::-1]), (256, 192))
    found = nearest(fast.features[1], slow.features[1])
    near = np.abs(fast.features[0] - slow.features[0][found.indices]).max(1) < 0.1
    assert near.mean() > 0.9 and (found.distances[near] < 0.05).mean() > 0.9
    np.testing.assert_array_equal(fast.grey, slow.grey)


def test_an_overlay_is_the_same_in_both_directions():
    pixels = detailed(9)
    first, second = look(pixels), look(pixels[40:200, 60:300])
    scale = first.grey.shape[1] / 320
    forth = np.array([[1 / scale, 0, -60], [0, 1 / scale, -40]])
    one, two = overlay(first, second, forth), overlay(second, first, cv2.invertAffineTransform(forth))
    assert one.is_copy and two.is_copy and one.blocks == two.blocks
    assert (one.first, one.second) == pytest.approx((two.second, two.first), abs=0.01)
    assert one.first == pytest.approx(0.5, abs=0.02) and one.second > 0.98
