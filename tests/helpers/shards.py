"""Small images and TFRecord shards of them, as the DELG reference writes them (docs/delg.md 3.4), for tests."""

import io

import numpy as np
from PIL import Image

from delg_extract.network.tensorflow import tf


def picture(seed=0, size=(50, 40), mode="RGB", kind="JPEG", **options):
    """Bytes of an image file of smooth random colours; `size` = width, height."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def example(encoded, label=None, identity=None):
    """A serialised tf.Example; the keys of what is None are left out."""
    features = {}
    for key, value in (("image/encoded", encoded), ("image/id", identity), ("image/colorspace", b"RGB")):
        if value is not None:
            features[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if label is not None:
        features["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(label)))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_shard(path, records):
    """Writes serialised records to a TFRecord file and returns its path as text."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_image_shards(folder, counts, num_classes=3):
    """Shards folder/train-... of `counts` images, labels 0, 1, 2, 0, ... and ids id000, id001, ..."""
    number = 0
    for shard, count in enumerate(counts):
        numbers = range(number, number := number + count)
        write_shard(
            folder / f"train-{shard:05d}-of-{len(counts):05d}",
            [example(picture(i), i % num_classes, b"id%03d" % i) for i in numbers],
        )
    return f"{folder}/train*"
