"""rrt/training/teachers.py: pools of candidates, and what teachers say of them."""

from dataclasses import replace

import numpy as np
import pytest
from reranking import make_world

import rrt.training.teachers as teachers
from rrt.datasets.sets import open_train_set
from rrt.errors import InputError
from rrt.files.atomic import atomic_path
from rrt.network.checkpoint import save_checkpoint
from rrt.network.late_scorer import LateScorer
from rrt.network.networks import make_network
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.geometric import Geometric
from rrt.rerankers.maxsim import MaxSim
from rrt.store.linear import l2_normalize
from rrt.training.distillation import DistilSettings
from rrt.training.pools import ITSELF, NEAR, RANDOM, VIEW, make_pool
from rrt.training.teachers import blend, make_lessons, read_teacher, score_pool

SETTINGS = DistilSettings(steps=1, candidates=4, pool=8, nearest=10)


@pytest.fixture
def images(tmp_path):
    make_world(tmp_path)
    return open_train_set(tmp_path, "toy", "train.txt", False)


@pytest.fixture
def space(images):
    return SearchSpace(images.store, images.index, images.index)


def test_a_pool_holds_near_random_and_own_images_and_views_of_the_same_photograph(space):
    views = np.arange(len(space.gallery)) // 3
    pool = make_pool(space, views, SETTINGS)
    assert pool.kinds.tolist() == [NEAR] * 4 + [RANDOM] * 4 + [VIEW] * 2 + [ITSELF]
    similar = space.gallery @ space.gallery.T
    for query, candidates, nearest in zip(pool.queries, pool.candidates, pool.nearest):
        own = views == views[query]
        order = [image for image in np.argsort(-similar[query], kind="stable") if not own[image]]
        assert nearest.tolist() == order[:10]
        assert len(set(candidates[:4])) == 4 and set(candidates[:4]) <= set(order[:10])
        assert not own[candidates[4:8]].any()
        assert set(candidates[8:10]) == set(np.flatnonzero(own)) - {query} and candidates[10] == query


def test_where_there_are_too_few_images_places_stay_empty(space):
    few = SearchSpace(space.store, space.query_index[:4], space.gallery_index[:4])
    pool = make_pool(few, None, SETTINGS)
    assert (pool.candidates[:, :3] >= 0).all() and (pool.nearest[:, :3] >= 0).all() and pool.nearest.shape == (4, 4)
    assert (pool.nearest[:, 3] == -1).all()
    views = make_pool(few, np.array([0, 0, 0, 1]), SETTINGS)
    assert views.candidates[3][views.kinds == VIEW].tolist() == [-1, -1]
    assert set(views.candidates[0][views.kinds == RANDOM]) == {3}


def test_some_images_are_queries_where_fewer_are_asked_for(space):
    pool = make_pool(space, None, replace(SETTINGS, queries=7))
    assert len(pool.queries) == 7 and (np.diff(pool.queries) > 0).all()


def test_a_table_of_neighbours_stands_for_the_search(space, images):
    table = teachers._known_neighbours(images, 10)
    assert table is not None
    assert (make_pool(space, None, SETTINGS, table).candidates == make_pool(space, None, SETTINGS).candidates).all()
    # Of another list.
    (images.folder / "other.txt").write_text("".join((images.folder / "train.txt").open().readlines()[5:]))
    assert teachers._known_neighbours(open_train_set(images.folder, "toy", "other.txt", False), 10) is None


def plain_maxsim(store, left, right):
    """Both ways, of all descriptors, one pair."""
    first, second = (l2_normalize(store.read(image).descriptors) for image in (left, right))
    cosines = first @ second.T
    return (cosines.max(1).mean() + cosines.max(0).mean()) / 2


def test_maxsim_teaches_both_directions_of_all_descriptors(space):
    pool = make_pool(space, None, SETTINGS)
    found = score_pool(space, pool, teachers.teaching_method("maxsim"), slice(5, 9))
    for query, candidates, scores in zip(pool.queries[5:9], pool.candidates[5:9], found):
        expected = [plain_maxsim(space.store, space.query_index[query], space.gallery_index[c]) for c in candidates]
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_global_similarity_geometry_and_ranks_teach_too(space):
    pool = make_pool(space, None, SETTINGS)
    similar = space.gallery @ space.gallery.T
    rows = np.arange(len(pool.queries))[:, None]
    np.testing.assert_allclose(score_pool(space, pool, None), similar[rows, pool.candidates], atol=1e-6)
    inliers = score_pool(space, pool, teachers.teaching_method("geometric"), slice(3))
    for query, candidates, scores in zip(pool.queries, pool.candidates, inliers):
        given = Shortlist(int(query), candidates.astype(np.int64), similar[query, candidates])
        np.testing.assert_allclose(np.expm1(scores), Geometric().scores(space, [given])[0], atol=1e-4)
    chain = teachers.teaching_method("maxsim+database_augmentation")
    ranks = score_pool(space, pool, chain, slice(6))
    for query, candidates, scores in zip(pool.queries, pool.candidates, ranks):
        listed = np.unique([*candidates, *pool.nearest[query]])
        listed = listed[np.argsort(-similar[query, listed], kind="stable")]
        places = -chain.scores(space, [Shortlist(int(query), listed, similar[query, listed])])[0]
        by_image = dict(zip(listed.tolist(), places))
        np.testing.assert_allclose(np.expm1(-scores), [by_image[c] for c in candidates], atol=1e-3)


