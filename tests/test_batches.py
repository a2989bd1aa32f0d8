"""rrt/batches.py: pairs of triplets and planted pairs as the training loop gets them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reranking import NETWORK, make_dataset, make_source

from rrt.batches import PairBatch
from rrt.errors import InputError
from rrt.model import RRT
from rrt.pairs import read_images


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("world"))


def test_a_batch_of_triplets_is_positive_and_negative_pairs_of_its_anchors(world):
    source = make_source(world)
    rng = np.random.default_rng([5, 1])
    triplets = source.sampler.epoch(np.random.default_rng([5, 1]))
    train = source.train
    for step, batch in enumerate(source.epoch(rng)):
        wanted = triplets[4 * step : 4 * step + 4]
        assert len(batch.labels) == 2 * len(wanted)
        for i, (anchor, *others) in enumerate(wanted):
            for pair, (other, label) in zip((i, len(wanted) + i), zip(others, (1, 0))):
                assert batch.labels[pair] == label
                for place, row in ((batch.query[pair], anchor), (batch.candidate[pair], other)):
                    expected = read_images(train.store, train.index[[row]], None)
                    start, end = batch.images.offsets[place : place + 2]
                    np.testing.assert_array_equal(batch.images.descriptors[start:end], expected.descriptors)
                    np.testing.assert_array_equal(batch.images.global_[place], expected.global_[0])
    assert step + 1 == source.steps_per_epoch == math.ceil(len(source.sampler.anchors) / 4)


def test_an_image_that_is_in_a_batch_twice_is_read_once(world):
    for batch in make_source(world).epoch(np.random.default_rng(0)):
        assert len(np.unique(batch.images.global_, axis=0)) == len(batch.images.global_)


def test_the_number_of_descriptors_is_drawn_for_every_batch(world):
    source = make_source(world, min_local=2, max_local=5)
    largest = {
        int(batch.images.counts.max()) for seed in range(5) for batch in source.epoch(np.random.default_rng(seed))
    }
    assert largest == {2, 3, 4, 5}


def test_planted_batches_take_their_share_of_an_epoch(world):
    source = make_source(world)
    size_of_triplets = len(np.unique(source.train.store.global_descriptors, axis=0))
    known = source.train.store.global_descriptors[:, 0]
    planted = [
        not np.isin(batch.images.global_[:, 0], known).all()
        for seed in range(30)
        for batch in source.epoch(np.random.default_rng(seed), planted_fraction=0.25)
    ]
    assert size_of_triplets == len(known)
    assert 0.15 < np.mean(planted) < 0.35


def test_a_batch_gives_the_logits_of_its_pairs(world):
    source = make_source(world)
    batch = next(source.epoch(np.random.default_rng(0)))
    torch.manual_seed(0)
    model = RRT(**NETWORK).eval()
    logits = batch.logits(model)
    for pair in range(len(batch.labels)):
        single = replace(
            batch, query=batch.query[[pair]], candidate=batch.candidate[[pair]], labels=batch.labels[[pair]]
        )
        torch.testing.assert_close(single.logits(model)[0], logits[pair], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"batch_size": 10}, {"batch_size": 0}, {"min_local": 7, "max_local": 5}])
def test_impossible_batches_are_refused(world, settings):
    with pytest.raises(InputError):
        make_source(world, **settings)


def test_pairs_of_triplets_stand_positives_first():
    batch = PairBatch.of_triplets(None, np.array([[0, 1, 2], [3, 4, 5]]))
    assert batch.query.tolist() == [0, 3, 0, 3]
    assert batch.candidate.tolist() == [1, 4, 2, 5]
    assert batch.labels.tolist() == [1, 1, 0, 0]
