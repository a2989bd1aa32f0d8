"""Projections and attention learned on top of a frozen network: their file, their application, how they are learned."""

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.extraction import CallableDescriber
from rrt.extraction.attention import Attention
from rrt.extraction.lite0.learning import Projection
from rrt.extraction.projections import Projections, load_projections
from rrt.files.atomic import sha256_of_file

GENERATOR = np.random.default_rng(0)


def projection(before, after):
    return Projection(*(GENERATOR.standard_normal(shape).astype(np.float32) for shape in (before, (before, after))))


@pytest.fixture
def path(tmp_path):
    attention = Attention(GENERATOR.standard_normal(6).astype(np.float32), 0.5, -0.25)
    return Projections(projection(6, 4), projection(5, 3), attention).save(tmp_path / "p.npz")


def grid(image):
    """A map of 6 channels and a global descriptor of 5."""
    generator = np.random.default_rng(int(image.sum()))
    return generator.standard_normal((2, 3, 6)), generator.standard_normal(5)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_what_is_read_is_what_was_written(path):
    found = load_projections(path)
    assert found.local.axes.shape == (6, 4) and found.global_ is not None and found.global_.axes.shape == (5, 3)
    assert found.attention is not None and (found.attention.of_length, found.attention.bias) == (0.5, -0.25)
    assert (found.path, found.sha256) == (path, sha256_of_file(path))
    plain = load_projections(Projections(projection(6, 4)).save(path.with_name("plain.npz")))
    assert plain.global_ is None and plain.attention is None


def test_descriptors_are_projected_and_of_unit_length(path):
    image = np.random.default_rng(3).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    plain, projected = (CallableDescriber(grid, "g", projection=file) for file in (None, path))
    assert (projected.global_dim, projected.local_dim) == (3, 4)
    assert projected.identity["projection_sha256"] == sha256_of_file(path)
    before, after, learned = plain.describe(image), projected.describe(image), load_projections(path)
    expected = unit((before.descriptors - learned.local.mean) @ learned.local.axes)
    np.testing.assert_allclose(after.descriptors, expected, atol=1e-5)
    expected = unit((before.global_ - learned.global_.mean) @ learned.global_.axes)
    np.testing.assert_allclose(after.global_, expected, atol=1e-5)
    np.testing.assert_array_equal(after.attention, before.attention)


@pytest.mark.parametrize(
    "local, of_global, part", [(7, 5, "local descriptors of 7"), (6, 4, "global descriptors of 4")]
)
def test_a_projection_of_other_dimensions_is_refused_with_the_remedy(tmp_path, local, of_global, part):
    path = Projections(projection(local, 2), projection(of_global, 2)).save(tmp_path / "p.npz")
    with pytest.raises(InputError, match=part) as error:
        CallableDescriber(grid, "g", projection=path)
    assert str(error.value).startswith(f"{path}: learned for ") and "tools/learn_projection.py" in str(error.value)


def test_a_file_that_is_damaged_or_from_elsewhere_is_refused(path, tmp_path):
    with pytest.raises(InputError, match="absent.npz: no such file; make it with"):
        load_projections(tmp_path / "absent.npz")
    whole = path.read_bytes()
    for bad in (b"", whole[: len(whole) // 2], b"text"):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="p.npz: not a file of projections"):
            load_projections(path)
    for arrays in (
        {"mean": np.zeros(3)},
        {"local_mean": np.zeros(3), "local_axes": np.zeros((4, 2))},
        {"local_mean": np.zeros(3), "local_axes": np.zeros((3, 0))},
        {"local_mean": np.array([{}], object), "local_axes": np.zeros((1, 1))},
        {"local_mean": np.zeros(3), "local_axes": np.eye(3), "attention_weight": np.zeros(2)},
    ):
        np.savez(path, **arrays)
        with pytest.raises(InputError, match="p.npz: not a file of projections"):
            load_projections(path)
    np.savez(path, local_mean=np.full(3, np.nan), local_axes=np.eye(3))
    with pytest.raises(InputError, match="not finite"):
        load_projections(path)
