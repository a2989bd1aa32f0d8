"""DELG training: steps equal the reference; a killed run ends as an undisturbed one; summaries; wrong input gives one
line."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from builders import write_pictures
from commands import error_of, files_below, kill_tool_when
from delg_golden import GOLDEN, rule_model
from tensorflow.core.util import event_pb2

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import load_weights
from delg_extract.train import main
from delg_extract.training.flags import parse
from delg_extract.training.losses import add_classifiers
from delg_extract.training.run import train
from delg_extract.training.step import Trainer
from rrt.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny")


def arguments(*extra):
    return parse("", ["--train_list", "x", "--image_dir", "x", "--max_iters", "100", *extra])


@pytest.mark.parametrize("mode", ["delg", "delf"])
def test_training_steps_equal_the_reference(mode):
    golden = json.loads((GOLDEN / f"seed1/train_{mode}.json").read_text())
    arrays = np.load(GOLDEN / f"seed1/train_{mode}.npz")
    images = (np.load(GOLDEN / "seed1/train_images.npz")["images"].astype(np.float32) - 128) / 128
    trainer = Trainer(rule_model(use_global=mode == "delg"), arguments())
    labels = tf.constant(golden["labels"])
    train_step = Trainer.train_step.python_function  # to make a graph of so large a network takes longer
    for step, (loss_tolerance, norm_tolerance) in enumerate(((1e-5, 5e-4), (3e-4, 5e-3))):
        expected = golden["steps"][step]
        total, global_, attention, reconstruction, norm, *_ = (float(x) for x in train_step(trainer, images, labels))
        for ours, name in (
            (total, "total_loss"),
            (global_, "loss/desc/crossentropy"),
            (attention, "loss/attn/crossentropy"),
            (reconstruction, "loss/recon/mse"),
        ):
            assert ours == pytest.approx(expected[name], rel=loss_tolerance), name
        assert norm == pytest.approx(expected["global_grad_norm_before_clip"], rel=norm_tolerance)
        for key in (k for k in arrays.files if k.startswith(f"step{step}/after/")):
            expected_values = arrays[key]
            ours = trainer.model.variables_by_name[key.split("/after/")[1]].numpy().ravel()[: len(expected_values)]
            assert np.abs(ours - expected_values).max() <= 1e-3 * np.abs(expected_values).max(), key


def test_a_training_step_in_bfloat16_has_the_losses_of_float32():
    labels = tf.constant(json.loads((GOLDEN / "seed1/train_delg.json").read_text())["labels"])
    # A corner of them is enough, as bfloat16 takes long where a processor has none.
    images = (np.load(GOLDEN / "seed1/train_images.npz")["images"][:, :97, :97].astype(np.float32) - 128) / 128
    exact, rough = (
        Trainer.train_step.python_function(Trainer(rule_model(compute_dtype=dtype), arguments()), images, labels)
        for dtype in ("float32", "bfloat16")
    )
    for name in ("total", "global_", "attention", "reconstruction"):
        assert float(getattr(rough, name)) == pytest.approx(float(getattr(exact, name)), rel=0.02), name
    assert float(rough.gradient_norm) == pytest.approx(float(exact.gradient_norm), rel=0.1)


def test_bfloat16_learns_four_images_as_float32_does():
    rng = np.random.default_rng(0)
    images, labels = tf.constant(rng.uniform(-1, 1, (4, 65, 65, 3)), tf.float32), tf.constant([0, 1, 2, 3])
    for dtype in ("float32", "bfloat16"):
        model = Delg("small", compute_dtype=dtype)
        add_classifiers(model, 4)
        trainer = Trainer(model, arguments("--initial_lr", "0.02"))
        global_losses = [float(trainer.train_step(images, labels)[1]) for _ in range(20)]
        assert global_losses[0] > 5 and global_losses[-1] < 0.5, dtype


def train_arguments(folder, *extra):
    return (
        "delg_extract/train.py",
        "--backbone",
        "small",
        "--train_list",
        folder / "train.txt",
        "--image_dir",
        folder,
        "--logdir",
        folder / "log",
        "--image_size",
        "48",
        "--batch_size",
        "4",
        "--max_iters",
        "2",
        *extra,
    )


def train_here(folder, *extra):
    """The command in this process, where TensorFlow has been loaded."""
    return train(parse("", [*map(str, train_arguments(folder, *extra)[1:])]))


STEPS = ("--max_iters", "8", "--save_interval", "2", "--report_interval", "1", "--summary_interval", "0")


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """Images and, in log/, an undisturbed training on them, not to be changed."""
    folder = write_pictures(tmp_path_factory.mktemp("trained"))
    train_here(folder, *STEPS)
    return folder


def test_training_writes_weights_and_curves_and_does_not_start_again(trained, monkeypatch, capsys):
    first = load_weights(trained / "log/weights.h5").variables_by_name
    assert {"weights.h5", "train.csv", "curves.png"} <= set(files_below(trained / "log"))
    again = load_weights(train_here(trained, *STEPS)).variables_by_name
    assert "continues at step 8" in capsys.readouterr().out
    for name, variable in again.items():
        assert np.array_equal(variable, first[name])
    error = error_of(main, train_arguments(trained, *STEPS, "--initial_lr", "0.5")[1:], monkeypatch, capsys)
    assert "settings.json" in error and "initial_lr" in error


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(trained, tmp_path, capsys):
    steps = ("--logdir", tmp_path / "killed", *STEPS)
    kill_tool_when(
        (tmp_path / "killed/checkpoints/checkpoint").exists, *train_arguments(trained, *steps), tiny_delg=True
    )
    assert not (tmp_path / "killed/weights.h5").exists()
    killed = load_weights(train_here(trained, *steps)).variables_by_name
    assert re.search("continues at step [2468]", capsys.readouterr().out)
    undisturbed = load_weights(trained / "log/weights.h5").variables_by_name
    for name, variable in killed.items():
        np.testing.assert_allclose(variable, undisturbed[name], atol=2e-5, err_msg=name)
    curves = {
        path.name: list(csv.reader((path / "train.csv").open())) for path in (tmp_path / "killed", trained / "log")
    }
    assert len(curves["killed"]) == 1 + 8
    for killed, whole in zip(curves["killed"][1:], curves["log"][1:]):
        np.testing.assert_allclose(np.array(killed[:5], float), np.array(whole[:5], float), rtol=1e-3)


def test_debug_runs_a_hundred_steps_and_a_validation_and_writes_what_tensorboard_shows(pictures, capsys):
    train_here(pictures, "--debug", "--max_iters", "100", "--delg_global_features", "--validation_fraction", "0.25")
    assert "step 100: loss" in capsys.readouterr().out
    lines = list(csv.DictReader((pictures / "log/train.csv").open()))
    assert [line["step"] for line in lines] == [str(step) for step in range(10, 101, 10)]
    assert 0 <= float(lines[-1]["validation_global"]) <= 1 and 0 <= float(lines[-1]["validation_local"]) <= 1
    shown = {}
    for file in (pictures / "log/train_logs").iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                shown.setdefault(value.tag, []).append(event.step)
    assert {
        "loss/desc/crossentropy",
        "loss/attn/crossentropy",
        "loss/recon/mse",
        "train_accuracy/desc",
        "train_accuracy/attn",
        "learning_rate",
        "attention/max",
        "attention/percent_50",
        "batch_images",
        "batch_attention",
        "batch_images_with_attention",
        "desc/scale_factor",
        "validation/desc",
        "validation/attn",
    } <= set(shown)
    assert shown["learning_rate"] == [50, 100] and shown["validation/attn"] == [100]


@pytest.mark.usefixtures("untraced")
def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint_which_is_a_start(pictures, monkeypatch):
    def step_with_a_fault(trainer, *batch, whole_step=Trainer.train_step):
        result = whole_step(trainer, *batch)
        return result._replace(total=tf.constant(np.nan)) if int(trainer.step_count) == 5 else result

    with (
        monkeypatch.context() as patched,
        pytest.raises(InputError, match="the loss at step 5 is not finite; ") as stopped,
    ):
        patched.setattr(Trainer, "train_step", step_with_a_fault)
        train_here(pictures, "--max_iters", "6", "--save_interval", "2", "--summary_interval", "0")
    # The weights saved after step 4 are those that gave the bad loss.
    checkpoint = pictures / "log/checkpoints/ckpt-2"
    assert (
        f"the last good checkpoint is {checkpoint};" in str(stopped.value)
        and not (pictures / "log/weights.h5").exists()
    )
    again = ("--logdir", pictures / "again", "--init_weights", checkpoint)
    assert train_here(pictures, *again).exists()
    # What a run started from is not needed to go on.
    shutil.rmtree(pictures / "log")
    assert train_here(pictures, *again).exists()


def test_wrong_input_gives_one_line_and_no_log(pictures, monkeypatch, capsys):
    def error(*extra):
        return error_of(main, train_arguments(pictures, *extra)[1:], monkeypatch, capsys)

    for extra, words in (
        (["--train_list", "missing.txt", "--image_dir", pictures], "missing.txt"),
        (["--train_list", pictures / "train.txt"], "--image_dir"),
        (["--num_classes", "1"], "2 classes"),
        (["--imagenet_checkpoint", pictures / "p0.jpg"], "p0.jpg"),
        (["--init_weights", pictures / "train.txt"], "train.txt"),
    ):
        assert words in error(*extra)
        assert not list((pictures / "log").glob("weights*"))
    (pictures / "p5.jpg").write_bytes(b"no image")
    damaged = error("--max_iters", "4")
    assert "p5.jpg" in damaged and "cannot be decoded" in damaged
    (pictures / "p5.jpg").unlink()
    # A run that saved nothing has no claim on the folder.
    missing = error("--initial_lr", "0.5")
    assert "train.txt:6" in missing and "p5.jpg" in missing
