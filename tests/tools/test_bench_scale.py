"""The benchmark of search in a million images: its rows, its indexes, its recall, and that it runs."""

import faiss
import numpy as np
import pytest
from builders import unit_rows
from commands import assert_one_line_error, error_of, files_below, run_tool

from rrt.search.exact import search
from tools import benchmark
from tools.benchmarks.common import Row, format_figures
from tools.benchmarks.scale import build, default_indexes, recall, search_again, write_rows


def test_the_rows_on_disk_are_landmarks_and_the_queries_further_images_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.benchmarks.scale._CHUNK", 300)
    queries = write_rows(tmp_path / "rows.npy", 1000, 64, 7, 0.75, seed=0)
    table = np.load(tmp_path / "rows.npy")
    assert table.shape == (1000, 64) and table.dtype == np.float16 and queries.shape == (7, 64)
    np.testing.assert_allclose(np.linalg.norm(np.float32(table), axis=1), 1, atol=1e-3)
    sims = search(table, queries, 1000)[0]
    # Each has a few close images, and most of the others are far.
    assert (sims[:, 4] > 0.4).all() and (np.median(sims, axis=1) < 0.2).all()


def test_recall_is_the_share_of_the_exact_neighbours_found():
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = np.array([[2, 1, 9, 4], [5, 9, 9, -1]])
    assert [recall(found, exact, n) for n in (1, 2, 4)] == [0.5, 0.75, 0.5]


def test_candidates_computed_again_come_by_their_similarity_in_the_table():
    generator = np.random.default_rng(0)
    table, queries = np.float16(unit_rows(generator, 50, 8)), unit_rows(generator, 3, 8)
    everything = np.tile(generator.permutation(50), (3, 1))
    assert (search_again(table, queries, everything, 5) == search(table, queries, 5)[1]).all()
    assert search_again(table, queries[:1], np.array([[7, -1, 3]]), 5)[0, 2:].tolist() == [-1] * 3


@pytest.mark.parametrize("factory", ["SQ8", "PCA16,HNSW8_SQ8", "PCA16,IVF8,PQ4x4np"])
def test_an_index_built_in_blocks_finds_most_neighbours_and_more_with_products_computed_again(factory, monkeypatch):
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        table = np.float16(unit_rows(np.random.default_rng(0), 600, 24))
        index = build(table, factory, training_images=400)
        queries = np.float32(table[:20])
        exact = search(table, queries, 10)[1]
        assert index.ntotal == 600
        found = index.search(queries, 10)[1]
        again = search_again(table, queries, index.search(queries, 100)[1], 10)
        assert recall(again, exact, 10) >= recall(found, exact, 10) > 0.1
    finally:
        faiss.omp_set_num_threads(threads)


def test_the_default_indexes_of_a_million_images_are_those_asked_for():
    ivf, hnsw, scalar = default_indexes(1_000_000, 2048)
    assert (
        ivf.startswith("PCA512,IVF4096,PQ128np;nprobe=")
        and hnsw.startswith("PCA512,HNSW32_SQ8;efSearch=")
        and scalar == "SQ8"
    )


def test_figures_of_ways_make_a_table_with_a_column_each():
    table = format_figures(
        [
            Row("a: time", 1.5, "ms", "in one go"),
            Row("a: memory", 2000, "MB", "", "<= 3000"),
            Row("b: memory", 4000, "MB", "", "<= 3000"),
            Row("b: recall", 0.5, ""),
        ]
    ).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[:4]]
    assert cells[0] == ["way", "time (ms)", "memory (MB)", "recall"] and cells[2] == [
        "a",
        "1.5",
        "2000 (<= 3000: yes)",
        "",
    ]
    assert cells[3] == ["b", "", "4000 (<= 3000: no)", "0.5"] and table[4] == "a: time: in one go"


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--images", "0"], "images=0"),
        (["--k", "20000", "--images", "9999"], "--k 20000: there are 9999 images only"),
        (["--again", "5"], "--again 5: at least --k 100"),
        (["--indexes", "NONSENSE"], "faiss cannot make it for 2048 dimensions"),
        (["--dir", "/absent/folder", "--quick"], "/absent/folder"),
    ],
)
def test_settings_that_cannot_be_are_one_line(arguments, part, monkeypatch, capsys):
    assert part in error_of(benchmark.main, ["scale", *arguments], monkeypatch, capsys)


@pytest.mark.slow
def test_the_benchmark_compares_every_index_with_exact_search_and_leaves_nothing(tmp_path):
    finished = run_tool("tools/benchmark.py", "scale", "--quick", "--dir", tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert all(
        part in finished.stdout for part in ("exact, from the file", "<= 3000: yes", "IVF", "HNSW", "SQ8", "recall@100")
    )
    assert files_below(tmp_path) == []
    wrong = run_tool("tools/benchmark.py", "scale", "--quick", "--indexes", "SQ8;nonsense=3", "--dir", tmp_path)
    assert_one_line_error(wrong, "faiss does not know the setting 'nonsense=3' of SQ8")
