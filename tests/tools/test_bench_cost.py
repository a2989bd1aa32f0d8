"""The laws of tools/benchmark.py cost: fitted to what was measured, honest about their error; points are kept."""

import json
import math
import tracemalloc

import faiss
import numpy as np
import pytest
from commands import error_of

from rrt.search.exact import search
from tools import benchmark
from tools.benchmarks import cost, scale

SIZES = [10**5, 3 * 10**5, 10**6, 3 * 10**6]


@pytest.mark.parametrize(
    "terms, law",
    [
        (("1", "n"), lambda n: 0.1 + 264e-9 * n),
        (("1", "sqrt n", "n"), lambda n: 5 + 512 * math.sqrt(n) + 72 * n),
        (("n", "n log n"), lambda n: 2e-5 * n + 3e-6 * n * math.log(n)),
        (("n", "n sqrt n"), lambda n: 4e-8 * n**1.5),
        (("sqrt n", "n", "n sqrt n"), lambda n: 0.04 * math.sqrt(n) + 2e-5 * n + 3e-8 * n**1.5),
    ],
)
def test_a_law_of_these_terms_is_found_from_its_points(terms, law):
    values = [law(size) for size in SIZES]
    fitted = cost.fit(SIZES, values, terms)
    assert fitted(10**9) == pytest.approx(law(10**9), rel=1e-6)
    assert max(cost.left_out(SIZES, values, lambda s, v: cost.fit(s, v, terms))) < 1e-6


def test_recall_falls_as_a_power_of_the_size_and_is_never_more_than_all():
    values = [3 * size**-0.1 for size in SIZES]
    assert cost.fit_recall(SIZES, values)(10**9) == pytest.approx(3 * 10**-0.9)
    assert cost.fit_recall(SIZES, values)(100) == 1


def test_the_error_is_that_of_points_the_law_has_not_seen():
    values = [size * (1.5 if size == 10**6 else 1) for size in SIZES]

    def mean(sizes, values):
        factor = np.mean(np.divide(values, sizes))
        return lambda n: factor * n

    assert cost.left_out(SIZES, values, mean) == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 6])
    assert cost.left_out(SIZES, values, mean, relative=False)[2] == pytest.approx(0.5 * 10**6)


def test_the_head_of_the_rows_is_that_of_any_number_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "_CHUNK", 300)
    queries = [scale.write_rows(tmp_path / f"{n}.npy", n, 16, 7, 0.75, 3, first=500) for n in (500, 1400)]
    few, many = (np.load(tmp_path / f"{n}.npy") for n in (500, 1400))
    np.testing.assert_array_equal(few, many[:500])
    np.testing.assert_array_equal(*queries)
    assert few.shape == (500, 16) and queries[0].shape == (7, 16)
    # Their landmarks are in the head, whatever follows.
    assert (search(few, queries[0], 5)[0] > 0.5).all()


def test_rows_of_any_number_are_written_in_the_memory_of_a_chunk(tmp_path, monkeypatch):
    chunk, width, chunks = 200, 64, 50
    monkeypatch.setattr(scale, "_CHUNK", chunk)
    for first in (None, 400):
        tracemalloc.start()
        scale.write_rows(tmp_path / "rows.npy", chunks * chunk, width, 8, 0.75, 0, first)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * 4 * chunk * width


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(cost, "in_new_process", lambda function, *arguments: function(*arguments))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def test_points_are_kept_as_they_are_made_and_a_stopped_run_goes_on(tmp_path, monkeypatch, capsys, in_this_process):
    points, measured, measure = tmp_path / "points.json", [], cost.measure_point

    def stop(path, queries, size, kind):
        if len(measured) == 7:
            raise KeyboardInterrupt
        measured.append((size, kind))
        return measure(path, queries, size, kind)

    monkeypatch.setattr(cost, "measure_point", stop)
    command = ["benchmark.py", "cost", "--quick", "--points", str(points), "--machine_gb", "0.1"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main()
    assert len(json.loads(points.read_text())["points"]) == 7
    monkeypatch.setattr(cost, "measure_point", measure)
    benchmark.main()
    kept = json.loads(points.read_text())["points"]
    assert [(point["images"], point["index"]) for point in kept[:7]] == measured and len(kept) == 9
    shown = capsys.readouterr().out
    for part in (
        "IVF-PQ, 1,000,000,000 by the laws",
        "core hours",
        "recall 1000",
        "the largest predicted from the others): memory",
    ):
        assert part in shown
    assert all(0 < p["memory"] < p.get("peak memory", 1e9) for p in kept)
    assert all(0 <= p["recall"] <= p["recall 1000"] + 0.1 for p in kept if "recall" in p)
    monkeypatch.setattr(cost, "measure_point", lambda *_: pytest.fail("measured again"))
    benchmark.main()
    message = error_of(benchmark.main, [*command[1:], "--seed", "1"], monkeypatch, capsys)
    assert f"{points}: its points were measured with other settings" in message


def test_machines_are_as_many_as_hold_the_memory():
    points = [
        {"index": "HNSW", "images": n, "memory": n / 1000, "build": float(n), "query 100": 1.0, "query 1000": 1.0}
        for n in SIZES
    ]
    args = type("Args", (), {"predict": [10**9], "dimensions": 512, "machine_gb": 64})
    rows = {row.label: row for row in cost._rows(args, "HNSW", points)}
    # A gigabyte for a million images: 1,000 of them on machines of which a tenth stays free.
    assert rows["HNSW, 1,000,000,000 by the laws: machines"].value == math.ceil(1000 / (0.9 * 64))
    assert rows["HNSW, 1,000,000,000 by the laws: memory"].value == pytest.approx(1000)
    errors = [row.value for label, row in rows.items() if "error of the laws" in label]
    assert errors == pytest.approx([0, 0], abs=1e-6)
