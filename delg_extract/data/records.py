"""Training images from TFRecord shards (build_image_dataset.py; docs/delg.md 3.4), read in any order.

A shard is a row of records: length (8 bytes), its checksum (4), a tf.Example, its checksum (4). Hopping from length to
length finds where every record begins without reading the images, so that an epoch's order is an exact permutation
instead of a buffer of a hundred shuffled records, and a resumed run goes on at its position without reading what went
before.
"""

from __future__ import annotations

import glob
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from delg_extract.network.tensorflow import tf
from rrt.errors import InputError
from rrt.progress import bar

HEADER, FOOTER = 12, 4  # bytes around a record: its length and the checksum of that; the checksum of the record
INDEX_THREADS = 32  # files looked through at once: hopping waits for the disk, not for the processor
FEATURES = {
    "image/encoded": tf.io.FixedLenFeature((), tf.string),
    "image/class/label": tf.io.FixedLenFeature((), tf.int64, 0),  # test shards have none
    "image/id": tf.io.FixedLenFeature((), tf.string, ""),
}


@dataclass(frozen=True)
class RecordImages:
    """Where the images of a set of shards are; a source of images as ``batches.ImageSource`` describes it.

    Record i is ``lengths[i]`` bytes of ``shards[shard_numbers[i]]``, its header at byte ``offsets[i]``; labels must lie
    in 0..num_classes-1. An epoch shows every record once, and a validation pass, too.
    """

    shards: list[str]
    shard_numbers: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    num_classes: int
    recent: dict = field(default_factory=dict, compare=False, repr=False)

    address_types: ClassVar = (tf.string, tf.int64, tf.int64)
    remedy: ClassVar[str] = "build the shards again without it"

    def __len__(self) -> int:
        return len(self.offsets)

    def training_order(self) -> np.ndarray:
        """Every record once."""
        return np.arange(len(self))

    validation_order = training_order

    def addresses(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """File, byte offset and length of records."""
        return np.array(self.shards)[self.shard_numbers[indices]], self.offsets[indices], self.lengths[indices]

    def read(self, shard: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The image file and int32 label of a record. A label that is no class is an error; the reference clamps it."""
        example = tf.io.parse_single_example(_record_at(shard, offset, length), FEATURES)
        label = example["image/class/label"]
        with tf.control_dependencies([tf.debugging.Assert((label >= 0) & (label < self.num_classes), [label])]):
            return example["image/encoded"], tf.cast(label, tf.int32)

    def name(self, index: int) -> str:
        """Shard, record number and image id, for messages."""
        example = tf.io.parse_single_example(_record_at(*self._address(index)), FEATURES)
        identity = example["image/id"].numpy().decode(errors="replace")
        return f"{self._where(index)} (id {identity})" if identity else self._where(index)

    def read_checked(self, index: int) -> bytes:
        """The image file of a record. Raises InputError that names the record when ``read`` would fail."""
        try:
            record = _record_at(*self._address(index))
        except tf.errors.OpError:
            raise InputError(
                f"{self._where(index)} at byte {self.offsets[index]} cannot be read: its checksum is wrong or the "
                "shard was changed; build the shard again"
            ) from None
        try:
            example = tf.io.parse_single_example(record, FEATURES)
        except tf.errors.InvalidArgumentError:
            raise InputError(
                f"{self._where(index)} is no tf.Example with one image/encoded and at most one image/class/label; "
                "build the shards with build_image_dataset.py"
            ) from None
        label = int(example["image/class/label"])
        if not 0 <= label < self.num_classes:
            raise InputError(
                f"{self.name(index)} has label {label}, the classes are 0..{self.num_classes - 1}; raise "
                "--num_classes, or build the shards with --train_clean_csv_path, which numbers the classes from 0"
            )
        return example["image/encoded"].numpy()

    def _address(self, index: int) -> tuple:
        return tuple(column[0] for column in self.addresses(np.array([index])))

    def _where(self, index: int) -> str:
        shard = self.shard_numbers[index]
        return f"{self.shards[shard]}: record {index - np.searchsorted(self.shard_numbers, shard)}"


def read_record_images(pattern: str, num_classes: int, flag: str = "--train_file_pattern") -> RecordImages:
    """Finds the records of all files that match a glob pattern, in the order of the files' names.

    Raises InputError, naming the file, for a pattern without files, a shard that is cut or none, two sets of shards in
    one folder, and shards without any record.
    """
    shards = sorted(
        path
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path) and not re.search(r"\.tmp\b", Path(path).name)
    )  # what a killed build left
    if not shards:
        raise InputError(
            f"{flag} {pattern}: no such file; give a pattern of TFRecord shards, as 'gldv2_tfrecord/train*'"
        )
    _check_one_set(shards)
    with ThreadPoolExecutor(INDEX_THREADS) as pool:
        found = list(bar(pool.map(_find_records, shards), "find records", "shard", len(shards)))
    counts = [len(offsets) for offsets, _ in found]
    if not sum(counts):
        raise InputError(
            f"{flag} {pattern}: no record in {len(shards)} files; build the shards with build_image_dataset.py"
        )
    offsets, lengths = (np.concatenate(column) for column in zip(*found))
    return RecordImages(
        shards, np.repeat(np.arange(len(shards), dtype=np.int32), counts), offsets, lengths, num_classes
    )


def _check_one_set(shards: list[str]) -> None:
    """InputError when a folder's shards are numbered to different ends, as after a second build with another
    --num_shards."""
    ends = {}
    for path in shards:
        if match := re.fullmatch(r"(.*)-\d{5}-of-(\d{5})", path):
            first = ends.setdefault(match[1], path)
            if not first.endswith(match[2]):
                raise InputError(
                    f"{first} and {path} belong to different sets of shards; delete one set or give a narrower pattern"
                )


def _find_records(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Byte offsets and lengths int64 of a shard's records."""
    offsets, lengths, position = [], [], 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        while position < size:
            header = os.pread(descriptor, 8, position)
            length = struct.unpack("<Q", header)[0] if len(header) == 8 else size
            if position + HEADER + length + FOOTER > size:
                if not offsets:
                    raise InputError(
                        f"{path}: no TFRecord file, or cut within its first record; give a pattern that matches shards "
                        "only (they must not be compressed), or build the shard again"
                    )
                raise InputError(
                    f"{path}: cut or damaged at record {len(offsets)} (byte {position} of {size}); build the shard "
                    "again"
                )
            offsets.append(position)
            lengths.append(length)
            position += HEADER + length + FOOTER
    finally:
        os.close(descriptor)
    return np.array(offsets, np.int64), np.array(lengths, np.int64)


def _record_at(shard: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """The bytes of the record whose header is at ``offset``, both checksums compared.

    TensorFlow's own reader, started there: unlike a Python function it never waits for the interpreter's lock,
    which takes up to 5 ms a record whenever another thread computes (a record takes the reader 0.3 ms).
    """
    reader = tf.raw_ops.TFRecordDatasetV2(
        filenames=shard, compression_type="", byte_offsets=offset, buffer_size=length + (HEADER + FOOTER)
    )
    record = tf.data.experimental.from_variant(reader, tf.TensorSpec((), tf.string))
    return record.take(1).get_single_element()
