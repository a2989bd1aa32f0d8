"""A training run: what it starts from, the loop around the step, and what it leaves (the command is train.py)."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from delg_extract.data.batches import ImageSource, training_batches, unreadable_image_named, validation_batches
from delg_extract.data.lists import read_labelled_images
from delg_extract.data.records import read_record_images
from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import load_keras_notop, save_weights
from delg_extract.training.checkpoints import network_settings, restore_trained
from delg_extract.training.distribution import (
    check_shares,
    checkpoint_folder,
    distributed_batches,
    is_chief,
    make_strategy,
    share_of_each,
)
from delg_extract.training.flags import DATASET_CLASSES, FREE_SETTINGS
from delg_extract.training.initialise import identity_conv5, initialise_heads
from delg_extract.training.log import TAGS, CurveLog, Summaries, draw_curves
from delg_extract.training.losses import add_classifiers
from delg_extract.training.step import StepResult, Trainer
from rrt.errors import InputError
from rrt.files.atomic import guard_settings
from rrt.progress import bar, report_progress

COLUMNS = ("total", "global", "attention", "reconstruction", "gradient_norm", "global_accuracy", "local_accuracy")
KEPT_CHECKPOINTS = 3


# ---- what training starts from ---------------------------------------------------------------------------------------


def open_images(args: argparse.Namespace):
    """Training and validation images (the same object for image lists, which hold out some; None without
    validation)."""
    if args.train_list:
        images = read_labelled_images(args.train_list, args.image_dir, args.repeat, args.validation_fraction, args.seed)
        return images, images
    num_classes = number_of_classes(args, args.train_file_pattern)
    flags = "train_file_pattern", "validation_file_pattern"
    return tuple(
        getattr(args, flag) and read_record_images(getattr(args, flag), num_classes, f"--{flag}") for flag in flags
    )


def number_of_classes(args: argparse.Namespace, pattern: str) -> int:
    """Classes of TFRecords: as the flags say, or as many as build_image_dataset.py numbered."""
    if args.num_classes or args.dataset_version:
        return args.num_classes or DATASET_CLASSES[args.dataset_version]
    numbering = Path(pattern).parent / "relabeling.csv"
    if not numbering.is_file():
        raise InputError(
            f"{pattern}: no relabeling.csv beside the shards says how many classes there are; give --num_classes or "
            "--dataset_version"
        )
    return len(numbering.read_text().splitlines()) - 1


def starting_model(args: argparse.Namespace, images, num_classes: int, fresh: bool = True) -> Delg:
    """A network with its classifiers, and with the starting weights that ``args`` name; a run that goes on (not
    ``fresh``) needs none."""
    model = Delg(**network_settings(vars(args)), seed=args.seed)
    if args.local_feature_map_channels not in (None, model.sizes.local_channels):
        raise InputError(
            f"--local_feature_map_channels {args.local_feature_map_channels:g}: a {args.backbone} has "
            f"{model.sizes.local_channels}; leave the flag out"
        )
    if fresh:
        _load_start(model, args)
    add_classifiers(model, num_classes, args.stage)
    if fresh and args.init_heads_steps:
        with unreadable_image_named(images):
            initialise_heads(
                model,
                batches_of(images, args, args.batch_size, seed=args.seed + 1),
                args.init_heads_steps,
                classifier_only=args.init_weights is not None and not args.partial_weights,
                batch_statistics=not (args.init_weights or args.imagenet_checkpoint),
                seed=args.seed,
            )
    return model


def _load_start(model: Delg, args: argparse.Namespace) -> None:
    if args.init_weights:
        left = restore_trained(args.init_weights, model, args.partial_weights)
        print(
            f"{args.init_weights}: loaded" + (f", left {', '.join(left)} as initialised" if left else " all variables")
        )
    if args.imagenet_checkpoint:
        print(load_keras_notop(args.imagenet_checkpoint, model, partial=args.partial_weights))
    if args.conv5_start == "identity":
        identity_conv5(model, args.seed)


def batches_of(
    images, args: argparse.Namespace, batch_size: int, skip_steps: int = 0, shard=(0, 1), seed: int | None = None
):
    """Training batches as the flags want them."""
    return training_batches(
        images,
        batch_size,
        args.image_size,
        args.seed if seed is None else seed,
        args.use_augmentation,
        (args.min_crop_area, args.max_crop_area),
        skip_steps,
        shard,
    )


def build_trainer(args: argparse.Namespace, images, num_classes: int, strategy=None, fresh: bool = True) -> Trainer:
    """The trainer of a run, on all replicas of ``strategy``."""
    model = starting_model(args, images, num_classes, fresh)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        values = _values(model)
        with strategy.scope():  # made from the values, so that every worker begins with the chief's
            model = Delg(**model.settings, values=values)
            add_classifiers(model, num_classes, args.stage)
    model.compute_dtype = "bfloat16" if args.mixed_precision == "bfloat16" else "float32"
    return Trainer(model, args, strategy)


def _values(model: Delg) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in model.variables_by_name.items()}


# ---- the run ---------------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> Path:
    """Runs or continues the training of ``args`` (see flags.py) and returns the path of the weight file."""
    logdir = Path(args.logdir)
    strategy = make_strategy()
    check_shares(strategy, args.batch_size)
    training, validation = open_images(args)
    if args.train_list and args.num_classes and args.num_classes < training.num_classes:
        raise InputError(
            f"{args.train_list[0]}: the lists have {training.num_classes} classes, --num_classes is "
            f"{args.num_classes}; raise it or leave it out"
        )
    latest = tf.train.latest_checkpoint(str(logdir / "checkpoints"))
    trainer = build_trainer(args, training, args.num_classes or training.num_classes, strategy, fresh=not latest)
    # Last, so that a run refused for its input leaves no claim on the folder; nor does one that ended before it saved
    # anything.
    if is_chief(strategy):
        if not latest and not (logdir / "weights.h5").exists():
            (logdir / "settings.json").unlink(missing_ok=True)
        guard_settings(logdir / "settings.json", {k: v for k, v in vars(args).items() if k not in FREE_SETTINGS})
    folder = checkpoint_folder(strategy, logdir)
    manager = tf.train.CheckpointManager(trainer.checkpoint(), str(folder), max_to_keep=KEPT_CHECKPOINTS)
    if latest:
        manager.checkpoint.restore(latest).assert_consumed()
        report_progress(f"{logdir}: continues at step {int(trainer.step_count.numpy())}")
    if int(trainer.step_count.numpy()) < args.max_iters:
        with unreadable_image_named(training):
            Run(trainer, training, validation, manager, logdir).train()
    # Without the classifiers; batch statistics are read by all workers together.
    trained = Delg(**trainer.model.settings, values=_values(trainer.model))
    if not is_chief(strategy):
        shutil.rmtree(folder)
        return logdir / "weights.h5"
    return save_weights(
        logdir / "weights.h5", trained, image_size=args.image_size, steps=int(trainer.step_count.numpy())
    )


class Run:
    """The loop around the step: progress, reports, validation, summaries, checkpoints. Only the chief prints and writes
    logs."""

    def __init__(self, trainer: Trainer, training, validation, manager: tf.train.CheckpointManager, logdir: Path):
        self.trainer, self.args, self.manager, self.logdir = trainer, trainer.args, manager, logdir
        self.training, self.validation = training, validation
        self.chief = is_chief(trainer.strategy)
        self.start = int(trainer.step_count.numpy())
        # Reading a result waits for its step. So results are collected, and read when one of them is needed.
        self.unread: list[tuple[int, StepResult]] = []
        # Since the last report: the values of its steps, and (time, step) of its beginning.
        self.recent, self.began = [], (time.time(), self.start)

    def train(self) -> None:
        """Takes the steps up to ``max_iters``. Raises InputError when a loss is not finite."""
        args, trainer = self.args, self.trainer
        if self.chief:
            self.log = CurveLog(
                self.logdir / "train.csv", ("step", *COLUMNS, "validation_global", "validation_local"), self.start
            )
        self.summaries = Summaries(self.logdir / "train_logs" if self.chief and args.summary_interval else None)
        data = distributed_batches(
            trainer.strategy, lambda *rest: batches_of(self.training, args, *rest), args.batch_size, self.start
        )
        self.bar = bar(what="train", unit="step", total=args.max_iters, initial=self.start, shown=self.chief)
        self.recent, self.began = [], (time.time(), self.start)
        for step, batch in zip(range(self.start + 1, args.max_iters + 1), data):
            rate = trainer.learning_rate
            self.unread.append((step, trainer.train_step(*batch)))
            self.bar.update()
            if self._due(step, args.summary_interval):
                self._summarise(step, batch[0], rate)
            if self._due(step, args.report_interval):
                self._report(step)
            if self._due(step, args.save_interval):
                self._read_results()  # no step is saved whose loss is not finite
                self.manager.save(checkpoint_number=step)
        self.bar.close()
        if self.chief:
            draw_curves(self.logdir / "train.csv", self.logdir / "curves.png")

    def _due(self, step: int, interval: int) -> bool:
        """Whether something is done after this step: every ``interval`` steps (0: never) and at the end."""
        return bool(interval) and (step % interval == 0 or step == self.args.max_iters)

    def _read_results(self) -> None:
        """Reads the results of the steps so far. Raises InputError for the first that is not finite."""
        for step, result in self.unread:
            values = [float(value) for value in result]
            if not np.isfinite(values[:5]).all():
                raise InputError(f"{self.logdir}: the loss at step {step} is not finite; {self._way_back(step)}")
            self.recent.append(values)
        self.unread.clear()

    def _way_back(self, step: int) -> str:
        """What to start again from when the loss of a step is not finite."""
        # What a step saved is known to be good when the next step's loss was finite.
        good = [path for path in self.manager.checkpoints if int(path.rpartition("-")[2]) < step - 1]
        if not good:
            return (
                "no earlier checkpoint is known to be good; start again in another --logdir with a lower --initial_lr"
            )
        return (
            f"the last good checkpoint is {good[-1]}; start again in another --logdir with --init_weights {good[-1]} "
            "and a lower --initial_lr"
        )

    def _summarise(self, step: int, images, rate: float) -> None:
        self._read_results()
        attention = self.trainer.attention(images)
        first = self.trainer.strategy.experimental_local_results
        self.summaries.images(step, first(images)[0], first(attention)[0])
        values = {TAGS[name]: value for name, value in zip(COLUMNS, self.recent[-1]) if np.isfinite(value)}
        if self.args.delg_global_features:
            values["desc/scale_factor"] = self.args.delg_scale_factor_init
        self.summaries.scalars(step, values | {"learning_rate": rate, "global_steps_per_sec": self._speed(step)})

    def _speed(self, step: int) -> float:
        """Steps a second since the last report."""
        began, first = self.began
        return (step - first) / max(time.time() - began, 1e-9)

    def _report(self, step: int) -> None:
        self._read_results()
        mean = dict(zip(COLUMNS, np.mean(self.recent, axis=0)))
        speed = self._speed(step) * self.args.batch_size
        self.bar.set_postfix_str(
            f"loss {mean['total']:.2f} acc {mean['global_accuracy']:.2f}/{mean['local_accuracy']:.2f} "
            f"{speed:.1f} images/s"
        )
        validation = ("", "")
        if self.validation is not None and self._due(step, self.args.eval_interval):
            validation = self._validate(step)
        if self.chief:
            if validation[0] != "":
                report_progress(
                    f"step {step}: loss {mean['total']:.3f} (global {mean['global']:.3f}, attention "
                    f"{mean['attention']:.3f}, reconstruction {mean['reconstruction']:.4f}), validation accuracy "
                    f"global {validation[0]:.3f} local {validation[1]:.3f}, {speed:.1f} images/s"
                )
            self.log.write((step, *mean.values(), *validation))
        self.recent, self.began = [], (time.time(), step)

    def _validate(self, step: int) -> tuple[float, float]:
        with unreadable_image_named(self.validation):
            accuracies = validate(self.trainer, self.validation, self.args)
        shown = zip(("validation/desc", "validation/attn"), accuracies)
        self.summaries.scalars(step, {tag: value for tag, value in shown if np.isfinite(value)})
        return accuracies


def validate(trainer: Trainer, source: ImageSource, args: argparse.Namespace) -> tuple[float, float]:
    """Top-1 accuracy of the global and the local head without margin and augmentation, on at most ``eval_images``
    images; NaN for a head that the stage leaves out, or without images."""
    counts = np.zeros(3)
    batches = validation_batches(source, args.batch_size, args.image_size, args.eval_images)
    for images, labels in bar(batches, "validation", "batch", passing=True, shown=is_chief(trainer.strategy)):
        missing = args.batch_size - len(labels)  # the last batch is filled up, so that it divides by the replicas
        images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(labels, (0, missing), constant_values=-1)
        counts += [float(count) for count in trainer.validation_step(*share_of_each(trainer.strategy, images, labels))]
    global_, local_, total = counts

    def share(right: float, stage_without: str) -> float:
        return right / total if total and args.stage != stage_without else float("nan")

    return share(global_, "keypoint"), share(local_, "finetune")
