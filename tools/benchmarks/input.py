"""The input benchmark: shards of 800x600 JPEGs read the plain way (docs/delg.md 2.3: record after record, a buffer of
100 shuffled, every image decoded whole, nothing ahead of the network) and by delg_extract/data/batches.py, alone and
with the network training."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from delg_extract.data.batches import AREA, draw_box, random_crop, training_batches
from delg_extract.data.records import FEATURES, read_record_images
from delg_extract.network.tensorflow import tf
from tools.benchmarks.common import Row, add_options, check_counts, median_seconds

HELP = "images a second of the training input, alone and with the network training (TensorFlow)"
NUM_CLASSES = 100
WARM_UP = 3  # steps of each turn that are not timed: what was decoded before the turn is used up by then


def add_arguments(parser):
    """The benchmark's own options."""
    parser.add_argument("--pictures", type=int, default=400, help="different images (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that the ways take turns; the median counts (default %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=8, help="training steps of each turn (default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="images a step (default %(default)s)")
    parser.add_argument("--image_size", type=int, default=321, help="side of the crops, pixels (default %(default)s)")
    parser.add_argument("--backbone", default="resnet50", help="trunk of the network (default %(default)s)")
    add_options(parser, quick="a few small images and the small network")


def run(args):
    """Rows of the benchmark."""
    if args.quick:
        args.pictures, args.rounds, args.steps, args.image_size, args.backbone = 12, 1, 1, 96, "small"
    check_counts(args, "pictures", "rounds", "steps", "batch_size", "image_size")
    with tempfile.TemporaryDirectory() as folder:
        files = _made_up((200, 150) if args.quick else (800, 600), args.pictures)
        _write_shards(Path(folder), files)
        source = read_record_images(f"{folder}/train*", NUM_CLASSES)
        ways = {
            "plain": lambda seed: plain_batches(source.shards, args.batch_size, args.image_size, seed),
            "ours": lambda seed: training_batches(source, args.batch_size, args.image_size, seed),
        }
        alone = _alone(ways, args)
        rows = []
        for way, name in (("plain", "plain way"), ("ours", "data.py")):
            note = f"{1e3 * alone[way].processor:.1f} ms of processor time an image"
            rows.append(Row(f"{name}, alone", alone[way].speed, "images/s", note))
        ratio = alone["ours"].speed / alone["plain"].speed
        rows.append(Row("data.py against the plain way", ratio, "times as fast", target=">= 1.5"))
        rows.append(_gain_of_cropping_first(files, args))
        return rows + _with_network(ways, alone["ours"], args)


class _Alone(NamedTuple):
    """Images a second, and processor seconds (of all threads) an image."""

    speed: float
    processor: float


def plain_batches(shards, batch_size, size, seed):
    """The input of docs/delg.md 2.3 with its random crops."""

    def load(record):
        example = tf.io.parse_single_example(record, FEATURES)
        image = (tf.cast(tf.io.decode_jpeg(example["image/encoded"], channels=3), tf.float32) - 128.0) / 128.0
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 0, 4)),
            seed=seed,
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=AREA,
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.resize(tf.slice(image, begin, extent), (size, size), method="area")
        return tf.ensure_shape(image, (size, size, 3)), tf.cast(example["image/class/label"], tf.int32)

    # Without the remainder as in data.py, so that the network is compiled once; an endless input has none anyway.
    return tf.data.TFRecordDataset(shards).repeat().shuffle(100, seed).map(load).batch(batch_size, drop_remainder=True)


