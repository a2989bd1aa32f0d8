"""SavedModels as sources of descriptors: TF1-style and TF2 exports, recognised, called, and refused."""

import delg_exports as exports
import numpy as np
import pytest
from delg_exports import GAIN, LOCAL_OUTPUTS, random_images, save_toy, toy
from PIL import Image

from delg_extract import extract
from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Extractor
from delg_extract.extraction.open import saved_model_sha256
from delg_extract.extraction.pyramid import SCALES
from delg_extract.extraction.saved_models import open_saved_model
from delg_extract.extraction.serving import Form, save_serving
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.tensorflow import tf
from rrt.errors import InputError
from rrt.store.store import Store

LOCAL, GLOBAL = exports.LOCAL_INPUTS, exports.GLOBAL_INPUTS
LOCAL_ONLY, GLOBAL_ONLY = {"use_global": False}, {"use_local": False}


# ---- the same network as this project's own --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    with exports.tiny_backbone():
        return DelgNetwork(exports.tiny_model())


@pytest.fixture(scope="module", params=["tf1", "tf2"])
def exported(request, network, tmp_path_factory):
    """The network as a SavedModel with local and global descriptors."""
    folder = tmp_path_factory.mktemp(request.param) / "delg"
    if request.param == "tf1":
        exports.save_delg_tf1(folder, network.model)
    else:
        save_serving(folder, network.model, Form())
    return open_saved_model(folder)


def assert_same(ours, theirs):
    """Within float32 rounding; rows are paired by place and scale, since neighbouring scores may swap."""
    assert len(ours.scores) == len(theirs.scores)
    assert (np.diff(ours.scores) <= 0).all()
    a, b = (np.lexsort((*np.round(out.boxes, 1).T, np.round(out.scales, 4))) for out in (ours, theirs))
    assert np.allclose(ours.boxes[a], theirs.boxes[b], atol=1e-3)
    assert np.allclose(ours.scales[a], theirs.scales[b], rtol=1e-6)
    assert np.allclose(ours.scores[a], theirs.scores[b], rtol=1e-4)
    for name in ("features", "global_descriptors"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
    if len(theirs.features):
        assert np.abs(ours.features[a] - theirs.features[b]).max() < 1e-4 * np.abs(theirs.features).max()
    if len(theirs.global_descriptors):
        assert (
            np.abs(ours.global_descriptors - theirs.global_descriptors).max()
            < 1e-4 * np.abs(theirs.global_descriptors).max()
        )


def test_the_extraction_command_takes_both_styles(exported, network, pictures, monkeypatch, capsys):
    """images: a folder with eight small images and their list."""
    store = pictures / "delg_x.h5"
    command = [
        "extract.py",
        "--model",
        exported.folder,
        "--image_dir",
        pictures,
        "--list",
        pictures / "train.txt",
        "--output",
        store,
        "--max_features",
        "9",
        "--num_workers",
        "1",
    ]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    assert extract.main() == 0
    with Store(store) as written:
        assert (written.num_images, written.global_dim, written.local_dim) == (8, 48, 24)
        assert written.attributes["model_sha256"] == saved_model_sha256(exported.folder)
        own = Extractor(network, ExtractionSettings(max_features=9))
        for i, name in enumerate(written.names):
            descriptors = own(np.asarray(Image.open(pictures / name).convert("RGB")))
            assert np.allclose(written.global_descriptors[i], descriptors.global_descriptor, atol=1e-4)
            assert np.allclose(written.read(i).attention, descriptors.attention, rtol=1e-4)
    monkeypatch.setattr("sys.argv", list(map(str, [*command, "--no-block3_strides", "--overwrite"])))
    with pytest.raises(InputError, match="block3_strides was fixed at its export"):
        extract.main()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"global_scales": ()},
        {"global_scales": (5, 1)},
        GLOBAL_ONLY,
        LOCAL_ONLY,
        {"scales": (1.0, 0.5, 0.7), "global_scales": (2, 0)},
    ],
    ids=str,
)
def test_a_saved_model_gives_what_the_network_it_was_made_of_gives(exported, network, asked):
    settings = ExtractionSettings(max_features=10**5, **asked)
    pictures = random_images(97, 130, count=2)
    for ours, theirs in zip(
        exported.local_and_global(pictures, settings), network.local_and_global(pictures, settings), strict=True
    ):
        assert_same(ours, theirs)


def test_threshold_and_number_of_features_are_passed_on(exported, network):
    picture = random_images(160, 128, seed=1)
    scores = network.local_and_global(picture, ExtractionSettings(max_features=10**5))[0].scores
    # Where the scores leave the widest gap, rounding cannot move a feature over the cut.
    cut = 20 + int(np.argmax(scores[19:60] - scores[20:61]))
    for settings in (
        ExtractionSettings(max_features=cut),
        ExtractionSettings(score_threshold=float(scores[cut - 1 : cut + 1].mean())),
        ExtractionSettings(score_threshold=float(scores[0]) + 1),
    ):
        ours = exported.local_and_global(picture, settings)[0]
        assert len(ours.scores) == (cut if settings.score_threshold < scores[0] else 0)
        assert ours.features.shape[1] == network.model.local_dim
        assert_same(ours, network.local_and_global(picture, settings)[0])


