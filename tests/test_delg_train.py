"""DELG training: one step equals the reference; a killed run continues; wrong input gives one line."""
import json

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from delg_golden import GOLDEN, rule_model  # noqa: E402
from delg_extract.train import Trainer, parser  # noqa: E402


def arguments(*extra):
    return parser().parse_args(["--train_list", "x", "--image_dir", "x", "--max_iters", "100", *extra])


@pytest.mark.parametrize("mode", ["delg", "delf"])
def test_training_steps_equal_the_reference(mode):
    golden = json.loads((GOLDEN / f"seed1/train_{mode}.json").read_text())
    arrays = np.load(GOLDEN / f"seed1/train_{mode}.npz")
    images = (np.load(GOLDEN / "seed1/train_images.npz")["images"].astype(np.float32) - 128) / 128
    trainer = Trainer(rule_model(use_global=mode == "delg"), arguments())
    labels = tf.constant(golden["labels"])
    for step, (loss_tolerance, norm_tolerance) in enumerate(((1e-5, 5e-4), (3e-4, 5e-3))):
        expected = golden["steps"][step]
        total, global_, attention, reconstruction, norm, *_ = (float(x) for x in trainer.train_step(images, labels))
        for ours, name in ((total, "total_loss"), (global_, "loss/desc/crossentropy"), (attention, "loss/attn/crossentropy"),
                           (reconstruction, "loss/recon/mse")):
            assert ours == pytest.approx(expected[name], rel=loss_tolerance), name
        assert norm == pytest.approx(expected["global_grad_norm_before_clip"], rel=norm_tolerance)
        for key in (k for k in arrays.files if k.startswith(f"step{step}/after/")):
            expected_values = arrays[key]
            ours = trainer.model.variables_by_name[key.split("/after/")[1]].numpy().ravel()[:len(expected_values)]
            assert np.abs(ours - expected_values).max() <= 1e-3 * np.abs(expected_values).max(), key
