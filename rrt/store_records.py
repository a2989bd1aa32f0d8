"""What a store keeps of one picture, checked and packed for writing (layout: rrt/store_schema.py)."""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError
from rrt.store_schema import LOCAL_COLUMNS, text_array

# Rows this near to unit length are kept to the last bit; others are scaled.
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ImageRecord:
    """Everything the store keeps of one picture.

    size: (width, height) pixels. global_ [Dg]. descriptors [n, Dl], keypoints [n, 2] (x, y in pixels of that picture),
    scales [n] (1 / image scale), attention [n] (after softplus). n may be 0.
    """

    name: str
    size: tuple
    global_: np.ndarray
    descriptors: np.ndarray
    keypoints: np.ndarray
    scales: np.ndarray
    attention: np.ndarray


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be extracted, and why."""

    name: str
    reason: str


def checked_record(path, record):
    """The record as float32 arrays, unit rows, falling attention; InputError naming the image."""
    where = f"{path}: '{record.name}'"
    columns = {name: np.asarray(getattr(record, name), dtype=np.float32)
               for name in ("global_", "descriptors", "keypoints", "scales", "attention")}
    count = len(columns["attention"])
    if columns["descriptors"].size == 0 and count == 0:
        width = columns["descriptors"].shape[1] if columns["descriptors"].ndim == 2 else 0
        columns["descriptors"] = np.empty((0, width), np.float32)
        columns["keypoints"] = np.empty((0, 2), np.float32)
    shapes = {name: columns[name].shape for name in ("descriptors", "keypoints", "scales", "attention")}
    if (columns["global_"].ndim != 1 or columns["descriptors"].ndim != 2 or len(columns["descriptors"]) != count
            or shapes["keypoints"] != (count, 2) or shapes["scales"] != (count,) or shapes["attention"] != (count,)):
        raise InputError(f"{where} has arrays that do not fit together: global {columns['global_'].shape}, "
                         + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise InputError(f"{where} has {name.rstrip('_')} values that are not finite; is the model damaged?")
    width, height = (int(side) for side in record.size)
    if width < 1 or height < 1:
        raise InputError(f"{where} has the size {width} x {height}")
    if count and (np.diff(columns["attention"]) > 0).any():
        order = np.argsort(-columns["attention"], kind="stable")
        for name in LOCAL_COLUMNS:
            columns[name] = columns[name][order]
    columns["descriptors"] = _unit_rows(columns["descriptors"])
    columns["global_"] = _unit_rows(columns["global_"][None])[0]
    return ImageRecord(record.name, (width, height), **columns)


def _unit_rows(rows):
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    off = (np.abs(lengths - 1) > UNIT_TOLERANCE) & (lengths > 0)
    return np.where(off, rows / np.where(off, lengths, 1), rows) if off.any() else rows


def check_equal_sizes(path, records):
    known = {}
    for record in records:
        for kind, width in (("global", len(record.global_)), ("local", record.descriptors.shape[1])):
            first, first_width = known.setdefault(kind, (record.name, width)) if width else (None, width)
            if width != first_width:
                raise InputError(f"{path}: '{record.name}' has {kind} descriptors of {width} dimensions, "
                                 f"'{first}' of {first_width}")


def packed_columns(records, local_dtype):
    """{dataset: array} of checked records of one width, as the schema wants them."""
    local_dim = max((record.descriptors.shape[1] for record in records), default=0)
    global_dim = len(records[0].global_) if records else 0

    def joined(name, tail, dtype=np.float32):
        columns = [getattr(record, name) for record in records if len(record.attention)]
        return np.concatenate([np.empty((0, *tail), np.float32), *columns]).astype(dtype)

    return {
        "names": text_array([record.name for record in records]),
        "image_size": np.array([record.size for record in records], dtype=np.int32).reshape(len(records), 2),
        "global": np.array([record.global_ for record in records], dtype=np.float32).reshape(len(records), global_dim),
        "local/offsets": offsets_of([len(record.attention) for record in records]),
        "local/descriptors": joined("descriptors", (local_dim,), local_dtype),
        "local/keypoints": joined("keypoints", (2,)),
        "local/scales": joined("scales", ()),
        "local/attention": joined("attention", ()),
    }


def offsets_of(counts):
    """int64 [N+1] row offsets from N counts."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
