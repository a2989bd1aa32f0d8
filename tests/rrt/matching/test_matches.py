"""Matching against the reference's matches (golden/delg) and a slow search; verification on planted transforms."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from places import GOLDEN as GOLDEN_FILES

import rrt.matching.matches
from rrt.matching.matches import MODELS, match, nearest, residuals, verify

GOLDEN = GOLDEN_FILES / "delg/seed1"
VECTORS = np.load(GOLDEN / "gv.npz")
CASES = json.loads((GOLDEN / "gv.json").read_text())
AFFINE = np.array([[0.9, -0.3, 40.0], [0.2, 1.1, -25.0]])
HOMOGRAPHY = np.array([[0.9, -0.3, 40.0], [0.2, 1.1, -25.0], [2e-4, -1e-4, 1.0]])
TRANSFORMS = {"affine": AFFINE, "homography": HOMOGRAPHY}


def golden(case):
    return {name.split("/")[1]: VECTORS[name] for name in VECTORS if name.startswith(f"{case}/")}


def planted(model, good=60, bad=40, noise=1.0, seed=0):
    """Points under the model's transform with noise in pixels, and as many wrong pairs behind them."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 800, (good + bad, 2))
    mapped = np.c_[a, np.ones(len(a))] @ TRANSFORMS[model].T
    b = mapped[:, :2] / (mapped[:, 2:] if model == "homography" else 1) + rng.normal(0, noise, a.shape)
    b[good:] = rng.uniform(0, 800, (bad, 2))
    return a, b


# ---- matching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(CASES))
def test_matches_equal_those_of_the_reference(case):
    features = golden(case)
    pairs = match(features["query_descriptors"], features["index_descriptors"], max_distance=1.0)
    assert pairs[:, 0].tolist() == features["putative_query_index"].tolist()
    assert pairs[:, 1].tolist() == features["putative_index_index"].tolist()
    pairs = match(features["query_descriptors"], features["index_descriptors"], ratio=0.9)
    assert pairs[:, 0].tolist() == features["ratio09_query_index"].tolist()


# Small whole numbers: every product is exact, and equally near rows are common.
tables = st.integers(1, 3).flatmap(
    lambda dim: st.tuples(
        *[
            st.integers(1, 12).flatmap(
                lambda n: arrays(np.float32, (n, dim), elements=st.integers(-3, 3).map(np.float32))
            )
        ]
        * 2
    )
)


def slow_match(a, b, mode, max_distance, ratio):
    distance = np.array([[np.sqrt(((x - y) ** 2).sum()) for y in b] for x in a], np.float32)
    pairs = []
    for i, row in enumerate(distance):
        j = int(row.argmin())
        second = np.delete(row, j).min(initial=np.inf)
        if (
            (max_distance is None or row[j] < max_distance)
            and (ratio is None or row[j] < ratio * second)
            and (mode == "one_way" or distance[:, j].argmin() == i)
        ):
            pairs.append((i, j))
    return pairs


@settings(max_examples=60)
@given(
    tables,
    st.sampled_from(["one_way", "mutual"]),
    st.sampled_from([None, 1.0, 2.5]),
    st.sampled_from([None, 0.8, 1.0]),
    st.sampled_from([1, 7, 2**22]),
)
def test_matching_equals_a_search_over_all_pairs_whatever_the_block(pair, mode, max_distance, ratio, cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rrt.matching.matches, "_CELLS", cells)
        found = match(*pair, mode, max_distance, ratio)
    assert found.dtype == np.int64 and found.shape[1:] == (2,)
    assert list(map(tuple, found.tolist())) == slow_match(*pair, mode, max_distance, ratio)


def test_nearest_equals_a_search_in_double_precision():
    rng = np.random.default_rng(0)
    query, index = rng.standard_normal((50, 40)), rng.standard_normal((70, 40))
    slow = np.linalg.norm(query[:, None] - index, axis=2)
    found = nearest(query.astype(np.float32), index.astype(np.float32))
    assert np.array_equal(found.indices, slow.argmin(1))
    assert np.allclose(found.distances, np.sort(slow)[:, 0], rtol=1e-5)
    assert np.allclose(found.second_distances, np.sort(slow)[:, 1], rtol=1e-5)


