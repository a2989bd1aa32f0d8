"""rrt/training/batches.py: pairs of triplets and planted pairs as the training loop gets them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reranking import NETWORK, arrays_of, assert_same, batches, make_batch, make_dataset, make_source

from rrt.errors import InputError
from rrt.network.model import RRT
from rrt.network.pairs import read_images
from rrt.training.batches import PairBatch


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("world"))


def test_a_batch_of_triplets_is_positive_and_negative_pairs_of_its_anchors(world):
    source = make_source(world)
    plan = source.plan(5, 1)
    train = source.train
    for step, batch in enumerate(batches(source, seed=5)):
        wanted = plan.triplets[4 * step : 4 * step + 4]
        assert len(batch.labels) == 2 * len(wanted) == batch.joined_pairs
        for i, (anchor, *others) in enumerate(wanted):
            for pair, (other, label) in zip((i, len(wanted) + i), zip(others, (1, 0))):
                assert batch.labels[pair] == label
                for place, row in ((batch.query[pair], anchor), (batch.candidate[pair], other)):
                    assert_shows(batch, place, train, row)
    assert step + 1 == len(plan) == source.steps_per_epoch == math.ceil(len(source.sampler.anchors) / 4)


def test_more_steps_than_anchors_fill_go_over_them_again(world):
    once = make_source(world).plan(5, 1)
    fewer = make_source(world, num_steps=2).plan(5, 1)
    np.testing.assert_array_equal(fewer.triplets, once.triplets[:8])
    anchors = len(once.triplets)
    steps = anchors // 4 + 3
    more = make_source(world, num_steps=steps).plan(5, 1)
    assert len(more) == steps and len(more.triplets) == 4 * steps > anchors
    np.testing.assert_array_equal(more.triplets[:anchors], once.triplets)
    assert not np.array_equal(more.triplets[anchors:], once.triplets[: 4 * steps - anchors])
    assert len(np.unique(more.triplets[anchors:, 0])) == 4 * steps - anchors


def assert_shows(batch, place, train, row):
    expected = read_images(train.store, train.index[[row]], None)
    start, end = batch.images.offsets[place : place + 2]
    np.testing.assert_array_equal(batch.images.descriptors[start:end], expected.descriptors)
    np.testing.assert_array_equal(batch.images.global_[place], expected.global_[0])


def test_every_negative_of_an_anchor_makes_a_pair_with_it(world):
    source = make_source(world, negatives=4)
    plan = source.plan(0, 1)
    assert plan.triplets.shape == (len(source.sampler.anchors), 6) and source.triplets_per_batch == 2
    batch = make_batch(source, plan, 1)
    anchors, *others = plan.triplets[2:4].T
    wanted = [pair for column in others for pair in zip(anchors, column)]
    assert batch.labels.tolist() == [1] * 2 + [0] * 8 and batch.joined_pairs == 10
    for pair, (anchor, other) in enumerate(wanted):
        assert_shows(batch, batch.query[pair], source.train, anchor)
        assert_shows(batch, batch.candidate[pair], source.train, other)


def test_an_image_that_is_in_a_batch_twice_is_read_once(world):
    for batch in batches(make_source(world)):
        assert len(np.unique(batch.images.global_, axis=0)) == len(batch.images.global_)


def test_the_number_of_descriptors_is_drawn_for_every_batch(world):
    source = make_source(world, min_local=2, max_local=5)
    largest = {int(batch.images.counts.max()) for seed in range(5) for batch in batches(source, seed)}
    assert largest == {2, 3, 4, 5}


def test_anchors_and_the_others_may_have_numbers_of_their_own(world):
    source, drawn = make_source(world, min_local=2, max_local=5, apart=True), set()
    for seed in range(4):
        plan = source.plan(seed, 1)
        for step, batch in enumerate(batches(source, seed)):
            counts = batch.images.counts
            most = int(counts[batch.query].max()), int(counts[batch.candidate].max())
            drawn.add(most)
            size = source.triplets_per_batch
            triplets = plan.triplets[step * size : (step + 1) * size]
            pairs = [pair for column in triplets[:, 1:].T for pair in zip(triplets[:, 0], column)]
            for shown, side, limit in ((batch.query, 0, most[0]), (batch.candidate, 1, most[1])):
                for image, pair in zip(shown, pairs):
                    stored = source.train.store.read(int(source.train.index[pair[side]]), limit)
                    first, last = batch.images.offsets[image : image + 2]
                    np.testing.assert_array_equal(batch.images.descriptors[first:last], stored.descriptors)
    assert len(drawn) > 8 and any(one > other for one, other in drawn) and any(one < other for one, other in drawn)


def is_planted(source, batch):
    return not np.isin(batch.images.global_[:, 0], source.train.store.global_descriptors[:, 0]).all()


def test_planted_batches_take_their_share_of_an_epoch_and_all_of_epoch_0(world):
    source = make_source(world, planted_fraction=0.25, planted_steps=7)
    planted = [is_planted(source, batch) for seed in range(30) for batch in batches(source, seed)]
    assert 0.15 < np.mean(planted) < 0.35
    assert [is_planted(source, batch) for batch in batches(source, epoch=0)] == [True] * 7


def test_a_batch_is_the_same_whoever_asks_first(world):
    source, another = (make_source(world, planted_fraction=0.3, min_local=2, max_local=5) for _ in range(2))
    plan = source.plan(3, 2)
    in_order = batches(source, 3, 2)
    for step in (9, 0, 4, 4):
        assert_same(make_batch(another, another.plan(3, 2), step), in_order[step])
    assert len({arrays_of(batch)[1].tobytes() for batch in in_order}) == len(plan)


def test_shares_of_a_step_are_the_parts_of_the_joined_batch(world):
    source = make_source(world, planted_fraction=0.5, min_local=3, max_local=5)
    plan = source.plan(0, 1)
    for step, whole in enumerate(batches(source)):
        for world_size in (2, 4):
            shares = [make_batch(source, plan, step, rank, world_size) for rank in range(world_size)]
            assert {share.joined_pairs for share in shares} == {len(whole.labels)}
            assert sorted(key for share in shares for key in pair_keys(share)) == sorted(pair_keys(whole))


def pair_keys(batch):
    """Each pair as the bytes of all that the network sees of it."""
    images = [batch.images.part(i, i + 1) for i in range(len(batch.images.global_))]
    keys = [b"".join(array.tobytes() for array in vars(image).values()) for image in images]
    pairs = zip(batch.labels, batch.query, batch.candidate)
    return [(label, keys[query], keys[candidate]) for label, query, candidate in pairs]


def test_processes_that_do_not_divide_a_batch_are_refused(world):
    source = make_source(world)
    with pytest.raises(InputError, match="its 4 triplets cannot be shared evenly by 3 processes.*multiple of 9"):
        source.check_world(3)


def test_a_negative_seed_is_refused(world):
    with pytest.raises(InputError, match="seed=-1"):
        make_source(world).plan(-1, 1)


def test_a_batch_gives_the_logits_of_its_pairs(world):
    batch = batches(make_source(world))[0]
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
