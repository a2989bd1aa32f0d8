"""What the command ``experiment.py`` does, as functions of its settings."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rrt.datasets.configured import check_apart, open_test, open_watched, resolve_split, selection_note
from rrt.datasets.sets import TestSet, TrainSet, open_train_set
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError, check_count
from rrt.files.atomic import sha256_of_file
from rrt.files.locks import owned
from rrt.files.machine import usable_cores
from rrt.network.checkpoint import Checkpoint, check_sizes, load_checkpoint, load_weights
from rrt.network.late import LATE
from rrt.network.networks import make_network, make_scorer
from rrt.progress import waiting
from rrt.store.local_counts import check_locals
from rrt.training.batches import BatchSource
from rrt.training.distillation import TaughtLists
from rrt.training.distributed import join_processes
from rrt.training.planted import PlantedSource
from rrt.training.pools import Lesson
from rrt.training.sampler import TripletSampler
from rrt.training.settings import ExperimentSettings
from rrt.training.standardise import standardise
from rrt.training.teachers import make_lessons, read_teacher
from rrt.training.trainer import Trainer, TrainResult

_TRAINING_RECORDED = ("weights", "max_train_local", "min_train_local", "train_local_apart")
_TRAINING_RECORDED += ("min_positives", "negatives", "hard_negatives")
_DATASET_RECORDED = ("name", "desc_name", "train_data_dir", "train_txt", "val_data_dir")
_DATASET_RECORDED += ("batch_size", "sampler", "num_candidates")


def train_run(settings: ExperimentSettings, log: Callable[[str, float, int], None] | None = None) -> TrainResult:
    """Train a reranking transformer. Under torchrun, together with the other processes (``rrt.training.distributed``).

    Everything is opened and checked before training starts. Raises InputError.
    """
    settings = settings.with_recipe()
    with join_processes(settings.cpu) as processes, ExitStack() as held:
        with processes.agreeing():
            if processes.is_first:
                held.enter_context(owned(settings.temp_dir, "training there"))
        with waiting("opening the data"), processes.agreeing():
            data = _open_data(settings)
        lessons = []
        if settings.distil.steps:
            # By one, for all: others would do the same work, and write the same files.
            lessons = processes.from_first(
                lambda: make_lessons(data.lists, data.view_lists, settings.distil, processes.device == "cpu")
            )
        with processes.agreeing():
            trainer = _make_trainer(settings, data, lessons, processes, log or (lambda name, value, step: None))
        # Read by one: the folder may be on the first machine alone.
        checkpoint = processes.from_first(lambda: _resumed(settings.resume, trainer.last_path))
        if checkpoint:
            with processes.agreeing():
                trainer.resume(checkpoint)
        return trainer.run()


@dataclass(frozen=True)
class _Data:
    """Everything that a training reads, opened: dataset with the split resolved, image lists for a teacher."""

    dataset: DatasetSettings
    train: TrainSet
    lists: list[TrainSet]
    view_lists: list[TrainSet]
    validation: TestSet | None
    test: TestSet | None
    watched: dict[str, TestSet]

    @property
    def image_lists(self) -> list[TrainSet]:
        """Those for a teacher, in the order of their lessons."""
        return [*self.lists, *self.view_lists]


def _open_data(settings: ExperimentSettings) -> _Data:
    dataset = resolve_split(settings.dataset, settings.select_on)
    train = open_training(settings, dataset)
    test_needed = settings.select_on == "test" or settings.watch_test is True
    validation = open_test(dataset, "val", selects=True) if dataset.val_data_dir else None
    test = open_test(dataset, "test", selects=settings.select_on == "test") if test_needed else None
    distil, lists, view_lists = settings.distil, [], []
    if distil.steps:
        read_teacher(distil.teacher)
        lists = [_open_list(path, settings, dataset) for path in _paths(distil.lists)]
        view_lists = [_open_list(path, settings, dataset) for path in _paths(distil.view_lists)]
        if not lists and distil.lists is None:
            lists = [train]
    data = _Data(dataset, train, lists, view_lists, validation, test, open_watched(dataset, settings.watch_test))
    if validation:
        for images in [train, *data.image_lists]:
            check_apart(images, validation)
    return data


def _paths(text: str | None) -> list[Path]:
    return [Path(part.strip()) for part in (text or "").split(",") if part.strip()]


def _open_list(path: Path, settings: ExperimentSettings, dataset: DatasetSettings) -> TrainSet:
    assert dataset.desc_name is not None  # open_training has looked
    return open_train_set(path.parent, dataset.desc_name, path.name, False, _max_local(settings))


def _make_trainer(settings: ExperimentSettings, data: _Data, lessons: list[Lesson], processes, log) -> Trainer:
    dataset = data.dataset
    max_local = dataset.max_local
    torch.backends.cudnn.benchmark = settings.cudnn_flag == "benchmark"
    torch.manual_seed(settings.seed)
    network = make_network(settings.model.architecture, settings.model.initialisation)
    if settings.weights:
        load_weights(network, load_checkpoint(settings.weights))
    taught = TaughtLists(tuple(data.image_lists), tuple(lessons), settings.distil) if lessons else None
    source = make_source(settings, dataset, data.train, taught)
    measured = [data.validation, data.test, *data.watched.values()]
    for images in [data.train, *data.image_lists, *(each for each in measured if each)]:
        check_sizes(images.store, network.settings)
        if max_local != 0:
            check_locals(images.store, None, "the transformer")
    if isinstance(network, LATE) and not settings.weights:
        standardise(network, data.train, source.max_local, settings.seed)
    recorded = {
        "model": network.settings,
        "initialisation": settings.model.initialisation,
        "dataset": {name: getattr(dataset, name) for name in _DATASET_RECORDED},
        "scale_binning": settings.scale_binning,
        "max_sequence_len": max_local,
        # Another list under the same name may hold what this run has held out.
        "train_list_sha256": sha256_of_file(data.train.images.path),
        "planted": asdict(settings.planted),
        "lessons": [lesson.made_from for lesson in lessons] or None,
    } | {name: getattr(settings, name) for name in _TRAINING_RECORDED}

    def scorer_of(scored_model, store):
        return make_scorer(scored_model, store, max_local, settings.scale_binning, processes.device)

    watches_test = settings.watch_test is True and settings.select_on != "test"
    logged = [*data.watched, *(["test"] if watches_test else [])]
    if processes.is_first:
        print(selection_note(settings.dataset, dataset, settings.select_on, logged), flush=True)
    loading = {"num_workers": 0}
    # A processor that trains has no cores to spare for reading, which takes it a hundredth of the time.
    if processes.device != "cpu":
        cores = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        loading = {"num_workers": min(dataset.num_workers, max(1, cores - 1)), "pin_memory": dataset.pin_memory}
    return Trainer(
        network,
        source,
        settings.training,
        settings.temp_dir,
        recorded,
        scorer_of,
        data.validation,
        data.test,
        processes,
        loading,
        log,
        data.watched,
    )


def _resumed(resume, last_path: Path) -> Checkpoint | None:
    """The checkpoint that ``resume`` names: a path, ``auto`` for the run's own if it is there, or None."""
    if resume == "auto":
        resume = last_path if last_path.exists() else None
    return load_checkpoint(resume) if resume else None


