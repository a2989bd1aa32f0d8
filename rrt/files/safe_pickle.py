"""A reader of pickles that knows plain containers, numbers, strings, bytes and numpy arrays, and calls nothing else.

A pickle is a small program. Python's own reader lets it import and call anything; this one answers every name it asks
for from the short table below with functions of this file, believes no length that goes beyond the end of the file, and
refuses a value that unfolds far beyond it: a few bytes can name one list again and again, as parts of parts of parts.

A table of allowed names (`pickle.Unpickler.find_class`) alone would not do. numpy's own functions, on every such table,
take a type of objects whose flags deny it and then read bytes of the file as addresses of Python objects. 9 bytes can
have the C reader set aside 64 GiB (16 bytes for every number up to the largest that the file gives to a value), and 250
keep it hashing one key for a thousand years. So the instructions concerned are our own.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from rrt.errors import InputError

# Booleans, integers, floats, complex, bytes, text. Arrays of objects and of records are not among them.
PLAIN_KINDS = "biufcSU"

# An honest file has a byte or more for every element; some share a list or an array among entries.
PARTS_PER_BYTE, FEW_PARTS = 16, 100_000


class _Refused(Exception):
    """The pickle asked for something that is not on the list."""


def safe_load_pickle(path):
    """Load a pickle of plain Python values and numpy arrays, scalars and dtypes (written by numpy 1 or 2).

    Raises InputError when the file cannot be read, is no pickle, is cut short, or asks for anything else, naming that.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = _PlainUnpickler(_BoundedFile(file)).load()
            _refuse_unfolding(content, FEW_PARTS + PARTS_PER_BYTE * os.fstat(file.fileno()).st_size)
            return content
    except _Refused as refused:
        raise InputError(
            f"{path}: refused, the pickle asks for {refused}; only plain containers, numbers, strings and "
            "numpy arrays are loaded"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the file, or make it again"
        ) from None
    except Exception as error:  # whatever a damaged or hostile file makes the reader stumble over
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path}: not a whole pickle ({reason}); make or fetch the file again") from None


class _BoundedFile:
    """A file that refuses lengths beyond its end before any memory is set aside for them."""

    def __init__(self, file):
        self._file = file
        self._left = os.fstat(file.fileno()).st_size

    def read(self, size):
        if size > self._left:
            raise EOFError("the file ends early")
        self._left -= size
        return self._file.read(size)

    def readline(self):
        line = self._file.readline()
        self._left -= len(line)
        return line


class _PlainUnpickler(pickle._Unpickler):
    # The Python reader, not the C one: its memo is a dict, and its table of instructions can be narrowed.
    dispatch: dict[int, Any] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file):
        # latin1 turns the byte strings of Python 2 into text that the arrays among them can be taken from unchanged.
        super().__init__(file, encoding="latin1")

    def find_class(self, module, name):
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _Refused(f"'{module[:100]}.{name[:100]}'") from None

    def get_extension(self, code):
        raise _Refused(f"the registered extension {code}")

    def persistent_load(self, pid):
        raise _Refused("an object outside the file")

    def load_build(self: Any):
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.dtype):
            _set_byte_order(target, state)
        elif type(target) is np.ndarray:
            _fill_array(target, state)
        else:
            raise _Refused(f"the state of a {type(target).__name__}")

    def load_dict(self: Any):
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def load_setitem(self: Any):
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self: Any):
        self._update(self.pop_mark())

    def _update(self: Any, items):
        if not isinstance(self.stack[-1], dict):
            raise _Refused(f"items of a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(_plain_dict(zip(items[::2], items[1::2], strict=True)))

    def load_additems(self: Any):
        items = _plain_set(self.pop_mark())
        self.stack[-1].update(items)

    def load_frozenset(self: Any):
        items = _plain_set(self.pop_mark())  # first, because it changes what append is
        self.append(frozenset(items))

    def load_bytearray8(self: Any):
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _refuse_unfolding(content, limit):
    waiting, parts = [content], 0
    while waiting:
        value = waiting.pop()
        parts += value.size if isinstance(value, np.ndarray) else len(value) if isinstance(value, _CONTAINERS) else 0
        if parts > limit:
            raise _Refused("the same containers over and over")
        if isinstance(value, _CONTAINERS):
            waiting += [
                part
                for part in (value.values() if isinstance(value, dict) else value)
                if isinstance(part, (*_CONTAINERS, np.ndarray))
            ]


def _plain_dict(items):
    return {_plain_key(key): value for key, value in items}


def _plain_set(items=()):
    return {_plain_key(item) for item in items}


def _plain_key(key):
    # The hash of a tuple visits its parts, and those of its parts: of sixty tuples in each other it never ends.
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, (tuple, frozenset)):
            raise _Refused("a key or member made of containers")
    return key


