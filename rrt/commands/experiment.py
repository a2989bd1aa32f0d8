"""Train a reranking transformer on the descriptors of a store.

    python experiment.py [-F logs/NAME] with temp_dir=logs/NAME dataset.gldv2_roxford_r50_gldv2 model.RRT max_norm=0.0

    torchrun --nproc_per_node 2 experiment.py [-F logs/NAME] with ...    (several processes share every batch)

Needs the store, the training list and the neighbours of tools/prepare_topk_gldv2.py in dataset.train_data_dir. Writes
last.pt (every epoch and every save_every steps, with everything resume=auto needs), best.pt (the selected epoch),
history.json and curves.png into temp_dir, and the run's record, where neither -F, -m nor -u says otherwise.
"""

from dataclasses import asdict

from rrt.command_line.sacred import is_first_process, make_experiment, plain_config
from rrt.configs import dataset_ingredient, model_ingredient
from rrt.training.planted import PlantedSettings
from rrt.training.run import train_run
from rrt.training.settings import TrainSettings

dataset = dataset_ingredient()
model = model_ingredient()
ex = make_experiment("rrt_training", ingredients=[dataset, model])
ex.add_config(
    asdict(TrainSettings())
    | {
        "scheduler_tau": list(TrainSettings().scheduler_tau),
        "temp_dir": "logs/experiment",
        "resume": None,  # auto: go on from temp_dir/last.pt where it is there; or the path of such a checkpoint
        "weights": None,  # a checkpoint whose weights a new training starts from
        "cpu": False,
        "cudnn_flag": "benchmark",
        "scale_binning": "published",  # published | exact, see rrt.network.pairs.scale_index
        "max_train_local": None,  # local descriptors of an image in training; None: dataset.max_sequence_len
        "min_train_local": None,  # draw their number between this and max_train_local for every batch
        "min_positives": 5,
        "negatives": 1,  # of an anchor in a batch; its images are batch_size / (2 + negatives) anchors with theirs
        "hard_negatives": 0,  # draw them from this many of the most similar of other labels; 0: from all candidates
        # Measured after every epoch, for the log alone: True: the test set; or ground truth files with commas between
        # them, as data/oxford5k/gnd_roxford5k.pkl,data/paris6k/gnd_rparis6k.pkl (lists, store and neighbours beside
        # each)
        "watch_test": None,
        "planted": asdict(PlantedSettings()),
        "visdom_port": None,  # the two of visdom are accepted and unused: scalars go to Sacred's observers
        "visdom_freq": 100,
    }
)


@ex.main
def main(_config, _run):
    """Train; the result holds the selected epoch and its figures."""
    settings = plain_config(_config)
    result = train_run(
        settings.pop("dataset"),
        settings.pop("model"),
        settings,
        lambda name, value, step: _run.log_scalar(name, value, step),
    )
    if not is_first_process():
        return None
    for figures in result.history:
        print(", ".join(f"{name} {value}" for name, value in figures.items()))
    chosen = {
        "val": "the validation landmarks",
        "test": "the TEST SET, as published",
        "last": "nothing: it is the last one",
    }
    print(f"epoch {result.selected_epoch} selected on {chosen[result.selected_on]}")
    print(f"wrote {result.best} and {result.last}")
    selected = next(figures for figures in result.history if figures["epoch"] == result.selected_epoch)
    return selected | {"selected_on": result.selected_on, "checkpoint": str(result.best)}
