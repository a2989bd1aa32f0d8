"""What the benchmark of the large search compares with, and that it runs."""

import numpy as np
from commands import run_tool

from tools.benchmarks.topk import clustered_rows, exact_neighbours, plain_neighbours


def test_the_plain_way_finds_the_exact_neighbours_of_clustered_rows():
    rows = clustered_rows(np.random.default_rng(0), 500, 64, 0.75)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    plain = plain_neighbours(rows, slice(100, 150), 10)
    assert (plain == exact_neighbours(rows, np.arange(100, 150), 10)).mean() > 0.99


def test_the_benchmark_gives_both_targets_and_the_extrapolated_sizes():
    finished = run_tool("tools/benchmark.py", "topk", "--quick")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert all(
        part in finished.stdout for part in (">= 2.5", ">= 5", "322000 images", "1580470 images", "extrapolated")
    )
