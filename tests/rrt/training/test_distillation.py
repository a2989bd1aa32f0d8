"""rrt/training/distillation.py: lists that are drawn, what the network sees of them, and the loss."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from reranking import NETWORK, arrays_of, assert_same, make_batch, make_dataset, make_source
from scipy.special import log_softmax

from rrt.datasets.sets import open_train_set
from rrt.errors import InputError
from rrt.network.model import RRT
from rrt.training.distillation import DistilSettings, TaughtLists
from rrt.training.loader import load_batches
from rrt.training.pools import ITSELF, NEAR, VIEW, Lesson, Pool
from rrt.training.schedules import learning_rate
from rrt.training.settings import ExperimentSettings, TrainSettings
from rrt.training.step import GradientComputer, list_losses, micro_batches
from rrt.training.teachers import make_lessons

SETTINGS = DistilSettings(steps=6, candidates=4, pool=8, nearest=10, itself=0.5, local=3)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    world = make_dataset(tmp_path_factory.mktemp("world"))
    images = open_train_set(world["train_data_dir"], "toy", "train.txt", False)
    taught = TaughtLists((images,), tuple(make_lessons([images], [], SETTINGS)), SETTINGS)
    return make_source(world, taught=taught, batch_size=21, max_local=5)


def of_lesson(candidates, kinds, settings, queries=None):
    """Lists of a lesson made by hand, whose targets are 100 query + candidate."""
    candidates = np.array(candidates, np.int32)
    queries = np.arange(len(candidates)) if queries is None else np.array(queries)
    pool = Pool(queries, candidates, np.array(kinds, np.int8), candidates)
    return TaughtLists((None,), (Lesson(pool, 100.0 * queries[:, None] + candidates, ""),), settings)


def test_a_list_has_so_many_candidates_of_each_kind():
    settings = DistilSettings(steps=1, candidates=6, near=0.75, views=2, itself=0.3)
    kinds = [NEAR] * 6 + [1] * 6 + [VIEW] * 3 + [ITSELF]
    pools = [[*range(10 + 20 * i, 25 + 20 * i), i] for i in range(5)]
    lists = of_lesson(pools, kinds, settings).draw(500, 4, np.random.default_rng(0))
    counts = Counter()
    for each in lists:
        for row, targets in zip(each.rows, each.targets):
            query, candidates = row[0], row[1:]
            place = [kinds[pools[query].index(candidate)] for candidate in candidates]
            assert len(set(candidates)) == 6 and place.count(VIEW) == 2
            assert (targets == 100 * query + candidates).all()
            counts.update(place)
    assert counts[ITSELF] / 2000 == pytest.approx(0.3, abs=0.03)
    assert counts[NEAR] / (counts[NEAR] + counts[1]) == pytest.approx(0.75, abs=0.02)


def test_every_query_comes_before_any_comes_again_and_in_another_order():
    lists = of_lesson([[i, -1, -1] for i in range(7)], [NEAR, 1, ITSELF], SETTINGS)
    drawn = np.concatenate([each.rows[:, 0] for each in lists.draw(14, 3, np.random.default_rng(0))])
    rounds = drawn.reshape(6, 7)
    assert (np.sort(rounds) == np.arange(7)).all() and len(np.unique(rounds, axis=0)) > 1


def test_a_query_of_too_few_candidates_gets_them_again_and_never_empty_places():
    settings = replace(SETTINGS, itself=0.0, near=1.0)
    lists = of_lesson([[5, -1, 6, -1, 9]], [NEAR, NEAR, 1, VIEW, ITSELF], settings, [9])
    for each in lists.draw(20, 1, np.random.default_rng(0)):
        assert sorted(each.rows[0, 1:]) == [5, 5, 6, 6]


def test_image_lists_take_turns_by_their_number_of_queries():
    one, two = (of_lesson([[1, 2]] * n, [NEAR, 1], SETTINGS) for n in (10, 30))
    both = TaughtLists(one.images + two.images, one.lessons + two.lessons, SETTINGS)
    sources = [each.source for each in both.draw(400, 2, np.random.default_rng(0))]
    assert 0.65 < np.mean(sources) < 0.85


def test_an_image_shows_its_first_descriptors_and_others_as_a_candidate_of_its_own(source):
    store, plan, seen = source.taught.images[0].store, source.plan(0, -1), 0
    for step in range(len(plan)):
        batch, lists = make_batch(source, plan, step), plan.lists[step]
        assert batch.list_size == 4 and batch.joined_pairs == 16
        np.testing.assert_allclose(batch.labels.reshape(-1, 4), lists.targets)
        for pair, (query, candidate) in enumerate(zip(batch.query, batch.candidate)):
            rows = lists.rows[pair // 4]
            for position, row in ((query, rows[0]), (candidate, rows[1 + pair % 4])):
                shown = batch.images.part(position, position + 1).descriptors
                stored = store.read(source.taught.images[0].index[row]).descriptors
                places = [int(np.argmin(np.linalg.norm(stored - each, axis=1))) for each in shown]
                if position == candidate and row == rows[0]:
                    seen += 1
                    # 4 to 8 descriptors: 3 are shown, the others come first here.
                    assert len(set(places)) == 3 and sum(each >= 3 for each in places) == min(3, len(stored) - 3)
                else:
                    assert places == [0, 1, 2]
    assert seen > 3


def test_shares_of_processes_make_the_whole_and_workers_the_same_batches(source):
    plan = source.plan(3, -1)
    whole = [make_batch(source, plan, step) for step in range(len(plan))]
    for step in (0, 4):
        shares = [make_batch(source, plan, step, rank, 2) for rank in range(2)]
        assert [len(share.labels) for share in shares] == [8, 8] and shares[0].joined_pairs == 16
        assert np.concatenate([share.labels for share in shares]).tolist() == whole[step].labels.tolist()
        model = network()
        logits = torch.cat([share.logits(model) for share in shares])
        torch.testing.assert_close(logits, whole[step].logits(model), atol=1e-5, rtol=1e-5)
    for left, right in zip(load_batches(source, plan, num_workers=1), whole, strict=True):
        assert_same(left, right)
        assert left.list_size == right.list_size
    assert arrays_of(make_batch(source, source.plan(4, -1), 0))[1].tobytes() != arrays_of(whole[0])[1].tobytes()


def test_what_does_not_divide_is_refused(source):
    with pytest.raises(InputError, match="its 4 lists of 5 images cannot be shared evenly by 3 processes"):
        replace(source, planted_source=None, sampler=None).check_world(3)
    with pytest.raises(InputError, match="must hold a query and its distil.candidates=4"):
        replace(source, batch_size=3)
    for wrong in ({"regression": 0.0, "divergence": 0.0}, {"views": 8}, {"min_local": 5, "local": 4}):
        with pytest.raises(InputError, match="distil"):
            DistilSettings(**wrong)


def network():
    torch.manual_seed(0)
    return RRT(**NETWORK)


def plain_loss(logits, targets, settings):
    """The formula of the module, a list at a time."""
    difference = np.abs(logits - targets)
    regression = np.where(difference < 1, difference**2 / 2, difference - 0.5).mean()
    wanted, given = (log_softmax(scores / settings.temperature) for scores in (targets, logits))
    divergence = (np.exp(wanted) * (wanted - given)).sum()
    return settings.regression * regression + settings.divergence * divergence


def test_the_loss_is_that_of_the_formula_and_order_is_counted_by_pairs():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 2, (2, 5, 6))
    settings = DistilSettings(regression=0.7, divergence=1.3, temperature=0.5)
    losses, share = list_losses(torch.from_numpy(logits), torch.from_numpy(targets), settings)
    for i in range(5):
        assert losses[i].item() == pytest.approx(plain_loss(logits[i], targets[i], settings))
        pairs = [(a, b) for a in range(6) for b in range(6) if targets[i, a] > targets[i, b]]
        assert share[i].item() == pytest.approx(np.mean([logits[i, a] > logits[i, b] for a, b in pairs]))
    same = torch.zeros(1, 6)
    assert list_losses(torch.rand(1, 6), same, settings)[1].item() == 1
    assert list_losses(same, torch.rand(1, 6), settings)[1].item() == 0.5


@pytest.mark.parametrize("tokens", [1, 40, 10**6])
def test_lists_stay_whole_in_small_batches_and_their_gradients_add_up(source, monkeypatch, tokens):
    monkeypatch.setattr("rrt.training.step.BATCH_TOKENS", tokens)
    plan, model = source.plan(0, -1), network()
    batches = [make_batch(source, plan, step) for step in range(2)]
    parts = micro_batches(batches[0], tokens)
    assert all(len(part.labels) % 4 == 0 and part.list_size == 4 for part in parts)
    assert all(len(set(part.query[i : i + 4])) == 1 for part in parts for i in range(0, len(part.query), 4))
    computer = GradientComputer(model, distil=SETTINGS)
    figures = sum(computer.add(batch, 32) for batch in batches)
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logits = torch.cat([batch.logits(model) for batch in batches]).view(-1, 4)
    targets = torch.from_numpy(np.concatenate([batch.labels for batch in batches])).view(-1, 4)
    losses, share = list_losses(logits, targets, SETTINGS)
    losses.mean().backward()
    assert figures.tolist() == pytest.approx([losses.mean().item(), share.mean().item() * 32], rel=1e-5)
    for left, parameter in zip(found, model.parameters()):
        torch.testing.assert_close(left, parameter.grad, atol=1e-6, rtol=1e-4)


def test_the_rate_of_a_teachers_steps_is_their_own_and_the_others_begin_behind_them():
    settings = TrainSettings(
        epochs=2,
        lr=1.0,
        planted_steps=3,
        accumulation=2,
        scheduler="warmcos",
        warmup_steps=2,
        distil=DistilSettings(steps=9, lr=8.0, warmup_steps=2),
    )
    rates = [learning_rate(step, 4, settings) for step in range(5)]
    assert rates == pytest.approx([4, 8, 8, 6, 2])
    alone = replace(settings, distil=DistilSettings())
    for step in range(6):
        assert learning_rate(5 + step, 4, settings) == learning_rate(step, 4, alone)
    constant = replace(settings, distil=replace(settings.distil, scheduler="constant"))
    assert [learning_rate(step, 4, constant) for step in range(5)] == [4, 8, 8, 8, 8]


def test_the_recipe_is_one_setting_that_leaves_alone_what_is_said_and_the_published_way_as_it_was():
    published = ExperimentSettings()
    assert published.with_recipe() is published and not published.distil.steps
    distilled = ExperimentSettings(recipe="distilled", lr=2e-5, distil=DistilSettings(steps=7)).with_recipe()
    assert (distilled.lr, distilled.distil.steps) == (2e-5, 7)
    assert distilled.distil.teacher == "0.6*maxsim+0.4*global" and distilled.model.initialisation == "maxsim"
    assert distilled.training.distil == distilled.distil
