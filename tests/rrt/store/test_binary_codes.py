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


def leading_directions(rows, bits):
    return np.linalg.svd(rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64), full_matrices=False)[2][:bits]


@pytest.mark.parametrize("bits", [16, 24])
def test_no_turn_brings_the_projections_nearer_to_the_corners_that_itq_gave_them(bits):
    rows = skewed_rows(1, 300, 24)

    def procrustes(codes):
        """Turned projections times their corners: symmetric and positive exactly where no other turn is nearer."""
        turned = (rows - codes.mean).astype(np.float64) @ codes.axes.T / np.linalg.norm(codes.axes[0])
        return turned.T @ np.sign(turned)

    found = procrustes(learn_codes(rows, bits, seed=3, iterations=500))
    np.testing.assert_allclose(found, found.T, atol=1e-4 * found.max())
    assert np.linalg.eigvalsh(found).min() > 0
    other = procrustes(learn_codes(rows, bits, "random", seed=3))
    assert np.abs(other - other.T).max() > 0.1 * other.max()


@pytest.mark.parametrize("kind", ["itq", "random"])
def test_axes_lie_in_the_leading_principal_directions(kind):
    rows = skewed_rows(2, 400, 24)
    codes, directions = learn_codes(rows, 16, kind), leading_directions(rows, 16)
    np.testing.assert_allclose(codes.mean, rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(codes.axes @ directions.T @ directions, codes.axes, atol=1e-5)


def test_the_turn_at_random_is_that_of_the_seed():
    rows = skewed_rows(3, 400, 24)
    directions = leading_directions(rows, 16)
    directions *= np.sign(directions[np.arange(16), np.abs(directions).argmax(axis=1)])[:, None]
    rotation = random_codes(16, 16, 7).axes * 4
    found = learn_codes(rows, 16, "random", 7)
    np.testing.assert_allclose(found.axes / np.linalg.norm(found.axes[0]), rotation.T @ directions, atol=1e-4)
    np.testing.assert_array_equal(learn_codes(rows, 16, "itq", 7, 0).axes, found.axes)
    np.testing.assert_array_equal(learn_codes(rows, 16).axes, learn_codes(rows, 16, "itq", 0, 50).axes)


def test_the_random_rotation_of_a_seed_is_that_of_every_version():
    np.testing.assert_allclose(
        random_codes(8, 8).axes[:2, :3] * np.sqrt(8),
        [[0.0487019, -0.0676479, 0.4369492], [-0.2725937, -0.4373893, -0.1885593]],
        atol=1e-6,
    )
    few, all_axes = random_codes(16, 8, 5).axes, random_codes(16, 16, 5).axes
    np.testing.assert_allclose(few, all_axes[:8] * np.sqrt(2), rtol=1e-6)


def test_a_code_without_direction_is_read_as_zeros():
    axis = np.eye(8, dtype=np.float32)
    codes = BinaryCodes(np.zeros(8, np.float32), np.concatenate([axis, -axis]))
    # A row on a plane is not beyond it.
    assert codes.encode(np.zeros((1, 8), np.float32)).tolist() == [[0, 0]]
    assert codes.dim == 8 and codes.decode(np.full((1, 2), 255, np.uint8)).tolist() == [[0] * 8]


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
        ((rows, 8, "itq", 0, -1), "of -1 iterations"),
        ((np.ones((20, 16), np.float32), 8), "the 20 descriptors they are learned from vary in 0 directions"),
    ):
        with pytest.raises(InputError, match=part):
            learn_codes(*arguments)
    with pytest.raises(InputError, match="seed -1"):
        random_codes(16, 8, -1)


def test_directions_far_below_the_first_do_not_count():
    """One direction varies by 1, eight by 1e-2, the rest by 1e-5, which is below a ten-millionth of the variance."""
    spread = np.float32([1, *[1e-2] * 8, *[1e-5] * 7])
    rows = np.random.default_rng(0).standard_normal((4000, 16)).astype(np.float32) * spread
    assert learn_codes(rows, 8).axes.shape == (8, 16)
    with pytest.raises(InputError, match="vary in 9 directions"):
        learn_codes(rows, 16)
