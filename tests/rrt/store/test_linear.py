"""Unit length and principal components of descriptor rows."""

import numpy as np
import pytest

from rrt.store.linear import fixed_signs, l2_normalize, principal_components


def test_rows_get_unit_length_along_the_last_axis_and_zeros_stay_zeros():
    rows = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    rows[1, 2] = 0
    found = l2_normalize(rows)
    lengths = np.linalg.norm(found, axis=2)
    assert found[1, 2].tolist() == [0] * 5 and lengths[1, 2] == 0
    lengths[1, 2] = 1
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    np.testing.assert_allclose(l2_normalize(rows[0, 0]), found[0, 0], atol=1e-7)
    np.testing.assert_allclose(l2_normalize([[3, 4]]), [[0.6, 0.8]])


@pytest.mark.parametrize("given, found", [("float16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_single_precision_at_least(given, found):
    assert l2_normalize(np.ones((2, 3), given)).dtype == found
    # Half precision would overflow in the squares.
    np.testing.assert_allclose(l2_normalize(np.full((1, 4), 1000, given)), 0.5)


def test_a_row_shorter_than_the_least_length_is_divided_by_that():
    rows = np.array([[3e-7, 4e-7], [3e-5, 4e-5]])
    np.testing.assert_allclose(l2_normalize(rows, 1e-6), [[0.3, 0.4], [0.6, 0.8]])
    np.testing.assert_allclose(l2_normalize(rows), [[0.6, 0.8], [0.6, 0.8]])
    np.testing.assert_allclose(l2_normalize(np.array([[3e-13, 4e-13]])), [[0.3, 0.4]])


def test_principal_components_rebuild_the_matrix_the_strongest_first():
    rows = np.random.default_rng(1).standard_normal((50, 6)) * [1, 5, 2, 4, 3, 6]
    covariance = rows.T @ rows / 50
    values, vectors = principal_components(covariance)
    assert (np.diff(values) < 0).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(vectors * values @ vectors.T, covariance, atol=1e-12)
    np.testing.assert_array_equal(fixed_signs(vectors), vectors)


def test_the_largest_component_of_every_column_is_positive():
    columns = np.array([[1.0, -3, 2], [-2, 1, 1]])
    assert fixed_signs(columns).tolist() == [[-1, 3, 2], [2, -1, 1]]