def open_training(settings: ExperimentSettings, dataset: DatasetSettings) -> TrainSet:
    """The training set, with the neighbours where the batches need them. dataset: with the split resolved. Raises
    InputError."""
    if not dataset.train_data_dir or not dataset.desc_name:
        name = "desc_name" if dataset.train_data_dir else "train_data_dir"
        raise InputError(f"dataset.{name} is not set; set it, or name a dataset that has it, as dataset.scenes")
    # Planted pairs can do without neighbours, but only when told to: other negatives make another training.
    neighbors_wanted = settings.epochs > 0 or (_planted_wanted(settings) and settings.planted.hard_negatives > 0)
    return open_train_set(
        dataset.train_data_dir, dataset.desc_name, dataset.train_txt, neighbors_wanted, _max_local(settings)
    )


def _planted_wanted(settings: ExperimentSettings) -> bool:
    return settings.planted_steps > 0 or settings.planted_fraction > 0


def _max_local(settings: ExperimentSettings) -> int:
    return check_count("max_train_local", settings.max_train_local or settings.dataset.max_local)


def make_source(
    settings: ExperimentSettings, dataset: DatasetSettings, train: TrainSet, taught: TaughtLists | None = None
) -> BatchSource:
    """Everything the batches of a training run are drawn from. dataset: with the split resolved. Raises InputError."""
    positions = settings.model.kind == "LATE" and settings.model.positions
    sampler = planted = None
    if settings.epochs > 0:
        assert train.neighbors is not None
        sampler = TripletSampler(
            train.labels,
            train.neighbors,
            dataset.num_candidates,
            settings.min_positives,
            dataset.sampler,
            settings.negatives,
            settings.hard_negatives,
        )
    if _planted_wanted(settings):
        planted = PlantedSource(
            train.store,
            train.index,
            settings.planted,
            train.labels,
            train.neighbors,
            settings.scale_binning,
            dataset.max_local,
            positions,
        )
    return BatchSource(
        train,
        sampler,
        planted,
        dataset.batch_size,
        _max_local(settings),
        settings.min_train_local,
        settings.scale_binning,
        settings.steps_per_epoch,
        settings.planted_steps,
        settings.planted_fraction,
        taught,
        positions,
        settings.train_local_apart,
    )
