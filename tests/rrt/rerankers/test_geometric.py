"""Geometric verification against the reference's counts (golden/delg) and a loop over pairs."""

import json
import zlib

import numpy as np
import pytest
import torch
from builders import make_store, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from places import GOLDEN as GOLDEN_FILES

from rrt.errors import InputError
from rrt.matching.images import inner, strongest
from rrt.matching.matches import half_squares, match, match_in, rounding, verify
from rrt.rerankers import geometric, make_method
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.geometric import Geometric
from rrt.store.joined import JoinedStore
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from rrt.store.store import Store
from rrt.store.writer import write_store

GOLDEN = GOLDEN_FILES / "delg/seed1"
VECTORS = np.load(GOLDEN / "gv.npz")
CASES = json.loads((GOLDEN / "gv.json").read_text())
PUBLISHED = {"mode": "one_way", "max_distance": 1.0, "threshold": 20.0, "border": 0, "max_local": None}
SIZE = (640, 480)


def record(name, descriptors, points, size=SIZE, seed=0):
    count = len(descriptors)
    return ImageRecord(
        name,
        size,
        unit_rows(np.random.default_rng(seed), 1, 8)[0],
        descriptors,
        points,
        np.ones(count),
        np.zeros(count),
    )


def space_of(store, queries=1):
    return SearchSpace(store, np.arange(queries), np.arange(queries, len(store)))


def shortlist(candidates, query=0):
    return Shortlist(query, np.asarray(candidates, np.int64), np.linspace(1, 0, len(candidates), dtype=np.float32))


def scores(space, candidates, query=0, **chosen):
    return Geometric(**chosen).scores(space, [shortlist(candidates, query)])[0].tolist()


# ---- the reference ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """{case: (space of its query image and its index image, what the reference says)}."""
    spaces = {}
    for case, expected in CASES.items():
        features = {name.split("/")[1]: VECTORS[name] for name in VECTORS if name.startswith(f"{case}/")}
        records = [
            record(f"{side}.jpg", features[f"{side}_descriptors"], features[f"{side}_locations"][:, ::-1], (5000, 5000))
            for side in ("query", "index")
        ]
        spaces[case] = space_of(MemoryStore.of(records)), features, expected
    return spaces


@pytest.mark.parametrize("case", sorted(CASES))
def test_matches_equal_those_of_the_reference(reference, case):
    space, features, _ = reference[case]
    for settings_, names in (
        ({}, ["putative_query_index", "putative_index_index"]),
        ({"max_distance": None, "ratio": 0.9}, ["ratio09_query_index"]),
    ):
        method = Geometric(**PUBLISHED | settings_)
        pairs = method.match(method._read(space.store, [0]), method._read(space.store, [1]))[0]
        for column, name in zip(pairs.T, names):
            assert column.tolist() == features[name].tolist()


@pytest.mark.parametrize("case", sorted(CASES))
def test_scores_lie_in_the_range_of_the_reference_for_every_seed(reference, case):
    space, _, expected = reference[case]
    for seed in range(10):
        [found] = scores(space, [0], **PUBLISHED, seed=seed)
        assert expected["accept_min"] <= found <= expected["accept_max"], seed
        if case in ("nomatch", "three"):
            assert found == 0


# ---- a loop over pairs -----------------------------------------------------------------------------------------------


def make_views(folder, dtype="float16", images=9, seed=0, name="views"):
    """A store of images of one scene under random affine maps, among features of their own; the last has no
    features."""
    rng = np.random.default_rng(seed)
    scene, places = unit_rows(np.random.default_rng(99), 60, 16), np.random.default_rng(98).uniform(50, 430, (60, 2))
    records = []
    for image in range(images):
        shared, own = rng.permutation(60)[: rng.integers(25, 45)], int(rng.integers(5, 40))
        descriptors = np.concatenate(
            [scene[shared] + 0.1 * rng.standard_normal((len(shared), 16)), unit_rows(rng, own, 16)]
        )
        affine = np.eye(2) + rng.normal(0, 0.15, (2, 2))
        points = np.concatenate(
            [places[shared] @ affine + rng.normal(0, 5, (len(shared), 2)), rng.uniform(0, 480, (own, 2))]
        )
        order = rng.permutation(len(points)) if image < images - 1 else []
        records.append(record(f"{name}/{image}.jpg", descriptors[order], points[order], seed=image))
    return Store(write_store(folder / f"delg_{name}_{dtype}.h5", records, name, {}, dtype))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return {dtype: make_views(folder, dtype) for dtype in ("float16", "int8")}


