"""DELF in two stages, DELG with parts frozen: what learns and what stays; the flags that say so."""

import numpy as np
import pytest
from commands import error_of

from delg_extract.network.model import BACKBONES, Delg
from delg_extract.network.tensorflow import tf
from delg_extract.train import main
from delg_extract.training import flags as train_flags
from delg_extract.training.flags import DEBUG, parse
from delg_extract.training.losses import add_classifiers
from delg_extract.training.step import FROZEN, LOCAL_HEAD, Trainer

pytestmark = pytest.mark.usefixtures("tiny", "untraced")
DATA = ("--train_list", "x", "--image_dir", "x")
STEM = ("conv1/kernel", "bn_conv1/moving_mean")
CONV4 = ("res4a_branch2a/kernel", "bn4a_branch2a/moving_mean")


def after_two_steps(*flags, **settings):
    """The trainer, its variables before and after two steps on images of noise, and the last step's result."""
    args = parse(
        "", [*DATA, "--backbone", "small", "--image_size", "97", "--max_iters", "10", "--min_gamma", "0.4", *flags]
    )
    model = Delg("small", use_global=args.delg_global_features, **settings)
    add_classifiers(model, 5, args.stage)
    trainer = Trainer(model, args)
    before = {name: variable.numpy() for name, variable in model.variables_by_name.items()}
    rng = np.random.default_rng(0)
    for _ in range(2):
        result = trainer.train_step(
            tf.constant(rng.uniform(-1, 1, (4, 97, 97, 3)), tf.float32), tf.constant([0, 1, 2, 3])
        )
    changed = {name for name, value in before.items() if not np.array_equal(value, model.variables_by_name[name])}
    return trainer, changed, result


def test_finetune_trains_the_trunk_and_its_classifier_alone():
    trainer, changed, result = after_two_steps("--stage", "finetune")
    assert not any(name.startswith(LOCAL_HEAD) for name in changed)
    assert {"desc_fc/kernel", "res5a_branch2c/kernel", *STEM} <= changed
    assert "att_fc/kernel" not in trainer.model.variables_by_name
    assert float(result.attention) == float(result.reconstruction) == 0 and np.isnan(float(result.local_accuracy))
    assert float(result.total) == float(result.global_) > 0


@pytest.mark.parametrize("local_dim", [None, 16])
def test_keypoint_trains_the_local_head_alone(local_dim):
    trainer, changed, result = after_two_steps("--stage", "keypoint", "--init_weights", "x", local_dim=local_dim)
    assert changed and all(name.startswith(LOCAL_HEAD) for name in changed)
    assert {"attn_conv1/kernel", "attn_bn1/moving_mean", "attn_conv2/kernel", "att_fc/kernel"} <= changed
    assert ("autoenc_conv1/kernel" in changed) == bool(local_dim)
    assert "desc_fc/kernel" not in trainer.model.variables_by_name and float(result.global_) == 0


def test_gamma_scales_the_crops_of_the_keypoint_stage_differently_each_step_and_equally_after_a_restart():
    trainer, *_ = after_two_steps("--stage", "keypoint", "--init_weights", "x")
    images = tf.zeros((1, 97, 97, 3))
    sides = []
    for step in range(20):
        trainer.step_count.assign(step)
        sides.append(trainer._at_random_scale(images).shape[1])
        assert trainer._at_random_scale(images).shape[1] == sides[-1]
    assert 39 <= min(sides) < 50 and 85 < max(sides) <= 97 and len(set(sides)) > 10


@pytest.mark.parametrize(
    "freeze, frozen, trained",
    [
        ("none", (), (*STEM, *CONV4, "res5a_branch2a/kernel", "embedding_layer/kernel", "attn_conv1/kernel")),
        (
            "conv4",
            (*STEM, *CONV4),
            ("res5a_branch2a/kernel", "bn5a_branch2a/moving_mean", "embedding_layer/kernel", "attn_conv1/kernel"),
        ),
        (
            "trunk",
            (*STEM, *CONV4, "res5a_branch2a/kernel", "bn5a_branch2a/moving_mean", "embedding_layer/kernel"),
            ("cosine_weights", "attn_conv1/kernel"),
        ),
    ],
)
def test_what_is_frozen_stays_and_the_rest_learns(freeze, frozen, trained):
    _, changed, _ = after_two_steps("--freeze", freeze, "--delg_global_features")
    assert changed.isdisjoint(frozen) and changed >= set(trained)


def test_the_choices_of_the_flags_are_those_of_the_network_and_the_trainer():
    assert tuple(BACKBONES) == train_flags.BACKBONES and tuple(FROZEN) == train_flags.FREEZES


def test_flags_of_the_reference_keep_their_names_and_defaults():
    args = parse("", list(DATA))
    assert (args.initial_lr, args.batch_size, args.max_iters, args.image_size, args.seed) == (0.01, 32, 500000, 321, 0)
    assert (args.delg_global_features, args.use_autoencoder, args.use_augmentation, args.block3_strides) == (
        False,
        True,
        True,
        True,
    )
    assert (args.delg_gem_power, args.delg_arcface_margin, args.delg_scale_factor_init) == (3.0, 0.1, 45.25)
    assert (args.attention_loss_weight, args.reconstruction_loss_weight, args.autoencoder_dimensions) == (
        1.0,
        10.0,
        128.0,
    )


@pytest.mark.parametrize(
    "flags, value",
    [
        (("--delg_global_features",), True),
        (("--delg_global_features=true",), True),
        (("--delg_global_features=False",), False),
        (("--nodelg_global_features",), False),
        (("--no-delg_global_features",), False),
        ((), False),
    ],
)
def test_switches_are_written_as_the_reference_or_as_python_does(flags, value):
    assert parse("", [*DATA, *flags]).delg_global_features is value


def test_debug_is_small_and_given_flags_win():
    args = parse("", [*DATA, "--debug", "--batch_size", "2"])
    assert args.max_iters == 100 and args.image_size == DEBUG["image_size"] and args.batch_size == 2


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "--train_file_pattern"),
        ((*DATA, "--train_file_pattern", "x"), "--train_file_pattern"),
        ((*DATA, "--validation_file_pattern", "x"), "--validation_fraction"),
        ((*DATA, "--batch_size", "0"), "--batch_size 0"),
        ((*DATA, "--max_iters", "-1"), "--max_iters -1"),
        ((*DATA, "--image_size", "8"), "--image_size 8"),
        ((*DATA, "--min_crop_area", "0.9", "--max_crop_area", "0.5"), "--min_crop_area"),
        ((*DATA, "--stage", "keypoint"), "--init_weights"),
        ((*DATA, "--stage", "finetune", "--freeze", "trunk"), "--freeze trunk"),
        ((*DATA, "--stage", "keypoint", "--init_weights", "x", "--min_gamma", "0.01"), "--min_gamma"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(flags, words, monkeypatch, capsys):
    assert words in error_of(main, flags, monkeypatch, capsys)
