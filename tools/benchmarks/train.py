"""The training benchmark: a step of delg_extract/train.py against the plain way, which is the reference's: Keras layers
with all their biases, the angles of every class, TensorFlow's own gradients, clipping, then Keras' optimizer. All ways
take turns from the same weights over the same images of one run, each in a process of its own."""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rrt.errors import InputError
from tools.benchmarks.common import add_options, check_counts, median_seconds, peak_memory

HELP = "a training step of DELG, images in memory: speed, memory and agreement with the plain way (TensorFlow)"
# A way's target for its speed, and for how far its first loss may be from the plain way's.
TARGETS = {"float32": (">= 1", "<= 0.0001"), "bfloat16": (">= 1.5", "<= 0.02")}
SMALLEST_IMAGE = 33  # pixels; below, conv5 is left with nothing
_way = {}


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument(
        "--backbone", choices=["resnet50", "resnet101", "small"], default="resnet50", help="trunk (default %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=4, help="images a step (default %(default)s)")
    parser.add_argument("--image_size", type=int, default=321, help="their side, pixels (default %(default)s)")
    parser.add_argument(
        "--num_classes", type=int, default=11, help="classes; of GLDv2 clean 81313 (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="times that the ways take turns (default %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="steps of each turn (default %(default)s)")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=list(TARGETS),
        choices=list(TARGETS),
        help="precisions of train.py to measure (default both)",
    )
    add_options(parser, quick="the small network and two images of 97 pixels")


def run(args):
    """Rows of the benchmark."""
    check_counts(args, "batch_size", "image_size", "num_classes", "rounds", "steps")
    if args.image_size < SMALLEST_IMAGE:
        raise InputError(f"image_size={args.image_size}: give at least {SMALLEST_IMAGE}")
    if args.quick:
        args.backbone, args.batch_size, args.image_size = "small", 2, 97
    ways = {"plain": make_plain_step, **dict.fromkeys(args.precision, make_our_step)}
    pools = {way: ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) for way in ways}
    try:
        first = {way: pool.submit(_prepare, ways[way], args, way).result() for way, pool in pools.items()}
        turns = {way: lambda count, pool=pool: pool.submit(_take_steps, count).result() for way, pool in pools.items()}
        seconds = {way: took / args.steps for way, took in median_seconds(turns, [args.steps] * args.rounds).items()}
        memory = {way: pool.submit(peak_memory).result() for way, pool in pools.items()}
    except BrokenProcessPool:
        raise InputError(
            "a process of the benchmark was killed, most likely for want of memory; give fewer --num_classes, a "
            "smaller --batch_size, or one --precision"
        ) from None
    finally:
        for pool in pools.values():
            pool.shutdown()
    rows: list[tuple] = [("plain way", seconds["plain"], "s a step", f"{memory['plain']:.0f} MB at most")]
    for way in list(ways)[1:]:
        speed_target, loss_target = TARGETS[way]
        speed, off = seconds["plain"] / seconds[way], abs(first[way] / first["plain"] - 1)
        note = f"{seconds[way]:.3g} s a step, {memory[way]:.0f} MB at most"
        losses = f"{first[way]:.6g}, plain {first['plain']:.6g}"
        rows.append((f"train.py, {way}", speed, "times as fast", note, speed_target))
        rows.append((f"{way}: first loss", off, "off", losses, loss_target))
    return rows


def _prepare(make, args, way):
    """Makes this process's step; returns its first loss. A second step follows, because the first sets memory up."""
    import numpy as np

    from delg_extract.network.tensorflow import tf

    rng = np.random.default_rng(0)
    shape = args.batch_size, args.image_size, args.image_size, 3
    images = tf.constant(rng.uniform(-1, 1, shape), tf.float32)
    labels = tf.constant(rng.integers(0, args.num_classes, args.batch_size), tf.int32)
    step = make(args, way)
    _way["step"] = lambda: float(step(images, labels))
    first = _way["step"]()
    _take_steps(1)
    return first


def _take_steps(count):
    for _ in range(count):
        _way["step"]()


def _model(args, compute_dtype="float32"):
    from delg_extract.network.model import Delg
    from delg_extract.training.losses import add_classifiers

    model = Delg(args.backbone, seed=0, compute_dtype=compute_dtype)
    add_classifiers(model, args.num_classes)
    return model


def make_our_step(args, precision):
    """A function of images and labels that takes a step of delg_extract/train.py and returns the loss."""
    from delg_extract.training.flags import parse
    from delg_extract.training.step import Trainer

    flags = parse("", ["--train_list", "none", "--image_dir", "none", "--initial_lr", str(LEARNING_RATE)])
    trainer = Trainer(_model(args, precision), flags)
    return lambda images, labels: trainer.train_step(images, labels)[0]


