"""Checks every number of a descriptor store and describes it, in memory bounded by a block of rows."""

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from rrt.errors import InputError
from rrt.progress import bar
from rrt.store.records import UNIT_TOLERANCE
from rrt.store.schema import LOCAL_COLUMNS
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.values import INT8_LARGEST

# Numbers of a column looked at together.
_BLOCK_VALUES = 4_000_000
# Lengths may be off by what the writer keeps (it compares squares) and by what rounding to float16 adds, 2**-11.
_LENGTH_TOLERANCE = {"float16": 1.01 * UNIT_TOLERANCE + 5e-4, "float32": 1.01 * UNIT_TOLERANCE}


@dataclass
class StoreCheck:
    """problems: the first `shown` of num_problems lines, one for each kind of fault of an image (for one that crosses a
    block, of the image's rows in each block). summary: {what: value as text}."""

    shown: int = 20
    problems: list = field(default_factory=list)
    num_problems: int = 0
    zero_rows: int = 0
    summary: dict = field(default_factory=dict)

    def add(self, problem: str) -> None:
        """Count a problem, and keep its line while there are few."""
        self.num_problems += 1
        if len(self.problems) < self.shown:
            self.problems.append(problem)


def check_store(path, lists=(), shown=20):
    """Check the store at `path`, and that it holds every image of the ImageLists `lists` -> StoreCheck.

    Raises InputError when it cannot be opened: schema, offsets and unique names are checked by opening it. Descriptors
    of length zero are legal and counted in the summary.
    """
    check = StoreCheck(shown)
    with Store(path) as store:
        for images in lists:
            _check_list(store, images, check)
        _check_images(store, check)
        num_local = int(store.offsets[-1])
        step = max(1, _BLOCK_VALUES // max(1, store.local_dim))
        with bar(what="check", unit="descriptor", total=num_local, unit_scale=True, leave=False) as shown:
            for start in range(0, num_local, step):
                end = min(start + step, num_local)
                try:
                    _check_local(store, start, end, check)
                except InputError as error:
                    check.add(f"local descriptors {start} to {end - 1}: {_without_path(store, error)}")
                shown.update(end - start)
        check.summary = _describe(store, check)
    return check


def _check_list(store, images, check):
    for name in images.names:
        try:
            store.index(name, images)
        except InputError as error:
            check.add(_without_path(store, error))


def _check_images(store, check):
    for image in np.flatnonzero((store.image_size < 1).any(axis=1)):
        check.add(f"'{store.names[image]}': the size of the image is {store.image_size[image].tolist()}")
    step = max(1, _BLOCK_VALUES // max(1, store.global_dim))
    for start in bar(range(0, len(store), step), "global descriptors", "block", passing=True):
        faults, zero = _faults_of_descriptors(store.global_descriptors[start : start + step], store.global_dtype)
        for what, bad in (faults | {"zero": zero}).items():
            for image in start + np.flatnonzero(bad):
                check.add(f"'{store.names[image]}': the global descriptor is {what}")


def _check_local(store, start, end, check):
    """The local descriptors of rows start to end, faults counted by image."""
    columns = {name: store.local_rows(name, start, end) for name in LOCAL_COLUMNS}
    faults, zero = _faults_of_descriptors(columns.pop("descriptors"), store.local_dtype)
    check.zero_rows += int(zero.sum())
    faults = {f"descriptors {what}": bad for what, bad in faults.items()}
    for name, values in columns.items():
        faults[f"{name} not finite"] = ~np.isfinite(values).reshape(end - start, -1).all(axis=1)
    # The row before the block may belong to its first image.
    before = store.local_rows("attention", start - 1, start) if start else [np.inf]
    rising = columns["attention"] > np.concatenate([before, columns["attention"][:-1]])
    heads = store.offsets[:-1]
    rising[heads[(heads >= start) & (heads < end)] - start] = False
    faults["attention rising"] = rising
    for what, bad in faults.items():
        rows = start + np.flatnonzero(bad)
        owners = np.searchsorted(store.offsets, rows, side="right") - 1
        for image, count in Counter(owners.tolist()).items():
            first, total = (
                int(row - store.offsets[image])
                for row in (rows[np.searchsorted(owners, image)], store.offsets[image + 1])
            )
            check.add(f"'{store.names[image]}': {what} in {count} of {total} rows, the first is row {first}")


def _faults_of_descriptors(rows, stored_as):
    """Rows [n, D] and the type they are stored as -> ({fault: bool [n]}, which rows are zero, bool [n])."""
    if stored_as == "bits":
        # Every byte is a code; what they stand for is checked by opening the store.
        return {}, np.zeros(len(rows), bool)
    if stored_as == "int8":
        # Not abs(): that of -128 is negative.
        largest = np.maximum(rows.max(axis=1, initial=0).astype(int), -rows.min(axis=1, initial=0).astype(int))
        return {
            f"without a largest component of {INT8_LARGEST}": (largest != INT8_LARGEST) & (largest > 0)
        }, largest == 0
    finite = np.isfinite(rows).all(axis=1)
    lengths = np.linalg.norm(np.where(finite[:, None], rows, 0).astype(np.float32), axis=1)
    off = ~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE[stored_as]) & (lengths > 0)
    return {"not finite": ~finite, "not of unit length": off}, finite & (lengths == 0)


def _describe(store, check):
    counts = store.local_counts()
    size = store.size_on_disk
    summary = {
        "images": f"{len(store)}, {len(read_skipped(store.path))} images skipped",
        "global descriptors": f"{store.global_dim} x {store.global_dtype}",
        "local descriptors": (
            f"{store.local_dim} dimensions in {len(store.codes.axes)} bits"
            if store.codes
            else f"{store.local_dim} x {store.local_dtype}"
        )
        + f", {counts.sum()} in all, "
        + (f"compressed by {store.compression}" if store.compression else "uncompressed"),
        "descriptors an image": f"{counts.min()} to {counts.max()}, mean {counts.mean():.1f}, "
        f"median {np.median(counts):g}, none in {np.sum(counts == 0)} images"
        if len(store)
        else "no images",
        "size on disk": f"{size:,} bytes" + (f", {size / len(store):,.0f} an image" if len(store) else ""),
    }
    if check.zero_rows:
        summary["descriptors of length zero"] = str(check.zero_rows)
    summary |= {name: value for name, value in store.attributes.items() if value}
    return summary | {"settings": json.dumps(store.config, ensure_ascii=False)}


def _without_path(store, error):
    return str(error).removeprefix(f"{store.path}: ")
