"""What is learned from the images of a list: directions of a PCA, whitening, an attention that finds the landmark."""

from dataclasses import replace

import numpy as np
import pytest
from photo_folders import draw

from rrt.errors import InputError
from rrt.extraction import CallableDescriber
from rrt.extraction.learn import learn_projection
from rrt.extraction.projections import load_projections
from rrt.formats.image_jobs import Job

WIDTH = 12


def cells_of(image):
    """Cells of 32 pixels: mean colour and its products, in 12 channels that vary in 9 directions."""
    rows, columns = (side // 32 for side in image.shape[:2])
    colour = image.reshape(rows, 32, columns, 32, 3).mean((1, 3)) / 255 + 0.1
    products = colour[..., :, None] * colour[..., None, :]
    return np.concatenate([colour, products.reshape(rows, columns, 9)], axis=2)


@pytest.fixture
def jobs(tmp_path):
    return [Job(f"{seed}.png", draw(tmp_path / f"{seed}.png", seed, scene=seed // 4)) for seed in range(12)]


@pytest.fixture
def describer():
    return CallableDescriber(cells_of, "colours", image_size=128)


def test_local_descriptors_are_turned_to_their_strongest_directions(describer, jobs, tmp_path):
    learned, skipped = learn_projection(describer, jobs, tmp_path / "p.npz", dim=3)
    rows = np.concatenate([describer.describe(np.asarray(_pixels(job))).descriptors for job in jobs])
    np.testing.assert_allclose(learned.local.mean, rows.mean(0), atol=1e-3)
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    spread = np.var((rows - learned.local.mean) @ learned.local.axes, axis=0)
    np.testing.assert_allclose(spread, values[:3], rtol=0.02)
    assert not skipped and learned.global_ is None and learned.attention is None
    np.testing.assert_array_equal(load_projections(tmp_path / "p.npz").local.axes, learned.local.axes)


def test_global_descriptors_are_whitened(describer, jobs, tmp_path):
    learned, _ = learn_projection(describer, jobs, tmp_path / "p.npz", dim=3, global_dim=2)
    rows = np.stack([describer.describe(np.asarray(_pixels(job))).global_ for job in jobs])
    np.testing.assert_allclose(
        np.cov(((rows - rows.mean(0)) @ learned.global_.axes).T, bias=True), np.eye(2), atol=1e-2
    )


def test_attention_is_learned_from_labels(describer, jobs, tmp_path):
    learned, _ = learn_projection(describer, jobs, tmp_path / "p.npz", 3, labels=[seed // 4 for seed in range(12)])
    assert learned.attention is not None and learned.attention.weight.shape == (WIDTH,)
    with pytest.raises(InputError, match="no label has three images"):
        learn_projection(describer, jobs, tmp_path / "q.npz", 3, labels=range(12))
    assert not (tmp_path / "q.npz").exists()


def test_images_that_cannot_be_read_are_left_out(describer, jobs, tmp_path):
    absent = replace(jobs[0], name="absent", file=tmp_path / "absent.png")
    learned, skipped = learn_projection(describer, [absent, *jobs], tmp_path / "p.npz", dim=3)
    assert [(image.name, image.reason) for image in skipped] == [("absent", "no such file")]
    expected, _ = learn_projection(describer, jobs, tmp_path / "p.npz", dim=3)
    np.testing.assert_allclose(learned.local.mean, expected.local.mean, atol=1e-3)
    with pytest.raises(InputError, match="none of 1 images can be learned from, first absent: no such file"):
        learn_projection(describer, [absent], tmp_path / "p.npz", dim=3)


def test_more_dimensions_than_vary_and_other_names_are_refused(describer, jobs, tmp_path):
    with pytest.raises(InputError, match="to 12 dimensions: the training descriptors vary in 9"):
        learn_projection(describer, jobs, tmp_path / "p.npz", dim=12)
    with pytest.raises(InputError, match="p.pt: the name of a file of projections ends in .npz"):
        learn_projection(describer, jobs, tmp_path / "p.pt")
    assert not list(tmp_path.glob("p.*"))


def _pixels(job):
    from PIL import Image

    return Image.open(job.file).convert("RGB")
