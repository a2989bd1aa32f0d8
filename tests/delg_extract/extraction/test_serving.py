"""What an exported SavedModel computes: equal to the reference's exports, and no more than is asked for."""

from functools import partial

import delg_exports as exports
import numpy as np
import pytest
from delg_exports import random_images, signature
from delg_golden import GOLDEN, assert_equals_golden, rule_model, saved_model_case

from delg_extract.export import KAGGLE_SCALES
from delg_extract.extraction import serving
from delg_extract.extraction.extractor import LocalAndGlobal
from delg_extract.extraction.serving import Form, save_serving
from delg_extract.network.tensorflow import tf

SCALES = (0.5, 0.7, 1.0, 1.4)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with exports.tiny_backbone():
        yield


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory):
    """(A network, its export of all that it gives.)"""
    model, folder = exports.tiny_model(), tmp_path_factory.mktemp("exported") / "both"
    save_serving(folder, model, Form())
    return model, folder


def test_scales_too_small_for_the_network_are_left_out_and_no_scale_at_all_is_no_crash(both):
    (model, folder), picture = both, random_images(12, 40)[0]
    given = {
        "input_image": tf.constant(picture),
        "input_max_feature_num": tf.constant(100),
        "input_abs_thres": tf.constant(0.0),
    }
    call = signature(folder)
    for scales, ind, rows, kept in (
        ([0.25, 0.5, 1.0], [0, 2], 1, {1.0, 2.0}),
        ([0.1, 0.2], [0, 1], 0, set()),
        ([], [0], 0, set()),
        ([1.0], [], 0, {1.0}),
        ([1.0], [5, -1], 0, {1.0}),
        ([1.0, 0.5], [1, 1, 0], 2, {1.0, 2.0}),
    ):
        found = call(
            **given, input_scales=tf.constant(scales, tf.float32), input_global_scales_ind=tf.constant(ind, tf.int32)
        )
        assert found["global_descriptors"].shape == (rows, 48)
        assert set(found["scales"].numpy().tolist()) == kept and found["features"].shape == (len(found["scores"]), 24)
    given |= {"input_scales": tf.constant([1.0]), "input_global_scales_ind": tf.constant([1])}
    level, pooled = serving.Level(model, serving.level_weights(model)), Form(local=False, pooling="sum")
    with pytest.raises(tf.errors.InvalidArgumentError, match="input_global_scales_ind names none of the scales"):
        tf.function(lambda: serving.describe(level, pooled, given))()


def test_conv5_runs_at_the_wanted_scales_alone():
    model, seen = exports.tiny_model(), []
    with pytest.MonkeyPatch.context() as patch:
        plain = serving.Level.embedding

        def counted(self, conv4):
            with tf.control_dependencies([tf.numpy_function(lambda: seen.append(1) or np.int64(0), [], tf.int64)]):
                return plain(self, tf.identity(conv4))

        patch.setattr(serving.Level, "embedding", counted)
        level = serving.Level(model, serving.level_weights(model))
        given = {
            "input_image": tf.constant(random_images(64, 64)[0]),
            "input_scales": tf.constant(SCALES),
            "input_max_feature_num": tf.constant(5),
            "input_abs_thres": tf.constant(0.0),
            "input_global_scales_ind": tf.constant([2]),
        }
        for form in (Form(), Form(local=False)):
            seen.clear()
            found = tf.function(partial(serving.describe, level, form, given))()
            assert len(found["global_descriptors"]) == len(seen) == 1


def test_the_weights_of_heads_that_a_kind_does_not_use_are_not_in_its_folder(both, tmp_path):
    model, folder = both
    folders = {"both": folder, "local": tmp_path / "local", "global": tmp_path / "global"}
    save_serving(folders["local"], model, Form(global_=False))
    save_serving(folders["global"], model, Form(local=False))
    size = {
        name: sum(
            shape.num_elements()
            for shape in map(
                tf.TensorShape, dict(tf.train.list_variables(str(folder / "variables/variables"))).values()
            )
        )
        for name, folder in folders.items()
    }
    conv5 = sum(int(tf.size(v)) for n, v in model.variables_by_name.items() if n.startswith(("res5", "embedding")))
    local = sum(
        int(tf.size(v)) for n, v in model.variables_by_name.items() if n.startswith(("attn_conv", "autoenc_conv1"))
    )
    assert (size["both"] - size["local"], size["both"] - size["global"]) == (conv5, local)


@pytest.mark.slow
def test_what_is_exported_of_a_resnet50_computes_what_the_exports_of_the_reference_compute():
    """That a SavedModel gives what is saved in it is seen of small networks, which take less time to save."""
    model, images = rule_model(), np.load(GOLDEN / "seed1/images.npz")
    level = serving.Level(model, serving.level_weights(model))
    for case in ("a_all", "a_reordered", "b_top50", "a_none", "b_nms07"):
        settings, golden = saved_model_case(case)
        found = serving.describe(
            level,
            Form(iou=settings["iou"]),
            {
                "input_image": tf.constant(images[settings["image"]]),
                "input_scales": tf.constant(settings["scales"], tf.float32),
                "input_max_feature_num": tf.constant(settings["max_feature_num"]),
                "input_abs_thres": tf.constant(settings["threshold"]),
                "input_global_scales_ind": tf.constant(settings["global_scales_ind"]),
            },
        )
        assert_equals_golden(serving_output(found), golden)
    kaggle = Form(local=False, scales=KAGGLE_SCALES, pooling="sum", normalize=True)
    for image in "ab":
        found = serving.describe(level, kaggle, {"input_image": tf.constant(images[image])})["global_descriptor"]
        golden = np.load(GOLDEN / "seed1/kaggle_global.npz")[f"{image}/kaggle_sum_normalized"]
        assert np.abs(found - golden).max() < 1e-5


def serving_output(found):
    arrays = {name: value.numpy() for name, value in found.items()}
    return LocalAndGlobal(**{**arrays, "scores": arrays["scores"][:, 0]})
