"""Approximate inner products of all rows with all rows in a fast number type, with a bound on their error.

    x . y  <=  approximation + bound,  for every pair

A row x is replaced by its rounded z, x = z + e, and x.y - z_x.z_y = x.e_y + e_x.z_y, so that by Cauchy and Schwarz the
error is at most |x| |e_y| + |e_x| |z_y|, with the lengths of the e measured, not estimated. The bound also covers the
rounding of the sums (D units in the last place of float32, in any order) and of the results. int8 rounds the rows after
a fixed orthogonal turn (random signs and a cosine transform, twice), which spreads every row evenly over its
coordinates, so that none is rounded badly, and in steps of its own size.
"""

import functools
import importlib.util
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from rrt.devices import fastest_type
from rrt.files.atomic import take_room

KINDS = ("float32", "faiss", "bfloat16", "float16", "int8")
# Queries multiplied at a time.
QUERIES = 1024
_GROUP = 16
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
# Relative error of one result: half a unit in its last place; int8: int32 sums made float32.
_RESULT_ERROR = {"float32": 2.0**-24, "faiss": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-10, "int8": 2.0**-22}
# Twice the unit of float32: matrix units of GPUs cut where processors round.
_SUM_ERROR = 2.0**-23
# float32 cosine transforms of 2,048 numbers err by some 2e-7 of the row's length; measured errors are enlarged by this.
_TURN_ERROR = 4e-6
# Numbers smaller than the type's smallest normal one may be cut to nothing.
_SMALLEST_RESULT = {"float32": 1e-30, "faiss": 1e-30, "bfloat16": 1e-30, "float16": 2.0**-14, "int8": 1e-30}


def kinds_of(device):
    """The kinds a device can take. On GPUs, faiss needs faiss-gpu, and PyTorch's int8 product wants sizes in
    eights (half types are as fast there)."""
    if device == "cpu":
        return KINDS
    return tuple(kind for kind in KINDS if kind != "int8" and (kind != "faiss" or _faiss_gpus()))


class FirstPass:
    """Rounded copies of `rows` (a DescriptorRows) and their products.

    kind: one of KINDS. folder: where the rounded copy is kept, first_pass.bin (N D bytes for int8, twice that for the
    half types; float32 and faiss, which is float32 too, need none). gallery_block: rows compared at a time.
    """

    def __init__(self, rows, kind, device, folder, longest, gallery_block):
        self.rows, self.kind, self.device = rows, kind, device
        self.gallery_block = gallery_block
        self._longest = longest
        # int8: the size of a step, a number for every row.
        self._steps = np.ones(len(rows), dtype=np.float32)
        self._errors = np.zeros(len(rows))
        self._rounded = None
        if device == "cuda":
            # Partial sums are kept in float32, as the bound says.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._buffers = {}
        if kind in _DTYPES:
            self._rounded = self._round_all(folder)
        self._worst = self._errors.max()

    @property
    def result_error(self):
        """Relative error of every product, besides bound()."""
        return _RESULT_ERROR[self.kind]

    def bound(self, own, others=None):
        """Largest absolute error of the products of the rows `own` [n] with any row, float64 [n], or with the rows
        `others` [n, m], float64 [n, m]."""
        lengths = np.linalg.norm(self.rows[own].astype(np.float64), axis=1)
        own_error, worst = self._errors[own], self._worst
        if others is not None:
            lengths, own_error, worst = lengths[:, None], own_error[:, None], self._errors[others]
        sums = (self.rows.shape[1] + 2) * _SUM_ERROR * (lengths + own_error) * (self._longest + worst)
        return lengths * worst + own_error * (self._longest + worst) + sums + _SMALLEST_RESULT[self.kind]

    def top(self, own, count, advance=lambda share: None):
        """The `count` rows of the largest product with each of the rows `own` -> (products float64 [n, count] falling,
        rows int64 [n, count]). advance(share) is called after each part of the work."""
        queries = self._load(own)
        best = {}
        for start in range(0, len(self.rows), self.gallery_block):
            part = slice(start, min(start + self.gallery_block, len(self.rows)))
            gallery = self._load(part)
            for first in range(0, len(own), QUERIES):
                values, indices = self._top_of(
                    queries[first : first + QUERIES], gallery, part, min(count, part.stop - start)
                )
                indices = indices + start
                if first in best:
                    values, indices = (torch.cat(pair, dim=1) for pair in zip(best[first], (values, indices)))
                    values, chosen = values.topk(min(count, values.shape[1]), dim=1)
                    indices = indices.gather(1, chosen)
                best[first] = values, indices
            advance((part.stop - start) / len(self.rows))
        values, indices = (torch.cat(each).cpu() for each in zip(*best.values()))
        values, order = values.sort(dim=1, descending=True)
        return values.to(torch.float64).numpy() * self._steps[own].astype(np.float64)[:, None], indices.gather(
            1, order
        ).numpy()

    def _top_of(self, queries, gallery, part, count):
        """Products, not yet times the queries' steps, and indices within `part` of the `count` largest."""
        if self.kind == "faiss":
            import faiss

            search = functools.partial(faiss.knn_gpu, _faiss_gpu()) if self.device == "cuda" else faiss.knn
            values, indices = search(queries, gallery, count, metric=faiss.METRIC_INNER_PRODUCT)
            return torch.from_numpy(values), torch.from_numpy(indices)
        size = len(queries), len(gallery)
        if self.kind != "int8":
            return _largest(torch.mm(queries, gallery.t(), out=self._buffer(0, queries.dtype, size)), count)
        # The one product of int8 that PyTorch has; it has no public name.
        product = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
        products = product(queries, gallery.t(), out=self._buffer(0, torch.int32, size))
        values = self._buffer(1, torch.float32, size)
        # Copied first: a product of two types takes three times as long.
        return _largest(values.copy_(products).mul_(torch.from_numpy(self._steps[part])), count)

    def _buffer(self, number, dtype, size):
        """Memory [size] that is used again and again: new memory costs as much as the products."""
        if number not in self._buffers or len(self._buffers[number]) < size[0] * size[1]:
            self._buffers[number] = torch.empty(size[0] * size[1], dtype=dtype, device=self.device)
        return self._buffers[number][: size[0] * size[1]].view(size)

    def _load(self, part):
        if self.kind == "faiss":
            return self.rows[part]
        if self.kind == "float32":
            return _tensor(self.rows[part]).to(self.device)
        assert self._rounded is not None
        rows = torch.from_numpy(self._rounded[part]).view(_DTYPES[self.kind])
        return rows.to(self.device)

    def _round_all(self, folder):
        count, width = self.rows.shape
        number = np.dtype(np.int8 if self.kind == "int8" else np.int16)
        folder.mkdir(parents=True, exist_ok=True)
        rounded = np.memmap(folder / "first_pass.bin", number, "w+", shape=(count, width))
        take_room(folder / "first_pass.bin")

        def work(part):
            raw = self.rows[part]
            if self.kind == "int8":
                raw = _turned(raw)
                self._steps[part] = np.maximum(raw.max(axis=1), -raw.min(axis=1)) / 127
                step = np.maximum(self._steps[part], np.finfo(np.float32).tiny)[:, None]
                near = np.rint(raw / step)
                rounded[part] = np.clip(near, -127, 127, out=near)
                near *= self._steps[part][:, None]
            else:
                near = _tensor(raw).to(_DTYPES[self.kind])
                rounded[part] = near.view(torch.int16).numpy()
                near = near.float().numpy()
            turn = _TURN_ERROR * _lengths(raw) if self.kind == "int8" else 0
            self._errors[part] = 1.00001 * _lengths(raw - near) + turn

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for block in self.rows.shown_blocks(f"rounding to {self.kind}"):
                # Pieces that stay in the processor's cache between the steps.
                list(
                    threads.map(
                        work,
                        (slice(start, min(start + 128, block.stop)) for start in range(block.start, block.stop, 128)),
                    )
                )
        return rounded


