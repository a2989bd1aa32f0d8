"""Points of SIFT that two pictures have in common (rrt/matching/sift.py)."""

import cv2
import numpy as np
from photo_folders import detailed

from rrt.matching.sift import points_in_common, sift_points
from rrt.scenes.flat import PHONES, photograph


def points(pixels):
    return sift_points(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def test_a_print_is_known_whatever_photographs_it_and_others_are_not():
    picture, other = detailed(1, (400, 300)), detailed(2, (400, 300))
    ground = np.full_like(picture, 90)
    for number, phone in enumerate(PHONES.values()):
        seen = photograph(np.random.default_rng(number), picture, ground, phone)
        seen = cv2.resize(cv2.imdecode(np.frombuffer(seen, np.uint8), 1), None, fx=0.6, fy=0.6)
        assert points_in_common(points(seen), points(picture)) >= 10 > points_in_common(points(seen), points(other))


def test_a_stamp_that_two_pictures_bear_is_not_enough():
    pictures = [detailed(seed, (400, 300)) for seed in (3, 4)]
    stamp = detailed(5, (40, 30))
    for picture in pictures:
        picture[20:50, 30:70] = stamp
    small = [points(picture) for picture in pictures]
    assert points_in_common(*small) == 0
    for picture in pictures:
        picture[100:220, 100:260] = cv2.resize(stamp, (160, 120), interpolation=cv2.INTER_CUBIC)
    assert points_in_common(*map(points, pictures)) >= 10


def test_an_empty_picture_has_nothing_in_common_with_any():
    empty, picture = sift_points(np.full((60, 80), 128, np.uint8)), points(detailed(1))
    assert len(empty.points) == 0 and empty.descriptors.shape == (0, 128)
    for pair in ((empty, picture), (picture, empty), (empty, empty)):
        assert points_in_common(*pair) == 0
