"""Binary codes: the bits of loops, errors within their bounds, ITQ nearer to the descriptors than a random rotation."""

import numpy as np
import pytest
from builders import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.store.binary_codes import BinaryCodes, learn_codes, random_codes


def skewed_rows(seed, count, width):
    """Unit rows with a mean and directions of unequal variance, as local descriptors have them."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, width)) * np.linspace(1, 0.1, width) + 0.5 * unit_rows(generator, 1, width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def squared_errors(codes, rows):
    """e^2 of the module's docstring, axis by axis."""
    length = np.linalg.norm(codes.axes[0])
    rest, total = rows.astype(np.float64) - codes.mean, 0
    for axis in codes.axes.astype(np.float64):
        along = rest @ axis / length
        total = total + (np.abs(along) - length) ** 2 - along**2
    return total + (rest**2).sum(axis=1)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 999),
    st.sampled_from([(8, 8), (16, 16), (24, 16), (128, 128)]),
    st.sampled_from(["itq", "random", None]),
)
def test_every_descriptor_is_read_within_its_bound(seed, sizes, kind):
    dim, bits = sizes
    rows = skewed_rows(seed, 200, dim)
    codes = learn_codes(rows, bits, kind, seed, 5) if kind else random_codes(dim, bits, seed)
    again = codes.decode(codes.encode(rows))
    assert again.dtype == np.float32 and np.allclose(np.linalg.norm(again, axis=1), 1, atol=1e-5)
    own, errors = np.vecdot(rows.astype(np.float64), again), squared_errors(codes, rows)
    assert (own >= np.where(errors < 1, np.sqrt(1 - np.minimum(errors, 1)), -1) - 1e-5).all()
    if kind is None and bits == dim:
        np.testing.assert_allclose(own, np.abs(rows @ codes.axes.T).sum(axis=1), atol=1e-5)
        assert own.min() >= 1 / np.sqrt(bits) - 1e-5


def test_bits_are_the_sides_of_the_planes_the_first_the_highest_of_its_byte():
    rows, codes = skewed_rows(0, 20, 16), random_codes(16, 16, 3)
    codes = BinaryCodes(rows.mean(axis=0), codes.axes)
    for row, code in zip(rows, codes.encode(rows)):
        text = "".join("1" if axis @ (row - codes.mean) > 0 else "0" for axis in codes.axes)
        assert [int(text[:8], 2), int(text[8:], 2)] == code.tolist()
        total = codes.mean + sum(axis if bit == "1" else -axis for axis, bit in zip(codes.axes, text))
        np.testing.assert_allclose(codes.decode(code[None])[0], total / np.linalg.norm(total), atol=1e-6)


def test_with_mean_0_the_cosine_as_read_counts_differing_bits_and_codes_come_back():
    codes = random_codes(128, 128, 1)
    some = codes.encode(unit_rows(np.random.default_rng(0), 50, 128))
    read = codes.decode(some)
    differing = np.bitwise_count(some[:, None] ^ some).sum(axis=2, dtype=int)
    np.testing.assert_allclose(read @ read.T, 1 - differing / 64, atol=1e-5)
    np.testing.assert_array_equal(codes.encode(read), some)


@pytest.mark.parametrize("bits", [16, 24])
def test_itq_reads_nearer_than_the_same_directions_turned_at_random(bits):
    rows = skewed_rows(0, 3000, 24)
    learned = {kind: learn_codes(rows, bits, kind, seed=2) for kind in ("itq", "random")}
    own = {kind: np.vecdot(rows, codes.decode(codes.encode(rows))).mean() for kind, codes in learned.items()}
    assert own["itq"] > own["random"] + 0.005
    for codes in learned.values():
        products = codes.axes @ codes.axes.T
        np.testing.assert_allclose(products, products[0, 0] * np.eye(bits), atol=1e-5)
    np.testing.assert_array_equal(learn_codes(rows, bits, seed=2).axes, learned["itq"].axes)
    # The length of the axes is the best one.
    for factor in (0.97, 1.03):
        assert squared_errors(learned["itq"], rows).mean() < squared_errors(scaled(learned["itq"], factor), rows).mean()


def scaled(codes, factor):
    return BinaryCodes(codes.mean, codes.axes * np.float32(factor))


@pytest.mark.parametrize("dim, bits", [(16, 0), (16, 12), (16, 24), (16, -8), (4, 8)])
def test_impossible_numbers_of_bits_are_refused(dim, bits):
    for make in (lambda: random_codes(dim, bits), lambda: learn_codes(np.eye(dim, dtype=np.float32), bits)):
        with pytest.raises(InputError, match=f"{bits} bits"):
            make()


def test_training_refuses_what_cannot_be_learned():
    rows = skewed_rows(0, 9, 16)
    for arguments, part in (
        ((rows, 16), "vary in 8 directions"),
        ((rows, 8, "pca"), "'pca'"),
        ((rows, 8, "itq", -1), "seed -1"),
    ):
        with pytest.raises(InputError, match=part):
            learn_codes(*arguments)
