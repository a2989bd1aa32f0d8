"""What pretrain.py does: the warps and their inverse look-up, the loss, a run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from delg_extract.data.batches import training_batches, unreadable_image_named
from delg_extract.data.lists import read_labelled_images
from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import restore_weights, save_weights
from delg_extract.training.log import CurveLog
from rrt.errors import InputError
from rrt.files.atomic import guard_settings
from rrt.progress import bar, report_progress

STRIDE = 16  # pixels between conv4 cells
MARGIN = 0.5  # a crop is larger than a view by this share of the view, so that warped views stay inside
TRAINED = ("conv1/", "bn_conv1/", "res2", "res3", "res4", "bn2", "bn3", "bn4", "autoenc_conv1/")
FREE_SETTINGS = {"save_interval", "report_interval"}


def random_warps(count: int | tf.Tensor, size: int, border: int, generator: tf.random.Generator) -> tf.Tensor:
    """Projective maps [count, 8] from pixels of a size x size view to pixels of a crop that is ``border`` larger on
    every side.

    About the middle: rotation up to 20 degrees, scale up to 1.4 both ways, shear, perspective and shift. The eight
    numbers are those of ImageProjectiveTransformV3: (x, y) -> ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k) with k =
    c0 x + c1 y + 1.
    """

    def u(limit):
        return generator.uniform((count,), -limit, limit)

    angle, scale, shear, stretch = u(np.pi / 9), tf.exp(u(0.35)), u(0.2), tf.exp(u(0.15))
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    one, zero = tf.ones((count,)), tf.zeros((count,))
    middle = (size - 1) / 2

    def matrix(*rows):
        return tf.stack([tf.stack(row, -1) for row in rows], -2)

    to_middle = matrix((one, zero, one * -middle), (zero, one, one * -middle), (zero, zero, one))
    affine = matrix(
        (cos * stretch, cos * shear - sin, u(size / 10) + middle + border),
        (sin * stretch, sin * shear + cos, u(size / 10) + middle + border),
        (zero, zero, one),
    )
    perspective = matrix((one, zero, zero), (zero, one, zero), (u(0.15 / size), u(0.15 / size), one))
    whole = affine @ perspective @ to_middle
    return tf.reshape(whole / whole[:, 2:, 2:], (count, 9))[:, :8]


def warp_points(warps: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """The maps [B, 8] applied to points [N, 2] (x, y) -> [B, N, 2]."""
    matrices = tf.reshape(tf.concat([warps, tf.ones_like(warps[:, :1])], 1), (-1, 3, 3))
    mapped = tf.einsum("bij,nj->bni", matrices, tf.concat([points, tf.ones_like(points[:, :1])], 1))
    return mapped[..., :2] / mapped[..., 2:]


def other_light(images: tf.Tensor, generator: tf.random.Generator) -> tf.Tensor:
    """Normalised images [B, s, s, 3] under a random gain of each channel, contrast and brightness; one in ten grey."""
    batch = tf.shape(images)[0]
    one, each = tf.stack([batch, 1, 1, 1]), tf.stack([batch, 1, 1, 3])
    gain = tf.exp(generator.normal(each, stddev=0.15) + generator.normal(one, stddev=0.15))
    grey = tf.cast(generator.uniform(one) < 0.1, tf.float32)
    images = grey * tf.reduce_mean(images, axis=3, keepdims=True) + (1 - grey) * images
    return tf.clip_by_value(images * gain + generator.normal(one, stddev=0.1), -1.0, 1.0)


def sample_cells(features: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Bilinear values [B, N, D] of feature maps [B, h, w, D] at points [B, N, 2] (x, y) in cells; outside: the nearest
    border."""
    height, width = tf.shape(features)[1], tf.shape(features)[2]
    limit = tf.cast(tf.stack([width, height]) - 1, tf.float32)
    points = tf.clip_by_value(points, 0.0, limit - 1e-3)
    low = tf.floor(points)
    fraction = (points - low)[..., None]
    x, y = tf.unstack(tf.cast(low, tf.int32), axis=-1)
    flat = tf.reshape(features, (tf.shape(features)[0], -1, features.shape[-1]))

    def at(dx, dy):
        return tf.gather(flat, (y + dy) * width + x + dx, batch_dims=1)

    fx, fy = fraction[:, :, 0], fraction[:, :, 1]
    return (1 - fy) * ((1 - fx) * at(0, 0) + fx * at(1, 0)) + fy * ((1 - fx) * at(0, 1) + fx * at(1, 1))


