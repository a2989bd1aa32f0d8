"""Two descriptor stores seen as one: the images of the first, then those of the second.

Holds nothing but the two; offers what search, scoring and checks read of a ``rrt.store.store.Store``.
"""

from functools import cached_property

import numpy as np

from rrt.errors import InputError
from rrt.store.ranges import concatenated_ranges
from rrt.store.schema import LOCAL_COLUMNS
from rrt.store.store import Packed


class JoinedStore:
    """Image i is image i of ``first``, or image i - len(first) of ``second``. same_names: both may hold an image of one
    name, as a cropped query and the whole image. Raises InputError when the two hold descriptors of different sizes or,
    without same_names, an image of the same name."""

    def __init__(self, first, second, same_names=False):
        for what, sizes in (
            ("global", (first.global_dim, second.global_dim)),
            ("local", (first.local_dim, second.local_dim)),
        ):
            if sizes[0] != sizes[1]:
                raise InputError(
                    f"{second.path}: {what} descriptors have {sizes[1]} dimensions, those of {first.path} have"
                    f" {sizes[0]}; extract both with the same model"
                )
        common = set(first.names).intersection(second.names)
        if common and not same_names:
            raise InputError(
                f"{second.path}: '{min(common)}' is in {first.path}, too ({len(common)} images of the same name); take"
                " them out of one of the two"
            )
        self.first, self.second = first, second
        self.path = f"{first.path} with {second.path}"
        self.global_dim, self.local_dim = first.global_dim, first.local_dim

    def __len__(self):
        return len(self.first) + len(self.second)

    def path_of(self, index: int):
        """The path of the store that holds an image."""
        in_first = index < len(self.first)
        return self.first.path_of(index) if in_first else self.second.path_of(index - len(self.first))

    @property
    def attributes(self) -> dict[str, str]:
        """Those of the first."""
        return self.first.attributes

    @cached_property
    def names(self) -> list[str]:
        """Names of the images of both."""
        return self.first.names + self.second.names

    @property
    def global_descriptors(self):
        """Rows of both tables by ``[indices]``; the tables themselves are never copied together."""
        return _JoinedRows(self.first.global_descriptors, self.second.global_descriptors)

    @cached_property
    def image_size(self):
        """int32 [N, 2]: width, height of the image the coordinates belong to."""
        return np.concatenate([self.first.image_size, self.second.image_size])

    @property
    def local_dtype(self):
        """Type of the stored local descriptors, of the wider where the two differ; bits count as the float32 they are
        read as."""
        return np.result_type(
            *("float32" if each.local_dtype == "bits" else each.local_dtype for each in (self.first, self.second))
        ).name

    def local_counts(self, max_local=None):
        """int64 [N]: local descriptors per image, at most max_local."""
        return np.concatenate([self.first.local_counts(max_local), self.second.local_counts(max_local)])

    def read_packed(self, indices, max_local=None, columns=LOCAL_COLUMNS):
        """As ``Store.read_packed``: any order, repeats allowed."""
        indices = np.asarray(indices, dtype=np.int64)
        outside = (indices < 0) | (indices >= len(self))
        if outside.any():
            raise InputError(f"{self.path}: there is no image {indices[outside][0]}, they hold {len(self)}")
        in_second = indices >= len(self.first)
        parts = [
            self.first.read_packed(indices[~in_second], max_local, columns),
            self.second.read_packed(indices[in_second] - len(self.first), max_local, columns),
        ]
        counts = np.empty(len(indices), dtype=np.int64)
        for part, chosen in zip(parts, (~in_second, in_second)):
            counts[chosen] = np.diff(part.offsets)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = [concatenated_ranges(offsets[:-1][chosen], counts[chosen]) for chosen in (~in_second, in_second)]
        return Packed(offsets, **{name: _scattered([getattr(part, name) for part in parts], rows) for name in columns})


class _JoinedRows:
    """Rows of two tables of equal width, the second's after the first's."""

    def __init__(self, first, second):
        self.first, self.second = first, second
        self.shape = (len(first) + len(second), first.shape[1])
        self.dtype = np.result_type(first.dtype, second.dtype)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        """The rows of an array of indices or of a slice, in that order; one row for a number."""
        indices = np.arange(len(self))[key] if isinstance(key, slice) else np.asarray(key, dtype=np.int64)
        if indices.ndim == 0:
            return self[indices[None]][0]
        in_second = indices >= len(self.first)
        rows = np.empty((len(indices), self.shape[1]), self.dtype)
        rows[~in_second] = self.first[indices[~in_second]]
        rows[in_second] = self.second[indices[in_second] - len(self.first)]
        return rows


def _scattered(columns, rows):
    """One array in which columns[p][i] is in row rows[p][i]."""
    joined = np.empty((sum(map(len, rows)), *columns[0].shape[1:]), np.result_type(*columns))
    for column, indices in zip(columns, rows):
        joined[indices] = column
    return joined
