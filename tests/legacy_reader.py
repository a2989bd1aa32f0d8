"""Reads `.delg_global` and `.delg_local` files with a protobuf wire reader of a few lines (DELG_SPEC 5.6), for tests
alone."""

import struct

import numpy as np


def read_global(path):
    """DatumProto -> float32 [D]"""
    return _datum(path.read_bytes())


def read_local(path):
    """DelfFeatures -> descriptors [n, D], keypoints [n, 2] (x, y), scales [n], attention [n], all float32"""
    features = [dict(_fields(value)) for _, value in _fields(path.read_bytes())]
    descriptors = np.array([_datum(feature[1]) for feature in features], np.float32)
    numbers = np.array([[_float(feature, field) for field in (2, 3, 4, 6)] for feature in features], np.float32)
    numbers = numbers.reshape(-1, 4)
    return descriptors, numbers[:, :2], numbers[:, 2], numbers[:, 3]


def _datum(message):
    floats = dict(_fields(dict(_fields(message))[2])).get(1, b"")
    return np.frombuffer(floats, "<f4")


def _float(feature, field):
    return struct.unpack("<f", feature[field])[0] if field in feature else 0.0


def _fields(message):
    """(field number, value) pairs; values of length-delimited and 32-bit fields as bytes, varints as int."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            size, at = _varint(message, at) if tag & 7 == 2 else (4, at)
            value, at = message[at : at + size], at + size
        yield tag >> 3, value


def _varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
