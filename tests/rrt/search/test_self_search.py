"""rrt/search/self_search.py against float64 products and a stable sort: the same numbers whatever the first pass."""

import numpy as np
import pytest
from builders import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

import rrt.search.self_search as large_search
from rrt.errors import InputError
from rrt.search.first_pass import KINDS, FirstPass
from rrt.search.rows import DescriptorRows, summarize_rows
from rrt.search.self_search import SelfSearch, plan_memory
from tools.benchmarks.topk import clustered_rows, exact_neighbours

COUNT, WIDTH, K = 420, 130, 50


def clustered(generator):
    return clustered_rows(generator, COUNT, WIDTH, 0.75)


def duplicates(generator):
    return unit_rows(generator, 30, WIDTH)[generator.integers(0, 30, COUNT)]


def all_equal(generator):
    return np.repeat(unit_rows(generator, 1, WIDTH), COUNT, axis=0)


def almost_equal(generator):
    rows = 1 + 1e-6 * generator.standard_normal((COUNT, WIDTH))
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def one_large_number(generator):
    rows = np.eye(WIDTH)[generator.integers(0, WIDTH, COUNT)] + 1e-3 * generator.standard_normal((COUNT, WIDTH))
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def with_zeros(generator):
    rows = clustered(generator)
    rows[::3] = 0
    return rows


def two_values(generator):
    return np.float32(generator.choice([-1, 1], (COUNT, WIDTH)) / np.sqrt(WIDTH))


SETS = (clustered, duplicates, all_equal, almost_equal, one_large_number, with_zeros, two_values)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_a_gpu_finds_the_same(kind, tmp_path):
    rows = clustered(np.random.default_rng(1))
    found = SelfSearch(rows, K, tmp_path, kind, "cuda", block=120).search(slice(None))
    np.testing.assert_array_equal(found, exact_neighbours(rows, np.arange(COUNT), K))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", SETS, ids=lambda make: make.__name__)
def test_no_neighbour_differs_from_float64(make, kind, tmp_path, monkeypatch):
    # Few candidates, so that rows for which they do not suffice occur.
    monkeypatch.setattr(large_search, "WIDEST", 130)
    rows = make(np.random.default_rng(1))
    search = SelfSearch(rows, K, tmp_path, kind, "cpu", block=120)
    own = np.arange(0, COUNT, 2)
    found = search.search(own)
    assert found.shape == (len(own), K) and (found != own[:, None]).all()
    assert (found != exact_neighbours(rows, own, K)).sum() == 0
    if make in (all_equal, almost_equal):
        assert search.searched_again > len(own) // 2


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 60), st.integers(1, 70), st.integers(1, 9), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_any_size_and_any_number_of_duplicates(tmp_path_factory, count, k, distinct, kind, seed):
    generator = np.random.default_rng(seed)
    rows = unit_rows(generator, distinct, 5)[generator.integers(0, distinct, count)]
    found = SelfSearch(rows, k, tmp_path_factory.getbasetemp(), kind, "cpu", block=7).search(slice(None))
    assert (found == exact_neighbours(rows, np.arange(count), min(k, count - 1))).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", SETS, ids=lambda make: make.__name__)
def test_no_product_errs_by_more_than_its_bound(make, kind, tmp_path):
    rows = DescriptorRows(make(np.random.default_rng(2)))
    own = np.arange(0, COUNT, 7)
    first = FirstPass(rows, kind, "cpu", tmp_path, summarize_rows(rows).longest, 100)
    products, places = first.top(own, COUNT)
    assert (np.sort(places, axis=1) == np.arange(COUNT)).all() and (np.diff(products) <= 0).all()
    exact = np.take_along_axis(rows[own].astype(np.float64) @ rows[:].astype(np.float64).T, places, axis=1)
    errors = np.abs(products - exact) - first.result_error * np.abs(products)
    assert (errors <= first.bound(own, places)).all() and (errors <= first.bound(own)[:, None]).all()


