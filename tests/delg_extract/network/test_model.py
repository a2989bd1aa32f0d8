"""The DELG network against the numbers of the reference (golden/delg), with weights made by the published rule."""

import numpy as np
import pytest
from delg_golden import GOLDEN, activations, rule_model

from delg_extract.network.model import Delg, attention_pool, normalize_pixels
from delg_extract.network.tensorflow import tf
from delg_extract.training.losses import add_classifiers, arcface_logits


def relative(ours, golden):
    return float(np.abs(np.asarray(ours) - golden).max() / np.abs(golden).max())


@pytest.fixture(scope="module")
def model():
    return rule_model()


@pytest.mark.parametrize("image", ["a", "b", "c"])
def test_one_forward_pass_equals_the_reference(model, image):
    golden = np.load(GOLDEN / "seed1/activations.npz")
    pixels = np.load(GOLDEN / "seed1/images.npz")[image]
    blocks = activations(model, normalize_pixels(pixels[None]))
    for name in ("block0", "block0mp", "block1", "block2", "block3", "block4"):
        ours = blocks[name].numpy()[0]
        assert ours.shape == tuple(golden[f"{image}/{name}/shape"])
        corner = golden[f"{image}/{name}/corner"]
        assert relative(ours[: corner.shape[0], : corner.shape[1], :8], corner) < 2e-5
        assert relative(ours.mean((0, 1)), golden[f"{image}/{name}/channel_mean"]) < 2e-5
    maps = model.local(blocks["block3"])
    assert relative(model.embed(blocks["block4"])[0], golden[f"{image}/embedding"]) < 2e-5
    assert np.allclose(maps.attention[0], golden[f"{image}/attention"], rtol=5e-5, atol=0)
    assert relative(maps.score[0], golden[f"{image}/attention_score_before_softplus"]) < 2e-5
    assert relative(maps.descriptors[0], golden[f"{image}/autoencoder_128"]) < 2e-5
    assert (
        relative(attention_pool(maps.reconstruction, maps.attention)[0], golden[f"{image}/attention_pooled_1024"])
        < 2e-5
    )


def test_parameter_counts_are_those_of_the_specification(model):
    def count(*prefixes):
        return sum(
            int(np.prod(v.shape)) for n, v in model.variables_by_name.items() if n.startswith(prefixes) and v.trainable
        )

    assert count("conv1/", "bn_conv1", "res", "bn2", "bn3", "bn4", "bn5") == 23_534_592
    assert count("embedding_layer") == 4_196_352
    assert count("attn_") == 526_337
    assert count("autoenc_") == 263_296


def test_dense_and_strided_grids_give_the_same_global_descriptor():
    pixels = normalize_pixels(np.random.default_rng(0).integers(0, 256, (1, 97, 129, 3), dtype=np.uint8))
    small = Delg("small", block3_strides=False)
    dense = small.block3(small.conv4(pixels))
    small.block3_strides = True
    strided = small.block3(small.conv4(pixels))
    assert np.array_equal(dense[:, ::2, ::2], strided)


@pytest.mark.parametrize("margin", ["0.1", "0.3", "0.0"])
def test_arcface_logits_equal_the_reference(model, margin):
    golden = np.load(GOLDEN / "seed1/arcface.npz")
    weights = model.variables_by_name["cosine_weights"]
    logits = arcface_logits(golden["embeddings"], weights, golden["labels"], float(margin))
    assert relative(logits, golden[f"train_logits_margin{margin}"]) < 1e-5
    assert relative(arcface_logits(golden["embeddings"], weights, None), golden["eval_logits"]) < 1e-5


def test_arcface_gradient_is_finite_for_an_embedding_on_its_class_centre():
    weights = tf.constant(np.eye(4, dtype=np.float32))
    embedding = tf.Variable(np.eye(4, dtype=np.float32)[:2])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(arcface_logits(embedding, weights, tf.constant([0, 1])))
    assert np.isfinite(tape.gradient(loss, embedding).numpy()).all()


def test_the_small_backbone_fits_twelve_megabytes_in_half_precision():
    small = Delg("small")
    add_classifiers(small, 10)
    assert 2 * sum(int(np.prod(v.shape)) for v in small.variables_by_name.values()) < 12e6


def test_a_bias_before_a_batch_norm_is_kept_in_the_moving_mean_and_not_trained():
    pixels = normalize_pixels(np.random.default_rng(0).integers(0, 256, (2, 65, 65, 3), dtype=np.uint8))
    plain, shifted = Delg("small"), Delg("small")
    shifted.variables_by_name["conv1/bias"].assign(np.arange(32, dtype=np.float32))
    with tf.GradientTape(persistent=True) as tape:
        results = [model.conv4(pixels, training=True) for model in (plain, shifted)]
    assert np.array_equal(*results)
    means = [model.variables_by_name["bn_conv1/moving_mean"].numpy() for model in (plain, shifted)]
    np.testing.assert_allclose(means[1] - means[0], 0.01 * np.arange(32), atol=1e-6)
    gradients = tape.gradient(results[0], plain.variables_by_name)
    trained = {name for name, _ in plain.trained_variables()}
    idle = {name for name, variable in plain.variables_by_name.items() if variable.trainable} - trained
    assert len(idle) == 1 + 9 * 3 + 4 + 1  # conv1, three a block, shortcuts, attention
    assert all(name.endswith("/bias") and gradients[name] is None for name in idle)


def test_frozen_variables_are_not_trained():
    names = [name for name, _ in Delg("small").trained_variables(("conv1/", "bn_conv1/", "res2"))]
    assert "bn2a_branch2a/gamma" in names and "res3a_branch2a/kernel" in names
    assert not any(name.startswith(("conv1/", "bn_conv1/", "res2")) or name.endswith("moving_mean") for name in names)


def test_bfloat16_changes_neither_settings_nor_variables_and_the_heads_see_float32():
    model = Delg("small", compute_dtype="bfloat16")
    assert model.settings == Delg("small").settings
    assert {variable.dtype for variable in model.variables_by_name.values()} == {tf.float32}
    for training in (False, True):
        conv4 = model.conv4(tf.zeros((1, 65, 65, 3)), training)
        maps = model.local(conv4, training)
        assert conv4.dtype == tf.bfloat16
        assert {x.dtype for x in (model.block3(conv4), model.conv5(conv4, training), *maps)} == {tf.float32}
    with pytest.raises(ValueError, match="'float16' is not one of float32, bfloat16"):
        Delg("small", compute_dtype="float16")
