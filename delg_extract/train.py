"""Trains DELG (or DELF) with the joint loss: image lists in, a weight file out.

    python delg_extract/train.py --train_list data/gldv2/train.txt --image_dir data/gldv2 --logdir logs/delg_r50 \
        --backbone resnet50 --imagenet_checkpoint resnet50_notop.h5

Flags of the reference keep their names and defaults. A killed run continues from its last checkpoint in --logdir. At the end
<logdir>/weights.h5 holds the network without its classifiers, <logdir>/train.csv the curves and <logdir>/curves.png a picture.
"""
from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from delg_extract.curves import draw_curves
from delg_extract.data import LabelledPictures, read_labelled_pictures, training_batches, unreadable_picture_named, whole_pictures
from delg_extract.initialise import identity_conv5, initialise_heads
from delg_extract.losses import CLASSIFIERS, add_classifiers, global_logits, joint_loss, local_logits
from delg_extract.model import BACKBONES, Delg
from delg_extract.optimizer import ClippedMomentum
from delg_extract.quiet_tensorflow import tf
from delg_extract.weights import load_keras_notop, restore_weights, save_weights
from rrt.errors import InputError, run_command
from rrt.picture_jobs import guard_settings

CLIP_NORM = 10.0
MOMENTUM = 0.9
FREE_SETTINGS = {"save_interval", "eval_interval", "report_interval", "eval_images"}  # may change when a run is continued
FROZEN = {"none": (), "conv4": ("conv1/", "bn_conv1/", "res2", "res3", "res4", "bn2", "bn3", "bn4")}


class Trainer:
    """One training step and its state. ``freeze="conv4"`` keeps conv1..conv4 as they are, their batch norms in inference mode."""

    def __init__(self, model: Delg, args: argparse.Namespace):
        self.model, self.args = model, args
        self.frozen = FROZEN[args.freeze]
        self.trained = model.trained_variables(self.frozen)
        self.optimizer = ClippedMomentum([v for _, v in self.trained], MOMENTUM, CLIP_NORM)
        self.step_count = tf.Variable(0, dtype=tf.int64, trainable=False)

    def forward(self, images, labels, training):
        """Losses and logits of a batch; with ``labels`` in training mode the margin is applied."""
        conv4 = self.model.conv4(images, training=training and not self.frozen)
        block3 = tf.stop_gradient(self.model.block3(conv4))
        embedding = self.model.embed(self.model.conv5(conv4, training))
        maps = self.model.local(block3, training)
        logits = global_logits(self.model, embedding, labels if training else None, self.args.delg_arcface_margin)
        return logits, local_logits(self.model, block3, maps), block3, maps

    @tf.function(reduce_retracing=True)
    def train_step(self, images, labels):
        """One SGD step with the gradient clipped to a global norm of 10. Returns losses (total, global, attention,
        reconstruction), the gradient norm before clipping, and the two accuracies of the batch."""
        with tf.GradientTape() as tape:
            global_, local_, block3, maps = self.forward(images, labels, training=True)
            losses = joint_loss(global_, local_, block3, maps, labels, tf.shape(images)[0],
                                self.args.attention_loss_weight, self.args.reconstruction_loss_weight)
        remaining = 1.0 - tf.cast(self.step_count, tf.float32) / self.args.max_iters
        norm = self.optimizer.apply(tape.gradient(losses.total, self.optimizer.variables), self.args.initial_lr * remaining)
        self.step_count.assign_add(1)
        return *losses, norm, self._accuracy(global_, labels), self._accuracy(local_, labels)

    @tf.function(reduce_retracing=True)
    def validation_step(self, images, labels):
        global_, local_, *_ = self.forward(images, labels, training=False)
        return self._accuracy(global_, labels), self._accuracy(local_, labels)

    @staticmethod
    def _accuracy(logits, labels):
        return tf.reduce_mean(tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.float32))

    def checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(variables=self.model.variables_by_name, step=self.step_count,
                                   momenta=self.optimizer.momenta)


def build_trainer(args: argparse.Namespace, pictures: LabelledPictures) -> Trainer:
    """A network with its starting weights and classifiers."""
    model = Delg(args.backbone, local_dim=int(args.autoencoder_dimensions) if args.use_autoencoder else None,
                 embedding_dim=args.delg_embedding_layer_dim, gem_power=args.delg_gem_power,
                 block3_strides=args.block3_strides, use_global=args.delg_global_features, seed=args.seed)
    if args.init_weights:
        left = restore_weights(args.init_weights, model, args.partial_weights)
        print(f"{args.init_weights}: loaded" + (f", left {', '.join(left)} as initialised" if left else " all variables"))
    if args.imagenet_checkpoint:
        print(load_keras_notop(args.imagenet_checkpoint, model, partial=args.partial_weights))
    if args.conv5_start == "identity":
        identity_conv5(model, args.seed)
    add_classifiers(model, args.num_classes or pictures.num_classes)
    return Trainer(model, args)