def test_the_extractor_gives_unit_descriptors_of_a_saved_model(exported, network):
    picture, settings = random_images(150, 90)[0], ExtractionSettings(max_image_size=120, max_features=10**5)
    ours, theirs = (Extractor(source, settings)(picture) for source in (exported, network))
    assert np.allclose(ours.global_descriptor, theirs.global_descriptor, atol=1e-5)
    assert np.allclose(np.sort(ours.attention), np.sort(theirs.attention), rtol=1e-4)
    assert np.allclose(np.linalg.norm(ours.descriptors, axis=1), 1, atol=1e-5)


def test_levels_too_small_for_the_network_are_left_out(exported):
    out = exported.local_and_global(random_images(10, 40), ExtractionSettings())[0]
    assert np.allclose(np.unique(1 / out.scales), SCALES[2:])
    assert out.global_descriptors.shape == (3, 48)
    few = exported.local_and_global(
        random_images(10, 40), ExtractionSettings(scales=(0.25, 1.0), global_scales=(0, 1))
    )[0]
    assert np.array_equal(few.global_descriptors, out.global_descriptors[1:2])
    with pytest.raises(InputError, match="an image of 40x10 pixels is under 5 pixels at each scale"):
        exported.local_and_global(random_images(10, 40), ExtractionSettings(global_scales=(0,)))


def test_facts_for_the_store_are_plain_values(exported):
    assert exported.kind == "saved_model_" + exported.folder.parent.name.rstrip("0")
    assert exported.settings == {
        "kind": exported.kind,
        "outputs": ["boxes", "features", "scales", "scores", "global_descriptors"],
        "own_scales": False,
    }


# ---- what each kind of model can give, with a network that is plain arithmetic ---------------------------------------


@pytest.mark.parametrize("style", ["tf1", "tf2"])
def test_a_local_model_gives_local_descriptors_alone(style, tmp_path):
    model = open_saved_model(save_toy(style, tmp_path / "delf", LOCAL, *LOCAL_OUTPUTS))
    assert (model.kind, model.outputs, model.has_global) == (f"saved_model_{style}", LOCAL_OUTPUTS, False)
    for size in ((20, 31), (33, 24)):
        picture = random_images(*size)
        out = model.local_and_global(
            picture, ExtractionSettings((0.5, 1.0), max_features=9, score_threshold=30, **LOCAL_ONLY)
        )[0]
        row = picture[0, 0].astype(float)
        order = [x for x in np.argsort(-row[:, 0], kind="stable")[:9] if row[x, 0] >= 30]
        assert np.array_equal(out.scores, row[order, 0]) and np.array_equal(out.boxes[:, 1], order)
        assert np.array_equal(out.features, row[order] * GAIN) and (out.scales == 2).all()
        assert out.global_descriptors.shape == (0, 0)
        assert {array.dtype for array in out} == {np.dtype("float32")}
    with pytest.raises(
        InputError, match=r"delf: gives no global descriptors, only boxes, .*; ask for local descriptors alone or"
    ):
        model.local_and_global(picture, ExtractionSettings())


@pytest.mark.parametrize("style", ["tf1", "tf2"])
def test_a_global_model_gives_a_row_for_each_scale_asked_for(style, tmp_path):
    model = open_saved_model(save_toy(style, tmp_path / "global", GLOBAL, "global_descriptors"))
    assert (model.outputs, model.has_local) == (("global_descriptors",), False)
    picture = random_images(20, 31)
    mean = picture[0].mean((0, 1)) * GAIN
    for asked, scales in (((1, 2), (1.0, 3.0)), ((), (0.5, 1.0, 3.0))):
        out = model.local_and_global(picture, ExtractionSettings((0.5, 1.0, 3.0), asked, **GLOBAL_ONLY))[0]
        assert np.allclose(out.global_descriptors, np.outer(scales, mean), rtol=1e-5)
        assert [array.shape for array in out[:4]] == [(0, 4), (0, 0), (0,), (0,)]
    with pytest.raises(InputError, match="gives no local descriptors"):
        model.local_and_global(picture, ExtractionSettings())


@pytest.mark.parametrize(
    "inputs, output, scales, own",
    [
        (GLOBAL, "global_descriptor", (1.0, 3.0), False),
        (["input_image"], "global_descriptor", (0.5, 2.0), True),
        (["input_image"], "global_descriptors", (0.5, 2.0), True),
    ],
)
def test_pooled_descriptors_and_scales_of_the_model_itself(inputs, output, scales, own, tmp_path):
    model = open_saved_model(save_toy("tf2", tmp_path / "kaggle", inputs, output))
    assert model.settings == {"kind": "saved_model_tf2", "outputs": [output], "own_scales": own}
    picture = random_images(20, 31)
    out = model.local_and_global(picture, ExtractionSettings((0.5, 1.0, 3.0), (1, 2), **GLOBAL_ONLY))[
        0
    ].global_descriptors
    rows = np.outer(scales, picture[0].mean((0, 1)) * GAIN)
    assert np.allclose(out, rows if output == "global_descriptors" else rows.sum(0)[None], rtol=1e-5)


