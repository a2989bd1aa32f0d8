"""The attention threshold for a number of features an image: equal to a search by brute force, and remembered for a
restart."""

import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delg_extract.extraction.calibration import (
    Calibration,
    calibrate_threshold,
    calibration_guard,
    calibration_sample,
    read_calibration,
    threshold_path,
    write_calibration,
)
from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Extractor, LocalAndGlobal
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.model import Delg
from rrt.errors import InputError


class Listed:
    """A network whose attention of an image is looked up by the image's first pixel."""

    def __init__(self, scores):
        self.scores = [np.sort(np.float32(of_image))[::-1] for of_image in scores]

    def local_and_global(self, images, settings):
        scores = self.scores[images[0, 0, 0, 0]]
        scores = scores[scores >= settings.score_threshold][: settings.max_features]
        n = len(scores)
        return [
            LocalAndGlobal(
                np.zeros((n, 4), np.float32),
                np.ones((n, 2), np.float32),
                np.ones(n, np.float32),
                scores,
                np.ones((1, 2)),
            )
        ]

    @property
    def images(self):
        return [np.full((12, 12, 3), i, np.uint8) for i in range(len(self.scores))]


def kept(network, settings, threshold):
    """How many descriptors of each image remain."""
    settings = replace(settings, score_threshold=threshold)
    return [len(network.local_and_global(picture[None], settings)[0].scores) for picture in network.images]


# Few different values make ties.
ATTENTION = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1.5]), st.floats(0, 200, width=32))
SCORES = st.lists(st.lists(ATTENTION, max_size=12), min_size=1, max_size=5)


@given(SCORES, st.integers(1, 10), st.integers(1, 8), st.floats(0, 1000))
def test_the_threshold_is_the_largest_that_keeps_as_many_as_asked(scores, wanted, limit, other_threshold):
    network, settings = Listed(scores), ExtractionSettings(max_features=limit, score_threshold=other_threshold)
    most = np.mean(kept(network, settings, 0.0))
    if wanted > most:
        with pytest.raises(InputError, match=f"ask for {int(most)} or fewer"):
            calibrate_threshold(network, settings, network.images, wanted)
        return
    found = calibrate_threshold(network, settings, network.images, wanted)
    # The mean changes only at the values themselves: trying each of them tries every threshold.
    candidates = [float(value) for of_image in network.scores for value in of_image]
    best = max(value for value in candidates if np.mean(kept(network, settings, value)) >= wanted)
    counts = kept(network, settings, found.threshold)
    assert counts == kept(network, settings, best) and found.threshold <= best
    assert found == Calibration(found.threshold, np.mean(counts), min(counts), max(counts), len(scores))


def test_the_threshold_lies_in_the_middle_of_the_gap():
    network = Listed([[8, 6, 4, 1], [7, 3, 2]])
    assert calibrate_threshold(network, ExtractionSettings(), network.images, 2).threshold == 3.5
    assert calibrate_threshold(network, ExtractionSettings(), network.images, 3).threshold == 1.5
    # What an image has beyond its limit does not count: here 8, 6 and 7, 3.
    found = calibrate_threshold(network, ExtractionSettings(max_features=2), network.images, 2)
    assert found.threshold == 1.5 and found.kept_mean == 2


def test_equal_attention_is_kept_together():
    network = Listed([[5, 2, 2, 2], [4]])
    found = calibrate_threshold(network, ExtractionSettings(), network.images, 2)
    assert (found.threshold, found.kept_mean, found.kept_fewest, found.kept_most) == (1.0, 2.5, 1, 4)


def test_neighbouring_floats_are_told_apart():
    low = np.float32(454.6)
    network = Listed([[np.nextafter(low, np.float32(1000)), low]])
    assert calibrate_threshold(network, ExtractionSettings(), network.images, 1).kept_mean == 1


def test_an_impossible_number_is_refused_with_the_most_that_is_possible():
    network = Listed([[1, 2, 3], [4]])
    with pytest.raises(InputError, match="2 images have 2.0 on average, at most 1000 each; ask for 2 or fewer"):
        calibrate_threshold(network, ExtractionSettings(), network.images, 3)
    with pytest.raises(InputError, match="have 1.0 on average, at most 1 each; ask for 1 or fewer"):
        calibrate_threshold(network, ExtractionSettings(max_features=1), network.images, 2)
    with pytest.raises(InputError, match="give at least 1"):
        calibrate_threshold(network, ExtractionSettings(), network.images, 0)
    with pytest.raises(InputError, match="no local descriptors are extracted"):
        calibrate_threshold(network, ExtractionSettings(use_local=False), network.images, 1)


def test_images_too_small_for_extraction_do_not_count():
    network = Listed([[1, 2, 3], [4, 5, 6]])
    small, whole = np.zeros((9, 50, 3), np.uint8), network.images
    found, expected = (
        calibrate_threshold(network, ExtractionSettings(), pictures, 2) for pictures in ([small, *whole], whole)
    )
    assert found == expected
    for pictures in ([], [small]):
        with pytest.raises(InputError, match="no image to find the threshold"):
            calibrate_threshold(network, ExtractionSettings(), pictures, 2)


