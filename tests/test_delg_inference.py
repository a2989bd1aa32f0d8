"""Seven-scale inference against the reference's numbers (golden/delg): sizes, boxes, features, post-processing."""
import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from delg_golden import GOLDEN, rule_model  # noqa: E402
from delg_extract.inference import Extractor, level_size, receptive_boxes, resize_for_extraction  # noqa: E402

META = json.loads((GOLDEN / "seed1/infer_meta.json").read_text())
IMAGES = np.load(GOLDEN / "seed1/images.npz")
CASES = [name for name, case in META["savedmodel_cases"].items() if case["iou"] == 1.0]


@pytest.fixture(scope="module")
def model():
    return rule_model()


def by_box_and_scale(boxes, scales):
    """Neighbouring scores may swap between two float32 builds, so rows are paired by place and scale."""
    return np.lexsort((*np.round(boxes, 1).T, np.round(scales, 4)))


@pytest.mark.parametrize("case", CASES)
def test_local_and_global_call_equals_the_exported_reference(model, case):
    settings = META["savedmodel_cases"][case]
    golden = {k.split("/")[1]: v for k, v in np.load(GOLDEN / "seed1/savedmodel_local_global.npz").items() if k.startswith(case + "/")}
    extractor = Extractor(model, settings["scales"], settings["global_scales_ind"], settings["max_feature_num"], settings["threshold"])
    out = extractor.local_and_global(IMAGES[settings["image"]])
    assert len(out.scores) == len(golden["scores"])
    assert (np.diff(out.scores) <= 0).all()
    assert np.abs(out.global_descriptors - golden["global_descriptors"]).max() < 2e-5 * np.abs(golden["global_descriptors"]).max()
    if not len(out.scores):
        return
    ours, theirs = by_box_and_scale(out.boxes, out.scales), by_box_and_scale(golden["boxes"], golden["scales"])
    assert np.abs(out.boxes[ours] - golden["boxes"][theirs]).max() < 1e-3
    assert np.allclose(out.scales[ours], golden["scales"][theirs], atol=0, rtol=1e-6)
    assert np.allclose(out.scores[ours], golden["scores"][theirs, 0], rtol=5e-5, atol=0)
    assert np.abs(out.features[ours] - golden["features"][theirs]).max() < 2e-5 * np.abs(golden["features"]).max()


@pytest.mark.parametrize("case", sorted(META["extractor_cases"]))
def test_extractor_equals_the_reference_after_post_processing(model, case):
    settings = META["extractor_cases"][case]
    golden = {k.split("/")[1]: v for k, v in np.load(GOLDEN / "seed1/extractor.npz").items() if k.startswith(case + "/")}
    image = IMAGES[settings["image"].split("[")[0]]
    if "bbx_rounded" in settings:
        x1, y1, x2, y2 = settings["bbx_rounded"]
        image = image[y1:y2, x1:x2]
    image = image[:settings["input_hw"][0], :settings["input_hw"][1]]
    extractor = Extractor(model, max_features=settings["max_feature_num"], score_threshold=settings["score_threshold"],
                          max_image_size=settings["max_image_size"], min_image_size=settings["min_image_size"],
                          square_images=settings["use_square_images"], resized_coordinates=settings["use_resized_coordinates"])
    out = extractor(image, settings["resize_factor"])
    if out is None:
        assert golden["global_descriptor"].size == 0
        return
    assert np.abs(out.global_descriptor - golden["global_descriptor"]).max() < 1e-5
    ours = np.lexsort((*np.round(out.locations, 1).T, np.round(out.scales, 4)))
    theirs = np.lexsort((*np.round(golden["locations"], 1).T, np.round(golden["scales"], 4)))
    assert np.abs(out.locations[ours] - golden["locations"][theirs]).max() < 1e-3
    assert np.abs(out.descriptors[ours] - golden["descriptors"][theirs]).max() < 1e-5
    assert np.allclose(out.attention[ours], golden["attention"][theirs], rtol=5e-5, atol=0)


def test_sizes_of_resized_pictures_equal_the_reference():
    for case in json.loads((GOLDEN / "shared/resize_vectors.json").read_text())["cases"]:
        if "out_height" not in case:
            continue
        picture = np.zeros((case["height"], case["width"], 3), np.uint8)
        resized, factors = resize_for_extraction(picture, case["max_image_size"], case["min_image_size"], case["resize_factor"],
                                                 case["use_square_images"])
        assert resized.shape[:2] == (case["out_height"], case["out_width"])
        assert factors == pytest.approx([case["scale_factor_h"], case["scale_factor_w"]])


def test_pyramid_sizes_and_receptive_boxes_equal_the_reference():
    for case in json.loads((GOLDEN / "shared/pyramid_sizes.json").read_text()):
        assert level_size(case["height"], case["scale"]) == case["out_height"]
        assert level_size(case["width"], case["scale"]) == case["out_width"]
    for case in json.loads((GOLDEN / "shared/receptive_boxes.json").read_text()):
        ours = receptive_boxes(case["height"], case["width"], case["stride"], case["rf"], case["padding"])
        assert np.allclose(ours / case.get("divide_by_scale", 1.0), case["boxes"], rtol=1e-6)


def test_conv5_at_the_other_scales_changes_nothing(model):
    image = IMAGES["a"]
    some = Extractor(model).local_and_global(image)
    every = Extractor(model, global_scales=range(7)).local_and_global(image)
    assert np.array_equal(some.features, every.features)
    assert np.array_equal(some.global_descriptors, every.global_descriptors[3:6])
