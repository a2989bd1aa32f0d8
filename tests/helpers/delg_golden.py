"""The network of the golden vectors: weights by rule from name, shape and kind (tests/golden/delg/WEIGHT_RULE.md)."""

import json
import zlib
from functools import cache
from unittest import mock

import numpy as np
from places import GOLDEN as GOLDEN_FILES

from delg_extract.extraction.pca import read_pca
from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.training.losses import add_classifiers
from rrt.formats.delf import write_datum

GOLDEN = GOLDEN_FILES / "delg"
SEED = 1


@cache
def rule_value(name, shape, kind, attn_out_bias):
    normal = np.random.default_rng(zlib.crc32(name.encode()) ^ SEED).standard_normal(shape)
    fan_in = np.prod(shape[:-1])
    return {
        "conv_kernel": lambda: normal * np.sqrt(2 / fan_in),
        "linear_kernel": lambda: normal * np.sqrt(1 / fan_in),
        "attn_out_kernel": lambda: 6.0 * normal * np.sqrt(1 / fan_in),
        "attn_out_bias": lambda: np.full(shape, attn_out_bias),
        "bias": lambda: 0.02 * normal,
        "bn_gamma": lambda: 1 + 0.05 * normal,
        "bn_gamma_last": lambda: 0.3 + 0.05 * normal,
        "bn_beta": lambda: 0.05 * normal,
        "bn_moving_mean": lambda: 0.05 * normal,
        "bn_moving_variance": lambda: 1 + 0.1 * np.abs(normal),
    }[kind]().astype(np.float32)


def rule_model(**settings):
    """A ResNet-50 DELG (or DELF with ``use_global=False``) with 11 classes, filled by the rule."""
    model = Delg("resnet50", seed=None, **settings)
    add_classifiers(model, 11)
    bias = json.loads((GOLDEN / "seed1/weights_check.json").read_text())["attn_conv2/bias"]
    kinds = {v["name"]: v["kind"] for v in json.loads((GOLDEN / "weights_index.json").read_text())["variables"]}
    for name, variable in model.variables_by_name.items():
        variable.assign(rule_value(name, tuple(variable.shape), kinds[name], bias))
    return model


def saved_model_case(case):
    """(settings, golden arrays by output name) of a call of the reference's local and global export."""
    settings = json.loads((GOLDEN / "seed1/infer_meta.json").read_text())["savedmodel_cases"][case]
    arrays = np.load(GOLDEN / "seed1/savedmodel_local_global.npz")
    return settings, {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(f"{case}/")}


def by_box_and_scale(boxes, scales):
    """Neighbouring scores may swap between two float32 builds, so rows are paired by place and scale."""
    return np.lexsort((*np.round(boxes, 1).T, np.round(scales, 4)))


def assert_equals_golden(out, golden):
    """boxes, features, scales, scores [N] and global_descriptors of a call against those of the reference, within
    float32 rounding."""
    assert len(out.scores) == len(golden["scores"])
    assert (np.diff(out.scores) <= 0).all()
    if "global_descriptors" in golden:  # the two cases with suppression were kept without
        assert (
            np.abs(out.global_descriptors - golden["global_descriptors"]).max()
            < 2e-5 * np.abs(golden["global_descriptors"]).max()
        )
    if not len(out.scores):
        return
    ours, theirs = by_box_and_scale(out.boxes, out.scales), by_box_and_scale(golden["boxes"], golden["scales"])
    assert np.abs(out.boxes[ours] - golden["boxes"][theirs]).max() < 1e-3
    assert np.allclose(out.scales[ours], golden["scales"][theirs], atol=0, rtol=1e-6)
    assert np.allclose(out.scores[ours], golden["scores"][theirs, 0], rtol=5e-5, atol=0)
    assert np.abs(out.features[ours] - golden["features"][theirs]).max() < 2e-5 * np.abs(golden["features"]).max()


GOLDEN_PCA = json.loads((GOLDEN / "shared/pca_vectors.json").read_text())


def golden_pca(tmp_path, whitened):
    for name in ("mean", "matrix", "variances"):
        write_datum(tmp_path / f"{name}.datum", np.array(GOLDEN_PCA[name]))
    return read_pca(
        tmp_path / "mean.datum",
        tmp_path / "matrix.datum",
        GOLDEN_PCA["dim"],
        tmp_path / "variances.datum" if whitened else None,
    )


def activations(model, images):
    """The activations of a trunk in inference, by the names of docs/delg.md 1.1, and conv4 whole."""
    found = {"block0": tf.nn.relu(model._conv_norm(images, "bn_conv1", False, 2, "SAME"))}
    plain = model._stage

    def stage(x, number, training):
        if number == 2:
            found["block0mp"] = x
        found[f"block{number - 1}"] = plain(x, number, training)
        return found[f"block{number - 1}"]

    with mock.patch.object(model, "_stage", stage):
        conv4 = model.conv4(images)
        model.conv5(conv4)
    return found | {"block3": model.block3(conv4), "conv4": conv4}
