"""Measure global search and its reranking on a test set in the Revisited format.

    python evaluate_revisited.py [-F logs/NAME] with temp_dir=logs/NAME dataset.roxford_r50_gldv2 model.RRT
        resume=rrt_gld_ckpts/r50_gldv2.pt

Needs the store, the lists, the ground truth and the neighbours of tools/prepare_topk_revisited.py in
dataset.test_data_dir; resume=None measures global search alone. Writes results.json and queries.csv into temp_dir.
"""

from rrt.ingredients import dataset_ingredient, model_ingredient
from rrt.metrics import format_table
from rrt.runs import evaluate_run
from rrt.sacred_cli import make_experiment, plain_config, run_sacred

dataset = dataset_ingredient()
model = model_ingredient()
ex = make_experiment("rrt_evaluation", ingredients=[dataset, model])
ex.add_config(
    {
        "temp_dir": "logs/evaluate",
        "resume": None,
        "num_rerank": 100,
        "scale_binning": None,  # published | exact; None: as the checkpoint was trained
        "lambda": 0.0,  # share of the global similarity in the score, see rrt.evaluation.Fusion
        "temperature": 1.0,
        "fusion": None,  # a file of tools/tune_fusion.py instead of the two
        "whitening": None,  # an .npz of tools/learn_whitening.py for the global similarities of the fusion
        "seed": 0,
        "cpu": False,
        "visdom_port": None,  # accepted and unused, as published command lines may set it
    }
)


@ex.main
def main(_config):
    """Print the table; the result has M_map, H_map, M_mp, H_mp and more, of RRT where there is a checkpoint."""
    settings = plain_config(_config)
    report = evaluate_run(settings.pop("dataset"), settings.pop("model"), settings)
    print(format_table(report.results, intervals=True))
    numbers = dict(report.numbers)
    if "RRT" in numbers:
        protocol = numbers["protocol"]
        fused = f", lambda {protocol['lambda']}, temperature {protocol['temperature']}" if protocol["lambda"] else ""
        print(f"{protocol['num_rerank']} candidates reranked{fused}: {numbers['ms_per_query']} ms a query")
    print("wrote " + " and ".join(map(str, report.paths)))
    for path in report.paths:
        ex.add_artifact(path)
    return numbers.get("RRT", numbers["global"]) | {name: value for name, value in numbers.items() if name != "RRT"}


if __name__ == "__main__":
    run_sacred(ex)
