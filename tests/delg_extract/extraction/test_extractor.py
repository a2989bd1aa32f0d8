"""Seven-scale inference against the reference's numbers (golden/delg): sizes, boxes, features, post-processing."""

import json

import numpy as np
import pytest
from delg_exports import plain_level, tiny_backbone, tiny_model
from delg_golden import GOLDEN, assert_equals_golden, by_box_and_scale, rule_model, saved_model_case

from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Extractor
from delg_extract.extraction.parts import to_record
from delg_extract.extraction.pyramid import SCALES, level_size, receptive_boxes, resize_for_extraction
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.model import normalize_pixels
from delg_extract.network.tensorflow import tf
from rrt.formats.delf import read_datum, read_features
from rrt.formats.image_jobs import Job, ReadImage
from rrt.store.export import export_delg
from rrt.store.writer import write_store

META = json.loads((GOLDEN / "seed1/infer_meta.json").read_text())
IMAGES = np.load(GOLDEN / "seed1/images.npz")


@pytest.fixture(scope="module")
def model():
    return rule_model()


@pytest.fixture(scope="module")
def network(model):
    """It remembers what every image gave at every scale: most cases differ in what is chosen from that."""
    network = DelgNetwork(model)
    for name in ("_local", "_both", "_global"):
        setattr(network, name, remembering(getattr(network, name)))
    return network


def remembering(level):
    known = {}

    def call(images, size):
        key = images.numpy().tobytes(), *images.shape, *size.numpy()
        if key not in known:
            known[key] = level(images, size)
        return known[key]

    return call


@pytest.mark.parametrize("case", sorted(META["savedmodel_cases"]))
def test_local_and_global_call_equals_the_exported_reference(network, case):
    settings, golden = saved_model_case(case)
    asked = ExtractionSettings(
        scales=tuple(settings["scales"]),
        global_scales=tuple(settings["global_scales_ind"]),
        max_features=settings["max_feature_num"],
        score_threshold=settings["threshold"],
        iou_threshold=settings["iou"],
    )
    assert_equals_golden(network.local_and_global(IMAGES[settings["image"]][None], asked)[0], golden)


@pytest.mark.parametrize("case", sorted(META["extractor_cases"]))
def test_extractor_equals_the_reference_after_post_processing(network, case):
    settings = META["extractor_cases"][case]
    golden = {
        k.split("/")[1]: v for k, v in np.load(GOLDEN / "seed1/extractor.npz").items() if k.startswith(case + "/")
    }
    image = IMAGES[settings["image"].split("[")[0]]
    if "bbx_rounded" in settings:
        x1, y1, x2, y2 = settings["bbx_rounded"]
        image = image[y1:y2, x1:x2]
    image = image[: settings["input_hw"][0], : settings["input_hw"][1]]
    asked = ExtractionSettings(
        max_features=settings["max_feature_num"],
        score_threshold=settings["score_threshold"],
        max_image_size=settings["max_image_size"],
        min_image_size=settings["min_image_size"],
        square_images=settings["use_square_images"],
        resized_coordinates=settings["use_resized_coordinates"],
    )
    out = Extractor(network, asked)(image, settings["resize_factor"])
    if out is None:
        assert golden["global_descriptor"].size == 0
        return
    assert np.abs(out.global_descriptor - golden["global_descriptor"]).max() < 1e-5
    ours = np.lexsort((*np.round(out.locations, 1).T, np.round(out.scales, 4)))
    theirs = np.lexsort((*np.round(golden["locations"], 1).T, np.round(golden["scales"], 4)))
    assert np.abs(out.locations[ours] - golden["locations"][theirs]).max() < 1e-3
    assert np.abs(out.descriptors[ours] - golden["descriptors"][theirs]).max() < 1e-5
    assert np.allclose(out.attention[ours], golden["attention"][theirs], rtol=5e-5, atol=0)


@pytest.mark.parametrize("image", ["a", "b"])
def test_the_kaggle_form_equals_the_reference(network, image):
    golden = np.load(GOLDEN / "seed1/kaggle_global.npz")
    settings = ExtractionSettings(
        scales=(0.70710677, 1.0, 1.4142135),
        global_scales=(),
        use_local=False,
        normalize_scales=False,
        max_image_size=-1,
    )
    raw = network.local_and_global(IMAGES[image][None], settings)[0].global_descriptors
    expected = golden[f"{image}/per_scale_raw"]
    assert np.abs(raw - expected).max() < 2e-5 * np.abs(expected).max()
    pooled = Extractor(network, settings)(IMAGES[image]).global_descriptor
    assert np.abs(pooled - golden[f"{image}/kaggle_sum_normalized"]).max() < 1e-5


