"""Starting points of the heads: what the untrained autoencoder and attention already do."""

import numpy as np
import pytest

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.training.initialise import set_attention, set_autoencoder


@pytest.fixture
def cells():
    """Conv4 cells [2000, 384] of the small backbone: non-negative, correlated, some weak and some strong."""
    rng = np.random.default_rng(0)
    mixed = np.maximum(rng.standard_normal((2000, 200)) @ rng.standard_normal((200, 384)), 0)
    return (mixed * rng.uniform(0.2, 2, (2000, 1))).astype(np.float32)


def test_the_autoencoder_starts_white_and_reconstructs_what_principal_components_can(cells):
    model = Delg("small")
    set_autoencoder(model, cells)
    maps = model.local(tf.constant(cells[:, None, None]))
    descriptors = maps.descriptors.numpy()[:, 0, 0]
    np.testing.assert_allclose(np.cov(descriptors, rowvar=False), np.eye(128), atol=1e-3)
    centred = cells - cells.mean(0)
    vectors = np.linalg.svd(centred, full_matrices=False)[2][:128]
    expected = np.maximum(centred @ vectors.T @ vectors + cells.mean(0), 0)
    np.testing.assert_allclose(maps.reconstruction.numpy()[:, 0, 0], expected, atol=1e-3 * np.abs(expected).max())


def test_the_attention_starts_as_the_magnitude_of_a_cell(cells):
    model = Delg("small")
    set_attention(model, cells)
    score = model.local(tf.constant(cells[:, None, None])).score.numpy().ravel()
    assert np.corrcoef(score, cells.sum(1))[0, 1] > 0.99
    assert (score.mean(), score.std()) == pytest.approx((0, 1), abs=0.01)