def test_a_descriptor_finds_itself_at_distance_zero_though_the_product_rounds():
    x = np.random.default_rng(0).standard_normal((200, 128)).astype(np.float32) + 50
    found = nearest(x, x)
    assert np.array_equal(found.indices, np.arange(200)) and not found.distances.any()


def test_without_a_second_neighbour_its_distance_is_infinite_and_without_any_there_is_no_index():
    one = nearest(np.ones((2, 3)), np.zeros((1, 3)))
    assert one.indices.tolist() == [0, 0] and np.isinf(one.second_distances).all()
    none = nearest(np.ones((2, 3)), np.zeros((0, 3)))
    assert none.indices.tolist() == [-1, -1] and np.isinf(none.distances).all()


@pytest.mark.parametrize("mode", ["one_way", "mutual"])
def test_pictures_without_features_have_no_matches(mode):
    for shapes in (((0, 0), (5, 128)), ((5, 128), (0, 0)), ((0, 128), (0, 128)), ((0, 40), (5, 128))):
        assert match(*map(np.zeros, shapes), mode, 0.8, 0.9).shape == (0, 2)


def test_descriptors_of_other_sizes_or_not_finite_are_refused():
    with pytest.raises(ValueError, match="40 and of 128"):
        match(np.ones((3, 40)), np.ones((3, 128)))
    with pytest.raises(ValueError, match="finite"):
        match(np.ones((3, 4)), np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="table"):
        match(np.ones(3), np.ones((3, 4)))
    with pytest.raises(ValueError, match="both"):
        match(np.ones((3, 4)), np.ones((3, 4)), "both")


# ---- verification ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(CASES))
def test_inliers_lie_in_the_range_of_the_reference_for_every_seed(case):
    features, expected = golden(case), CASES[case]
    index = features["index_locations"][features["putative_index_index"], ::-1]
    query = features["query_locations"][features["putative_query_index"], ::-1]
    for seed in range(20):
        count = verify(index, query, threshold=expected["residual_threshold"], seed=seed).inliers.sum()
        assert expected["accept_min"] <= count <= expected["accept_max"], seed


def test_the_affine_map_of_the_golden_vectors_is_recovered():
    features, expected = golden("a"), CASES["a"]
    index = features["index_locations"][features["putative_index_index"], ::-1]
    query = features["query_locations"][features["putative_query_index"], ::-1]
    found = verify(index, query).transform
    assert np.allclose(found[::-1, 1::-1], expected["affine_index_to_query_yx"], atol=0.02)
    assert np.allclose(found[::-1, 2], expected["translation_yx"], atol=3)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(5))
def test_planted_transforms_are_found_among_wrong_matches(model, seed):
    a, b = planted(model, seed=seed)
    found = verify(a, b, model, threshold=5.0, seed=seed)
    assert found.inliers[:60].all() and found.inliers[60:].sum() <= 3
    corners = np.array([[0, 0], [800, 0], [0, 800], [800, 800]])
    truth = np.c_[corners, np.ones(4)] @ TRANSFORMS[model].T
    truth = truth[:, :2] / truth[:, 2:] if model == "homography" else truth
    assert residuals(found.transform, corners, truth).max() < 4


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("zoom", [0.2, 1.0, 5.0])
def test_residuals_count_in_pixels_of_the_second_picture(model, zoom):
    a, _ = planted(model)
    b = zoom * a + np.random.default_rng(1).normal(0, 6, a.shape)
    found = verify(a, b, model, threshold=10.0)
    distances = residuals(found.transform, a, b)
    assert np.array_equal(found.inliers, distances <= 10.0) and 50 < found.inliers.sum() < 100


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_inliers_and_every_integer_is_a_seed(model):
    a, b = planted(model, good=30, bad=120, noise=8.0)
    masks = set()
    for seed in (0, 1, 2, 3, 4, 5, -1, 2**40):
        first, second = verify(a, b, model, seed=seed), verify(a, b, model, seed=seed)
        assert np.array_equal(first.inliers, second.inliers) and np.array_equal(first.transform, second.transform)
        masks.add(first.transform.tobytes())
    assert len(masks) > 1


