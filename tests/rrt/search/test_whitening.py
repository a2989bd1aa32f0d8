"""Supervised whitening against loops over all matching pairs, and its defining property."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.search.exact import search
from rrt.search.whitening import (
    Whitening,
    describe_whitening,
    fit_pca_whitening,
    fit_supervised_whitening,
    load_whitening,
)


def landmarks(seed=0, count=60, width=8, classes=6):
    """Descriptors [count, width] that differ within a class mostly in the first directions, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    centres = generator.standard_normal((classes, width))
    noise = generator.standard_normal((count, width)) * np.geomspace(3, 0.1, width)
    return np.float32(centres[labels] + noise + 5), labels


def pairs_of(labels):
    return [pair for pair in combinations(range(len(labels)), 2) if labels[pair[0]] == labels[pair[1]]]


def slow_supervised_whitening(x, pairs, dim, power, shrinkage):
    """(mean, projection up to the signs of its columns): the module's formulas, a pair at a time."""
    x = x.astype(np.float64)
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for first, second in pairs:
        difference = x[first] - x[second]
        covariance += np.outer(difference, difference) / 2 / len(pairs)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance)
    )
    values, vectors = np.linalg.eigh(covariance)
    whiten = sum(np.outer(vector, vector) / value**power for value, vector in zip(values, vectors.T))
    whitened = (x - x.mean(axis=0)) @ whiten
    values, vectors = np.linalg.eigh(np.cov(whitened.T))
    return x.mean(axis=0), whiten @ vectors[:, np.argsort(-values)[:dim]]


@pytest.mark.parametrize(
    "power, shrinkage, dim", [(0.5, 0.0, 8), (0.5, 0.5, 3), (0.25, 0.1, 5), (0, 0.3, 4), (0.5, 1.0, 4)]
)
def test_labels_and_all_their_pairs_give_the_projection_of_a_loop_over_pairs(power, shrinkage, dim):
    x, labels = landmarks()
    pairs = pairs_of(labels)
    mean, projection = slow_supervised_whitening(x, pairs, dim, power, shrinkage)
    for given in ({"labels": labels}, {"pairs": np.array(pairs)}):
        found = fit_supervised_whitening(x, dim, power=power, shrinkage=shrinkage, **given)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(np.abs(found.projection), np.abs(projection), atol=2e-4 * np.abs(projection).max())
        # Relative signs within a column are those of the loop, too.
        cosines = np.vecdot(found.projection.T, projection.T) / np.linalg.norm(projection, axis=0) ** 2
        np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-4)


@pytest.mark.parametrize("dim", [8, 3])
def test_differences_of_matching_pairs_have_unit_covariance_before_normalisation(dim):
    x, labels = landmarks()
    whitening = fit_supervised_whitening(x, dim, labels=labels, shrinkage=0)
    projected = (x - whitening.mean) @ whitening.projection
    differences = np.array([projected[first] - projected[second] for first, second in pairs_of(labels)])
    np.testing.assert_allclose(differences.T @ differences / (2 * len(differences)), np.eye(dim), atol=1e-3)
    # And the whole varies along the axes, most along the first.
    spread = np.cov(projected.T)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-3 * spread[0, 0])
    assert (np.diff(np.diag(spread)) < 0).all()


def test_a_full_shrinkage_is_pca_alone_up_to_scale():
    x, labels = landmarks()
    whitening = fit_supervised_whitening(x, 5, labels=labels, shrinkage=1)
    pca = fit_pca_whitening(x, 5, power=0)
    np.testing.assert_allclose(np.abs(whitening.apply(x)), np.abs(pca.apply(x)), atol=1e-4)


def test_matching_pictures_are_found_that_strong_irrelevant_directions_hide():
    x, labels = landmarks(seed=1, count=120)
    whitening = fit_supervised_whitening(x[:60], 6, labels=labels[:60], shrinkage=0.05)

    def precision(rows):
        nearest = search(rows, rows, 6)[1][:, 1:]
        return (labels[60:][nearest] == labels[60:][:, None]).mean()

    assert precision(whitening.apply(x[60:])) > precision(fit_pca_whitening(x[:60], 6).apply(x[60:])) + 0.2


def test_few_pairs_of_many_dimensions_need_shrinkage_and_with_it_work():
    x = np.random.default_rng(0).standard_normal((30, 100))
    pairs = np.array([[0, 1], [2, 3], [4, 4]])
    with pytest.raises(InputError, match="differ in 2 of 29 directions only; give a shrinkage above 0"):
        fit_supervised_whitening(x, 5, pairs=pairs, shrinkage=0)
    whitening = fit_supervised_whitening(x, 29, pairs=pairs, shrinkage=0.1)
    assert whitening.projection.shape == (100, 29) and np.isfinite(whitening.projection).all()


