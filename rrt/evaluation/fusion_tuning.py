"""The blend of global similarity and reranker that is best on a validation set (rrt.rerankers.fusion)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rrt.command_line.settings import FilePath, setting, settings
from rrt.datasets.configured import open_test
from rrt.errors import InputError
from rrt.evaluation.methods import measure_method
from rrt.evaluation.metrics import evaluate
from rrt.evaluation.reranking import evaluate_global, rerank, score_shortlists
from rrt.evaluation.settings import ScoredSettings
from rrt.evaluation.significance import baselines
from rrt.files.atomic import sha256_of_file, write_json
from rrt.files.locks import owned
from rrt.progress import bar
from rrt.rerankers.build import configure
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
    baselines: bool = setting(
        "measure plain matching, blended and alone, and geometry on the same candidates and descriptors", default=False
    )


@dataclass(frozen=True)
class TunedFusion:
    """fusion: the chosen one. grid [lambdas, temperatures], both rising: Medium mAP of each, fractions; before: that of
    global search; alone: of the reranker without it."""

    fusion: Fusion
    grid: np.ndarray
    before: float
    alone: float
    baselines: Mapping[str, float] = field(default_factory=dict)  # Medium mAP of other methods

    @property
    def figures(self) -> dict[str, float]:
        """The chosen lambda and temperature, and the Medium mAP in percent of the blend, of global search, of the
        reranker alone and of the baselines."""
        measured = {"M_map": self.grid.max(), "global_M_map": self.before, "alone_M_map": self.alone}
        measured |= {f"{name}_M_map": value for name, value in self.baselines.items()}
        chosen = {"lambda": self.fusion.weight, "temperature": self.fusion.temperature}
        return chosen | {name: round(100 * float(value), 2) for name, value in measured.items()}


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


def tune_checkpoint(settings: TuneSettings) -> tuple[TunedFusion, Path]:
    """Blend the scores of a checkpoint on the validation set of its dataset; what was found, and the fusion.json that
    was written. InputError before anything is computed."""
    if not settings.resume:
        raise InputError("resume is not set: name the checkpoint whose scores are to be blended")
    make_grid(settings.lambdas, settings.temperatures)
    whitening = settings.open_whitening()
    validation = open_test(settings.dataset, "val", selects=True)
    reranker = settings.open_reranker()
    scored = score_shortlists(validation, reranker.scorer(validation.store), settings.num_rerank, whitening)
    tuned = tune_fusion(validation, scored, settings.lambdas, settings.temperatures)
    if settings.baselines:
        tuned = replace(tuned, baselines=_measure_baselines(validation, settings, whitening, reranker.max_local))
    source = {
        "validation": str(validation.folder),
        "checkpoint_sha256": sha256_of_file(settings.resume),
        "whitening": settings.whitening and str(settings.whitening),
    }
    path = Path(settings.temp_dir) / "fusion.json"
    with owned(settings.temp_dir, "writing there"):
        write_json(path, tuned.figures | source)
    return tuned, path


def _measure_baselines(validation, settings: TuneSettings, whitening, max_local) -> dict[str, float]:
    """{"maxsim", "maxsim_blended", "geometric": Medium mAP} with the transformer's candidates and descriptors."""
    number = min(settings.num_rerank, len(validation.gallery_index))
    names = baselines(max_local, num=number)
    methods = [configure(name, {}, None, cpu=settings.cpu) for name in names]
    shown = bar(list(zip(("maxsim", "maxsim_blended", "geometric"), methods, strict=True)), "baselines", "method")
    return {
        name: measure_method(validation, method.method(None), whitening).results["medium"].map
        for name, method in shown
        if method is not None
    }
