"""Contrastive training on pairs of a landmark: the batches, the similarity, the decoder, the command."""
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from commands import assert_one_line_error, run_tool  # noqa: E402
from delg_extract.contrast import LandmarkContrast, fit_decoder, late_interaction, parser  # noqa: E402
from delg_extract.data import pair_batches, read_labelled_pictures  # noqa: E402
from delg_extract.model import Delg  # noqa: E402
from delg_extract.pretrain import info_nce  # noqa: E402
from delg_extract.weights import load_weights  # noqa: E402


def test_late_interaction_equals_its_loop():
    rng = np.random.default_rng(0)
    ours, theirs, weights = rng.standard_normal((2, 5, 3)), rng.standard_normal((4, 6, 3)), rng.random((2, 5))
    expected = [[sum(w * max(a @ b for b in other) for w, a in zip(weight, one)) for other in theirs] for one, weight in zip(ours, weights)]
    np.testing.assert_allclose(late_interaction(ours, theirs, weights), expected)


def test_others_of_the_same_class_are_no_negatives():
    similarities = tf.constant([[0.5, 0.9, 0.1], [0.9, 0.5, 0.1], [0.0, 0.0, 0.5]])
    loss, hits = info_nce(similarities, 0.1, tf.constant([7, 7, 8]))
    pair = np.log(1 + np.exp((0.1 - 0.5) / 0.1))  # rows 0 and 1 are left with one negative
    third = np.log(1 + 2 * np.exp(-0.5 / 0.1))
    columns = np.log(1 + np.exp((0.0 - 0.5) / 0.1)), np.log(1 + 2 * np.exp((0.1 - 0.5) / 0.1))
    assert float(loss) == pytest.approx((2 * pair + third + 2 * columns[0] + columns[1]) / 6, rel=1e-5)
    assert float(hits) == 1


@pytest.mark.parametrize("group", [1, 2])
def test_the_second_half_of_a_batch_holds_the_partners_of_the_first(pictures, group):
    labelled = read_labelled_pictures([str(pictures / "train.txt")], [str(pictures)], validation_fraction=0.0)
    for _, labels in pair_batches(labelled, 2, 32, 0, (0.5, 1.0), group).take(4):
        first, second = labels.numpy().reshape(2, 2)
        assert (first == second).all()
        assert group == 1 or set(first) == {0, 1}, "look-alikes belong in one batch"


def test_a_resumed_run_sees_the_batches_of_an_undisturbed_one(pictures):
    labelled = read_labelled_pictures([str(pictures / "train.txt")], [str(pictures)], validation_fraction=0.0)
    whole = [images.numpy() for images, _ in pair_batches(labelled, 2, 32, 0, (0.5, 1.0)).take(5)]
    resumed = [images.numpy() for images, _ in pair_batches(labelled, 2, 32, 0, (0.5, 1.0), skip_steps=3).take(2)]
    assert np.array_equal(whole[3:], resumed)


def test_partners_are_found_better_after_some_steps():
    args = parser().parse_args(["--train_list", "x", "--image_dir", "x", "--max_iters", "25"])
    trainer = LandmarkContrast(Delg("small", block3_strides=False), args)
    crops = np.random.default_rng(0).uniform(-1, 1, (4, 6, 6, 3)).repeat(16, 1).repeat(16, 2)
    images = tf.constant(np.concatenate([crops, crops[:, ::-1]]).astype(np.float32))
    losses = [float(trainer.train_step(images, tf.range(8) % 4)[0]) for _ in range(25)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_the_fitted_decoder_reconstructs_better_than_the_mean():
    model = Delg("small", block3_strides=False)
    images = tf.constant(np.random.default_rng(0).uniform(-1, 1, (4, 128, 128, 3)).astype(np.float32))
    fit_decoder(model, tf.data.Dataset.from_tensors((images, tf.zeros(4))))
    cells = model.conv4(images)
    left = np.square(model.local(cells).reconstruction - cells).mean()
    assert left < 0.7 * np.var(cells.numpy().reshape(-1, cells.shape[-1]), axis=0).mean()


def test_the_command_writes_weights_and_refuses_wrong_input(pictures):
    def command(*extra):
        return run_tool("delg_extract/contrast.py", "--train_list", pictures / "train.txt", "--image_dir", pictures, "--logdir",
                        pictures / "log", "--max_iters", "1", "--batch_size", "2", "--image_size", "96", *extra)

    done = command()
    assert done.returncode == 0, done.stderr
    assert np.isfinite(load_weights(pictures / "log/weights.h5").variables_by_name["autoenc_conv2/kernel"].numpy()).all()
    assert (pictures / "log/train.csv").read_text().startswith("step,loss,local,global\n1,")
    assert_one_line_error(command("--batch_size", "5", "--logdir", pictures / "other"), "--batch_size 5")