def train(args: argparse.Namespace) -> Path:
    """Runs or continues the training of ``args`` (see ``parser``) and returns the path of the weight file."""
    logdir = Path(args.logdir)
    pictures = read_labelled_pictures(args.train_list, args.image_dir, args.repeat, args.validation_fraction, args.seed)
    if args.num_classes and args.num_classes < pictures.num_classes:
        raise InputError(f"{args.train_list[0]}: the lists have {pictures.num_classes} classes, --num_classes is {args.num_classes}; "
                         "raise it or leave it out")
    trainer = build_trainer(args, pictures)
    # Last, so that a run refused for its input leaves no claim on the folder.
    guard_settings(logdir / "settings.json", {k: v for k, v in vars(args).items() if k not in FREE_SETTINGS})
    manager = tf.train.CheckpointManager(trainer.checkpoint(), str(logdir / "checkpoints"), max_to_keep=2)
    if manager.latest_checkpoint:
        manager.checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        print(f"{logdir}: continues at step {int(trainer.step_count)}")
    with unreadable_picture_named(pictures):
        _run(trainer, pictures, args, manager, logdir)
    weights = save_weights(logdir / "weights.h5", _without_classifiers(trainer.model), image_size=args.image_size,
                           steps=int(trainer.step_count))
    return weights


def _run(trainer: Trainer, pictures: LabelledPictures, args: argparse.Namespace, manager, logdir: Path) -> None:
    if args.init_heads_steps and not manager.latest_checkpoint:
        data = _training_batches(pictures, args, args.seed + 1)
        classifier_only = args.init_weights is not None and not args.partial_weights
        initialise_heads(trainer.model, data, args.init_heads_steps, classifier_only,
                         batch_statistics=not (args.init_weights or args.imagenet_checkpoint), seed=args.seed)
    if int(trainer.step_count) < args.max_iters:
        _loop(trainer, pictures, args, manager, logdir)
        draw_curves(logdir / "train.csv", logdir / "curves.png")


def _training_batches(pictures: LabelledPictures, args: argparse.Namespace, seed: int, skip_steps: int = 0) -> tf.data.Dataset:
    area = args.min_crop_area, args.max_crop_area
    return training_batches(pictures, args.batch_size, args.image_size, seed, args.use_augmentation, area, skip_steps)


def _loop(trainer: Trainer, pictures: LabelledPictures, args: argparse.Namespace, manager, logdir: Path) -> None:
    start = int(trainer.step_count)
    data = _training_batches(pictures, args, args.seed, skip_steps=start)
    columns = ("total", "global", "attention", "reconstruction", "gradient_norm", "global_accuracy", "local_accuracy")
    log = CurveLog(logdir / "train.csv", ("step", *columns, "validation_global", "validation_local"), start)
    recent, began = [], time.time()
    bar = tqdm(data.take(args.max_iters - start), total=args.max_iters, initial=start, desc="train", unit="step", disable=None)
    for images, labels in bar:
        values = [float(x) for x in trainer.train_step(images, labels)]
        step = int(trainer.step_count)
        recent.append(values)
        if not np.isfinite(values[0]):
            raise InputError(f"{logdir}: the loss at step {step} is not finite; the last good checkpoint is "
                             f"{manager.latest_checkpoint}, lower --initial_lr and start again from it")
        if step % args.report_interval == 0 or step == args.max_iters:
            mean = dict(zip(columns, np.mean(recent, axis=0)))
            speed = (step - start) * args.batch_size / (time.time() - began)
            bar.set_postfix_str(f"loss {mean['total']:.2f} acc {mean['global_accuracy']:.2f}/{mean['local_accuracy']:.2f} {speed:.0f} im/s")
            validation = ("", "")
            if step % args.eval_interval == 0 or step == args.max_iters:
                validation = validate(trainer, pictures, args)
                print(f"step {step}: loss {mean['total']:.3f} (global {mean['global']:.3f}, attention {mean['attention']:.3f}, "
                      f"reconstruction {mean['reconstruction']:.4f}), validation accuracy global {validation[0]:.3f} "
                      f"local {validation[1]:.3f}, {speed:.1f} images/s", flush=True)
            log.write((step, *mean.values(), *validation))
            recent = []
        if step % args.save_interval == 0 or step == args.max_iters:
            manager.save(checkpoint_number=step)