def test_feature_files_equal_those_the_reference_writes(network, tmp_path):
    settings = META["extractor_cases"]["a_plain"]
    asked = ExtractionSettings(
        max_features=settings["max_feature_num"],
        score_threshold=settings["score_threshold"],
        max_image_size=settings["max_image_size"],
    )
    record = to_record(ReadImage(Job("a_plain.jpg", tmp_path), IMAGES["a"]), Extractor(network, asked)(IMAGES["a"]))
    write_store(tmp_path / "delg_x.h5", [record], local_dtype="float32")
    export_delg(tmp_path / "delg_x.h5", tmp_path)
    stems = tmp_path / "a_plain", GOLDEN / "seed1/extractor_a_plain"
    ours, theirs = (read_features(f"{stem}.delg_local") for stem in stems)
    a, b = (
        np.lexsort((*np.round(features.keypoints, 1).T, np.round(features.scales, 4))) for features in (ours, theirs)
    )
    assert np.abs(ours.descriptors[a] - theirs.descriptors[b]).max() < 1e-5
    assert np.abs(ours.keypoints[a] - theirs.keypoints[b]).max() < 1e-3
    assert np.allclose(ours.attention[a], theirs.attention[b], rtol=5e-5, atol=0)
    assert np.allclose(ours.scales[a], theirs.scales[b], rtol=1e-6)
    ours, theirs = (read_datum(f"{stem}.delg_global") for stem in stems)
    assert np.abs(ours - theirs).max() < 1e-5


def test_pixels_of_resized_images_and_pyramid_levels_equal_the_reference():
    golden = np.load(GOLDEN / "shared/resize_pixels.npz")
    for name in (name for name in golden.files if name.startswith("out_")):
        source, limit = name.removeprefix("out_").split("_")
        limits = {"max_size" if limit.startswith("max") else "min_size": int(limit[3:])}
        resized, _ = resize_for_extraction(golden[f"in_{source}"], **limits)
        assert np.array_equal(resized, golden[name]), name
    golden = np.load(GOLDEN / "shared/pyramid_resize_pixels.npz")
    normalized = normalize_pixels(golden["in_uint8"])
    for name in (name for name in golden.files if name.startswith("scale_")):
        size = [level_size(side, float(name.removeprefix("scale_"))) for side in golden["in_uint8"].shape[:2]]
        assert np.abs(tf.image.resize(normalized, size).numpy() - golden[name]).max() < 2e-6, name


def test_sizes_of_resized_images_equal_the_reference():
    for case in json.loads((GOLDEN / "shared/resize_vectors.json").read_text())["cases"]:
        if "out_height" not in case:
            continue
        picture = np.zeros((case["height"], case["width"], 3), np.uint8)
        resized, factors = resize_for_extraction(
            picture, case["max_image_size"], case["min_image_size"], case["resize_factor"], case["use_square_images"]
        )
        assert resized.shape[:2] == (case["out_height"], case["out_width"])
        assert factors == pytest.approx([case["scale_factor_h"], case["scale_factor_w"]])


@pytest.mark.parametrize("shape", [(30_000, 2), (2, 30_000), (1000, 1), (1, 1)])
def test_a_thin_image_is_too_small_and_no_error(network, shape):
    extractor = Extractor(network, ExtractionSettings(max_image_size=320))
    resized = extractor.resize(np.zeros((*shape, 3), np.uint8))
    assert min(resized.pixels.shape[:2]) == 1 and max(resized.pixels.shape[:2]) <= 320
    assert extractor.describe([resized]) == [None]


def test_pyramid_sizes_and_receptive_boxes_equal_the_reference():
    for case in json.loads((GOLDEN / "shared/pyramid_sizes.json").read_text()):
        assert level_size(case["height"], case["scale"]) == case["out_height"]
        assert level_size(case["width"], case["scale"]) == case["out_width"]
    for case in json.loads((GOLDEN / "shared/receptive_boxes.json").read_text()):
        ours = receptive_boxes(case["height"], case["width"], case["stride"], case["rf"], case["padding"])
        assert np.allclose(ours / case.get("divide_by_scale", 1.0), case["boxes"], rtol=1e-6)


