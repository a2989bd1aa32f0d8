"""What a store keeps of one image, checked and packed for writing (layout: rrt/store/schema.py)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rrt.errors import InputError
from rrt.store.linear import l2_normalize
from rrt.store.schema import LOCAL_COLUMNS, text_array
from rrt.store.values import as_float32, to_stored

if TYPE_CHECKING:
    from rrt.store.store import Store

# Rows whose length is this near to 1 are kept to the last bit; others are scaled.
UNIT_TOLERANCE = 1e-3
# Squares of rows that float32 can hold, with room for the sum of them.
_SQUARES = 1e-30, 1e30


@dataclass(frozen=True)
class ImageRecord:
    """Everything the store keeps of one image.

    size: (width, height) pixels. global_ [Dg]. descriptors [n, Dl], keypoints [n, 2] (x, y in pixels of that image),
    scales [n] (1 / image scale), attention [n] (after softplus). n may be 0.
    """

    name: str
    size: tuple
    global_: np.ndarray
    descriptors: np.ndarray
    keypoints: np.ndarray
    scales: np.ndarray
    attention: np.ndarray

    def __repr__(self):
        width, height = self.size
        count, *dim = np.shape(self.descriptors)
        local = f"{count} local of {dim[0]}" if dim else f"{count} local"
        return f"<'{self.name}', {width} x {height}, global {len(self.global_)}, {local}>"


@dataclass(frozen=True)
class StoredImage:
    """An image of an open store, ``store[name]`` or ``store[index]``: where it is, nothing read yet."""

    store: "Store"
    index: int

    def __repr__(self):
        width, height = self.store.image_size[self.index]
        count = self.store.offsets[self.index + 1] - self.store.offsets[self.index]
        return f"<image '{self.name}' of {self.store.path}, {width} x {height}, {count} local>"

    @property
    def name(self) -> str:
        """Its path."""
        return self.store.names[self.index]

    def record(self) -> ImageRecord:
        """Everything the store keeps of it, read now; descriptors float32."""
        local = self.store.read(self.index)
        size = tuple(self.store.image_size[self.index].tolist())
        global_ = np.array(self.store.global_descriptors[self.index])
        return ImageRecord(self.name, size, global_, **{name: getattr(local, name) for name in LOCAL_COLUMNS})


def store_text(self: "Store") -> str:
    """What a store prints as: where it lies, how many images it has and what is known of each."""
    count = len(self)
    local = f"{(self.offsets[-1] - self.offsets[0]) / max(count, 1):.0f} local of {self.local_dim} an image"
    name = self.attributes.get("desc_name") or "descriptors"
    return f"<{name} of {count:,} images: global {self.global_dim}, {local} ({self.local_dtype}), {self.path}>"


@dataclass(frozen=True)
class Skipped:
    """An image that could not be extracted, and why."""

    name: str
    reason: str


def shaped_record(path, record):
    """The record, read where it is an image of a store, as arrays that fit together, none of their values looked at;
    InputError naming the image."""
    if isinstance(record, StoredImage):
        record = record.record()
    where = f"{path}: '{record.name}'"
    columns = {name: np.asarray(getattr(record, name)) for name in ("global_", *LOCAL_COLUMNS)}
    for name, values in columns.items():
        if values.dtype.kind == "c":
            raise InputError(f"{where} has {name.rstrip('_')} of type {values.dtype}; give real numbers")
    count = len(columns["attention"])
    if columns["descriptors"].size == 0 and count == 0:
        width = columns["descriptors"].shape[1] if columns["descriptors"].ndim == 2 else 0
        columns["descriptors"] = np.empty((0, width), np.float32)
        columns["keypoints"] = np.empty((0, 2), np.float32)
    shapes = {name: columns[name].shape for name in LOCAL_COLUMNS}
    if (
        columns["global_"].ndim != 1
        or columns["descriptors"].ndim != 2
        or len(columns["descriptors"]) != count
        or shapes["keypoints"] != (count, 2)
        or shapes["scales"] != (count,)
        or shapes["attention"] != (count,)
    ):
        raise InputError(
            f"{where} has arrays that do not fit together: global {columns['global_'].shape}, "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        )
    width, height = (int(side) for side in record.size)
    if width < 1 or height < 1:
        raise InputError(f"{where} has the size {width} x {height}")
    return ImageRecord(record.name, (width, height), **columns)


def refuse_useless(path, record):
    """InputError naming the image for numbers of a shaped record that nothing can be compared by, or made of."""
    where = f"{path}: '{record.name}'"
    if record.global_.size and not record.global_.any():
        raise InputError(f"{where} has a global descriptor of zeros; describe the image again or leave it out")
    if (record.scales <= 0).any():
        raise InputError(f"{where} has scales that are not above 0; give 1 / image scale, 1 where there is one scale")


def check_equal_sizes(path, records):
    """(global, local) dimensions of all records, 0 where none has any; InputError naming the first that differs."""
    known = {}
    for record in records:
        for kind, width in (("global", len(record.global_)), ("local", record.descriptors.shape[1])):
            first, first_width = known.setdefault(kind, (record.name, width)) if width else (None, width)
            if width != first_width:
                raise InputError(
                    f"{path}: '{record.name}' has {kind} descriptors of {width} dimensions, '{first}' of {first_width}"
                )
    return tuple(known.get(kind, (None, 0))[1] for kind in ("global", "local"))


def packed_columns(path, records, local_dtype, max_local=None):
    """{dataset: rows} of shaped records of one width, as the schema wants them: unit rows, falling attention, at most
    max_local local descriptors of an image. Raises InputError naming an image whose numbers are not finite."""
    global_dim, local_dim = check_equal_sizes(path, records)
    offsets = offsets_of([limited(len(record.attention), max_local) for record in records])
    columns = {
        "names": text_array([record.name for record in records]),
        "image_size": np.array([record.size for record in records], dtype=np.int32).reshape(len(records), 2),
        "global": np.empty((len(records), global_dim), np.float32),
        "local/offsets": offsets,
        "local/descriptors": np.empty((offsets[-1], local_dim), local_dtype),
        "local/keypoints": np.empty((offsets[-1], 2), np.float32),
        "local/scales": np.empty(offsets[-1], np.float32),
        "local/attention": np.empty(offsets[-1], np.float32),
    }
    for row, record in enumerate(records):
        columns["global"][row] = _unit_rows(path, record, "global", record.global_[None])[0]
        # An image without local descriptors may not know their width.
        if offsets[row] < offsets[row + 1]:
            order = _strongest(path, record, max_local)
            for name in LOCAL_COLUMNS:
                rows = getattr(record, name)[order]
                if name == "descriptors":
                    rows = to_stored(_unit_rows(path, record, name, rows), local_dtype)
                columns[f"local/{name}"][offsets[row] : offsets[row + 1]] = rows
    for name in ("keypoints", "scales", "attention"):
        _refuse_not_finite_rows(path, records, offsets, name, columns[f"local/{name}"])
    return columns


def limited(counts, max_local):
    """Counts, or one count, of local descriptors, at most max_local (None: all)."""
    return counts if max_local is None else np.minimum(counts, max_local)


def _strongest(path, record, max_local):
    """What to index the local columns with for falling attention, at most max_local."""
    attention = record.attention
    if not (attention[1:] <= attention[:-1]).all():
        if not np.isfinite(attention).all():
            raise _not_finite(path, record, "attention")
        return np.argsort(-attention.astype(np.float64), kind="stable")[:max_local]
    return slice(max_local)


def _unit_rows(path, record, name, rows):
    """The rows [n, D] as they are where all are of unit length, else as float32, those off it scaled; zeros stay. int8
    rows have a direction alone."""
    with np.errstate(over="ignore"):
        values = as_float32(rows)
        squares = np.vecdot(values, values)
    # NaN is off as well.
    off = ~(np.abs(squares - 1) <= 2 * UNIT_TOLERANCE)
    if not off.any():
        return values if rows.dtype == np.int8 else rows
    if ((_SQUARES[0] <= squares) & (squares <= _SQUARES[1]))[off].all():
        return np.where(off[:, None], l2_normalize(values), values)
    return _scaled(path, record, name, rows)


def _scaled(path, record, name, rows):
    """Unit rows float32 of any finite ones, however long or short; zeros stay."""
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        raise _not_finite(path, record, name)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    return l2_normalize(rows / np.where(largest > 0, largest, 1)).astype(np.float32)


def _refuse_not_finite_rows(path, records, offsets, name, rows):
    finite = np.isfinite(rows)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(rows), -1).all(axis=1)))
        raise _not_finite(path, records[np.searchsorted(offsets, row, side="right") - 1], name)


def _not_finite(path, record, name):
    return InputError(f"{path}: '{record.name}' has {name} values that are not finite; is the model damaged?")


def offsets_of(counts):
    """int64 [N+1] row offsets from N counts."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
