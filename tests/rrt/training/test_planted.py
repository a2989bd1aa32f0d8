"""rrt/training/planted.py: what a planted pair shares, and what it must not."""

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.training.planted import PlantedSettings, PlantedSource, disturbed

CLEAN = {"noise": 0.0, "distractors": 0.0, "scale_shift": 0, "global_noise": 0.0, "lookalike": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from builders import make_store

    return make_store(
        tmp_path_factory.mktemp("planted"), n=10, num_local=[40, 30, 1, 0, 25, 8, 2, 60, 33, 12], local_dim=32
    )


def make_source(store, labels=None, neighbors=None, **settings):
    values = {"min_local": 6, "max_local": 12} | CLEAN | settings
    return PlantedSource(store, np.arange(len(store)), PlantedSettings(**values), labels, neighbors, binning="exact")


def image_of_rows(store, descriptors):
    """For each descriptor the image that has it (or the nearest to it), and its row there."""
    every = store.local_descriptors.astype(np.float32)
    row = (descriptors @ every.T).argmax(1)
    return np.searchsorted(store.offsets, row, side="right") - 1, row


def views(batch):
    return [slice(start, end) for start, end in zip(batch.offsets[:-1], batch.offsets[1:])]


def test_anchor_and_positive_are_of_one_image_and_the_negative_of_another(store):
    batch = make_source(store).triplets(200, np.random.default_rng(0))
    image, _ = image_of_rows(store, batch.descriptors)
    owners = [np.unique(image[view]) for view in views(batch)]
    assert all(len(owner) == 1 for owner in owners)
    owners = np.concatenate(owners).reshape(-1, 3)
    assert (owners[:, 0] == owners[:, 1]).all() and (owners[:, 0] != owners[:, 2]).all()
    # Images 2 and 3 have fewer than two descriptors.
    assert set(owners.ravel()) == {0, 1, 4, 5, 6, 7, 8, 9}


def test_a_view_has_no_descriptor_twice_and_a_size_within_the_range(store):
    batch = make_source(store).triplets(200, np.random.default_rng(1))
    image, row = image_of_rows(store, batch.descriptors)
    available = store.local_counts()
    for view in views(batch):
        assert len(np.unique(row[view])) == view.stop - view.start
        n = available[image[view.start]]
        assert min(6, (n + 1) // 2) <= view.stop - view.start <= min(12, n)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 1.0])
def test_positives_share_the_wanted_part_of_their_descriptors(store, overlap):
    source = make_source(store, min_local=10, max_local=10, min_overlap=overlap, max_overlap=overlap)
    batch = source.triplets(100, np.random.default_rng(2))
    _, row = image_of_rows(store, batch.descriptors)
    for anchor, positive in zip(views(batch)[::3], views(batch)[1::3]):
        owner = np.searchsorted(store.offsets, row[anchor.start], side="right") - 1
        n = store.local_counts()[owner]
        sizes = [view.stop - view.start for view in (anchor, positive)]
        shared = len(np.intersect1d(row[anchor], row[positive]))
        wanted = min(round(overlap * sizes[1]), sizes[0])
        assert shared == max(wanted, sum(sizes) - n)


def test_an_image_shows_other_subsets_every_time(store):
    batch = make_source(store).triplets(300, np.random.default_rng(3))
    image, row = image_of_rows(store, batch.descriptors)
    seen = {tuple(sorted(row[view])) for view in views(batch) if image[view.start] == 7}
    assert len(seen) > 20
    assert set(np.concatenate([list(rows) for rows in seen])) == set(range(store.offsets[7], store.offsets[8]))


def test_noise_disturbs_descriptors_by_the_wanted_angle_and_keeps_them_unit():
    x = np.eye(64, dtype=np.float32)[np.zeros(4000, int)]
    y = disturbed(x, np.full(4000, 0.75, np.float32), np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, atol=1e-5)
    # cos = 1 / sqrt(1 + 0.75^2) = 0.8
    assert (x * y).sum(1).mean() == pytest.approx(0.8, abs=0.01)


def test_both_sides_of_a_pair_are_disturbed_by_themselves(store):
    source = make_source(store, noise=0.5, min_local=12, min_overlap=1.0, max_overlap=1.0)
    batch = source.triplets(30, np.random.default_rng(4))
    for anchor, positive in zip(views(batch)[::3], views(batch)[1::3]):
        assert not np.intersect1d(batch.descriptors[anchor][:, 0], batch.descriptors[positive][:, 0]).size


def test_distractors_come_from_other_images(store):
    source = make_source(store, distractors=0.6, min_local=12)
    batch = source.triplets(100, np.random.default_rng(5))
    image, _ = image_of_rows(store, batch.descriptors)
    clean, _ = image_of_rows(
        store, make_source(store, min_local=12).triplets(100, np.random.default_rng(5)).descriptors
    )
    # The same seed draws the same subsets first, so what differs was replaced: on average 0.3 of all.
    replaced = (image != clean).mean()
    assert 0.2 < replaced < 0.4


def test_mixing_disturbs_along_other_descriptors(store):
    source = make_source(store, mixing=1.0, min_local=12)
    batch = source.triplets(100, np.random.default_rng(5))
    clean = make_source(store, min_local=12).triplets(100, np.random.default_rng(5)).descriptors
    added = batch.descriptors / (batch.descriptors * clean).sum(1, keepdims=True) - clean
    lengths = np.linalg.norm(added, axis=1)
    added, clean = added[lengths > 0.3], clean[lengths > 0.3]
    # What was added lies in the plane of the clean descriptor and another image's.
    image, row = image_of_rows(store, added / np.linalg.norm(added, axis=1, keepdims=True))
    other = store.local_descriptors[row].astype(np.float32)
    other -= (other * clean).sum(1, keepdims=True) * clean
    cosine = (other * added).sum(1) / np.linalg.norm(other, axis=1) / np.linalg.norm(added, axis=1)
    assert np.median(cosine) > 0.999
    assert np.median(lengths) == pytest.approx(0.5, abs=0.2)


def test_scales_of_a_view_shift_together(store):
    plain = make_source(store).triplets(50, np.random.default_rng(6))
    shifted = make_source(store, scale_shift=2).triplets(50, np.random.default_rng(6))
    steps = set()
    for view in views(plain):
        before, after = plain.scales[view], shifted.scales[view]
        inside = (after > 0) & (after < 6)
        if inside.any():
            assert len(set((after - before)[inside])) == 1
            steps.add(int((after - before)[inside][0]))
    assert steps == {-2, -1, 0, 1, 2}


def test_lookalikes_wear_the_others_global(store):
    labels = np.arange(10)
    batch = make_source(store, labels, lookalike=1.0).triplets(50, np.random.default_rng(7))
    owner, _ = image_of_rows(store, batch.descriptors[batch.offsets[:-1]])
    worn = (batch.global_ @ store.global_descriptors.T).argmax(1)
    owner, worn = owner.reshape(-1, 3), worn.reshape(-1, 3)
    np.testing.assert_array_equal(worn[:, 0], owner[:, 0])
    np.testing.assert_array_equal(worn[:, 1], owner[:, 2])
    np.testing.assert_array_equal(worn[:, 2], owner[:, 0])


def test_negatives_have_another_label_and_are_the_nearest_such_neighbours(store):
    labels = np.array([0, 0, 1, 1, 0, 2, 2, 2, 3, 3])
    sims = store.global_descriptors @ store.global_descriptors.T
    neighbors = np.argsort(-sims, axis=1)[:, 1:]
    batch = make_source(store, labels, neighbors, hard_negatives=2).triplets(300, np.random.default_rng(8))
    worn = (batch.global_ @ store.global_descriptors.T).argmax(1).reshape(-1, 3)
    seen = {}
    for anchor, _, negative in worn.tolist():
        assert labels[anchor] != labels[negative]
        seen.setdefault(anchor, set()).add(negative)
    for anchor, negatives in seen.items():
        others = [n for n in neighbors[anchor].tolist() if labels[n] != labels[anchor]]
        assert negatives == set(others[:2])


def test_without_neighbours_negatives_are_any_image_of_another_label(store):
    labels = np.array([0, 0, 1, 1, 0, 2, 2, 2, 3, 3])
    batch = make_source(store, labels).triplets(400, np.random.default_rng(9))
    worn = (batch.global_ @ store.global_descriptors.T).argmax(1).reshape(-1, 3)
    assert (labels[worn[:, 0]] != labels[worn[:, 2]]).all()
    assert set(worn[:, 2]) == {0, 1, 4, 5, 6, 7, 8, 9}


def test_the_same_seed_gives_the_same_batch(store):
    first, second = (make_source(store, noise=0.3).triplets(8, np.random.default_rng(1)) for _ in range(2))
    for name in ("global_", "descriptors", "scales", "offsets"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_store_without_local_descriptors_is_named(make_store, tmp_path):
    with pytest.raises(InputError, match="planted pairs need"):
        make_source(make_store(tmp_path, n=3, num_local=0))


@pytest.mark.parametrize(
    "settings", [{"min_local": 0}, {"min_local": 13}, {"min_overlap": 0.9, "max_overlap": 0.1}, {"lookalike": 2}]
)
def test_impossible_settings_are_refused(store, settings):
    with pytest.raises(InputError, match="planted"):
        make_source(store, **settings)
