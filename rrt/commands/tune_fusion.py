"""Choose how global similarity and reranker are blended (lambda and temperature), on a validation set.

    python tools/tune_fusion.py with temp_dir=logs/NAME dataset.scenes model.RRT resume=logs/NAME/best.pt

Reads the validation set of the dataset (val_data_dir, val_gnd_file). The best Medium mAP wins; of equal ones the more
global. Writes fusion.json into temp_dir, for evaluate_revisited.py with fusion=PATH.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.command_line.sacred import add_settings, make_experiment
from rrt.command_line.settings import FilePath, described, setting, settings
from rrt.configs import dataset_ingredient, model_ingredient, read_settings, unused
from rrt.datasets.configured import open_test
from rrt.errors import InputError
from rrt.evaluation.metrics import evaluate, percent
from rrt.evaluation.reranking import evaluate_global, rerank, score_shortlists
from rrt.evaluation.settings import ScoredSettings
from rrt.files.atomic import sha256_of_file, write_json
from rrt.progress import bar
from rrt.rerankers.fusion import Fusion

LAMBDAS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
TEMPERATURES = [0.1, 0.2, 0.5, 1.0, 2.0]


@settings()
class TuneSettings(ScoredSettings):
    """Of tools/tune_fusion.py."""

    temp_dir: FilePath = setting("folder for fusion.json and the record of the run", default="logs/tune_fusion")
    lambdas: list[float] = setting("shares of the global similarity to try", default=LAMBDAS)
    temperatures: list[float] = setting("factors of the logit to try", default=TEMPERATURES)
    num_rerank: int = setting("candidates of a query that are scored; more than there are means all", default=100, ge=1)


@dataclass(frozen=True)
class TunedFusion:
    """fusion: the chosen one. grid [lambdas, temperatures]: Medium mAP of each, fractions; before: that of global
    search; alone: of the reranker without it."""

    fusion: Fusion
    grid: np.ndarray
    before: float
    alone: float


def tune_fusion(validation, scored, lambdas, temperatures) -> TunedFusion:
    """Try every pair of lambda and temperature on scored shortlists (``rrt.evaluation.reranking.score_shortlists``)."""

    def measure(fusion):
        ranks = rerank(scored, "medium", fusion)
        return evaluate(ranks, validation.gnd, (1,), len(validation.gallery_index))["medium"].map

    fusions = make_grid(lambdas, temperatures)
    shown = bar([fusion for row in fusions for fusion in row], "fusion", "pair", passing=True)
    grid = np.array([measure(fusion) for fusion in shown]).reshape(len(fusions), -1)
    # Rounded, so that a difference of the last bit does not decide; the last best row is the most global.
    best = np.round(grid, 6) == np.round(grid.max(), 6)
    row = int(np.flatnonzero(best.any(axis=1))[-1])
    chosen = fusions[row][int(np.flatnonzero(best[row])[0])]
    return TunedFusion(chosen, grid, evaluate_global(validation)["medium"].map, measure(Fusion()))


def make_grid(lambdas, temperatures) -> list[list[Fusion]]:
    """Rows of rising lambda, columns of rising temperature; InputError for impossible values."""
    if not lambdas or not temperatures:
        raise InputError("lambdas and temperatures: at least one value of each is needed")
    try:
        return [[Fusion(weight, temperature) for temperature in sorted(temperatures)] for weight in sorted(lambdas)]
    except TypeError:
        raise InputError(f"lambdas={lambdas} and temperatures={temperatures}: expected two lists of numbers") from None


dataset = dataset_ingredient()
model = model_ingredient()
ex = make_experiment("tune_fusion", ingredients=[dataset, model])
add_settings(ex, described(TuneSettings) | unused("seed"))


@ex.main
def main(_config):
    """Print Medium mAP over the grid and write the best pair."""
    settings = read_settings(TuneSettings, _config)
    if not settings.resume:
        raise InputError("resume is not set: name the checkpoint whose scores are to be blended")
    make_grid(settings.lambdas, settings.temperatures)
    whitening = settings.open_whitening()
    validation = open_test(settings.dataset, "val", selects=True)
    reranker = settings.open_reranker()
    scored = score_shortlists(validation, reranker.scorer(validation.store), settings.num_rerank, whitening)
    tuned = tune_fusion(validation, scored, settings.lambdas, settings.temperatures)
    print("Medium mAP, rows lambda, columns temperature")
    print("lambda " + " ".join(f"{temperature:>7}" for temperature in sorted(settings.temperatures)))
    for weight, row in zip(sorted(settings.lambdas), tuned.grid):
        print(f"{weight:>6} " + " ".join(f"{percent(value):>7}" for value in row))
    chosen = {"lambda": tuned.fusion.weight, "temperature": tuned.fusion.temperature}
    figures = {"M_map": tuned.grid.max(), "global_M_map": tuned.before, "alone_M_map": tuned.alone}
    figures = {name: round(100 * float(value), 2) for name, value in figures.items()}
    source = {
        "validation": str(validation.folder),
        "checkpoint_sha256": sha256_of_file(settings.resume),
        "whitening": settings.whitening and str(settings.whitening),
    }
    path = Path(settings.temp_dir) / "fusion.json"
    write_json(path, chosen | figures | source)
    print(
        f"lambda {chosen['lambda']}, temperature {chosen['temperature']}: {figures['M_map']},"
        f" global {figures['global_M_map']}, reranker alone {figures['alone_M_map']}"
    )
    print(f"wrote {path}")
    return chosen | figures
