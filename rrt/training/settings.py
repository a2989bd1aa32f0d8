"""Settings of a training: of its loop, and of the command experiment.py around it."""

from dataclasses import fields, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Strict

from rrt.command_line.settings import Expected, FilePath, setting, settings
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError
from rrt.network.settings import ModelSettings, Precision
from rrt.training.distillation import DistilSettings
from rrt.training.planted import PlantedSettings


@settings()
class TrainSettings:
    """The defaults are the published ones (docs/protocol.md) as far as there are any; what is not published is off."""

    epochs: int = setting(default=15)
    lr: float = setting(default=1e-4)
    momentum: float = setting(default=0.0, ge=0, lt=1)
    nesterov: bool = setting(default=False)
    weight_decay: float = setting(default=5e-4)
    optim: Literal["adamw", "adam", "sgd"] = setting("adamw | adam | sgd", default="adamw")
    scheduler: Literal["multistep", "cos", "warmcos", "warmstep"] = setting(
        "multistep | cos | warmcos | warmstep", default="multistep"
    )
    scheduler_tau: Annotated[tuple[int, ...], Strict(False)] = setting(
        "epochs at which multistep changes the rate", default=(16, 18)
    )
    scheduler_gamma: float = setting(default=0.1, ge=0)
    warmup_steps: int | None = setting(
        "the rate rises from 0 over so many optimiser steps; None: 500 for the warm schedulers, 0 for the others",
        default=None,
    )
    max_norm: float = setting(default=0.0)
    no_bias_decay: bool = setting("spare biases and norms the weight decay", default=False)
    loss: Literal["bce", "softmax"] = setting(
        "bce: of each pair; softmax: of an anchor's positive among its negatives (give more than one)", default="bce"
    )
    seed: int = setting(default=0)
    planted_steps: int = setting("batches of planted correspondences before the first epoch of triplets", default=0)
    planted_fraction: float = setting("share of the batches that stay planted afterwards", default=0.0)
    steps_per_epoch: int | None = setting("batches of an epoch; None: every anchor once", default=None)
    accumulation: int = setting("batches of an optimiser step, which then is that of the joined batch", default=1, ge=1)
    label_smoothing: float = setting("see rrt.training.step.pair_losses", default=0.0)
    ema_decay: float = setting(
        "evaluate and keep the running average d average + (1 - d) weights; 0: the weights themselves", default=0.0
    )
    precision: Precision = setting("float32 | bfloat16 | float16 | auto, see rrt.network.precision", default="float32")
    compile: bool = setting("torch.compile in training", default=False)
    select_on: Literal["val", "test", "last"] = setting(
        "how the best epoch is chosen: val | test | last", default="val"
    )
    save_every: int | None = setting(
        "optimiser steps between saved states, beside those of every epoch; None: no others", default=1000, ge=1
    )
    log_every: int = setting("optimiser steps between logged scalars", default=100, ge=1)
    tensorboard: bool = setting("log scalars there, too", default=False)
    curves: bool = setting("draw the scalars at the end", default=True)
    distil: DistilSettings = DistilSettings()

    # What a resumed run may change without becoming another run.
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (
        "epochs",
        "select_on",
        "compile",
        "save_every",
        "log_every",
        "tensorboard",
        "curves",
    )

    def __post_init__(self):
        if self.lr <= 0:
            raise InputError(f"lr={self.lr:g}: must be above 0")
        for name in ("weight_decay", "max_norm", "seed", "planted_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: must not be negative")
        if self.nesterov and self.optim == "sgd" and self.momentum <= 0:
            raise InputError("nesterov=True needs a momentum above 0")
        if not 0 <= self.planted_fraction <= 1:
            raise InputError(f"planted_fraction={self.planted_fraction}: must lie in 0..1")
        if self.epochs < 0 or self.epochs + self.planted_steps + self.distil.steps == 0:
            raise InputError("nothing to train: epochs, planted_steps and distil.steps are all 0")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch={self.steps_per_epoch}: give a positive number or None")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise InputError(f"warmup_steps={self.warmup_steps}: must not be negative")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must lie in 0..1, 1 excluded; 0 turns it off")

    def optimiser_steps(self, batches: int) -> int:
        """Optimiser steps that so many batches of a stage make; the last may join fewer batches."""
        return -(-batches // self.accumulation)


# What recipe=distilled sets where nothing else is said (docs/training.md 3).
DISTILLED: dict[str, Any] = {
    "distil": {"steps": 20_000, "teacher": "0.6*maxsim+0.4*global", "queries": 100_000},
    "model": {"initialisation": "maxsim"},
    "lr": 3e-5,
    "max_norm": 0.1,
}
_Watched = Annotated[Any, Expected("True, None or ground truth files with commas between them")]


@settings()
class ExperimentSettings(TrainSettings):
    """Of experiment.py: the loop's, the data's, the network's, and where all of it comes from and goes."""

    dataset: DatasetSettings = DatasetSettings()
    model: ModelSettings = ModelSettings()
    planted: PlantedSettings = PlantedSettings()
    recipe: Literal["published", "distilled"] = setting(
        "distilled: learn from a teacher first (distil.*), then labels at a low rate, where these settings are not set",
        default="published",
    )
    temp_dir: FilePath = setting("folder for the checkpoints and the record of the run", default="logs/experiment")
    resume: FilePath | None = setting(
        "auto: go on from temp_dir/last.pt where it is there; or the path of such a checkpoint", default=None
    )
    weights: FilePath | None = setting("a checkpoint whose weights a new training starts from", default=None)
    cpu: bool = setting("do not use a GPU", default=False)
    cudnn_flag: str = setting("benchmark: have cuDNN measure its ways", default="benchmark")
    scale_binning: Literal["published", "exact"] = setting(
        "published | exact, see rrt.network.pairs.scale_index", default="published"
    )
    max_train_local: int | None = setting(
        "local descriptors of an image in training; None: dataset.max_sequence_len", default=None, ge=0
    )
    min_train_local: int | None = setting(
        "draw their number between this and max_train_local for every batch", default=None, ge=0
    )
    train_local_apart: bool = setting(
        "draw it for the anchors, as for queries, and once more for the images they are paired with", default=False
    )
    min_positives: int = setting("images of a landmark from which on it gives anchors", default=5, ge=1)
    negatives: int = setting(
        "of an anchor in a batch; its images are batch_size / (2 + negatives) anchors with theirs", default=1, ge=1
    )
    hard_negatives: int = setting(
        "draw them from this many of the most similar of other labels; 0: from all candidates", default=0, ge=0
    )
    watch_test: _Watched = setting(
        "measured after every epoch, for the log alone. True: the test set; or ground truth files with commas between"
        " them, as data/oxford5k/gnd_roxford5k.pkl,data/paris6k/gnd_rparis6k.pkl (lists, store and neighbours beside"
        " each)",
        default=None,
    )

    def with_recipe(self) -> "ExperimentSettings":
        """With what ``recipe`` says of every setting that has its default."""
        return _replaced(self, DISTILLED) if self.recipe == "distilled" else self

    @property
    def training(self) -> TrainSettings:
        """Those of the loop alone."""
        return TrainSettings(**{entry.name: getattr(self, entry.name) for entry in fields(TrainSettings)})


def _replaced(settings, wanted: dict[str, Any]):
    changed, defaults = {}, type(settings)()
    for name, value in wanted.items():
        own = getattr(settings, name)
        if isinstance(value, dict):
            changed[name] = _replaced(own, value)
        elif own == getattr(defaults, name):
            changed[name] = value
    return replace(settings, **changed)
