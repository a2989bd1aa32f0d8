"""Measure global search and its reranking on a test set in the Revisited format.

    python evaluate_revisited.py [-F logs/NAME] with temp_dir=logs/NAME dataset.roxford_r50_gldv2 model.RRT
        resume=rrt_gld_ckpts/r50_gldv2.pt
    python evaluate_revisited.py with temp_dir=logs/NAME dataset.roxford_r50_gldv2 reranker=superglobal+geometric

Needs the store, the lists, the ground truth and the neighbours of tools/prepare_topk_revisited.py in
dataset.test_data_dir; resume=None measures global search alone. Writes results.json and queries.csv into temp_dir, and
the run's record, where neither -F, -m nor -u says otherwise.
"""

from rrt.configs import make_command, read_settings
from rrt.evaluation.settings import EvaluationSettings
from rrt.files.locks import owned

ex = make_command(
    globals(), "rrt_evaluation", EvaluationSettings, unused=("visdom_port", "seed"), uses=["rrt.evaluation.run"]
)


@ex.main
def main(_config, _run):
    """Print the table and the protocol; the result has M_map, H_map, M_mp, H_mp and more, of the reranker where there
    is one."""
    from rrt.evaluation.metrics import format_table
    from rrt.evaluation.run import evaluate_run, protocol_text
    from rrt.evaluation.significance import gain_text

    settings = read_settings(EvaluationSettings, _config)
    with owned(settings.temp_dir, "measuring there"):
        report = evaluate_run(settings)
    numbers = report.numbers
    print(format_table(report.results, intervals=True))
    for name, gain in numbers.get("gain_over", {}).items():
        print(f"{report.reranker or 'plain matching'} over {name}: {gain_text(gain)}")
    print(protocol_text(numbers))
    reranked = f"{numbers['ms_per_query']} ms a query, " if report.reranker else ""
    print(f"{reranked}{numbers['peak_memory_mb']} MB of memory at most")
    print("wrote " + " and ".join(map(str, report.paths)))
    if report.trec:
        print(f"wrote {len(report.trec)} TREC files in {report.trec[0].parent}")
    _run.info["results"] = numbers
    for path in report.paths:
        ex.add_artifact(path)
    best = numbers[report.reranker or next(iter(report.results))]
    return best | {name: value for name, value in numbers.items() if name != report.reranker}