# ---- the plain way: docs/delg.md 1.1 to 1.7 and 2.2 ---------------------------------------------------------------

LEARNING_RATE = 0.001


def make_plain_step(args, _):
    """The same by Keras layers, from the same weights."""
    import keras

    from delg_extract.network.tensorflow import tf

    network = _plain_network(_model(args))
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=0.9)
    optimizer.build(network.trainable_variables)
    cross_entropy: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    @tf.function(autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            global_logits, local_logits, block3, reconstruction = network(images, training=True)
            theta = tf.acos(tf.clip_by_value(global_logits, -1 + 1e-6, 1 - 1e-6))
            true_class = tf.one_hot(labels, args.num_classes, on_value=True, off_value=False, dtype=tf.bool)
            with_margin = tf.where(true_class & (theta <= math.pi - 0.1), tf.cos(theta + 0.1), global_logits)
            loss = (cross_entropy(labels, 45.25 * with_margin) + cross_entropy(labels, local_logits)) / args.batch_size
            loss += 10.0 * tf.reduce_mean(tf.square(block3 - reconstruction))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, network.trainable_variables), 10.0)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))
        return loss

    return step


def _plain_network(model):
    """A Keras model: images -> cosines [B, classes], local logits, block3, reconstruction; with the weights of
    ``model``."""
    import keras

    from delg_extract.network.tensorflow import tf

    layers, sizes = keras.layers, model.sizes
    num_classes = model.variables_by_name["att_fc/bias"].shape[0]

    class FusedBatchNorm(layers.BatchNormalization):
        """As Keras 2 had it; that of Keras 3 is made of single operations and slows a step down by a quarter."""

        def call(self, x, training=None):
            y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, self.gamma, self.beta, epsilon=self.epsilon)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + batch * (1 - self.momentum))
            return y

    class Cosines(layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(shape=(shape[-1], num_classes), name="cosine_weights")

        def call(self, x):
            return tf.nn.l2_normalize(x, axis=1) @ tf.nn.l2_normalize(self.weight, axis=0)

    def function(call, *inputs):
        return layers.Lambda(lambda x: call(*x))(inputs)

    def branch(x, block, suffix, width, size=1, stride=1):
        x = layers.Conv2D(width, size, stride, "same" if size > 1 else "valid", name=f"res{block}_branch{suffix}")(x)
        return FusedBatchNorm(name=f"bn{block}_branch{suffix}")(x)

    x = images = keras.Input((None, None, 3))
    x = layers.ReLU()(FusedBatchNorm(name="bn_conv1")(layers.Conv2D(sizes.stem, 7, 2, "same", name="conv1")(x)))
    x = layers.MaxPooling2D(3, 2)(x)
    for stage, width in zip((2, 3, 4, 5), sizes.widths):
        for block in model.stage_blocks(stage):
            first, stride = block.endswith("a"), 2 if block in ("3a", "4a") else 1
            y = layers.ReLU()(branch(x, block, "2a", width, stride=stride))
            y = branch(layers.ReLU()(branch(y, block, "2b", width, 3)), block, "2c", 4 * width)
            x = layers.ReLU()(layers.Add()([y, branch(x, block, "1", 4 * width, stride=stride) if first else x]))
        if stage == 4:
            x = layers.MaxPooling2D(1, 2)(x)
            block3 = function(tf.stop_gradient, x)
    pooled = function(lambda x: tf.reduce_mean(tf.maximum(x, 1e-6) ** 3.0, (1, 2)) ** (1 / 3.0), x)
    cosines = Cosines(name="cosine_weights")(layers.Dense(model.embedding_dim, name="embedding_layer")(pooled))
    hidden = layers.ReLU()(
        FusedBatchNorm(name="attn_bn1")(layers.Conv2D(sizes.attention, 1, name="attn_conv1")(block3))
    )
    attention = layers.Conv2D(1, 1, activation="softplus", name="attn_conv2")(hidden)
    code = layers.Conv2D(model.local_dim, 1, name="autoenc_conv1")(block3)
    reconstruction = layers.Conv2D(sizes.local_channels, 1, activation="relu", name="autoenc_conv2")(code)
    attended = function(
        lambda r, a: tf.reduce_mean(tf.nn.l2_normalize(r, axis=-1) * a, (1, 2)), reconstruction, attention
    )
    network = keras.Model(images, (cosines, layers.Dense(num_classes, name="att_fc")(attended), block3, reconstruction))
    for layer in network.layers:
        for weight in layer.weights:
            name = layer.name if layer.name == "cosine_weights" else f"{layer.name}/{weight.name}"
            weight.assign(model.variables_by_name[name])
    return network
