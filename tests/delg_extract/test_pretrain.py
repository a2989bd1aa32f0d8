"""Self-supervised pretraining: the warps and their inverse look-up, the loss, the command."""

import numpy as np
import pytest
from commands import error_of

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import load_weights
from delg_extract.pretrain import main, parser
from delg_extract.training.pretraining import Pretrainer, pretrain, random_warps, sample_cells, warp_points

pytestmark = pytest.mark.usefixtures("tiny")


def test_a_warped_image_shows_at_each_point_what_stands_where_the_point_maps_to():
    yy, xx = np.mgrid[:96, :96].astype(np.float32)
    crops = np.repeat(np.stack([xx, yy, np.ones_like(xx)], -1)[None], 5, 0)  # every pixel holds its own place
    warps = random_warps(5, 64, 16, tf.random.Generator.from_seed(0))
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=crops,
        transforms=warps,
        output_shape=(64, 64),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    ).numpy()
    points = np.array([(16, 16), (32, 32), (40, 20)])
    expected = warp_points(warps, tf.constant(points, tf.float32)).numpy()
    inside = (expected > 0).all(-1) & (expected < 95).all(-1)
    assert inside.sum() >= 10
    np.testing.assert_allclose(warped[:, points[:, 1], points[:, 0], :2][inside], expected[inside], atol=1e-3)


def test_warps_are_mild_and_keep_the_middle_near_the_middle():
    warps = random_warps(200, 128, 32, tf.random.Generator.from_seed(1))
    middle = warp_points(warps, tf.constant([(63.5, 63.5)])).numpy()[:, 0]
    assert np.abs(middle - 95.5).max() <= 128 / 10 + 1e-3


def test_features_are_sampled_bilinearly_and_clamped_at_the_border():
    yy, xx = np.mgrid[:4, :5].astype(np.float32)
    features = tf.constant(np.stack([xx, yy], -1)[None])
    places = np.array([(0, 0), (1.25, 2.5), (3.9, 2.99), (-2, 1), (9, 9)], np.float32)
    expected = np.clip(places, 0, (4, 3))
    np.testing.assert_allclose(sample_cells(features, tf.constant(places[None]))[0], expected, atol=2e-3)


def test_partners_are_found_better_after_some_steps():
    words = "--train_list x --image_dir x --image_size 96 --max_iters 80 --initial_lr 0.1"
    args = parser().parse_args(words.split())
    trainer = Pretrainer(Delg("small"), args)
    crops = tf.constant(
        np.random.default_rng(0).uniform(-1, 1, (4, 9, 9, 3)).repeat(16, 1).repeat(16, 2).astype(np.float32)
    )
    losses = [float(trainer.train_step(crops)[0]) for _ in range(80)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 1


@pytest.mark.usefixtures("untraced")
def test_pretraining_writes_weights_and_a_curve_and_does_not_start_again(pictures, monkeypatch, capsys):
    arguments = [
        str(word)
        for word in (
            "--train_list",
            pictures / "train.txt",
            "--image_dir",
            pictures,
            "--logdir",
            pictures / "log",
            "--max_iters",
            2,
            "--batch_size",
            4,
            "--image_size",
            96,
        )
    ]

    def error(*extra):
        return error_of(main, [*arguments, *extra], monkeypatch, capsys)

    pretrain(parser().parse_args(arguments))
    first = load_weights(pictures / "log/weights.h5").variables_by_name
    pretrain(parser().parse_args(arguments))
    assert "continues at step 2" in capsys.readouterr().out
    for name, variable in load_weights(pictures / "log/weights.h5").variables_by_name.items():
        assert np.array_equal(variable, first[name])
    assert (pictures / "log/train.csv").read_text().startswith("step,loss,matched\n2,")
    other = error("--max_iters", "3")
    assert "settings.json" in other and "max_iters" in other
    (pictures / "p3.jpg").write_bytes(b"no image")
    unreadable = error("--logdir", pictures / "unreadable")
    assert "p3.jpg" in unreadable and "cannot be decoded" in unreadable
    assert "p0.jpg" in error("--init_weights", pictures / "p0.jpg", "--logdir", pictures / "other")
