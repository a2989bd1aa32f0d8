"""Images described and compared in one call, whatever form they have."""

import numpy as np
import pytest
import torch
from photo_folders import draw
from PIL import Image

import rrt
from rrt.calibration import Calibration
from rrt.errors import InputError
from rrt.extraction.callable import CallableDescriber
from rrt.extraction.describer import open_describer
from rrt.formats.image_jobs import read_query
from rrt.rerankers import make_method
from rrt.rerankers.shipped import SETTINGS, probability_of_pair

pytestmark = pytest.mark.usefixtures("levels_once")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two of one scene and one of another, the first turned by EXIF."""
    folder = tmp_path_factory.mktemp("photos")
    return [draw(folder / f"{i}.png", i, (320, 240), orientation=6 * (i == 0), scene=i // 2) for i in range(3)]


def test_a_file_an_image_of_pillow_and_an_array_are_described_the_same(photos):
    expected = open_describer("lite0").describe(read_query(photos[0]))
    with Image.open(photos[0]) as image:
        forms = [photos[0], str(photos[0]), image, read_query(photos[0])]
        records = rrt.describe(forms)
    assert [record.name for record in records] == ["0.png", "0.png", "image", "image"]
    for record in records:
        np.testing.assert_array_equal(record.global_, expected.global_)
        np.testing.assert_array_equal(record.descriptors, expected.descriptors)
    assert rrt.describe(photos[0]).size == (240, 320)
    assert repr(records[0]) == f"<'0.png', 240 x 320, global 512, {len(expected.descriptors)} local of 128>"


def test_a_list_is_described_as_one_after_the_other(photos, levels_once, monkeypatch):
    monkeypatch.setattr("rrt.extraction.images.usable_cores", lambda: 3)
    levels_once.clear()
    together = rrt.describe(iter(photos * 2))
    levels_once.clear()
    for record, path in zip(together, photos * 2, strict=True):
        alone = rrt.describe(path)
        assert record.name == alone.name
        np.testing.assert_array_equal(record.global_, alone.global_)
        np.testing.assert_array_equal(record.descriptors, alone.descriptors)
    assert rrt.describe([]) == []
    with pytest.raises(InputError, match=r"absent.png"):
        rrt.describe([*photos, "absent.png"])


def test_settings_and_a_describer_of_ones_own_are_taken(photos):
    assert len(rrt.describe(photos[1], max_features=20).attention) == 20
    assert set(rrt.describe(photos[1], scales=[1.0]).scales) == {1}
    assert len(rrt.describe(photos[1], open_describer("lite0", max_features=10)).attention) == 10


def test_a_grey_image_is_that_image_in_grey(photos):
    grey = np.asarray(Image.open(photos[1]).convert("L"))
    np.testing.assert_array_equal(rrt.describe(grey).global_, rrt.describe(np.dstack([grey] * 3)).global_)


def test_two_images_of_one_scene_score_higher_than_two_of_others(photos):
    same, other = rrt.match(photos[1], photos[1]), rrt.match(photos[1], Image.open(photos[2]))
    assert same.score > other.score and same.probability > 0.99 and same.probability >= other.probability
    assert same.inliers > 10 and same.inliers > other.inliers
    assert repr(same).startswith("<1.png and 1.png: score ") and repr(same).endswith(f"{same.inliers} inliers>")


def test_a_match_is_drawn(photos, tmp_path):
    drawn = rrt.match(photos[1], photos[1]).draw(tmp_path / "match.png")
    with Image.open(tmp_path / "match.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(drawn))
    assert drawn.width > drawn.height > 200


def test_images_of_another_model_are_matched_plainly(photos):
    colours = CallableDescriber(lambda image: image[::16, ::16].astype(np.float32) + 1, "colours")
    records = rrt.describe(photos[1:], colours)
    found = rrt.match(*photos[1:], model=colours)
    assert found.probability is None
    assert found.score == pytest.approx(make_method("maxsim", SETTINGS["maxsim"]).score(*records))


def test_another_reranker_scores(photos):
    found = rrt.match(photos[1], photos[2], reranker=rrt.rerankers.make_method("geometric", {"device": "cpu"}))
    assert found.score >= 0 and found.score == int(found.score) and found.probability is None


def test_a_probability_is_told_of_calibrated_scores_alone(photos):
    records = rrt.describe(photos[1:])
    default = rrt.match(*photos[1:])
    assert default.probability == probability_of_pair(*records, open_describer("lite0").identity)
    assert rrt.match(*photos[1:], model=open_describer("lite0", image_size=257)).probability is None
    torch.manual_seed(0)
    size = {"num_global_features": 512, "dim_feedforward": 16, "num_encoder_layers": 1}
    network = rrt.Reranker(rrt.RRT(**size), device="cpu")
    assert rrt.match(*photos[1:], reranker=network).probability is None
    scored = network.scored_as()
    fitted = Calibration("platt", 2.0, 0.5, method=[scored]).as_dict()
    network = rrt.Reranker(network.model, device="cpu", recorded={"calibrations": [fitted]})
    found = rrt.match(*photos[1:], reranker=network)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-2 * found.score - 0.5)))


@pytest.mark.parametrize(
    "image, said",
    [
        ("absent.jpg", "absent.jpg"),
        (np.zeros((4, 4, 3), np.uint8), "image: .*give a larger image"),
        (np.zeros((50, 50, 3), np.float32), "float32 is no image; give uint8"),
        (np.zeros((50, 50, 4), np.uint8), "is no image"),
        (np.zeros((0, 50, 3), np.uint8), "holds no pixels"),
    ],
)
def test_what_is_no_image_is_one_line(image, said):
    with pytest.raises(InputError, match=said):
        rrt.describe(image)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(InputError, match="a.jpg: .*give a photograph"):
        rrt.match(tmp_path / "a.jpg", tmp_path / "a.jpg")