LINE = np.stack([np.arange(30.0), 2 * np.arange(30.0)], 1)
SPREAD = np.random.default_rng(5).uniform(0, 500, (30, 2))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "a, b",
    [
        (SPREAD[:0], SPREAD[:0]),
        (SPREAD[:1], SPREAD[:1]),
        (SPREAD[:3], SPREAD[:3]),
        (np.repeat(SPREAD[:3], 9, 0),) * 2,
        (LINE, LINE),
        (LINE * [1, 0], LINE * [1, 0] + 3),
        (LINE, SPREAD),
        (np.zeros((30, 2)), np.zeros((30, 2))),
        (SPREAD, np.ones((30, 2))),
        (np.ones((30, 2)), SPREAD),
        (SPREAD * np.nan, SPREAD),
        (SPREAD, SPREAD * np.inf),
        (SPREAD * 1e200, SPREAD * 1e200),
    ],
    ids=[
        "none",
        "one",
        "three",
        "three many times",
        "line",
        "level line",
        "line to spread",
        "one place",
        "to one place",
        "from one place",
        "not a number",
        "infinite",
        "beyond all images",
    ],
)
def test_matches_that_fix_no_transform_have_no_inliers(model, a, b):
    found = verify(a, b, model)
    assert found.transform is None and found.inliers.shape == (len(a),) and not found.inliers.any()


@pytest.mark.parametrize("model, count", [("affine", 3), ("homography", 4)])
def test_as_many_matches_as_fix_a_transform_prove_nothing_and_one_more_does(model, count):
    assert not verify(SPREAD[:count], SPREAD[:count] + 5, model).inliers.any()
    assert verify(SPREAD[: count + 1], SPREAD[: count + 1] + 5, model).inliers.all()


@pytest.mark.parametrize("model", MODELS)
def test_a_match_that_is_not_finite_is_an_outlier_and_harms_no_other(model):
    a, b = planted(model, bad=0)
    a[3, 1], b[7, 0] = np.nan, np.inf
    inliers = verify(a, b, model).inliers
    assert not inliers[[3, 7]].any() and inliers.sum() == 58


def test_points_that_a_homography_sends_beyond_the_horizon_are_no_inliers():
    transform = np.array([[1.0, 0, 0], [0, 1, 0], [0.01, 0, 1]])
    a = np.array([[10.0, 5], [20, 5], [30, 8], [-300, 4]])
    mapped = np.c_[a, np.ones(4)] @ transform.T
    distances = residuals(transform, a, mapped[:, :2] / mapped[:, 2:])
    assert distances[:3].max() < 1e-9 and np.isinf(distances[3])
    assert np.array_equal(residuals(-transform, a, mapped[:, :2] / mapped[:, 2:]), distances)


@settings(max_examples=60)
@given(
    st.integers(0, 12).flatmap(
        lambda k: st.tuples(*[arrays(np.float64, (k, 2), elements=st.integers(-2, 3).map(float))] * 2)
    ),
    st.sampled_from(MODELS),
    st.sampled_from([0.0, 0.5, 20.0]),
)
def test_no_layout_of_points_breaks_the_verification(pair, model, threshold):
    found = verify(*pair, model, threshold)
    assert found.inliers.any() == (found.transform is not None)
    if found.transform is not None:
        assert (residuals(found.transform, *pair)[found.inliers] <= threshold).all()


def test_points_that_do_not_pair_up_and_unknown_models_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        verify(SPREAD, SPREAD[:5])
    with pytest.raises(ValueError, match="similarity"):
        verify(SPREAD, SPREAD, "similarity")
