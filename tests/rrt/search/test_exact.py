"""Search, query expansion and whitening against slow obvious code and hand-known answers."""

import tracemalloc

import numpy as np
import pytest
from builders import make_store, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

import rrt.search.exact
from rrt.errors import InputError
from rrt.formats.lists import read_image_list, write_image_list
from rrt.search.exact import load_globals, query_expansion, search
from rrt.search.rows import DescriptorRows
from rrt.search.whitening import Whitening, fit_pca_whitening, load_whitening


def slow_search(gallery, queries, k):
    rows = []
    for query in queries:
        sims = [float(np.dot(query, row)) for row in gallery]
        rows.append(sorted(range(len(gallery)), key=lambda i: -sims[i])[:k])
    return np.array(rows)


@pytest.mark.parametrize("k", [1, 3, 20, 39, 40, 1000])
def test_search_equals_sorting_all_similarities(k):
    generator = np.random.default_rng(k)
    gallery, queries = unit_rows(generator, 40, 8), unit_rows(generator, 7, 8)
    sims, inds = search(gallery, queries, k)
    assert inds.shape == sims.shape == (7, min(k, 40))
    assert sims.dtype == np.float32 and inds.dtype == np.int64
    np.testing.assert_array_equal(inds, slow_search(gallery, queries, k))
    np.testing.assert_allclose(sims, np.take_along_axis(queries @ gallery.T, inds, axis=1), atol=1e-6)


def test_search_ranks_everything_without_k():
    gallery = np.eye(3, dtype=np.float32)
    sims, inds = search(gallery, [[0.6, 0.0, 0.8]])
    assert inds.tolist() == [[2, 0, 1]]
    np.testing.assert_allclose(sims, [[0.8, 0.6, 0.0]])