def fastest_kind(width, device):
    """The reduced kind whose products of `width` numbers take the least time here; float32 where none is at least
    1.25 times as fast."""
    rows, columns = (512, 4096) if device == "cpu" else (4096, 32768)
    types = {kind: _DTYPES.get(kind, torch.float32) for kind in kinds_of(device) if kind != "faiss"}
    return fastest_type(types, device, (rows, width, columns), repeats=3, worth=1.25, transposed=True)


def _largest(values, count):
    """The `count` largest values of each row and their indices, in any order: among the groups of columns with the
    largest maxima, which are found faster than single values."""
    groups = values.shape[1] // _GROUP
    if groups < 2 * count:
        return values.topk(count, dim=1, sorted=False)
    if values.dtype == torch.float32 and values.device.type == "cpu":
        found = np.empty((len(values), count), np.float32), np.empty((len(values), count), np.int64)
        table = values.numpy()
        # In one thread: each call is too short for two to take turns.
        for row in range(len(table)):
            _largest_of_row(table[row], found[0][row], found[1][row])
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])
    whole = values[:, : groups * _GROUP].unflatten(1, (groups, _GROUP))
    best = whole.amax(dim=2).topk(count, dim=1, sorted=False).indices
    rest = torch.arange(groups * _GROUP, values.shape[1], device=values.device).expand(len(values), -1)
    inside = torch.arange(_GROUP, device=values.device)
    indices = torch.cat([(best[:, :, None] * _GROUP + inside).flatten(1), rest], dim=1)
    values, chosen = values.gather(1, indices).topk(count, dim=1, sorted=False)
    return values, indices.gather(1, chosen)


def _largest_of_row(row, values, indices):
    """_largest() of one row [m] by NumPy, whose partitions are vectorised; fills values and indices [count]."""
    count, groups = len(values), len(row) // _GROUP
    maxima = row[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    # So many groups, and so at least as many columns, reach it.
    least = np.partition(maxima, groups - count)[groups - count]
    found = np.flatnonzero(row >= least)
    best = row[found]
    if len(found) > count:
        chosen = np.argpartition(best, len(found) - count)[len(found) - count :]
        found, best = found[chosen], best[chosen]
    values[:], indices[:] = best, found


def _tensor(rows):
    """A tensor over the memory of rows, which may be a file's that is only read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(rows)


def _lengths(rows):
    """Of rows [n, D], float64 [n], a little more than they are: float32 sums of D squares err by less."""
    # The last term stands for squares too small for float32.
    return np.sqrt(np.vecdot(rows, rows).astype(np.float64) * (1 + (rows.shape[1] + 2) * 2.0**-24)) + 1e-20


def _turned(rows: np.ndarray) -> np.ndarray:
    # Once would leave rows that are large in neighbouring coordinates, as principal components are, uneven.
    import scipy.fft

    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (2, rows.shape[1]))
    for each in signs:
        rows = np.asarray(scipy.fft.dct(rows * each, axis=1, norm="ortho", overwrite_x=True))
    return rows


def _faiss_gpus() -> int:
    # What a GPU does needs no faiss, which is imported where it is used.
    if importlib.util.find_spec("faiss") is None:
        return 0
    import faiss

    return faiss.get_num_gpus()


def _faiss_gpu():
    import faiss

    if not hasattr(_faiss_gpu, "resources"):
        _faiss_gpu.resources = faiss.StandardGpuResources()
    return _faiss_gpu.resources
