"""The plain formula that the benchmark of the measures compares with, and that the benchmark runs."""

import numpy as np
from commands import run_tool

from rrt.formats.ground_truth import load_ground_truth
from tools.benchmarks.metrics import plain_evaluate


def test_the_plain_formula_gives_the_published_numbers(shared_data, shared_golden):
    gnd = load_ground_truth(shared_data / "revisited" / "oxford5k" / "gnd_roxford5k.pkl").gnd
    golden = np.load(shared_golden / "roxford_metrics.npz")
    for protocol, (aps, precisions) in plain_evaluate(golden["ranks"].T, gnd).items():
        np.testing.assert_allclose(aps, golden[f"{protocol[0].upper()}_aps"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(precisions, golden[f"{protocol[0].upper()}_ps"], rtol=0, atol=1e-12)


def test_the_benchmark_gives_a_target_for_either_length():
    finished = run_tool("tools/benchmark.py", "metrics", "--quick", "--repeats", "2")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert (
        finished.stdout.count("rrt.evaluation.metrics against plain") == 4
        and ">= 1" in finished.stdout
        and ">= 3" in finished.stdout
    )