def test_more_pairs_than_a_block_holds_all_count():
    x, labels = landmarks(count=240)
    pairs = np.array(pairs_of(labels))
    assert len(pairs) > 4096 + 100
    one, two = (fit_supervised_whitening(x, 4, **given) for given in ({"labels": labels}, {"pairs": pairs}))
    np.testing.assert_allclose(one.projection, two.projection, rtol=1e-3, atol=1e-5)


def test_descriptors_on_a_line_vary_in_one_direction_and_may_be_cut_to_it():
    x = np.outer(np.arange(9), [2, 0, -1]) + np.float32([1, 2, 3])
    whitening = fit_pca_whitening(x, None, power=0)
    np.testing.assert_allclose(whitening.projection, np.array([[2], [0], [-1]]) / np.sqrt(5), atol=1e-6)
    with pytest.raises(InputError, match="9 images of 3 dimensions vary in 1 directions only"):
        fit_pca_whitening(x, 2)
    x, labels = landmarks()
    assert fit_supervised_whitening(x, 1, labels=labels).projection.shape == (8, 1)


def test_what_is_learned_is_float32_and_a_record_names_its_file(tmp_path):
    x, labels = landmarks()
    for whitening in (fit_pca_whitening(x, 3), fit_supervised_whitening(x, 3, labels=labels)):
        assert whitening.mean.dtype == whitening.projection.dtype == np.float32
    path = whitening.save(tmp_path / "w.npz")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert describe_whitening(path) == {"whitening": str(path), "whitening_sha256": sha256}
    assert describe_whitening(None) == {"whitening": None, "whitening_sha256": None}
    for learned, name in ((whitening, "^whitening"), (load_whitening(path), "w.npz")):
        with pytest.raises(
            InputError, match=f"{name}: learned for 8 dimensions, the descriptors have 5; learn it again"
        ):
            learned.apply(x[:, :5])
    path.write_bytes(b"")
    for file, fault in ((path, "not a whitening file"), (tmp_path / "x.npz", "no such file")):
        with pytest.raises(InputError, match=f"{file.name}: {fault}.*; make it with tools/learn_whitening.py"):
            load_whitening(file)


def test_it_is_a_function_of_its_input():
    x, labels = landmarks()
    one, two = (fit_supervised_whitening(x, 4, labels=labels) for _ in range(2))
    assert (one.projection == two.projection).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dim": 9}, "60 images of 8 dimensions vary in 8 directions only; give a dim of at most 8"),
        ({"dim": 0}, "dim must be at least 1"),
        ({"shrinkage": 1.5}, "shrinkage within 0..1"),
        ({"power": -1}, "power not negative"),
        ({"shrinkage": float("nan")}, "shrinkage within 0..1"),
        ({"labels": np.arange(60)}, "no two images have the same label"),
        ({"labels": None, "pairs": np.empty((0, 2), int)}, "no matching pairs"),
    ],
)
def test_impossible_requests_say_why(arguments, message):
    x, labels = landmarks()
    with pytest.raises(InputError, match=message):
        fit_supervised_whitening(x, **({"dim": 4, "labels": labels} | arguments))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_descriptors_that_are_not_finite_are_named_by_their_row(value):
    x, labels = landmarks()
    x[7, 3] = value
    for given in (None, labels):
        with pytest.raises(InputError, match="whitening: the global descriptor of '7' is not finite"):
            Whitening.fit(x, 4, given)


def test_what_does_not_fit_the_descriptors_is_refused():
    x, labels = landmarks()
    with pytest.raises(InputError, match="59 labels for 60 descriptors"):
        Whitening.fit(x, 4, labels[1:])
    with pytest.raises(InputError, match=r"whitening: descriptors of shape \(8,\); expected \[images, dimensions\]"):
        Whitening.fit(x, 4).apply(x[0])


def test_a_whitening_is_learned_saved_and_loaded_by_its_class(tmp_path):
    x, labels = landmarks()
    learned = Whitening.fit(x, 4)
    for name in ("w.npz", "w.safetensors"):
        loaded = Whitening.load(learned.save(tmp_path / name))
        np.testing.assert_array_equal(loaded.apply(x), fit_pca_whitening(x, 4).apply(x))
    supervised = Whitening.fit(x, 3, labels)
    np.testing.assert_array_equal(supervised.projection, fit_supervised_whitening(x, 3, labels).projection)
    assert repr(supervised) == "<whitening of 8 dimensions to 3>"
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="w.safetensors: not a whitening file"):
        Whitening.load(tmp_path / "w.safetensors")
