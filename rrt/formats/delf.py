"""DELF and DELG feature files in and out: `.delg_local` and `.delf` (local features), `.delg_global` and `.datum`
(arrays).

A file is one bare protobuf message of the package delf.protos (proto2; docs/delg.md 5.6). A file that protobuf
wrote has a record of the same layout for every feature: it is read through one structured view of its bytes once every
tag and length has been checked. Any other file goes through message classes (rrt/formats/protobuf.py).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from rrt.errors import InputError
from rrt.files.atomic import write_bytes
from rrt.formats.protobuf import message_classes

# As message_classes() takes them.
_MESSAGES = {
    "DatumShape": {"dim": (1, ["int64"])},
    "FloatList": {"value": (1, ["float"])},
    "Uint32List": {"value": (1, ["uint32"])},
    "DatumProto": {"shape": (1, "DatumShape"), "float_list": (2, "FloatList"), "uint32_list": (3, "Uint32List")},
    "DelfFeature": {
        "descriptor": (1, "DatumProto"),
        "x": (2, "float"),
        "y": (3, "float"),
        "scale": (4, "float"),
        "orientation": (5, "float"),
        "strength": (6, "float"),
    },
    "DelfFeatures": {"feature": (1, ["DelfFeature"])},
}
_LISTS = ("float_list", "uint32_list")  # a DatumProto holds one of them
_NUMBERS = ("x", "y", "scale", "orientation", "strength")
_NUMBERS_BYTES = 5 * len(_NUMBERS)  # a tag and a float each
_MOST_AXES = 16  # the product of a damaged file's million sides would take minutes
# Any: the fields of classes made at run time are known to nobody else.
_CLASSES: dict[str, Any] = message_classes("delf.protos", _MESSAGES, {"DatumProto": {"values": _LISTS}})


@dataclass(frozen=True)
class LocalFeatures:
    """Local features of an image in the file's order, all float32: descriptors [n, D], keypoints [n, 2] (x, y in
    pixels), scales [n] (1 / image scale), attention [n], orientations [n] (0 in DELG's own files)."""

    descriptors: np.ndarray
    keypoints: np.ndarray
    scales: np.ndarray
    attention: np.ndarray
    orientations: np.ndarray


def read_features(path):
    """The LocalFeatures of a `.delg_local` or `.delf` file; of n = 0 features D is unknown and 0.

    Raises InputError naming the file when it is missing, damaged or another kind of file.
    """
    return _read(path, parse_features)


def read_datum(path):
    """The array of a `.delg_global` or `.datum` file in its shape, float32 or uint32.

    Raises InputError naming the file when it is missing, damaged or another kind of file.
    """
    return _read(path, parse_datum)


def write_datum(path, array):
    """Write an array as a `.delg_global` or `.datum` file, whole or not at all; types as in serialize_datum()."""
    write_bytes(path, serialize_datum(array))


def _read(path, parse):
    try:
        return parse(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is it the feature file of an image?") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; copy the file again or extract the image again") from None


def parse_features(data):
    """LocalFeatures from the bytes of a DelfFeatures message. Raises ValueError saying what is wrong."""
    records = _regular_records(data)
    if records is None:
        return parse_features_by_messages(data)
    return LocalFeatures(
        records["descriptor"].copy(),
        np.stack([records["x"], records["y"]], axis=1),
        *(records[name].copy() for name in ("scale", "strength", "orientation")),
    )


def parse_features_by_messages(data):
    """The same with a Python object per feature: slow, for every layout that the wire format allows."""
    features = parse_feature_messages(data)
    if data and not features:
        raise ValueError("holds no features but other data")
    rows = [_values(feature.descriptor) for feature in features]
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]) or not len(row):
            raise ValueError(f"feature {number} has {len(row)} values, the first has {len(rows[0])}")
    numbers = np.array([[getattr(feature, name) for name in _NUMBERS] for feature in features], np.float32)
    numbers = numbers.reshape(len(rows), len(_NUMBERS))
    descriptors = np.array(rows, np.float32).reshape(len(rows), len(rows[0]) if rows else 0)
    return LocalFeatures(descriptors, numbers[:, :2].copy(), *(numbers[:, column].copy() for column in (2, 4, 3)))