def test_products_that_break_their_bound_are_noticed(tmp_path, monkeypatch):
    rows = clustered(np.random.default_rng(3))
    search = SelfSearch(rows, 10, tmp_path, "float32", "cpu")
    top = search._pass.top
    monkeypatch.setattr(search._pass, "top", lambda *args: (top(*args)[0] + 0.01, top(*args)[1]))
    assert (search.search(slice(0, 50)) == exact_neighbours(rows, np.arange(50), 10)).all()
    assert search.searched_again == 50


def test_blocks_of_the_gallery_and_the_memory_change_nothing(tmp_path):
    rows = clustered_rows(np.random.default_rng(4), 5000, 64, 0.75)
    assert plan_memory(rows.shape, 64, 8)[0] < len(rows)
    small = SelfSearch(rows, 20, tmp_path, "int8", "cpu", memory_mb=8, block=64)
    large = SelfSearch(rows, 20, tmp_path / "other", "float32", "cpu", memory_mb=2000)
    own = np.arange(0, 5000, 50)
    assert (small.search(own) == large.search(own)).all()


def test_auto_takes_a_first_pass_that_suffices(tmp_path, monkeypatch):
    assert SelfSearch(clustered(np.random.default_rng(5)), 5, tmp_path, "auto", "cpu").kind == "float32"
    monkeypatch.setattr(large_search, "_FEW", 0)
    rows = almost_equal(np.random.default_rng(5))
    search = SelfSearch(rows, 5, tmp_path, "auto", "cpu")
    assert search.kind in KINDS and (search.search(slice(0, 5)) == exact_neighbours(rows, np.arange(5), 5)).all()


def test_the_shares_of_the_work_add_up_to_one(tmp_path):
    shares = []
    search = SelfSearch(clustered(np.random.default_rng(6)), 5, tmp_path, "float32", "cpu", block=100)
    search.search(slice(0, 350), shares.append)
    assert sum(shares) == pytest.approx(1) and len(shares) == 4


def test_rows_of_an_index_are_read_as_asked():
    table = np.arange(40, dtype=np.float64).reshape(10, 4)
    for index in ([3, 1, 2, 9], [4, 5, 6]):
        rows = DescriptorRows(table, np.array(index))
        assert rows.shape == (len(index), 4) and rows[:].dtype == np.float32
        np.testing.assert_array_equal(rows[1:3], table[index][1:3])
        np.testing.assert_array_equal(rows.take(np.array([2, 0]), np.empty((5, 4), np.float32)), table[index][[2, 0]])
        float32 = DescriptorRows(np.float32(table), np.array(index))
        np.testing.assert_array_equal(
            float32.take(np.array([2, 0]), np.empty((5, 4), np.float32)), table[index][[2, 0]]
        )


def test_the_summary_tells_content_order_and_equal_rows():
    rows = np.float32([[3, 4], [0, 1], [3, 4], [0, 1]])
    summary = summarize_rows(DescriptorRows(rows))
    assert summary.first_equal.tolist() == [0, 1, 0, 1] and 5 <= summary.longest < 5.001
    assert summarize_rows(DescriptorRows(rows.copy())).sha256 == summary.sha256
    assert summarize_rows(DescriptorRows(rows[[1, 0, 2, 3]])).sha256 != summary.sha256
    assert summarize_rows(DescriptorRows(rows.reshape(2, 4))).sha256 != summary.sha256


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"k": 0}, "k=0"),
        ({"first_pass": "int4"}, "first_pass='int4'"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"memory_mb": 1}, "memory_mb=1: blocks of 420 images of 130 dimensions need"),
        ({"block": 0}, "block=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        SelfSearch(clustered(np.random.default_rng(0)), **{"k": 3, "folder": tmp_path, **settings})
    assert not list(tmp_path.iterdir())


def test_one_image_has_no_neighbours(tmp_path):
    with pytest.raises(InputError, match="at least two"):
        SelfSearch(np.ones((1, 4), np.float32), 3, tmp_path)