def _alone(ways, args):
    """{way: _Alone} of reading as fast as it goes; each turn reads about as many images as there are."""
    turns, steps = {way: [] for way in ways}, -(-args.pictures // args.batch_size)
    for turn in range(args.rounds):
        for way, make in ways.items():
            batches = iter(make(turn))
            for _ in range(WARM_UP):
                next(batches)
            began, processor = time.perf_counter(), time.process_time()
            for _ in range(steps):
                next(batches)
            count = steps * args.batch_size
            turns[way].append((count / (time.perf_counter() - began), (time.process_time() - processor) / count))
    return {way: _Alone(*map(statistics.median, zip(*found))) for way, found in turns.items()}


def _gain_of_cropping_first(files, args):
    """Row: one thread decoding a JPEG's crop alone against decoding it whole and then cropping."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int64)], autograph=False)
    def whole_first(encoded, seed):
        image = tf.io.decode_jpeg(encoded, channels=3)
        box = draw_box(tf.shape(image)[:2], seed, AREA)
        crop = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], 3])
        return (tf.image.resize(crop, (args.image_size, args.image_size), method="area") - 128.0) / 128.0

    @tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int64)], autograph=False)
    def crop_first(encoded, seed):
        return random_crop(encoded, args.image_size, seed)

    arguments = [(tf.constant(encoded), tf.constant([0, i], tf.int64)) for i, encoded in enumerate(files[:100])]
    for way in (whole_first, crop_first):
        way(*arguments[0])
    seconds = median_seconds({"whole": lambda x: whole_first(*x), "crop": lambda x: crop_first(*x)}, arguments)
    return Row(
        "decoding the crop alone",
        seconds["whole"] / seconds["crop"],
        "times as fast",
        f"{1e3 * seconds['crop']:.1f} ms an image against {1e3 * seconds['whole']:.1f}, crop and resize included",
    )


def _with_network(ways, alone, args):
    """Rows: a training step on a batch in memory against one that reads its batch, and what of it the input is."""
    train_step = _training(args)
    batch = next(iter(ways["ours"](0)))
    feeds = {"memory": lambda seed: tf.data.Dataset.from_tensors(batch).repeat(), **ways}
    turns = {feed: [] for feed in feeds}
    for turn in range(args.rounds):
        for feed, make in feeds.items():
            turns[feed].append(_timed_steps(train_step, make(turn), args.steps))
    took = {feed: statistics.median(step for step, _, _ in found) for feed, found in turns.items()}
    speed = {feed: args.batch_size / seconds for feed, seconds in took.items()}
    name = f"{args.backbone}, {args.image_size} px, batch {args.batch_size}"
    lost, waiting = {}, {}
    for way in ways:
        lost[way] = statistics.median(1 - without[0] / with_[0] for without, with_ in zip(turns["memory"], turns[way]))
        waiting[way] = statistics.median(wait / step for step, wait, _ in turns[way])
    processor = statistics.median(used for _, _, used in turns["ours"])
    reading, idle = alone.processor * args.batch_size, f"{waiting['plain']:.1%}"
    longer = lost["ours"], "share", f"plain way {lost['plain']:.3f}", "<= 0.1"
    return [
        Row("training step, batch in memory", took["memory"], "s", f"{speed['memory']:.1f} images/s; {name}"),
        Row("training step, plain way", took["plain"], "s", f"{speed['plain']:.1f} images/s, {idle} of it waiting"),
        Row("training step, data.py", took["ours"], "s", f"{speed['ours']:.1f} images/s"),
        Row("share of it longer than with the batch in memory", *longer),
        Row("share of it waiting for images", waiting["ours"], "share", "", "<= 0.05"),
        Row("share of its processor time that reads images", reading / processor, "share", "", "<= 0.05"),
        Row("data.py alone against the need of the network", alone.speed / speed["memory"], "times", "", ">= 2"),
    ]


def _timed_steps(train_step, data, steps):
    """Seconds a step, seconds of it until the batch is there, processor seconds a step."""
    batches, waited = iter(data), 0.0
    for _ in range(WARM_UP):
        float(train_step(*next(batches)))
    began, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        asked = time.perf_counter()
        images, labels = next(batches)
        waited += time.perf_counter() - asked
        float(train_step(images, labels))
    return tuple(total / steps for total in (time.perf_counter() - began, waited, time.process_time() - processor))


def _training(args):
    """A function (images, labels) -> loss that trains a network one step."""
    from delg_extract.network.model import Delg
    from delg_extract.training.flags import parse
    from delg_extract.training.losses import add_classifiers
    from delg_extract.training.step import Trainer

    model = Delg(args.backbone)
    add_classifiers(model, NUM_CLASSES)
    trainer = Trainer(model, parse("", ["--train_list", "", "--image_dir", "", "--backbone", args.backbone]))
    return lambda images, labels: trainer.train_step(images, labels)[0]


def _made_up(size, count):
    """JPEG files of blurred colour patches under fine noise: about as many bytes as photographs of that size."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        patches = cv2.resize(rng.integers(0, 256, (10, 13, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
        pixels = np.clip(patches + rng.normal(0, 8, patches.shape), 0, 255).astype(np.uint8)
        files.append(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


def _write_shards(folder, files):
    rng = np.random.default_rng(1)
    for shard in range(4):
        with tf.io.TFRecordWriter(str(folder / f"train-{shard:05d}-of-00004")) as writer:
            for encoded in files[shard::4]:
                label = tf.train.Int64List(value=[int(rng.integers(NUM_CLASSES))])
                features = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                    "image/class/label": tf.train.Feature(int64_list=label),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
