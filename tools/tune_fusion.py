"""Choose how global similarity and reranker are blended (lambda and temperature), on a validation set.

    python tools/tune_fusion.py with temp_dir=logs/NAME dataset.scenes model.RRT resume=logs/NAME/best.pt

Reads the validation set of the dataset (val_data_dir, val_gnd_file). The best Medium mAP wins; of equal ones the more
global. Writes fusion.json into temp_dir, for evaluate_revisited.py with fusion=PATH.
"""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError
from rrt.evaluation import Fusion, evaluate_global, rerank, score_shortlists
from rrt.evaluation_run import open_scorer, write_json
from rrt.ingredients import dataset_ingredient, model_ingredient
from rrt.metrics import evaluate, percent
from rrt.neighbors import load_whitening
from rrt.runs import open_test
from rrt.sacred_cli import make_experiment, plain_config, run_sacred

LAMBDAS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
TEMPERATURES = [0.1, 0.2, 0.5, 1.0, 2.0]


@dataclass(frozen=True)
class TunedFusion:
    """fusion: the chosen one. grid [lambdas, temperatures]: Medium mAP of each, fractions; before: that of global
    search."""

    fusion: Fusion
    grid: np.ndarray
    before: float


def tune_fusion(validation, scored, lambdas, temperatures) -> TunedFusion:
    """Try every pair of lambda and temperature on scored shortlists (``rrt.evaluation.score_shortlists``)."""
    if not lambdas or not temperatures:
        raise InputError("lambdas and temperatures: at least one value of each is needed")
    lambdas, temperatures = sorted(lambdas), sorted(temperatures)
    grid = np.empty((len(lambdas), len(temperatures)))
    for row, weight in enumerate(lambdas):
        for column, temperature in enumerate(temperatures):
            ranks = rerank(scored, "medium", Fusion(weight, temperature))
            grid[row, column] = evaluate(ranks, validation.gnd, (1,), len(validation.gallery_index))["medium"].map
    # Rounded, so that a difference of the last bit does not decide; the last best row is the most global.
    best = np.round(grid, 6) == np.round(grid.max(), 6)
    row = int(np.flatnonzero(best.any(axis=1))[-1])
    fusion = Fusion(lambdas[row], temperatures[int(np.flatnonzero(best[row])[0])])
    return TunedFusion(fusion, grid, evaluate_global(validation)["medium"].map)


dataset = dataset_ingredient()
model = model_ingredient()
ex = make_experiment("tune_fusion", ingredients=[dataset, model])
ex.add_config(
    {
        "temp_dir": "logs/tune_fusion",
        "resume": None,
        "num_rerank": 100,
        "scale_binning": None,
        "lambdas": LAMBDAS,
        "temperatures": TEMPERATURES,
        "whitening": None,
        "seed": 0,
        "cpu": False,
    }
)


@ex.main
def main(_config):
    """Print Medium mAP over the grid and write the best pair."""
    settings = plain_config(_config)
    data, network = settings.pop("dataset"), settings.pop("model")
    if not settings["resume"]:
        raise InputError("resume is not set: name the checkpoint whose scores are to be blended")
    whitening = load_whitening(settings["whitening"]) if settings["whitening"] else None
    validation = open_test(data, "val", data["max_sequence_len"], selects=True)
    scorer, checkpoint = open_scorer(validation.store, data, network, settings)
    scored = score_shortlists(validation, scorer, settings["num_rerank"], whitening, progress=True)
    tuned = tune_fusion(validation, scored, settings["lambdas"], settings["temperatures"])
    print("Medium mAP, rows lambda, columns temperature")
    print("lambda " + " ".join(f"{temperature:>7}" for temperature in sorted(settings["temperatures"])))
    for weight, row in zip(sorted(settings["lambdas"]), tuned.grid):
        print(f"{weight:>6} " + " ".join(f"{percent(value):>7}" for value in row))
    chosen = {"lambda": tuned.fusion.weight, "temperature": tuned.fusion.temperature}
    figures = {"M_map": round(100 * float(tuned.grid.max()), 2), "global_M_map": round(100 * tuned.before, 2)}
    source = {
        "validation": str(validation.folder),
        "checkpoint_sha256": checkpoint.sha256,
        "whitening": settings["whitening"],
    }
    path = write_json(settings["temp_dir"], "fusion.json", chosen | figures | source)
    print(
        f"lambda {chosen['lambda']}, temperature {chosen['temperature']}: {figures['M_map']},"
        f" global {figures['global_M_map']}"
    )
    print(f"wrote {path}")
    return chosen | figures


if __name__ == "__main__":
    run_sacred(ex)
