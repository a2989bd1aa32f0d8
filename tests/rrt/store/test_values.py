"""Local descriptors in the store's types: rounding is to the nearest, and int8 errs no more than its bound says."""

import numpy as np
import pytest
from builders import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from rrt.store.values import Float32Rows, all_finite, as_float32, to_float32, to_stored

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


def rows_of(seed, count, width, sparsity):
    """Unit rows of which a share of the components is zero or tiny: from dense ones to those with one component."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, width)) * generator.choice(
        [1, 1e-3, 0], (count, width), p=[1 - sparsity, sparsity / 2, sparsity / 2]
    )
    rows[:, 0] += generator.choice([1, 1e-6], count)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cosines(first, second):
    return first.astype(np.float64) @ second.astype(np.float64).T


ROWS = st.builds(rows_of, st.integers(0, 999), st.integers(1, 30), st.integers(1, 300), st.floats(0, 1))


@settings(max_examples=60)
@given(ROWS)
def test_int8_keeps_every_cosine_within_its_bound(rows):
    again = to_float32(to_stored(rows, "int8"))
    sines = np.sqrt(rows.shape[1]) * np.abs(rows).max(axis=1) / 254
    # float32 rounding of the rows themselves.
    tolerance = 2e-6
    own = np.diagonal(cosines(rows, again))
    assert (own >= np.sqrt(1 - np.minimum(sines, 1) ** 2) - tolerance).all()
    change = np.abs(cosines(again, again) - cosines(rows, rows))
    assert (change <= sines[:, None] + sines + tolerance).all()
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1, atol=1e-6)


def test_int8_of_128_random_components_is_read_within_a_ten_thousandth():
    rows = unit_rows(np.random.default_rng(0), 1000, 128)
    again = to_float32(to_stored(rows, "int8"))
    assert np.diagonal(cosines(rows, again)).min() > 0.9999
    errors = cosines(again, again) - cosines(rows, rows)
    assert np.sqrt(np.mean(errors**2)) < 0.001 and np.abs(errors).max() < 0.006


def test_int8_rounds_to_the_nearest_and_ties_to_even():
    rows = np.array([[127, 0.5, 1.5, -2.5, 3.49, 3.51], [-254, 1, 3, 5, 0, 0]], np.float32)
    assert to_stored(rows, "int8").tolist() == [[127, 0, 2, -2, 3, 4], [-127, 0, 2, 2, 0, 0]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_zeros_stay_zeros_and_no_rows_stay_no_rows(dtype):
    rows = np.zeros((3, 8), np.float32)
    np.testing.assert_array_equal(to_float32(to_stored(rows, dtype)), rows)
    assert to_float32(to_stored(rows[:0], dtype)).shape == (0, 8)


def test_every_int8_row_but_that_of_zeros_is_read_as_a_unit_row():
    stored = np.int8([[1, 0], [0, -1], [3, 4], [0, 0]])
    np.testing.assert_allclose(to_float32(stored), [[1, 0], [0, -1], [0.6, 0.8], [0, 0]], atol=1e-6)


def test_int8_is_kept_when_it_is_written_again():
    kept = to_stored(unit_rows(np.random.default_rng(1), 500, 40), "int8")
    np.testing.assert_array_equal(to_stored(to_float32(kept), "int8"), kept)
    np.testing.assert_array_equal(to_stored(kept, "int8"), kept)


@settings(max_examples=60)
@given(ROWS)
def test_rounding_to_half_precision_is_that_of_numpy(rows):
    np.testing.assert_array_equal(to_stored(rows, "float16").view(np.uint16), rows.astype(np.float16).view(np.uint16))


def test_values_between_and_at_all_halves_round_as_numpy_rounds_them():
    finite = np.sort(HALVES[np.abs(HALVES) <= 2].astype(np.float32))
    middle = (finite[:-1] + finite[1:]) / 2
    values = np.concatenate(
        [finite, middle, np.nextafter(middle, 9, dtype=np.float32), np.nextafter(middle, -9, dtype=np.float32)]
    )[:, None]
    rounded = to_stored(values, "float16")
    np.testing.assert_array_equal(rounded.view(np.uint16), values.astype(np.float16).view(np.uint16))
    np.testing.assert_array_equal(to_stored(rounded[::3], "float16"), rounded[::3])


def test_every_half_comes_back_as_the_same_float():
    for values in (HALVES[np.isfinite(HALVES)][:, None], HALVES[:, None], HALVES[2::7, None]):
        expected = values.astype(np.float32)
        np.testing.assert_array_equal(to_float32(values), expected)
        np.testing.assert_array_equal(np.signbit(to_float32(values)), np.signbit(expected))


def test_halves_of_a_length_that_the_fast_conversion_takes_come_back_as_the_same_floats():
    # Those that hold large numbers together, as all halves above, are converted another way.
    small = HALVES[np.abs(HALVES) <= 2]
    for halves in (small[:, None], small[None], small[:0, None], *HALVES[::11, None, None], HALVES[-1:, None]):
        found, expected = to_float32(halves), halves.astype(np.float32)
        assert found.shape == halves.shape
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("half", [65504, -65504, np.inf, -np.inf, np.nan, 2**-24, -(2**-24)])
def test_the_largest_the_smallest_and_no_number_come_back_alone(half):
    np.testing.assert_array_equal(to_float32(np.array([[half]], np.float16)), np.array([[half]], np.float32))


def test_what_is_converted_is_memory_of_its_own_and_float32_is_not_converted():
    for dtype in ("float16", "float32"):
        rows = np.ones((2, 3), dtype)
        to_float32(rows)[:] = 7
        assert (rows == 1).all()
    assert as_float32(rows) is rows and as_float32(rows.astype(np.float16)).dtype == np.float32
    assert to_stored(rows, "float32") is rows
    # Integers are scaled even where they are int8 already.
    assert to_stored(np.array([[0, -2]], np.int8), "int8").tolist() == [[0, -127]]
    assert to_stored(np.array([[3, 4]], np.int8), "float16").tolist() == np.float16([[0.6, 0.8]]).tolist()


def test_a_table_of_halves_gives_float32_rows_by_slice_number_and_numbers():
    halves = np.arange(12, dtype=np.float16).reshape(4, 3)
    table = Float32Rows(halves)
    assert len(table) == 4 and table.shape == (4, 3) and table.dtype == np.float32
    for key in (slice(1, 3), 2, np.array([3, 0])):
        assert table[key].dtype == np.float32
        np.testing.assert_array_equal(table[key], halves[key])
    assert np.asarray(table).dtype == np.float32 and np.asarray(table, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.asarray(table), halves)


def test_every_half_is_known_as_finite_or_not():
    for half in HALVES[::97].tolist() + [np.inf, -np.inf, np.nan, -np.nan, 65504.0, -65504.0, -0.0]:
        rows = np.zeros((5, 3), np.float16)
        rows[3, 1] = half
        assert all_finite(rows) == np.isfinite(rows).all()
    assert [all_finite(half) for half in HALVES[:, None]] == np.isfinite(HALVES).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(dtype):
    rows = to_stored(unit_rows(np.random.default_rng(0), 50, 16), dtype)
    assert all_finite(rows) and all_finite(rows[:0])
    for place in ((0, 0), (49, 15), (20, 3)):
        for value in (np.inf, -np.inf, np.nan):
            damaged = rows.copy()
            damaged[place] = value
            assert not all_finite(damaged)
