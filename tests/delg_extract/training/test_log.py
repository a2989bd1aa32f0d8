"""The image of a training run."""

import numpy as np
import pandas as pd
from PIL import Image

from delg_extract.training.log import POINTS, draw_curves, running_mean


def test_the_running_mean_keeps_a_trend_without_delay_and_takes_most_of_the_noise():
    rng = np.random.default_rng(0)
    trend = pd.Series(np.linspace(5, 1, 600))
    smooth = running_mean(trend + rng.normal(0, 1, 600))
    assert np.abs(smooth - trend).max() < 0.7 and np.abs(smooth - trend).mean() < 0.2
    assert np.allclose(running_mean(trend)[50:-50], trend[50:-50])


def test_a_few_values_are_drawn_as_they_are():
    values = pd.Series(np.random.default_rng(1).normal(size=2 * POINTS - 1))
    assert running_mean(values).equals(values)


def test_every_way_to_train_has_a_image(tmp_path):
    """Columns of an untrained head are missing or empty; a validation may not have come yet; a run may have one
    step."""
    whole = pd.DataFrame(
        {
            "step": np.arange(40) * 5,
            "total": np.exp(-np.arange(40) / 9) + 1,
            "global": 2.0,
            "attention": 1.0,
            "reconstruction": 0.3,
            "global_accuracy": np.linspace(0, 1, 40),
            "local_accuracy": np.linspace(0, 0.5, 40),
            "validation_global": [0.4 if i % 20 == 0 else None for i in range(40)],
            "validation_local": np.nan,
        }
    )
    for number, table in enumerate(
        (whole, whole.drop(columns=["global", "global_accuracy", "validation_global"]), whole.iloc[:1], whole.iloc[:0])
    ):
        csv, png = tmp_path / f"{number}.csv", tmp_path / f"{number}.png"
        table.to_csv(csv, index=False)
        draw_curves(csv, png)
        with Image.open(png) as image:
            assert image.size[0] > 1000 and np.asarray(image.convert("L")).std() > 5
