"""A folder of store files, or of the parts of an extraction, read as one store without being merged (docs/store.md 5).

What the first opening finds in the files is kept beside them in ``parts.json``, so that a folder of a thousand parts
opens at once; it is made anew when a part was added, taken away or changed. Parts are opened when a row of theirs is
asked for, and those that were not asked for the longest time are let go.
"""

from __future__ import annotations

import json
import os
import re
import resource
import threading
import zlib
from bisect import bisect_left, bisect_right
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import is_temporary, parse_json, read_json, write_json
from rrt.progress import bar
from rrt.store.columns import Header, Layout, StoreFile, read_header
from rrt.store.records import offsets_of
from rrt.store.schema import PART_SCHEMA, damage_named, open_checked, open_either, read_codes, read_names, read_text

INDEX = "parts.json"
MANIFEST = "settings.json"
PART_NAME = re.compile(r"part-(\d{5,})\.h5")
_INDEX_VERSION = 1
# Parts held at a time where all their columns are mapped, which takes no open file.
_MAPPED = 4096
_REMEDY = "give the folder the parts of one store alone"


class StoreFolder:
    """The parts of a folder, in the order of the numbers in their names, as one store; what StoreFile offers.

    attributes: given, they are those of the store, which the parts of an extraction do not know. Raises InputError
    naming the file when a part is damaged, or does not fit the others.
    """

    def __init__(self, path: Path, attributes: dict[str, str] | None = None):
        self.path = path
        stamps = _stamps(path)
        if not stamps:
            raise InputError(
                f"{path}: is a folder, and holds no .h5 file; give the store, or the folder that holds its parts"
            )
        index = None if attributes else _read_index(path, stamps)
        if index is None:
            index = _survey(path, stamps)
            if attributes:
                index.header = replace(index.header, attributes=attributes)
            _write_index(path, index)
        self.header, self._parts = index.header, index.parts
        if self.header.local_dtype == "bits" and not self.header.codes:
            with open_checked(path / self._parts[0].file, index.schema) as file:
                self.header = replace(self.header, codes=read_codes(path / self._parts[0].file, file))
        mapped = all(layout.offset is not None for part in self._parts for layout in part.layouts.values())
        self._most = _MAPPED if mapped else _open_files()
        self._open: dict[int, StoreFile] = {}
        self._lock = threading.Lock()
        self._columns: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """Bytes of the parts."""
        return sum(part.size for part in self._parts)

    def names(self) -> list[str]:
        """Paths of the images; that none is there twice was seen when the index was made."""
        names = []
        for number in range(len(self._parts)):
            with self._lock, damage_named(self.path / self._parts[number].file):
                column = self._part(number).column("names")
                if isinstance(column, np.ndarray):
                    names += [name.decode("utf-8") for name in column.tolist()]
                else:
                    names += column.asstr()[:].tolist()
        return names

    def close(self) -> None:
        """Let go of all files; a later read opens them again."""
        with self._lock:
            for part in self._open.values():
                part.close()
            self._open.clear()

    def column(self, name: str) -> Any:
        """The rows of all parts, a PartedColumn; the offsets count through all of them."""
        if name not in self._columns:
            self._columns[name] = self._offsets() if name == "local/offsets" else PartedColumn(self, name)
        return self._columns[name]

    def layouts(self, name: str) -> list[Layout]:
        """Of a column, part after part."""
        return [part.layouts[name] for part in self._parts]

    def rows(self, number: int, name: str, key) -> np.ndarray:
        """Rows of a column of one part, opened for it."""
        with self._lock, damage_named(self.path / self._parts[number].file):
            return self._part(number).column(name)[key]

    def _part(self, number):
        part = self._open.pop(number, None)
        if part is None:
            while len(self._open) >= self._most:
                self._open.pop(next(iter(self._open))).close()
            found = self._parts[number]
            part = StoreFile(self.path / found.file, found.layouts)
        self._open[number] = part
        return part

    def _offsets(self):
        counts = [np.diff(self.rows(number, "local/offsets", slice(None))) for number in range(len(self._parts))]
        return offsets_of(np.concatenate(counts))


