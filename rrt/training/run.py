"""What the command ``experiment.py`` does, as functions of its settings."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from rrt.datasets.configured import check_apart, open_test, open_watched, resolve_split, selection_note
from rrt.datasets.sets import open_train_set
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError, check_count
from rrt.files.atomic import sha256_of_file
from rrt.files.machine import usable_cores
from rrt.network.checkpoint import Checkpoint, check_sizes, load_checkpoint, load_weights
from rrt.network.initialisation import initialise
from rrt.network.model import RRT
from rrt.network.scorer import Scorer
from rrt.progress import waiting
from rrt.store.local_counts import check_locals
from rrt.training.batches import BatchSource
from rrt.training.distributed import join_processes
from rrt.training.planted import PlantedSource
from rrt.training.sampler import TripletSampler
from rrt.training.settings import ExperimentSettings
from rrt.training.trainer import Trainer, TrainResult

_TRAINING_RECORDED = ("weights", "max_train_local", "min_train_local", "min_positives", "negatives", "hard_negatives")
_DATASET_RECORDED = ("name", "desc_name", "train_data_dir", "train_txt", "val_data_dir")
_DATASET_RECORDED += ("batch_size", "sampler", "num_candidates")


def train_run(settings: ExperimentSettings, log: Callable[[str, float, int], None] | None = None) -> TrainResult:
    """Train a reranking transformer. Under torchrun, together with the other processes (``rrt.training.distributed``).

    Everything is opened and checked before training starts. Raises InputError.
    """
    with join_processes(settings.cpu) as processes:
        with waiting("opening the data"), processes.agreeing():
            trainer = _make_trainer(settings, processes, log or (lambda name, value, step: None))
        # Read by one: the folder may be on the first machine alone.
        checkpoint = processes.from_first(lambda: _resumed(settings.resume, trainer.last_path))
        if checkpoint:
            with processes.agreeing():
                trainer.resume(checkpoint)
        return trainer.run()


def _make_trainer(settings: ExperimentSettings, processes, log) -> Trainer:
    max_local = settings.dataset.max_sequence_len
    torch.backends.cudnn.benchmark = settings.cudnn_flag == "benchmark"
    torch.manual_seed(settings.seed)
    network = RRT(**settings.model.architecture)
    initialise(network, settings.model.initialisation)
    if settings.weights:
        load_weights(network, load_checkpoint(settings.weights))
    dataset = resolve_split(settings.dataset, settings.select_on)
    source = open_source(settings, dataset)
    test_needed = settings.select_on == "test"
    validation = open_test(dataset, "val", selects=True) if dataset.val_data_dir else None
    watch = settings.watch_test
    test = open_test(dataset, "test", selects=test_needed) if test_needed or watch is True else None
    watched = open_watched(dataset, watch)
    for store in [source.train.store, *(data.store for data in (validation, test, *watched.values()) if data)]:
        check_sizes(store, network.settings)
        if max_local != 0:
            check_locals(store, None, "the transformer")
    if validation:
        check_apart(source.train, validation)
    recorded = {
        "model": network.settings,
        "initialisation": settings.model.initialisation,
        "dataset": {name: getattr(dataset, name) for name in _DATASET_RECORDED},
        "scale_binning": settings.scale_binning,
        "max_sequence_len": max_local,
        # Another list under the same name may hold what this run has held out.
        "train_list_sha256": sha256_of_file(source.train.images.path),
        "planted": asdict(settings.planted),
    } | {name: getattr(settings, name) for name in _TRAINING_RECORDED}

    def make_scorer(scored_model, store):
        return Scorer(scored_model, store, max_local, settings.scale_binning, processes.device)

    logged = [*watched, *(["test"] if watch is True and not test_needed else [])]
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
        make_scorer,
        validation,
        test,
        processes,
        loading,
        log,
        watched,
    )


def _resumed(resume, last_path: Path) -> Checkpoint | None:
    """The checkpoint that ``resume`` names: a path, ``auto`` for the run's own if it is there, or None."""
    if resume == "auto":
        resume = last_path if last_path.exists() else None
    return load_checkpoint(resume) if resume else None


def open_source(settings: ExperimentSettings, dataset: DatasetSettings) -> BatchSource:
    """Everything the batches of a training run are drawn from. dataset: with the split resolved. Raises InputError."""
    if not dataset.train_data_dir or not dataset.desc_name:
        raise InputError(
            "dataset.train_data_dir or dataset.desc_name is not set; name a dataset, for example dataset.scenes"
        )
    planted_wanted = settings.planted_steps > 0 or settings.planted_fraction > 0
    triplets_wanted = settings.epochs > 0
    max_local = check_count("max_train_local", settings.max_train_local or dataset.max_sequence_len)
    # Planted pairs can do without neighbours, but only when told to: other negatives make another training.
    neighbors_wanted = triplets_wanted or (planted_wanted and settings.planted.hard_negatives > 0)
    train = open_train_set(dataset.train_data_dir, dataset.desc_name, dataset.train_txt, neighbors_wanted, max_local)
    sampler = planted = None
    if triplets_wanted:
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
    if planted_wanted:
        planted = PlantedSource(
            train.store,
            train.index,
            settings.planted,
            train.labels,
            train.neighbors,
            settings.scale_binning,
            dataset.max_sequence_len,
        )
    return BatchSource(
        train,
        sampler,
        planted,
        dataset.batch_size,
        max_local,
        settings.min_train_local,
        settings.scale_binning,
        settings.steps_per_epoch,
        settings.planted_steps,
        settings.planted_fraction,
    )
