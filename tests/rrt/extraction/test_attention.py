"""Attention by late interaction: gains by hand, and a regression that finds what the images of a landmark share."""

import numpy as np
from builders import unit_rows

from rrt.extraction.attention import SPREAD, Attention, fit_attention, gains


def test_gain_is_the_best_cosine_in_the_landmark_less_that_in_others():
    x, y, z = np.eye(3, dtype=np.float32)
    descriptors = [np.stack([x, y]), x[None], np.stack([x, z]), y[None], z[None]]
    found = gains(descriptors, np.array([0, 0, 0, 1, 2]), same=2, others=2, generator=np.random.default_rng(0))
    # x: in both images of its landmark, in no other. y: in neither, in one of the two others.
    np.testing.assert_allclose(found[0], [1, -0.5])
    np.testing.assert_allclose(found[1], [1])
    np.testing.assert_allclose(found[2], [1, -0.5])
    assert found[3] is None and found[4] is None


def test_attention_is_softplus_of_a_linear_function_of_direction_and_length():
    attention = Attention(np.float32([1, -2]), 0.5, 0.25)
    cells = np.float32([[3, 4], [0, 2]])
    expected = [0.6 - 1.6 + 0.5 * np.log(5) + 0.25, -2 + 0.5 * np.log(2) + 0.25]
    np.testing.assert_allclose(attention(cells), np.log1p(np.exp(expected)), rtol=1e-6)


def test_the_regression_ranks_by_the_gain_whatever_it_comes_from():
    generator = np.random.default_rng(0)
    for of_length in (0.0, 2.0):
        length = generator.uniform(1, 3, 400)
        cells = unit_rows(generator, 400, 6) * length[:, None]
        gain = 0.3 * cells[:, 0] / length + 0.1 * of_length * np.log(length) + 0.01
        found = fit_attention(cells, gain, ridge=1e-3)(cells)
        assert np.corrcoef(np.argsort(np.argsort(found)), np.argsort(np.argsort(gain)))[0, 1] > 0.999
        assert np.isclose(np.std(np.log(np.expm1(found))), SPREAD, rtol=1e-2)


def test_cells_of_equal_length_are_weighed_by_direction_alone():
    cells = unit_rows(np.random.default_rng(0), 200, 4)
    found = fit_attention(cells, cells[:, 1], ridge=1e-3)
    assert np.isfinite(found.weight).all() and abs(found.of_length) < 1e-3 < found.weight[1]