@pytest.mark.parametrize("iou, wanted", [(1.0, 20), (0.6, 8)])
def test_an_extraction_with_the_threshold_keeps_the_number_asked_for(iou, wanted):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (height, 90, 3), dtype=np.uint8) for height in (80, 120, 120, 160)]
    settings = ExtractionSettings(
        scales=(0.7, 1.0, 1.4), global_scales=(1,), max_features=30, max_image_size=128, iou_threshold=iou
    )
    extractor = Extractor(DelgNetwork(Delg("small", seed=1, block3_strides=False)), settings)
    found = calibrate_threshold(
        extractor.network, settings, (extractor.resize(picture).pixels for picture in pictures), wanted
    )
    extractor.settings = replace(settings, score_threshold=found.threshold)
    counts = [len(extractor(picture).attention) for picture in pictures]
    assert np.mean(counts) == found.kept_mean == wanted and (min(counts), max(counts)) == (
        found.kept_fewest,
        found.kept_most,
    )
    assert max(counts) <= 30


class TestSample:
    NAMES = [f"jpg/{i}.jpg" for i in range(200)]

    def test_it_does_not_depend_on_order_or_repetition(self):
        shuffled = random.Random(0).sample(self.NAMES, 200)
        chosen = calibration_sample(self.NAMES, 30)
        assert chosen == calibration_sample(shuffled + shuffled[:50], 30) == sorted(chosen)
        assert len(set(chosen)) == 30 and set(chosen) < set(self.NAMES)

    def test_another_seed_draws_another_sample_and_small_lists_are_taken_whole(self):
        assert calibration_sample(self.NAMES, 30, seed=1) != calibration_sample(self.NAMES, 30)
        assert calibration_sample(self.NAMES, 1000) == sorted(self.NAMES)

    def test_a_new_image_displaces_one_at_most(self):
        before = set(calibration_sample(self.NAMES, 30))
        for i in range(50):
            assert len(before - set(calibration_sample([*self.NAMES, f"new{i}.jpg"], 30))) <= 1

    def test_it_is_spread_over_the_list(self):
        places = [self.NAMES.index(name) for name in calibration_sample(self.NAMES, 60)]
        assert min(np.histogram(places, 4, (0, 200))[0]) > 5

    def test_no_images_are_refused(self):
        with pytest.raises(InputError, match="at least 1"):
            calibration_sample(self.NAMES, 0)


GUARD = calibration_guard("ab12", ExtractionSettings(), 500, ["a.jpg", "b.jpg"])
FOUND = Calibration(0.3337281346321106, 500.25, 3, 1000, 2)


class TestRemembering:
    def test_a_restart_reads_the_same_threshold_to_the_last_bit(self, tmp_path):
        store = tmp_path / "data/delg_x.h5"
        assert read_calibration(store, GUARD) is None
        write_calibration(store, FOUND, GUARD)
        assert [path.name for path in store.parent.iterdir()] == ["delg_x.h5.threshold.json"]
        assert read_calibration(store, GUARD) == FOUND

    def test_the_threshold_of_the_settings_is_no_part_of_the_guard(self):
        assert calibration_guard("ab12", ExtractionSettings(score_threshold=9.0), 500, ["a.jpg", "b.jpg"]) == GUARD

    @pytest.mark.parametrize(
        "change, what",
        [
            ({"model_sha256": "cd"}, "model_sha256 = 'ab12', this run has 'cd'"),
            ({"settings": ExtractionSettings(max_features=9)}, "settings.max_features = 1000, this run has 9"),
            ({"settings": ExtractionSettings(scales=(1.0,))}, "settings.scales"),
            ({"features_per_image": 400}, "features_per_image = 500, this run has 400"),
            ({"sample": ["a.jpg"]}, "num_pictures = 2, this run has 1"),
            ({"sample": ["a.jpg", "c.jpg"]}, "pictures_sha256"),
            ({"precision": "bfloat16"}, "precision = '(absent)', this run has 'bfloat16'"),
        ],
    )
    def test_another_model_setting_or_sample_is_refused(self, tmp_path, change, what):
        write_calibration(tmp_path / "x.h5", FOUND, GUARD)
        asked = {
            "model_sha256": "ab12",
            "settings": ExtractionSettings(),
            "features_per_image": 500,
            "sample": ["a.jpg", "b.jpg"],
        }
        with pytest.raises(InputError) as error:
            read_calibration(tmp_path / "x.h5", calibration_guard(**asked | change))
        assert str(error.value).startswith(str(threshold_path(tmp_path / "x.h5"))) and what in str(error.value)

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "3",
            "{}",
            json.dumps({"calibration": asdict(FOUND)}),
            json.dumps({"calibration": {}, "guard": GUARD}),
            json.dumps({"calibration": {**asdict(FOUND), "threshold": "high"}, "guard": GUARD}),
            json.dumps({"calibration": {**asdict(FOUND), "threshold": float("nan")}, "guard": GUARD}),
            json.dumps({"calibration": asdict(FOUND), "guard": 5}),
            json.dumps({"calibration": [1, 2, 3, 4, 5], "guard": GUARD}),
        ],
    )
    def test_a_damaged_file_is_refused_in_one_line(self, tmp_path, content):
        path = threshold_path(tmp_path / "x.h5")
        path.write_text(content)
        with pytest.raises(InputError, match="delete") as error:
            read_calibration(tmp_path / "x.h5", GUARD)
        assert str(error.value).startswith(str(path))