def test_a_tf1_model_computes_only_what_is_asked_for(tmp_path):
    """Its global branch fails on every image, which nobody notices who wants local descriptors."""

    def build(given, weights):
        found = toy(given, weights, (*LOCAL_OUTPUTS, "global_descriptors"))
        with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), ["no"])]):
            return found | {"global_descriptors": tf.identity(found["global_descriptors"])}

    model = open_saved_model(exports.save_tf1(tmp_path / "m", exports.INPUTS, {"gain": np.float32(GAIN)}, build))
    assert (
        len(model.local_and_global(random_images(20, 31), ExtractionSettings(max_features=5, **LOCAL_ONLY))[0].scores)
        == 5
    )
    with pytest.raises(InputError, match="the model fails on an image of 31x20 pixels .*assertion failed"):
        model.local_and_global(random_images(20, 31), ExtractionSettings(max_features=5))


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_another_kind_of_model_is_refused_with_its_tensors(tmp_path):
    def detector(given, weights=None):
        return {"detection_boxes": tf.cast(given["input_image"], tf.float32) * (weights or {"gain": GAIN})["gain"]}

    exports.save_tf1(tmp_path / "tf1", ["input_image"], {"gain": np.float32(GAIN)}, detector)
    exports.save_tf2(tmp_path / "tf2", ["input_image"], tf.Module(), detector)
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    for folder, words in (
        ("tf1", "inputs input_image; last tensors detection_boxes"),
        ("bare", "neither signatures nor a graph"),
        ("tf2", r"signature serving_default \(input_image -> detection_boxes\)"),
    ):
        with pytest.raises(
            InputError, match=f"{folder}: no DELF or DELG model, it has {words}; give one with input_image, "
        ):
            open_saved_model(tmp_path / folder)


def test_a_model_with_too_few_or_unknown_inputs_is_refused(tmp_path):
    def local(given, weights=None):
        given = {"input_max_feature_num": 3, "input_abs_thres": 0.0} | given
        return toy(given, {"gain": GAIN}, LOCAL_OUTPUTS)

    with pytest.raises(InputError, match="signature serving_default"):
        open_saved_model(exports.save_tf2(tmp_path / "few", ["input_image", "input_scales"], tf.Module(), local))
    exports.INPUTS["input_mystery"] = (tf.float32, [])
    try:
        with pytest.raises(InputError, match="input_mystery"):
            open_saved_model(exports.save_tf2(tmp_path / "odd", [*LOCAL, "input_mystery"], tf.Module(), local))
    finally:
        del exports.INPUTS["input_mystery"]


def test_suppression_cannot_be_changed_after_the_export(toys):
    model = open_saved_model(toys / "tf2")
    with pytest.raises(InputError, match="tf2: iou_threshold 0.7 has no effect on a SavedModel"):
        model.check(ExtractionSettings(iou_threshold=0.7, **LOCAL_ONLY))


def test_asking_for_nothing_is_refused(toys):
    with pytest.raises(InputError, match="tf1: neither local nor global descriptors are asked for"):
        open_saved_model(toys / "tf1").check(ExtractionSettings(use_local=False, use_global=False))


def test_a_model_that_counts_global_descriptors_otherwise_is_refused(tmp_path):
    def doubled(given):
        rows = toy(given, {"gain": GAIN}, ("global_descriptors",))["global_descriptors"]
        return {"global_descriptors": tf.concat([rows, rows], 0)}

    model = open_saved_model(exports.save_tf2(tmp_path / "m", GLOBAL, tf.Module(), doubled))
    with pytest.raises(InputError, match="gives 6 global descriptors for 3 scales"):
        model.local_and_global(random_images(20, 31), ExtractionSettings(**GLOBAL_ONLY))


def test_the_broken_local_export_of_the_reference_ends_in_one_line(tmp_path):
    """Its default reshapes 128 channels to 1024 (docs/delg.md 4): the model loads, and fails on most images."""

    def misread(given, weights=None):
        found = toy(given, {"gain": GAIN}, LOCAL_OUTPUTS)
        return found | {"features": tf.reshape(found["features"], [-1, 1024])}

    model = open_saved_model(exports.save_tf2(tmp_path / "m", LOCAL, tf.Module(), misread))
    with pytest.raises(
        InputError,
        match=r"m: the model fails on an image of 31x20 pixels \(Input to reshape is a tensor with 15 values",
    ):
        model.local_and_global(random_images(20, 31), ExtractionSettings(max_features=5, **LOCAL_ONLY))


def test_loading_and_running_a_model_says_nothing(toys, capfd):
    for style in ("tf1", "tf2"):
        open_saved_model(toys / style).local_and_global(
            random_images(20, 31), ExtractionSettings(max_features=3, **LOCAL_ONLY)
        )
    captured = capfd.readouterr()
    assert captured.out == "" and "WARNING" not in captured.err