def _plain_dtype(description, align=False, copy=True):
    # Always a copy: the state that follows is set on the object itself, and the built-in types are shared.
    dtype = np.dtype(description, copy=True) if isinstance(description, str) else None
    if dtype is None or dtype.kind not in PLAIN_KINDS:
        raise _Refused(f"a numpy array of {str(description)[:100]!r}")
    return dtype


def _set_byte_order(dtype, state):
    version, order, *structure = state[:5]
    if structure != [None, None, None] or order not in ("<", ">", "|", "="):
        raise _Refused("a structured numpy dtype")
    flexible = dtype.kind in "SU"
    dtype.__setstate__(
        (
            3,
            order,
            None,
            None,
            None,
            dtype.itemsize if flexible else -1,
            dtype.alignment if flexible else -1,
            8 if dtype.kind == "U" else 0,
        )
    )


def _empty_array(array_type, shape, kind):
    if array_type is not _KNOWN["numpy", "ndarray"]:
        raise _Refused("a kind of numpy array")
    return np.empty(0, dtype=np.uint8)


def _fill_array(array, state):
    version, shape, dtype, fortran_order, data = state
    array.__setstate__((1, *_checked_content(shape, dtype, data), bool(fortran_order), _as_bytes(data)))


def _array_from_buffer(buffer, dtype, shape, order):
    shape, dtype = _checked_content(shape, dtype, buffer)
    return np.frombuffer(bytearray(buffer), dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _numpy_scalar(dtype, data):
    return np.frombuffer(_as_bytes(data), dtype=_checked_content((), dtype, data)[1])[0]


def _checked_content(shape, dtype, data):
    if not isinstance(dtype, np.dtype) or dtype.kind not in PLAIN_KINDS:
        raise _Refused("a numpy array of objects")
    shape = tuple(shape)
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("array shape")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size != len(_as_bytes(data)):
        raise ValueError("array size and data differ")
    return shape, dtype


def _as_bytes(data):
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise _Refused("a numpy array of objects")
    return data


def _encode(text, encoding="latin1"):
    # How protocols 0 to 2 write bytes under Python 3.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("another text encoding")
    return text.encode("latin1")


def _bytes(*content):
    return bytes(content[0]) if content and isinstance(content[0], (bytes, bytearray, list)) else b""


def _bytearray(*content):
    return bytearray(_encode(*content) if content and isinstance(content[0], str) else _bytes(*content))


def _ndarray(*arguments):
    raise _Refused("a numpy array made in an unusual way")


_KNOWN = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _plain_dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): lambda items=(): OrderedDict(_plain_dict(items)),
}
_CONTAINERS = (list, tuple, dict, set, frozenset)
for _module in ("builtins", "__builtin__"):
    _KNOWN |= {
        (_module, "set"): _plain_set,
        (_module, "frozenset"): lambda items=(): frozenset(_plain_set(items)),
        (_module, "complex"): complex,
        (_module, "bytes"): _bytes,
        (_module, "bytearray"): _bytearray,
    }
for _core in ("numpy.core", "numpy._core"):
    _KNOWN |= {
        (f"{_core}.multiarray", "_reconstruct"): _empty_array,
        (f"{_core}.multiarray", "scalar"): _numpy_scalar,
        (f"{_core}.numeric", "_frombuffer"): _array_from_buffer,
    }