def slow_score(
    store,
    query,
    candidate,
    mode="one_way",
    max_distance=1.0,
    ratio=None,
    geometry="affine",
    threshold=30.0,
    seed=0,
    max_local=1000,
    border=0.15,
    **estimation,
):
    """Inliers of one pair of images, read, matched and verified by themselves."""
    first, second = (
        inner(strongest(store.names[i], store.image_size[i], store.read(i), max_local), border)
        for i in (query, candidate)
    )
    pairs = match(first.descriptors, second.descriptors, mode, max_distance, ratio)
    pair_seed = zlib.crc32(f"{seed}\n{first.name}\n{second.name}".encode())
    return verify(
        second.points[pairs[:, 1]], first.points[pairs[:, 0]], geometry, threshold, seed=pair_seed, **estimation
    ).inliers.sum()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"mode": "mutual", "border": 0, "max_distance": 0.8},
        {"ratio": 0.9, "max_distance": None, "geometry": "homography"},
        {"ratio": 0.95, "mode": "mutual", "seed": 3, "threshold": 5.0, "border": 0.05, "max_trials": 300},
        {"max_local": 20, "max_distance": None},
    ],
    ids=str,
)
def test_scores_equal_those_of_a_loop_over_pairs(stores, dtype, chosen):
    store = stores[dtype]
    space = SearchSpace(store, np.array([2, 8]), np.array([3, 1, 8, 0, 5, 2, 7]))
    order = [4, 0, 2, 1, 6, 3, 5]
    found = make_method("geometric", chosen).scores(space, [shortlist(order, query) for query in (0, 1)])
    expected = [[slow_score(store, query, space.gallery_index[c], **chosen) for c in order] for query in (2, 8)]
    assert [row.tolist() for row in found] == expected
    assert max(expected[0]) > 8 and not any(expected[1])


def test_views_of_one_scene_score_above_foreign_pictures(stores, tmp_path):
    foreign = make_store(tmp_path, 5, num_local=60, local_dim=16, global_dim=8)
    space = space_of(JoinedStore(stores["float16"], foreign))
    found = np.array(scores(space, range(13)))
    assert found[:7].min() > found[8:].max() and found[7] == 0


# ---- nothing but the two images counts -------------------------------------------------------------------------------


def test_a_score_hangs_neither_on_batches_nor_threads_nor_the_order_nor_the_other_candidates(stores, monkeypatch):
    space = space_of(stores["float16"])
    together = scores(space, range(8), threads=1)
    assert scores(space, range(8), threads=3) == together
    assert scores(space, [5, 1, 5, 7, 0]) == [together[i] for i in (5, 1, 5, 7, 0)]
    assert [scores(space, [i])[0] for i in range(8)] == together
    for cells in (1, 3000):
        monkeypatch.setitem(geometric._CELLS, "cpu", cells)
        assert scores(space, range(8)) == together


def test_a_score_hangs_on_the_names_not_on_the_place_in_the_store(stores, tmp_path):
    store = stores["float16"]
    space = space_of(store)
    reversed_ = MemoryStore.of(reversed(list(store)))
    turned = SearchSpace(reversed_, np.array([8]), np.arange(7, -1, -1))
    joined = JoinedStore(make_store(tmp_path, 3, local_dim=16, global_dim=8), store)
    behind = SearchSpace(joined, np.array([3]), np.arange(4, 12))
    assert scores(space, range(8)) == scores(turned, range(8)) == scores(behind, range(8))


def test_other_seeds_try_other_transforms(stores):
    space = space_of(stores["float16"])
    assert len({tuple(scores(space, range(8), seed=seed, threshold=4.0, max_trials=20)) for seed in range(5)}) > 1


def test_torch_keeps_its_number_of_threads(stores):
    before = torch.get_num_threads()
    scores(space_of(stores["float16"]), range(8), threads=3)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
def test_a_gpu_gives_the_same_scores(stores):
    space = space_of(stores["float16"])
    for chosen in ({}, {"ratio": 0.9, "mode": "one_way"}):
        assert scores(space, range(8), device="cuda", **chosen) == scores(space, range(8), device="cpu", **chosen)


# Few different values: rows often lie equally near, and products of any order round differently.
rows = st.integers(1, 3).flatmap(
    lambda dim: st.tuples(
        *[
            st.integers(1, 12).flatmap(
                lambda n: arrays(np.float32, (n, dim), elements=st.sampled_from(np.float32([-1, 0, 0.1, 0.3])))
            )
        ]
        * 2
    )
)


