"""Writing TFRecord shards from images (docs/delg.md 3.4): whole or not there, side by side, what cannot be read noted
beside them.

Threads, not processes: decoding, reading and writing leave the interpreter's lock, and one TensorFlow serves all.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from delg_extract.data.dataset_plan import DatasetImages, Shard
from delg_extract.network.tensorflow import native_messages_hidden, tf
from rrt.errors import InputError
from rrt.files.atomic import atomic_path, read_json, write_json
from rrt.progress import bar

NOT_FOUND = "not found"


class Unreadable(Exception):
    """Why an image cannot become a record."""


class _Stopped(Exception):
    """Another shard failed, or the user interrupted."""


def read_example(file: str | None, image: str, label: int | None = None) -> tf.train.Example:
    """The record of a JPEG file: its unchanged bytes, its size in pixels, and ``label`` unless None. Raises Unreadable.

    The image is decoded to the end with TensorFlow's decoder, which training uses too; the eighth of the size finds
    the same faults as the whole in half the time.
    """
    if file is None:
        raise Unreadable(NOT_FOUND)
    try:
        encoded = Path(file).read_bytes()
    except FileNotFoundError:
        raise Unreadable(NOT_FOUND) from None
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    if not encoded:
        raise Unreadable("empty file")
    try:
        tensor = tf.constant(encoded)
        height, width, _ = tf.io.extract_jpeg_shape(tensor).numpy().tolist()
        tf.io.decode_jpeg(tensor, channels=3, ratio=8)
    except tf.errors.InvalidArgumentError:
        begins = "cut or damaged JPEG" if encoded.startswith(b"\xff\xd8") else "not a JPEG"
        raise Unreadable(f"{begins}, {len(encoded)} bytes") from None
    # The reference writes 3, RGB and JPEG for every image, grey ones included.
    features = {
        "image/height": _integer(height),
        "image/width": _integer(width),
        "image/channels": _integer(3),
        "image/colorspace": _bytes(b"RGB"),
        "image/format": _bytes(b"JPEG"),
        "image/id": _bytes(os.fsencode(image)),
        "image/encoded": _bytes(encoded),
    }
    if label is not None:
        features["image/class/label"] = _integer(label)
    return tf.train.Example(features=tf.train.Features(feature=features))


def _integer(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


class ShardWriter:
    """Writes the shards of ``images`` to the folder ``output``.

    ``notes``: folder where <shard>.json lists what was left out of a shard. The note is there before the shard is, and
    a shard without a note has all its images.
    """

    def __init__(self, images: DatasetImages, output: Path, notes: Path):
        self.images, self.output, self.notes = images, output, notes
        self._lock = threading.Lock()

    def left_out(self, shard: Shard) -> list[tuple[str, str]]:
        """(id, reason) of the images that a finished shard lacks."""
        note = self._note(shard)
        try:
            value = read_json(note)
            return [] if value is None else [(image, reason) for image, reason in value["left_out"]]
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{note}: not a note of this program; delete it and {self.output / shard.name}, then run again"
            ) from None

    def unfinished(self, shards: list[Shard]) -> list[Shard]:
        """Those that are not there, or lack an image that can be had by now."""
        with native_messages_hidden():
            return [shard for shard in shards if not self._is_finished(shard)]

    def _is_finished(self, shard: Shard) -> bool:
        if not (self.output / shard.name).is_file():
            return False
        lacking = {image for image, _ in self.left_out(shard)}
        return not any(self._can_be_read(row) for row in shard.rows.tolist() if self.images.ids[row] in lacking)

    def write_all(self, shards: list[Shard], num_workers: int, label: str) -> None:
        """Writes the shards with ``num_workers`` threads. A fault of one stops all; finished shards stay."""
        stop = threading.Event()
        with native_messages_hidden(), ThreadPoolExecutor(num_workers) as pool:
            shown = bar(what=label, unit="image", total=sum(len(shard.rows) for shard in shards))
            try:
                for future in as_completed([pool.submit(self._write, shard, shown, stop) for shard in shards]):
                    future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
                shown.close()

    def _write(self, shard: Shard, shown, stop: threading.Event) -> None:
        path, note, left_out = self.output / shard.name, self._note(shard), []
        # Never an old shard beside a new note.
        path.unlink(missing_ok=True)
        with atomic_path(path) as temporary:
            try:
                with tf.io.TFRecordWriter(str(temporary)) as writer:
                    for row in shard.rows.tolist():
                        if stop.is_set():
                            raise _Stopped
                        try:
                            # Sorted keys: the same records are the same bytes at every run.
                            writer.write(self._example(row).SerializeToString(deterministic=True))
                        except Unreadable as reason:
                            left_out.append((self.images.ids[row], str(reason)))
                        with self._lock:
                            shown.update()
            except tf.errors.OpError as error:
                raise InputError(
                    f"{path}: cannot be written ({error.message}); make room, then run again: finished shards are kept"
                ) from None
            if left_out:
                write_json(note, {"left_out": left_out})
            else:
                note.unlink(missing_ok=True)

    def _note(self, shard: Shard) -> Path:
        return self.notes / f"{shard.name}.json"

    def _example(self, row: int) -> tf.train.Example:
        images = self.images
        return read_example(
            images.file(row), images.ids[row], None if images.labels is None else int(images.labels[row])
        )

    def _can_be_read(self, row: int) -> bool:
        try:
            self._example(row)
        except Unreadable:
            return False
        return True