def parse_feature_messages(data):
    """The features as protobuf objects, with the fields of docs/delg.md 5.6. Raises ValueError for damaged
    bytes."""
    return _decode("DelfFeatures", data).feature


def serialize_features(features):
    """The bytes that protobuf gives for LocalFeatures. Raises ValueError when the arrays do not fit together."""
    count, dim = np.shape(features.descriptors)
    columns = {
        "descriptor": features.descriptors,
        "x": features.keypoints[:, 0],
        "y": features.keypoints[:, 1],
        "scale": features.scales,
        "orientation": features.orientations,
        "strength": features.attention,
    }
    if any(len(column) != count for column in columns.values()) or (count and not dim):
        raise ValueError(
            f"features that do not fit together: descriptors {np.shape(features.descriptors)}, "
            f"{len(features.keypoints)} keypoints, {len(features.scales)} scales, "
            f"{len(features.attention)} attention values, {len(features.orientations)} orientations"
        )
    records = np.repeat(_record(dim), count)
    for name, column in columns.items():
        records[name] = column
    return records.tobytes()


def parse_datum(data):
    """The array of a DatumProto message, float32 or uint32. Raises ValueError saying what is wrong."""
    datum = _decode("DatumProto", data)
    kind = datum.WhichOneof("values")
    if kind is None:
        raise ValueError("holds no array")
    values = np.array(_values(datum), np.float32 if kind == "float_list" else np.uint32)
    return values.reshape(datum.shape.dim if datum.HasField("shape") else -1)


def serialize_datum(array):
    """The bytes of the DatumProto of an array: floats become float32, unsigned integers uint32.

    Raises ValueError for another type and for integers above 32 bits.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fu":
        raise ValueError(f"a datum of type {array.dtype}; floats and unsigned integers can be written")
    datum = _CLASSES["DatumProto"]()
    datum.shape.SetInParent()
    datum.shape.dim.extend(array.shape)
    values = datum.float_list if array.dtype.kind == "f" else datum.uint32_list
    values.SetInParent()
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    values.value.extend(array.ravel().tolist())
    return datum.SerializeToString()


def _decode(message_name, data) -> Any:
    try:
        return _CLASSES[message_name].FromString(data)
    except DecodeError:
        raise ValueError("cut short, damaged or not a DELF or DELG file") from None


def _values(datum):
    """The flat values of a DatumProto, which must be as many as its shape says, where it says one."""
    kind = datum.WhichOneof("values")
    values = getattr(datum, kind).value if kind else ()
    if datum.HasField("shape"):
        shape = datum.shape.dim
        if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) != len(values):
            raise ValueError(f"{len(values)} values for the shape {list(shape[:_MOST_AXES])}")
    return values


@lru_cache(maxsize=8)
def _record(dim):
    """One feature of `dim` zeros as protobuf writes it, a structured array [1]: head, descriptor, a tag before each
    number."""
    features = _CLASSES["DelfFeatures"]()
    feature = features.feature.add()
    feature.descriptor.shape.dim.append(dim)
    feature.descriptor.float_list.value.extend([0.0] * dim)
    for name in _NUMBERS:
        setattr(feature, name, 0.0)
    data = features.SerializeToString()
    fields = [("head", "u1", (len(data) - 4 * dim - _NUMBERS_BYTES,)), ("descriptor", "<f4", (dim,))]
    for name in _NUMBERS:
        fields += [(f"{name}_tag", "u1"), (name, "<f4")]
    return np.frombuffer(data, np.dtype(fields))


def _regular_records(data):
    """The features as a structured array [n], see _record(), or None when any of them is laid out otherwise."""
    size = _first_record_size(data)
    if size is None or size > len(data) or len(data) % size:
        return None
    try:
        (first,) = _CLASSES["DelfFeatures"].FromString(data[:size]).feature
    except (DecodeError, ValueError):
        return None
    expected = _record(len(first.descriptor.float_list.value))
    if expected.dtype.itemsize != size or not len(first.descriptor.float_list.value):
        return None
    records = np.frombuffer(data, expected.dtype)
    fixed = ["head", *(f"{name}_tag" for name in _NUMBERS)]
    return records if all((records[name] == expected[name]).all() for name in fixed) else None


def _first_record_size(data):
    """Bytes of the first record with its tag and length; None when no length can be read."""
    length = 0
    for index, byte in enumerate(data[1:6]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return 2 + index + length
    return None