def test_a_blend_is_the_standardised_sum_of_standardised_parts():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(3, 5, (2, 6, 4)) for _ in range(2))
    first[0, 2, 1] = second[0, 2, 1] = np.nan
    ordinary = [np.array([True, True, True, False])] * 2
    found = blend([list(first), list(second)], [0.6, 0.4], ordinary)
    kept = np.array(first)[:, :, :3], np.array(second)[:, :, :3]
    sums = 0.6 * (first - np.nanmean(kept[0])) / np.nanstd(kept[0])
    sums += 0.4 * (second - np.nanmean(kept[1])) / np.nanstd(kept[1])
    expected = (sums - np.nanmean(sums[:, :, :3])) / np.nanstd(sums[:, :, :3])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isfinite(blend([[np.ones((3, 4))]], [1.0], ordinary[:1])[0]).all()


def test_teachers_are_read_and_bad_ones_refused():
    assert read_teacher("0.6*maxsim + 0.4*global") == [(0.6, "maxsim"), (0.4, "global")]
    assert read_teacher("maxsim+database_augmentation") == [(1.0, "maxsim+database_augmentation")]
    for text in ("0.6*maxsim+global", "-1*maxsim", "nan*global+1*maxsim", "x*maxsim", "inf*maxsim"):
        with pytest.raises(InputError, match="no part of a blend"):
            read_teacher(text)
    for text in ("nothing", "1*nothing", "rrt", ""):
        with pytest.raises(InputError):
            read_teacher(text)
    assert teachers.teaching_method("maxsim", cpu=True) == MaxSim(symmetric=True, device="cpu")


def scored_blocks(monkeypatch, stop_after=None):
    """Counts the blocks that a teacher scores; fails behind so many."""
    counted, score = [], teachers.score_pool

    def counting(space, pool, method, rows=slice(None)):
        if stop_after is not None and len(counted) == stop_after:
            raise KeyboardInterrupt
        counted.append(rows)
        return score(space, pool, method, rows)

    monkeypatch.setattr(teachers, "score_pool", counting)
    return counted


def test_scores_are_kept_and_an_interrupted_teacher_goes_on(images, monkeypatch):
    monkeypatch.setattr(teachers, "_BLOCK", 20)
    with monkeypatch.context() as patched:
        scored_blocks(patched, stop_after=2)
        with pytest.raises(KeyboardInterrupt):
            make_lessons([images], [], SETTINGS)
    with monkeypatch.context() as patched:
        blocks = scored_blocks(patched)
        (lesson,) = make_lessons([images], [], SETTINGS)
        assert [block.start for block in blocks] == [40]
    (parts,) = [path for path in images.folder.iterdir() if "teacher-maxsim" in path.name]
    assert parts.suffix == ".npz"
    with monkeypatch.context() as patched:
        blocks = scored_blocks(patched)
        (again,) = make_lessons([images], [], SETTINGS)
        assert not blocks and again.made_from == lesson.made_from
        np.testing.assert_array_equal(again.targets, lesson.targets)
        # Another teacher, other candidates, another list: scored anew.
        for other in (replace(SETTINGS, teacher="maxsim+k_reciprocal"), replace(SETTINGS, pool=6)):
            assert make_lessons([images], [], other)[0].made_from != lesson.made_from and blocks
            blocks.clear()
        assert make_lessons([], [images], SETTINGS)[0].made_from != lesson.made_from and blocks
    with atomic_path(parts) as temporary:
        temporary.write_bytes(parts.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{parts.name}.*delete it"):
        make_lessons([images], [], SETTINGS)


def test_too_few_images_are_refused(images):
    lines = (images.folder / "train.txt").open().readlines()[:3]
    (images.folder / "few.txt").write_text("".join(lines))
    with pytest.raises(InputError, match=r"few.txt: 3 images; a teacher needs four"):
        make_lessons([open_train_set(images.folder, "toy", "few.txt", False)], [], SETTINGS)


def test_a_network_trained_before_teaches_its_logits(images, space, tmp_path):
    model = make_network({"kind": "LATE", "num_global_features": 24, "num_local_features": space.store.local_dim})
    path = save_checkpoint(tmp_path / "late.pt", model, settings={"model": model.settings, "max_sequence_len": 5})
    (lesson,) = make_lessons([images], [], replace(SETTINGS, teacher=f"checkpoint:{path}"), cpu=True)
    query, candidate = int(lesson.pool.queries[0]), int(lesson.pool.candidates[0, 0])
    pairs = np.array([lesson.pool.queries[[0, 1]], lesson.pool.candidates[[0, 1], 0]])
    logits = LateScorer(model.eval(), images.store, 5).score_pairs(images.index[pairs].T)
    columns = lesson.pool.kinds != ITSELF
    again = score_pool(space, lesson.pool, teachers.teaching_method(f"checkpoint:{path}", cpu=True))
    assert again[0, 0] == pytest.approx(logits[0], abs=1e-5) and again[1, 0] == pytest.approx(logits[1], abs=1e-5)
    values = again[:, columns].astype(np.float64)
    expected = (again[0, 0] - np.nanmean(values)) / np.nanstd(values)
    assert lesson.targets[query, 0] == pytest.approx(expected, abs=1e-4) and candidate >= 0
    with pytest.raises(InputError, match="nothing.pt: no such checkpoint"):
        read_teacher("0.5*checkpoint:nothing.pt+0.5*global")