@settings(max_examples=25)
@given(
    rows,
    st.sampled_from(["one_way", "mutual"]),
    st.sampled_from([None, 0.5, 1.5]),
    st.sampled_from([None, 0.8, 1.0]),
    st.integers(0, 2**32),
)
def test_products_that_round_anyhow_on_any_device_give_the_matches_of_exact_ones(pair, mode, max_distance, ratio, seed):
    a, b = pair
    expected = match(a, b, mode, max_distance, ratio)
    table = (half_squares(b)[:, None] - b @ a.T).astype(np.float32)
    table += (0.9 * rounding(a, b) * np.random.default_rng(seed).uniform(-1, 1, table.shape)).astype(np.float32)
    for given_ in (table, torch.from_numpy(table.copy())):
        assert np.array_equal(match_in(given_, a, b, mode, max_distance, ratio), expected)


# ---- edges and wrong inputs ------------------------------------------------------------------------------------------


def test_empty_shortlists_and_none_at_all_have_no_scores(stores):
    space = space_of(stores["float16"])
    assert Geometric().scores(space, []) == []
    assert [len(row) for row in Geometric().scores(space, [shortlist([]), shortlist([1, 2]), shortlist([])])] == [
        0,
        2,
        0,
    ]


def test_images_without_local_descriptors_score_0_as_query_and_as_candidate(tmp_path):
    store = make_store(tmp_path, 4, num_local=[0, 0, 30, 0])
    assert scores(space_of(store), [0, 1, 2]) == [0, 0, 0]
    assert scores(SearchSpace(store, np.array([2]), np.array([0, 2, 3])), [0, 1, 2], border=0) == [0, 30, 0]


def test_keypoints_near_the_border_do_not_count(tmp_path):
    descriptors = unit_rows(np.random.default_rng(0), 40, 16)
    points = np.random.default_rng(1).uniform(0, 100, (40, 2))
    points[:10, 0] = 9.9
    points[10:] = np.clip(points[10:], 10, 90)
    space = space_of(MemoryStore.of(record(f"{i}.jpg", descriptors, points, (100, 100)) for i in range(2)))
    assert scores(space, [0], border=0) == [40] and scores(space, [0], border=0.1) == [30]


def test_bytes_are_those_of_the_local_descriptors_and_keypoints_held(stores, tmp_path):
    store = make_store(tmp_path, 3, num_local=[9, 4, 8])
    assert Geometric().bytes_per_image(space_of(store)) == 6 * (8 * 2 + 8)
    assert Geometric(max_local=6).bytes_per_image(space_of(store)) == 5 * (8 * 2 + 8)
    small = make_store(tmp_path, 3, num_local=5, local_dtype="int8", desc_name="int8", names=["a", "b", "c"])
    assert Geometric().bytes_per_image(space_of(small)) == 5 * (8 + 8)
    assert Geometric().bytes_per_image(space_of(JoinedStore(store, small))) == (4 + 8 + 15) / 5 * (8 * 2 + 8)


def test_a_store_without_local_descriptors_is_refused(tmp_path):
    store = make_store(tmp_path, 3, num_local=0, local_dim=0)
    for act in (Geometric().prepare, Geometric().bytes_per_image, lambda space: scores(space, [0])):
        with pytest.raises(InputError, match="no local descriptors"):
            act(space_of(store))


def test_local_descriptors_that_are_not_finite_name_their_image(stores, monkeypatch):
    store, read = stores["float16"], stores["float16"].read_packed

    def broken(places, *rest):
        packed = read(places, *rest)
        packed.descriptors[packed.offsets[:-1][np.asarray(places) == 5], 3] = np.nan
        return packed

    with monkeypatch.context() as patch, pytest.raises(InputError, match="views/5.jpg.*NaN"):
        patch.setattr(store, "read_packed", broken)
        scores(space_of(store), range(8), border=0)


@pytest.mark.parametrize(
    "name, value",
    [
        ("mode", "both"),
        ("geometry", "similarity"),
        ("max_distance", 0),
        ("max_distance", "1"),
        ("max_distance", float("inf")),
        ("ratio", 1.5),
        ("ratio", True),
        ("threshold", -1),
        ("threshold", float("nan")),
        ("threshold", None),
        ("max_trials", 0),
        ("max_trials", 1.5),
        ("max_trials", 2**31),
        ("confidence", 1),
        ("seed", "x"),
        ("max_local", 0),
        ("border", 0.5),
        ("border", -0.1),
        ("device", "tpu"),
        ("device", "cpu:x"),
        ("threads", 0),
        ("threads", True),
    ],
)
def test_a_setting_that_cannot_be_is_named(name, value):
    with pytest.raises(InputError, match=f"'geometric': setting {name}={value!r}: expected"):
        make_method("geometric", {name: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(InputError, match="device='cuda'.*no GPU"):
        Geometric(device="cuda")
