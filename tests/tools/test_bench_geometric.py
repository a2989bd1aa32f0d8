"""What the benchmark of geometric verification plants, and that it measures."""

import sys

import numpy as np
import pytest
from commands import error_of

from rrt.matching.matches import match
from tools import benchmark
from tools.benchmarks import geometric as bench_geometric
from tools.benchmarks.geometric import planted_pairs


def test_planted_pairs_have_right_wrong_and_foreign_features():
    store = planted_pairs(np.random.default_rng(0), 2, 100, 128)
    query, picture = store.read(0), store.read(1)
    pairs = match(query.descriptors, picture.descriptors, max_distance=1.0)
    assert len(pairs) == 40
    places = np.c_[picture.keypoints[pairs[:, 1]], np.ones(40)]
    planted = np.array(
        [
            (
                np.linalg.norm(
                    places @ np.linalg.lstsq(places[own], query.keypoints[pairs[own, 0]])[0]
                    - query.keypoints[pairs[:, 0]],
                    axis=1,
                )
                < 20
            ).sum()
            >= 20
            for own in np.random.default_rng(1).integers(0, 40, (500, 4))
        ]
    )
    assert planted.any()


def test_without_scikit_image_it_measures_ours_alone(monkeypatch, capsys):
    monkeypatch.setattr(bench_geometric, "find_spec", lambda name: None if name == "skimage" else name)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "geometric", "--quick", "--device", "cpu"])
    benchmark.main()
    shown = capsys.readouterr().out
    assert "not measured: skimage is not installed" in shown and "geometric, one thread" in shown


def test_with_too_few_descriptors_it_ends_with_one_line(monkeypatch, capsys):
    assert "--descriptors 20: at least 50" in error_of(
        benchmark.main, ["geometric", "--descriptors", "20"], monkeypatch, capsys
    )
    assert "pairs=0" in error_of(benchmark.main, ["geometric", "--pairs", "0"], monkeypatch, capsys)


def test_it_measures_both_ways_and_their_ratio(monkeypatch, capsys):
    pytest.importorskip("skimage")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "geometric", "--quick", "--device", "cpu"])
    benchmark.main()
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("KD-tree and RANSAC", "geometric, one thread", ">= 10", "median 30 inliers"))
