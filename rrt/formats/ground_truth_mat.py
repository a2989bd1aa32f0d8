"""Ground truth in MATLAB files as the Revisited benchmarks publish it: cells imlist and qimlist, a struct array gnd.

Positions count from 1 in the file and from 0 here. The reader knows what such a file needs of the public description of
the Level 5 MAT-file format: scipy's own ends the whole process on some damaged files.
"""

import struct
import zlib

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import atomic_path

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR, _FIRST_NUMERIC, _LAST_NUMERIC = 1, 2, 4, 6, 15
_DEEPEST = 8
# Lists of names and numbers shrink some twenty times.
_LARGEST_RATIO, _SMALL_FILE = 200, 1 << 20
# Doubles hold every integer up to here.
_LARGEST_POSITION = 2**53


def load_mat(path):
    """Read a .mat (version 5 to 7) -> {variable: value}: a cell array as list, a struct array as list of dicts, text as
    str, numbers as flat array; `gnd` with positions from 0. What else a file may hold is None.

    Raises InputError when the file cannot be read, is damaged, or names positions that are no counting numbers.
    """
    try:
        with open(path, "rb") as file:
            content = _variables(file.read())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the ground truth's .mat file"
        ) from None
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(
            f"{path}: not a whole MATLAB file ({reason}); make or fetch it again, or save it with -v7"
        ) from None
    if isinstance(content.get("gnd"), list):
        content["gnd"] = [_entry(f"{path}: query {row}", entry) for row, entry in enumerate(content["gnd"])]
    return content


def save_mat(path, content):
    """Write {imlist, qimlist, gnd} with positions from 0 as a .mat (version 5), whole or not at all."""
    # Here, because it takes longer to import than everything else that ground truth needs.
    from scipy.io import savemat

    gnd = np.empty((1, len(content["gnd"])), dtype=[(key, object) for key in content["gnd"][0]])
    for row, entry in enumerate(content["gnd"]):
        # As MATLAB itself has them: rows of doubles.
        gnd[0, row] = tuple(
            np.array([values], dtype=np.float64).reshape(1, -1) + (key != "bbx") for key, values in entry.items()
        )
    variables = {"imlist": _cells(content["imlist"]), "qimlist": _cells(content["qimlist"]), "gnd": gnd}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        savemat(file, variables, do_compression=True)


def _cells(names):
    cells = np.empty((1, len(names)), dtype=object)
    cells[0, :] = names
    return cells


def _entry(where, entry):
    if not isinstance(entry, dict):
        return entry
    return {key: value if key == "bbx" else _positions(where, key, value) for key, value in entry.items()}


def _positions(where, key, values):
    if (
        isinstance(values, np.ndarray)
        and not ((np.floor(values) == values) & (values >= 1) & (values <= _LARGEST_POSITION)).all()
    ):
        raise InputError(f"{where}: {key} is not a list of positions in imlist, counted from 1")
    return values.astype(np.int64) - 1 if isinstance(values, np.ndarray) else values


def _variables(data):
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(order + "H", data, 124) != (0x100,):
        raise ValueError("another version of the format")
    variables = {}
    for kind, part in _elements(memoryview(data)[128:], order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(part, _SMALL_FILE + _LARGEST_RATIO * len(part))
            if not unpacker.eof:
                raise ValueError("a compressed part does not end")
            kind, part = next(_elements(memoryview(whole), order))
        if kind == _MATRIX:
            name, value = _matrix(part, order, 0)
            variables[name] = value
    return variables


def _elements(data, order):
    """The data elements one after the other: (type, bytes)."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(order + "II", data, position)
        if kind >> 16:  # up to four bytes are in the tag itself
            kind, size, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start = position + 8
            end = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > min(end, len(data)):
            raise ValueError("the file ends early")
        yield kind, data[start : start + size]
        position = end


def _matrix(data, order, depth):
    """(name, value) of one array; see load_mat for the values."""
    if depth > _DEEPEST:
        raise ValueError("arrays in arrays")
    if not len(data):
        return "", np.empty(0)
    parts = _elements(data, order)
    kind = _numbers(*next(parts), order)[0] & 0xFF
    count = 1
    for side in _numbers(*next(parts), order).tolist():
        count *= side
    name = bytes(next(parts)[1]).decode("latin1")
    if kind == _CELL:
        return name, _inner(parts, count, order, depth)
    if kind == _STRUCT:
        width = int(_numbers(*next(parts), order)[0])
        text = bytes(next(parts)[1])
        keys = [text[i : i + width].split(b"\0")[0].decode("latin1") for i in range(0, len(text), max(width, 1))]
        values = _inner(parts, count * len(keys), order, depth)
        return name, [
            dict(zip(keys, values[i * len(keys) : (i + 1) * len(keys)])) for i in range(int(count))
        ] if keys else []
    if kind == _CHAR:
        encoding, text = next(parts, (16, b""))
        return name, bytes(text).decode(_TEXTS[encoding] + {"<": "-le", ">": "-be"}[order] * (encoding in (4, 17, 18)))
    if _FIRST_NUMERIC <= kind <= _LAST_NUMERIC:
        numbers = _numbers(*next(parts, (9, b"")), order)
        if len(numbers) != count:
            raise ValueError(f"{len(numbers)} numbers in an array of {count}")
        return name, numbers
    return name, None


def _inner(parts, count, order, depth):
    values = [_matrix(data, order, depth + 1)[1] for kind, data in parts if kind == _MATRIX]
    if len(values) != count:
        raise ValueError(f"{len(values)} parts in an array of {count}")
    return values


def _numbers(kind, data, order):
    return np.frombuffer(bytes(data), dtype=np.dtype(_NUMBERS[kind]).newbyteorder(order)) if len(data) else np.empty(0)