def validate(trainer: Trainer, pictures: LabelledPictures, args: argparse.Namespace) -> tuple[float, float]:
    """Accuracy of both heads on the validation pictures, without margin and augmentation; at most ``eval_images`` of them."""
    chosen = np.flatnonzero(pictures.is_validation)[:: max(1, int(pictures.is_validation.sum()) // args.eval_images)]
    if not len(chosen):
        return float("nan"), float("nan")
    data = whole_pictures(pictures.files[chosen], pictures.labels[chosen], args.batch_size, args.image_size)
    results = [(len(labels), *(float(x) for x in trainer.validation_step(images, labels))) for images, labels in data]
    weights, global_, local_ = np.array(results).T
    return float(np.average(global_, weights=weights)), float(np.average(local_, weights=weights))


class CurveLog:
    """``train.csv``: a line per report; lines past the step a run resumes at are dropped."""

    def __init__(self, path: Path, columns: tuple[str, ...], start: int):
        kept = []
        if start and path.exists():
            with open(path, newline="") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= start]
        self.file = open(path, "w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(columns)
        self.writer.writerows(kept)

    def write(self, row) -> None:
        self.writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
        self.file.flush()


def _without_classifiers(model: Delg) -> Delg:
    """The same network as it is used after training."""
    bare = Delg(**model.settings)
    for name, variable in bare.variables_by_name.items():
        variable.assign(model.variables_by_name[name])
    assert all(name.split("/")[0] in CLASSIFIERS for name in set(model.variables_by_name) - set(bare.variables_by_name))
    return bare


def add_list_flags(p: argparse.ArgumentParser) -> None:
    """The flags that name training pictures."""
    p.add_argument("--train_list", action="append", required=True, help="image list; may be given several times, classes are then joined")
    p.add_argument("--image_dir", action="append", required=True, help="the folder the list's names are relative to, one for each list")
    p.add_argument("--repeat", action="append", type=int, help="how often an epoch shows each picture of a list, a number for each list")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = lambda name, default, text: p.add_argument(  # noqa: E731
        name, default=default, help=f"{text} (default %(default)s)",
        **({"action": argparse.BooleanOptionalAction} if isinstance(default, bool) else {"type": type(default)}))
    add_list_flags(p)
    flag("--logdir", "logs/delg", "folder for checkpoints, curves and the final weights")
    p.add_argument("--backbone", choices=tuple(BACKBONES), default="resnet50", help="trunk (default %(default)s)")
    p.add_argument("--num_classes", type=int, help="classes of the classifiers (default: those of the lists)")
    p.add_argument("--imagenet_checkpoint", help="Keras ResNet .h5 file the trunk starts from (classic or keras.applications names)")
    flag("--partial_weights", False, "accept an ImageNet or weight file that lacks some variables")
    p.add_argument("--init_weights", help="weight file of this project to start from")
    p.add_argument("--freeze", choices=tuple(FROZEN), default="none", help="what is not trained: nothing, or conv1 to conv4")
    p.add_argument("--conv5_start", choices=("random", "identity"), default="random",
                   help="identity: conv5 passes conv4 on at first (for ImageNet files without conv5)")
    flag("--init_heads_steps", 0, "batches from which the heads are set before training (principal components; after --init_weights the "
         "class weights only); 0 starts them from noise")
    flag("--validation_fraction", 0.05, "share of each class held out for the accuracy curves")
    flag("--batch_size", 32, "pictures a step")
    flag("--initial_lr", 0.01, "learning rate, falling linearly to zero at --max_iters")
    flag("--max_iters", 500000, "steps; 0 writes the starting weights")
    flag("--image_size", 321, "side of the square training crops, pixels")
    flag("--min_crop_area", 0.08, "smallest share of a picture in a training crop")
    flag("--max_crop_area", 1.0, "largest share of a picture in a training crop")
    flag("--use_augmentation", True, "random crops")
    flag("--delg_global_features", True, "GeM, embedding and ArcFace; without: DELF")
    flag("--delg_gem_power", 3.0, "GeM exponent")
    p.add_argument("--delg_embedding_layer_dim", type=int, help="global descriptor size (default: the backbone's)")
    flag("--delg_arcface_margin", 0.1, "ArcFace margin, radians")
    flag("--use_autoencoder", True, "reduce local descriptors")
    flag("--autoencoder_dimensions", 128.0, "local descriptor size")
    flag("--block3_strides", True, "local features every 32 pixels instead of 16")
    flag("--attention_loss_weight", 1.0, "weight of the attention loss")
    flag("--reconstruction_loss_weight", 10.0, "weight of the reconstruction loss")
    flag("--seed", 0, "seed of weights, order and crops")
    flag("--report_interval", 100, "steps between lines of train.csv")
    flag("--eval_interval", 1000, "steps between validations")
    flag("--eval_images", 2000, "pictures of a validation at most")
    flag("--save_interval", 1000, "steps between checkpoints")
    return p


def main() -> None:
    args = parser().parse_args()
    print(f"wrote {train(args)}")


if __name__ == "__main__":
    run_command(main)
