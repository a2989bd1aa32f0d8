"""Train a reranking transformer on the descriptors of a store.

    python experiment.py [-F logs/NAME] with temp_dir=logs/NAME dataset.gldv2_roxford_r50_gldv2 model.RRT max_norm=0.0

    torchrun --nproc_per_node 2 experiment.py [-F logs/NAME] with ...    (several processes share every batch)

Needs the store, the training list and the neighbours of tools/prepare_topk_gldv2.py in dataset.train_data_dir. Writes
last.pt (every epoch and every save_every steps, with everything resume=auto needs), best.pt (the selected epoch),
history.json and curves.png into temp_dir, and the run's record, where neither -F, -m nor -u says otherwise.
"""

from dataclasses import asdict

from rrt.command_line.sacred import is_first_process
from rrt.configs import make_command, read_settings
from rrt.training.distillation import DistilSettings
from rrt.training.planted import PlantedSettings
from rrt.training.settings import ExperimentSettings

_UNUSED = "visdom_port", "visdom_freq"
ex = make_command(globals(), "rrt_training", ExperimentSettings, _UNUSED, methods=False, uses=["rrt.training.run"])
ex.add_config({"planted": asdict(PlantedSettings()), "distil": asdict(DistilSettings())})


@ex.main
def main(_config, _run):
    """Train; the result holds the selected epoch and its figures."""
    from rrt.training.run import train_run

    settings = read_settings(ExperimentSettings, _config)
    result = train_run(settings, lambda name, value, step: _run.log_scalar(name, value, step))
    if not is_first_process():
        return None
    for figures in result.history:
        print(", ".join(f"{name} {value}" for name, value in figures.items()))
    chosen = {
        "val": "the validation landmarks",
        "test": "the TEST SET, as published",
        "last": "nothing: it is the last one",
    }
    stages = [(-1, "the teacher's stage"), (0, "the planted stage")]
    name = next((name for epoch, name in stages if epoch == result.selected_epoch), f"epoch {result.selected_epoch}")
    print(f"{name} selected on {chosen[result.selected_on]}")
    print(f"wrote {result.best} and {result.last}")
    selected = next(figures for figures in result.history if figures["epoch"] == result.selected_epoch)
    return selected | {"selected_on": result.selected_on, "checkpoint": str(result.best)}