@pytest.mark.parametrize("k", [4, 9])
def test_equal_similarities_are_ordered_by_index(k):
    gallery = np.tile(np.float32([[1, 0]]), (10, 1))
    assert search(gallery, gallery[:1], k)[1].tolist() == [list(range(k))]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 45), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_gallery_read_in_blocks_gives_the_order_of_all_similarities_and_of_equal_ones_the_first(n, q, k, block, seed):
    # Small integers have exact products and many equal ones.
    generator = np.random.default_rng(seed)
    gallery, queries = generator.integers(-1, 2, (n, 4)), np.float32(generator.integers(-1, 2, (q, 4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rrt.search.exact, "_BLOCK_BYTES", 4 * max(4, min(q, 2)) * block)
        patch.setattr(rrt.search.exact, "_QUERIES", 2)
        for table in (np.float32(gallery), np.float16(gallery), DescriptorRows(np.float16(gallery))):
            sims, inds = search(table, queries, k)
            assert inds.tolist() == slow_search(gallery, queries, min(k, n)).tolist()
            assert (sims == np.take_along_axis(queries @ gallery.T, inds, axis=1)).all() and sims.dtype == np.float32


def test_a_mapped_gallery_is_never_held_whole(tmp_path, monkeypatch):
    np.save(tmp_path / "rows.npy", np.float16(unit_rows(np.random.default_rng(0), 20_000, 64)))
    table = np.load(tmp_path / "rows.npy", mmap_mode="r")
    monkeypatch.setattr(rrt.search.exact, "_BLOCK_BYTES", 2**16)
    queries = np.float32(table[[3, 19_999]])
    tracemalloc.start()
    inds = search(table, queries, 100)[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert inds[:, 0].tolist() == [3, 19_999] and peak < 6 * 2**16 < table.nbytes / 6


@pytest.mark.parametrize("k", [2, 9])
def test_a_row_that_is_not_finite_is_named(k):
    gallery = np.ones((9, 3), np.float16)
    gallery[4, 1] = np.inf
    with pytest.raises(InputError, match="gallery: the global descriptor of '4' is not finite"):
        search(gallery, np.ones((1, 3)), k)
    with pytest.raises(InputError, match="queries: the global descriptor of '0' is not finite"):
        search(gallery, np.full((1, 3), np.nan), k)


def test_whitened_rows_are_those_of_the_whitened_table():
    x = unit_rows(np.random.default_rng(0), 30, 6)
    whitening = fit_pca_whitening(x, 4)
    rows = DescriptorRows(np.float16(x), np.array([5, 1, 7]), whitening)
    expected = whitening.apply(np.float16(x)[[5, 1, 7]])
    assert rows.shape == (3, 4)
    for key in (slice(None), np.array([2, 0]), 1):
        np.testing.assert_allclose(rows[key], expected[key], atol=1e-6)
    np.testing.assert_allclose(rows.take(np.array([2, 0]), np.empty((3, 4), np.float32)), expected[[2, 0]], atol=1e-6)
    np.testing.assert_allclose(query_expansion(expected, rows, 2), query_expansion(expected, expected, 2), atol=1e-6)


def test_query_expansion_is_the_weighted_mean_of_query_and_neighbours():
    gallery = np.float32([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]])
    expected = np.float32([1, 0]) + 1.0**0.3 * gallery[0] + np.float32(0.6**0.3) * gallery[1]
    expanded = query_expansion(np.float32([[1, 0]]), gallery, k=2, alpha=0.3)
    np.testing.assert_allclose(expanded[0], expected / np.linalg.norm(expected), rtol=1e-6)


def test_query_expansion_ignores_neighbours_of_negative_similarity():
    expanded = query_expansion(np.float32([[1, 0]]), np.float32([[-0.6, 0.8], [-1, 0]]), k=2, alpha=0.5)
    np.testing.assert_allclose(expanded, [[1, 0]], atol=1e-7)


@pytest.mark.parametrize("images, dim", [(200, 5), (200, 12), (9, 6)])
def test_whitened_training_descriptors_have_unit_covariance_before_normalisation(images, dim):
    generator = np.random.default_rng(1)
    x = generator.standard_normal((images, 12)) @ generator.standard_normal((12, 12)) + 3
    whitening = fit_pca_whitening(x, dim)
    y = (x - whitening.mean) @ whitening.projection
    np.testing.assert_allclose(y.T @ y / images, np.eye(dim), atol=1e-3)


def test_power_zero_is_pca_alone():
    x = np.random.default_rng(2).standard_normal((300, 6)) * np.array([1, 9, 2, 7, 3, 5])
    projection = fit_pca_whitening(x, 3, power=0).projection
    np.testing.assert_allclose(projection.T @ projection, np.eye(3), atol=1e-5)
    assert np.abs(projection).argmax(axis=0).tolist() == [1, 3, 5]


def test_few_images_and_many_give_the_same_whitening():
    """Fewer images than dimensions take the way over the Gram matrix; it must be the covariance's answer."""
    x = np.random.default_rng(3).standard_normal((20, 50))
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / 20)
    expected = vectors[:, ::-1][:, :10] / np.sqrt(values[::-1][:10])
    projection = fit_pca_whitening(x, 10).projection
    signs = np.sign(np.sum(projection * expected, axis=0))
    np.testing.assert_allclose(projection, expected * signs, rtol=1e-4, atol=1e-5)


def test_whitening_applies_mean_projection_and_unit_length():
    whitening = Whitening(np.float32([1, 1]), np.float32([[2, 0], [0, 1]]))
    np.testing.assert_allclose(whitening.apply([[2.5, 5]]), [[0.6, 0.8]], rtol=1e-6)


def test_whitening_comes_back_from_its_file_bit_for_bit(tmp_path):
    x = unit_rows(np.random.default_rng(4), 30, 8)
    whitening = fit_pca_whitening(x, 4)
    path = whitening.save(tmp_path / "sub" / "w.npz")
    np.testing.assert_array_equal(load_whitening(path).apply(x), whitening.apply(x))
    assert [entry.name for entry in path.parent.iterdir()] == ["w.npz"]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: search(x, x[:, :3], 1), "queries have 3 dimensions and the gallery 8"),
        (lambda x: search(x, x, 0), "k=0 neighbours"),
        (lambda x: search(x, x, 2.5), "k=2.5 neighbours"),
        (lambda x: search(x[:0], x, 1), "gallery: descriptors of shape"),
        (lambda x: query_expansion(x, x, 2, -1), "alpha=-1"),
        (lambda x: fit_pca_whitening(x, 9), "at most 8"),
        (lambda x: fit_pca_whitening(x[:4], 4), "at most 3"),
        (lambda x: fit_pca_whitening(x, 0), "dim must be at least 1"),
        (lambda x: fit_pca_whitening(np.ones((5, 3)), 1), "at most 0"),
        (lambda x: fit_pca_whitening(x, 4).apply(x[:, :5]), "learned for 8 dimensions, the descriptors have 5"),
    ],
)
def test_impossible_requests_say_why(call, message):
    with pytest.raises(InputError, match=message):
        call(unit_rows(np.random.default_rng(5), 20, 8))


def test_whitening_files_that_are_none_are_refused(tmp_path):
    whole = fit_pca_whitening(unit_rows(np.random.default_rng(6), 30, 8), 4).save(tmp_path / "w.npz").read_bytes()
    cases = {"text.npz": b"no", "cut.npz": whole[: len(whole) // 2], "empty.npz": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "other.npz", mean=np.zeros(3), projection=np.zeros((4, 2)))
    np.savez(tmp_path / "nan.npz", mean=np.zeros(3), projection=np.full((3, 2), np.nan))
    np.savez(tmp_path / "code.npz", mean=np.array([object()]), projection=np.zeros((1, 1)))
    for name in [*cases, "other.npz", "nan.npz", "code.npz", "missing.npz"]:
        with pytest.raises(InputError, match=name):
            load_whitening(tmp_path / name)


def test_load_globals_takes_the_rows_in_list_order_and_whitens_them(tmp_path):
    store = make_store(tmp_path, n=8)
    names = [store.names[i] for i in (5, 0, 3)]
    write_image_list(tmp_path / "list.txt", names, [0, 0, 0], [(1, 1)] * 3)
    images = read_image_list(tmp_path / "list.txt")
    some, everything = load_globals(store.path, images, None)
    np.testing.assert_array_equal(some, store.global_descriptors[[5, 0, 3]])
    np.testing.assert_array_equal(everything, store.global_descriptors)
    whitening = fit_pca_whitening(everything, 3)
    path = whitening.save(tmp_path / "w.npz")
    np.testing.assert_array_equal(load_globals(store.path, images, whitening=path)[0], whitening.apply(some))