class PartedColumn:
    """Rows [N, ...] that lie in the files of a folder, read-only: by slice (of one part a view where it is mapped), by
    number and by array of numbers; as a whole by np.asarray()."""

    def __init__(self, folder: StoreFolder, name: str):
        layouts = folder.layouts(name)
        self._folder, self._name = folder, name
        self.bounds = np.concatenate([[0], np.cumsum([layout.shape[0] for layout in layouts])]).tolist()
        # The parts without a row may not know how wide one is.
        filled = next((layout for layout in layouts if layout.shape[0]), layouts[0])
        self.shape, self.dtype = (self.bounds[-1], *filled.shape[1:]), filled.dtype
        self.ndim = len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._range(start, max(start, stop)) if step == 1 else self._rows(np.arange(start, stop, step))
        key = np.asarray(key)
        if key.dtype == bool:
            key = np.flatnonzero(key)
        if key.size and not (-len(self) <= key.min() and key.max() < len(self)):
            raise IndexError(f"rows {key.min()} to {key.max()} of {len(self)}")
        numbers = key.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        return self._rows(numbers.ravel()).reshape(*numbers.shape, *self.shape[1:])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype)

    def _range(self, start, end):
        part = bisect_right(self.bounds, start) - 1
        if start < end <= self.bounds[part + 1]:
            first = self.bounds[part]
            return self._folder.rows(part, self._name, slice(start - first, end - first))
        out = np.empty((end - start, *self.shape[1:]), self.dtype)
        for number in range(part, bisect_left(self.bounds, end) if start < end else part):
            first, last = max(start, self.bounds[number]), min(end, self.bounds[number + 1])
            if first < last:
                rows = slice(first - self.bounds[number], last - self.bounds[number])
                out[first - start : last - start] = self._folder.rows(number, self._name, rows)
        return out

    def _rows(self, numbers):
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self.bounds, numbers, side="right") - 1
        order = np.argsort(owners, kind="stable")
        heads = np.flatnonzero(np.diff(owners[order], prepend=-1))
        for rows in np.split(order, heads[1:]) if len(order) else []:
            part = int(owners[rows[0]])
            out[rows] = self._folder.rows(part, self._name, numbers[rows] - self.bounds[part])
        return out


# ---- what is kept of the parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    file: str
    size: int
    mtime_ns: int
    layouts: dict[str, Layout]


@dataclass
class _Index:
    schema: str
    header: Header
    parts: list[_Part]


def part_files(path: Path) -> list[os.DirEntry]:
    """The .h5 files of a folder, in the order of the numbers in their names; none that is being written."""
    with os.scandir(path) as entries:
        found = [each for each in entries if each.name.endswith(".h5") and not is_temporary(each.name)]
    return sorted(found, key=lambda each: [int(t) if t.isdecimal() else t for t in re.split(r"([0-9]+)", each.name)])


def _stamps(path):
    stamps = []
    with damage_named(path):
        entries = part_files(path)
    for entry in entries:
        with damage_named(path / entry.name):
            seen = entry.stat()
        stamps.append((entry.name, seen.st_size, seen.st_mtime_ns))
    return stamps


def _survey(path, stamps) -> _Index:
    """Look at every part. Raises InputError naming the first that is damaged or does not fit those before."""
    parts, owners, first = [], {}, None
    with open_either(path / stamps[0][0]) as file:
        schema = read_text(file, "schema")
        identity = read_text(file, "identity")
    for stamp in bar(stamps, f"looking at the parts of {path.name}", "part", passing=True):
        part = path / stamp[0]
        with open_checked(part, schema) as file:
            header, layouts = read_header(part, file)
            names = read_names(part, file)
            if read_text(file, "identity") != identity:
                raise InputError(f"{part}: made with other settings or for another list than {stamps[0][0]}; {_REMEDY}")
        for name in names:
            if name in owners:
                raise InputError(f"{part}: '{name}' is in {owners[name]}, too; {_REMEDY}")
        owners.update(dict.fromkeys(names, stamp[0]))
        first = header if first is None else _agreed(part, first, header)
        if parts:
            _check_types(part, parts[0].layouts, layouts)
        parts.append(_Part(stamp[0], stamp[1], stamp[2], layouts))
    assert first is not None
    if schema == PART_SCHEMA:
        with damage_named(path / MANIFEST):
            first = _of_extraction(path, first, json.loads(identity), [part.file for part in parts])
    return _Index(schema, first, parts)


