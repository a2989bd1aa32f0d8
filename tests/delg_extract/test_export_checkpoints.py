"""Exports from the checkpoints of a training run: which one is taken, and which are refused."""

import json

import delg_exports as exports
import numpy as np
import pytest
from commands import error_of, files_below
from delg_exports import random_images, run_export, strongest

from delg_extract.export import main
from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import save_weights
from delg_extract.training.checkpoints import load_trained
from delg_extract.training.losses import CLASSIFIERS, add_classifiers


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with exports.tiny_backbone():
        yield


FLAGS = {
    "backbone": "tiny",
    "use_autoencoder": True,
    "autoencoder_dimensions": 24.0,
    "delg_global_features": True,
    "delg_gem_power": 3.0,
    "delg_embedding_layer_dim": None,
    "block3_strides": True,
}


def write_log(folder, steps=(1,), flags=FLAGS, without=(), **network):
    """A log folder as the training leaves it: a checkpoint for each step, of networks that differ."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({**flags, "batch_size": 4}))
    model = exports.tiny_model(**network)
    add_classifiers(model, 5)
    variables = {name: variable for name, variable in model.variables_by_name.items() if name not in without}
    step, momenta = tf.Variable(0, dtype=tf.int64), [tf.Variable(variable) for variable in variables.values()]
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(variables=variables, step=step, momenta=momenta), str(folder / "checkpoints"), max_to_keep=5
    )
    for number in steps:
        step.assign(number)
        model.variables_by_name["attn_conv2/bias"].assign([number / 4])
        manager.save(checkpoint_number=number)
    return folder, model


def test_a_log_folder_gives_its_latest_checkpoint_and_its_weight_file_once_there_is_one(tmp_path, monkeypatch):
    log, model = write_log(tmp_path / "log", steps=(1, 9, 10))
    for path, number in (("", 10), ("checkpoints", 10), ("checkpoints/ckpt-9", 9)):
        found = load_trained(log / path)[0].variables_by_name
        assert set(found) == {name for name in model.variables_by_name if not name.startswith(CLASSIFIERS)}
        assert found["attn_conv2/bias"].numpy() == [number / 4]
        assert np.array_equal(found["res4b_branch2a/kernel"], model.variables_by_name["res4b_branch2a/kernel"])
    run_export(monkeypatch, "--kind", "local", "--ckpt_path", log, "--export_path", tmp_path / "m")
    settings = ExtractionSettings(scales=(1.0,), use_global=False)  # the network has the bias of the last step
    expected = DelgNetwork(model).local_and_global(random_images(64, 64), settings)[0].scores[0]
    assert strongest(tmp_path / "m") == pytest.approx(expected, rel=1e-5)
    bare = exports.tiny_model()
    bare.variables_by_name["attn_conv2/bias"].assign([5.0])
    save_weights(log / "weights.h5", bare)
    assert load_trained(log)[0].variables_by_name["attn_conv2/bias"].numpy() == [5]


@pytest.mark.parametrize(
    "flags, network, without, words",
    [
        ({"use_autoencoder": False}, {}, (), ["holds the unknown variable 'autoenc_conv1/bias'"]),
        ({}, {"local_dim": None}, (), ["lacks variable 'autoenc_conv1/bias'"]),
        ({"delg_global_features": False}, {}, (), ["holds the unknown variable 'embedding_layer/bias'"]),
        ({}, {}, ("res4b_branch2a/kernel",), ["lacks variable 'res4b_branch2a/kernel'"]),
        (
            {"autoencoder_dimensions": 12.0},
            {},
            (),
            ["autoenc_conv1/kernel has shape (1, 1, 32, 24), the network needs (1, 1, 32, 12)"],
        ),
        ({"backbone": "huge"}, {}, (), ["settings.json: does not describe a network", "huge"]),
    ],
    ids=str,
)
def test_a_checkpoint_that_does_not_fill_the_network_exactly_is_refused(
    flags, network, without, words, tmp_path, monkeypatch, capsys
):
    log, _ = write_log(tmp_path / "log", flags={**FLAGS, **flags}, without=without, **network)
    error = error_of(main, ["--ckpt_path", log, "--export_path", tmp_path / "m"], monkeypatch, capsys)
    assert all(word in error for word in [*words, str(log)]), error
    assert files_below(tmp_path) == files_below_log(tmp_path)


def files_below_log(folder):
    return ["log", *(f"log/{name}" for name in files_below(folder / "log"))]


def test_damaged_checkpoints_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    log, _ = write_log(tmp_path / "log")
    index, data = log / "checkpoints/ckpt-1.index", log / "checkpoints/ckpt-1.data-00000-of-00001"
    arguments = ["--ckpt_path", log, "--export_path", tmp_path / "m"]
    for file in (index, data):
        whole = file.read_bytes()
        for kept in (None, 0, 100, len(whole) // 2):
            file.unlink()
            if kept is not None:
                file.write_bytes(whole[:kept])
            error = error_of(main, arguments, monkeypatch, capsys)
            assert "ckpt-1: a damaged checkpoint" in error, error
            file.write_bytes(whole)
    settings = (log / "settings.json").read_bytes()
    for damage, words in (
        (b"[1]", "no settings of the training"),
        (b"{", "not valid JSON"),
        (b'{"backbone": "tiny"}', "does not describe"),
    ):
        (log / "settings.json").write_bytes(damage)
        assert words in error_of(main, arguments, monkeypatch, capsys)
    (log / "settings.json").unlink()
    assert "no settings of the training" in error_of(main, arguments, monkeypatch, capsys)
    (log / "settings.json").write_bytes(settings)
    assert files_below(tmp_path) == files_below_log(tmp_path)