class Pretrainer:
    """The network and one training step on crops of ``image_size`` and half as much again."""

    def __init__(self, model: Delg, args: argparse.Namespace):
        self.model, self.args = model, args
        self.trained = [v for n, v in model.trained_variables() if n.startswith(TRAINED)]
        from keras.optimizers import Adam  # loaded for this alone

        self.optimizer: Any = Adam(args.initial_lr)
        self.optimizer.build(self.trained)
        self.step_count = tf.Variable(tf.constant(0, tf.int64))
        self.generator = tf.random.Generator.from_seed(args.seed)

    def descriptors(self, images: tf.Tensor) -> tf.Tensor:
        """Unit local descriptors of conv4's cells [B, h, w, local_dim], batch norms in training mode."""
        return tf.nn.l2_normalize(self.model.local(self.model.conv4(images, training=True)).descriptors, axis=-1)

    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(self, crops):
        """One Adam step. Returns the loss, and the share of cells whose nearest descriptor in the batch is their
        partner."""
        size, border = self.args.image_size, int(self.args.image_size * MARGIN / 2)
        batch = tf.shape(crops)[0]
        warps = random_warps(batch, size, border, self.generator)
        warped = tf.raw_ops.ImageProjectiveTransformV3(
            images=crops,
            transforms=warps,
            output_shape=(size, size),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
        plain = crops[:, border : border + size, border : border + size]
        views = other_light(tf.concat([warped, plain], 0), self.generator)
        with tf.GradientTape() as tape:
            features = self.descriptors(views)
            # The outermost cells see more padding than image; of the others those count whose partner lies inside as
            # well.
            last = tf.cast(tf.shape(features)[1] - 2, tf.float32)
            cells = tf.range(1.0, last + 0.5)
            grid = tf.reshape(tf.stack(tf.meshgrid(cells, cells), -1), (-1, 2))
            partners = (warp_points(warps, grid * STRIDE) - border) / STRIDE
            inside = tf.where(tf.reduce_all((partners >= 1) & (partners <= last), -1))
            ours = tf.gather_nd(sample_cells(features[:batch], tf.repeat(grid[None], batch, 0)), inside)
            theirs = tf.nn.l2_normalize(tf.gather_nd(sample_cells(features[batch:], partners), inside), axis=-1)
            logits = tf.matmul(ours, theirs, transpose_b=True) / self.args.temperature
            labels = tf.range(tf.shape(logits)[0])
            both = [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x) for x in (logits, tf.transpose(logits))]
            loss = tf.reduce_mean(both[0]) / 2 + tf.reduce_mean(both[1]) / 2
        progress = tf.cast(self.step_count, tf.float32) / self.args.max_iters
        self.optimizer.learning_rate.assign(self.args.initial_lr * 0.5 * (1 + tf.cos(np.pi * progress)))
        self.optimizer.apply(tape.gradient(loss, self.trained), self.trained)
        self.step_count.assign_add(1)
        hits = tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.float32)
        return loss, tf.reduce_mean(hits)

    def checkpoint(self) -> tf.train.Checkpoint:
        """All that a run needs to go on as if it had not stopped."""
        return tf.train.Checkpoint(
            variables=self.model.variables_by_name,
            step=self.step_count,
            optimizer=list(self.optimizer.variables),
            generator=self.generator,
        )


def pretrain(args: argparse.Namespace) -> Path:
    """Runs or continues the training of ``args`` (those of pretrain.py) and returns the path of the weight file."""
    logdir = Path(args.logdir)
    images = read_labelled_images(args.train_list, args.image_dir, args.repeat, validation_fraction=0.0)
    model = Delg(args.backbone, seed=args.seed)
    if args.init_weights:
        restore_weights(args.init_weights, model)
    trainer = Pretrainer(model, args)
    guard_settings(logdir / "settings.json", {k: v for k, v in vars(args).items() if k not in FREE_SETTINGS})
    manager = tf.train.CheckpointManager(trainer.checkpoint(), str(logdir / "checkpoints"), max_to_keep=2)
    if manager.latest_checkpoint:
        manager.checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        report_progress(f"{logdir}: continues at step {int(trainer.step_count)}")
    start = int(trainer.step_count)
    data = training_batches(
        images,
        args.batch_size,
        int(args.image_size * (1 + MARGIN)),
        args.seed,
        area=(args.min_crop_area, args.max_crop_area),
        skip_steps=start,
    )
    log = CurveLog(logdir / "train.csv", ("step", "loss", "matched"), start)
    recent, began = [], time.time()
    with unreadable_image_named(images):
        steps = bar(data.take(args.max_iters - start), "pretrain", "step", args.max_iters, initial=start)
        for crops, _ in steps:
            recent.append([float(x) for x in trainer.train_step(crops)])
            step = int(trainer.step_count)
            if not np.isfinite(recent[-1][0]):
                raise InputError(
                    f"{logdir}: the loss at step {step} is not finite; start again in another --logdir "
                    "with a lower --initial_lr"
                )
            if step % args.report_interval == 0 or step == args.max_iters:
                loss, matched = np.mean(recent, axis=0)
                speed = (step - start) * args.batch_size / (time.time() - began)
                steps.set_postfix_str(f"loss {loss:.2f} matched {matched:.2f} {speed:.0f} crops/s")
                log.write((step, float(loss), float(matched)))
                recent = []
            if step % args.save_interval == 0 or step == args.max_iters:
                manager.save(checkpoint_number=step)
    return save_weights(logdir / "weights.h5", model, image_size=args.image_size, steps=int(trainer.step_count))