def _agreed(part, known: Header, found: Header) -> Header:
    """What two parts of a store have in common. Raises InputError where their numbers cannot be in one."""
    for what, dims in (("global", (known.global_dim, found.global_dim)), ("local", (known.local_dim, found.local_dim))):
        if all(dims) and dims[0] != dims[1]:
            raise InputError(
                f"{part}: {what} descriptors of {dims[1]} dimensions, the parts before have {dims[0]}; {_REMEDY}"
            )
    models = known.attributes["model_sha256"], found.attributes["model_sha256"]
    if all(models) and models[0] != models[1]:
        raise InputError(f"{part}: made by another network than the parts before; {_REMEDY}")
    codes = [each.codes and (each.codes.mean.tobytes(), each.codes.axes.tobytes()) for each in (known, found)]
    if codes[0] != codes[1]:
        raise InputError(f"{part}: its bits are of other codes than those of the parts before; {_REMEDY}")
    return replace(
        known,
        global_dim=known.global_dim or found.global_dim,
        local_dim=known.local_dim or found.local_dim,
        config={key: value for key, value in known.config.items() if found.config.get(key, key) == value},
        attributes={
            key: value if value == found.attributes[key] else max(models) if key == "model_sha256" else ""
            for key, value in known.attributes.items()
        },
    )


def _check_types(part, known, found):
    for name, layout in found.items():
        if name != "names" and layout.dtype != known[name].dtype:
            raise InputError(
                f"{part}: /{name} is of type {layout.dtype}, that of the parts before of {known[name].dtype}; make all"
                " parts with one --local_dtype (tools/compress_store.py)"
            )


def _of_extraction(path, header, identity, files):
    """The header of parts that an extraction wrote, all of them. Raises InputError for a folder that lacks some."""
    manifest: Any = read_json(path / MANIFEST, "copy the folder again or extract or import it again")
    manifest = {} if manifest is None else manifest
    numbers = [int(match[1]) if (match := PART_NAME.fullmatch(file)) else -1 for file in files]
    total = manifest.get("parts", len(files))
    if numbers != list(range(total)):
        lacking = sorted(set(range(max(total, max(numbers) + 1))) - set(numbers))
        raise InputError(
            f"{path}: {len(lacking)} of {max(total, max(numbers) + 1)} parts are missing (first: "
            f"part-{(lacking or [0])[0]:05d}.h5); run the extraction again"
        )
    return replace(header, config=identity["settings"], attributes=header.attributes | manifest.get("attributes", {}))


def _write_index(path, index: _Index):
    """Keep what was found; where the folder may not be written the next opening looks again."""
    kept = {name: value for name, value in asdict(index.header).items() if name != "codes"}
    parts = [
        [part.file, part.size, part.mtime_ns, {n: [x.offset, x.dtype.str, x.shape] for n, x in part.layouts.items()}]
        for part in index.parts
    ]
    text = json.dumps({"schema": index.schema, "header": kept, "parts": parts})
    with suppress(OSError, InputError):
        write_json(path / INDEX, {"version": _INDEX_VERSION, "crc32": zlib.crc32(text.encode()), "content": text})


def _read_index(path, stamps) -> _Index | None:
    """What is kept of these very parts; None when there is nothing, or of others, or damaged."""
    try:
        kept = parse_json((path / INDEX).read_bytes())
        if kept["version"] != _INDEX_VERSION or kept["crc32"] != zlib.crc32(kept["content"].encode()):
            return None
        content = json.loads(kept["content"])
        if [tuple(part[:3]) for part in content["parts"]] != stamps:
            return None
        parts = [
            _Part(name, size, time, {n: Layout(x[0], np.dtype(x[1]), tuple(x[2])) for n, x in layouts.items()})
            for name, size, time, layouts in content["parts"]
        ]
        return _Index(content["schema"], Header(**content["header"], codes=None), parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _open_files() -> int:
    """Files that may be held open at a time: a quarter of what the system lets this process have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 256 if most < 0 else max(1, min(256, most // 4))