def test_conv5_at_the_other_scales_changes_nothing(network):
    image = IMAGES["a"][None]
    some = network.local_and_global(image, ExtractionSettings())[0]
    every = network.local_and_global(image, ExtractionSettings(global_scales=()))[0]
    assert np.array_equal(some.features, every.features)
    assert np.array_equal(some.global_descriptors, every.global_descriptors[3:6])
    alone = network.local_and_global(image, ExtractionSettings(use_local=False))[0]
    assert np.allclose(alone.global_descriptors, some.global_descriptors, atol=1e-6) and not len(alone.scores)


@pytest.mark.parametrize("settings", [{}, {"block3_strides": False}, {"local_dim": None}, {"use_global": False}])
def test_the_thinned_network_gives_what_the_trained_one_gives(settings):
    """Odd and even sides at every stage."""
    with tiny_backbone():
        small = tiny_model(**settings)
    rng, network, scales = np.random.default_rng(0), DelgNetwork(small), (0.7, 1.0)
    everything = ExtractionSettings(scales=scales, global_scales=(0, 1), max_features=10**6)
    for side in ((97, 130), (128, 96), (45, 61)):
        image = rng.integers(0, 256, (*side, 3), dtype=np.uint8)
        out = network.local_and_global(image[None], everything)[0]
        plain = [plain_level(small, image, scale) for scale in scales]
        attention = np.concatenate([level[0].ravel() for level in plain])
        order = np.argsort(-attention, kind="stable")
        features = np.concatenate([level[1].reshape(-1, level[1].shape[-1]) for level in plain])
        assert np.allclose(out.scores, attention[order], rtol=5e-5), side
        assert np.abs(out.features - features[order]).max() < 2e-5 * np.abs(features).max(), side
        embeddings = np.array([level[2] for level in plain])
        assert np.abs(out.global_descriptors - embeddings).max() < 2e-5 * np.abs(embeddings).max(), side


def test_images_of_one_size_give_the_same_alone_and_together(network):
    images = np.stack([IMAGES["a"], IMAGES["a"][::-1], IMAGES["a"][:, ::-1]])
    together = network.local_and_global(images, ExtractionSettings(scales=(0.7, 1.0), global_scales=(1,)))
    for image, out in zip(images, together):
        alone = network.local_and_global(image[None], ExtractionSettings(scales=(0.7, 1.0), global_scales=(1,)))[0]
        assert np.allclose(out.scores, alone.scores, rtol=5e-5)
        assert np.abs(out.features - alone.features).max() < 2e-5 * np.abs(alone.features).max()
        assert (
            np.abs(out.global_descriptors - alone.global_descriptors).max()
            < 2e-5 * np.abs(alone.global_descriptors).max()
        )


def test_images_of_every_size_share_one_graph():
    with tiny_backbone():
        network = DelgNetwork(tiny_model())
    for side in (40, 64, 97):
        network.local_and_global(np.zeros((1, side, 2 * side, 3), np.uint8), ExtractionSettings())
    assert network._local.experimental_get_tracing_count() == network._both.experimental_get_tracing_count() == 1


def test_half_the_digits_keep_the_descriptors(network, model):
    image = IMAGES["b"][None]
    everything = ExtractionSettings(scales=SCALES[1:4], global_scales=(), max_features=10**6)
    exact, rough = (net.local_and_global(image, everything)[0] for net in (network, DelgNetwork(model, "bfloat16")))
    by_place = [out.features[by_box_and_scale(out.boxes, out.scales)] for out in (exact, rough)]
    cosines = (
        (by_place[0] * by_place[1]).sum(1) / np.linalg.norm(by_place[0], axis=1) / np.linalg.norm(by_place[1], axis=1)
    )
    assert cosines.mean() > 0.999
    for a, b in zip(exact.global_descriptors, rough.global_descriptors):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_a_tiny_image_is_described_at_the_scales_it_has_pixels_for():
    with tiny_backbone():
        extractor = Extractor(DelgNetwork(tiny_model()))
    quarter = Extractor(extractor.network, ExtractionSettings(scales=(0.25,), global_scales=()))
    for size in ((10, 10), (12, 40), (19, 11)):
        out = extractor(np.full((*size, 3), 90, np.uint8))
        assert np.isclose(np.linalg.norm(out.global_descriptor), 1) and len(out.attention) >= 1, size
        assert min(1 / out.scales) * min(size) >= 4.5, size
        assert quarter(np.zeros((*size, 3), np.uint8)) is None, size
    assert extractor(np.zeros((9, 40, 3), np.uint8)) is None
