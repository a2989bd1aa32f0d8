"""Choose how global similarity and reranker are blended (lambda and temperature), on a validation set.

    python tools/tune_fusion.py with temp_dir=logs/NAME dataset.scenes model.RRT resume=logs/NAME/best.pt

Reads the validation set of the dataset (val_data_dir, val_gnd_file). The best Medium mAP wins; of equal ones the more
global. Writes fusion.json into temp_dir, for evaluate_revisited.py with fusion=PATH.
"""

from rrt.configs import make_command, read_settings
from rrt.evaluation.fusion_tuning import TuneSettings, tune_checkpoint
from rrt.evaluation.metrics import percent

ex = make_command(globals(), "tune_fusion", TuneSettings, methods=False)


@ex.main
def main(_config):
    """Print Medium mAP over the grid and write the best pair."""
    settings = read_settings(TuneSettings, _config)
    tuned, path = tune_checkpoint(settings)
    print("Medium mAP, rows lambda, columns temperature")
    print("lambda " + " ".join(f"{temperature:>7}" for temperature in sorted(settings.temperatures)))
    for weight, row in zip(sorted(settings.lambdas), tuned.grid):
        print(f"{weight:>6} " + " ".join(f"{percent(value):>7}" for value in row))
    found = tuned.figures
    blended = f"lambda {found['lambda']}, temperature {found['temperature']}: {found['M_map']}"
    print(f"{blended}, global {found['global_M_map']}, reranker alone {found['alone_M_map']}")
    if tuned.baselines:
        print("on the same candidates: " + ", ".join(f"{name} {found[f'{name}_M_map']}" for name in tuned.baselines))
    print(f"wrote {path}")
    return found
