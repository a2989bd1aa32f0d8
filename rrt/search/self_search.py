"""Exact nearest neighbours of all rows among themselves, for tables that do not fit in memory.

A first pass in a fast number type (rrt/search/first_pass.py) finds candidates and an upper bound of every similarity.
The best k of them are computed again; the k-th value so found is a lower bound of the true k-th, so that only
candidates whose upper bound reaches it can belong to the answer. They are computed again, too. Where what was not kept
could still reach it, the row is searched again in float64 over all rows. The answer is that of similarities in float64,
equal ones (exact duplicates) by index, whatever the first pass, the blocks or the machine.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rrt.devices import choose_device
from rrt.errors import InputError, check_count
from rrt.files.machine import usable_cores
from rrt.progress import bar
from rrt.search.first_pass import KINDS, QUERIES, FirstPass, fastest_kind, kinds_of
from rrt.search.rows import DescriptorRows, summarize_rows

# Candidates a row that a first pass may need before the rows concerned are better searched again.
WIDEST = 1024
# Rows looked at to see how many candidates a first pass needs.
_SAMPLE = 128
# On a processor, products of so few rows do not take the most of the time (tools/benchmark.py topk).
_FEW = 20_000
# float32 sums of this many products have a small proven error; their totals are float64.
_CHUNK = 128
_CHUNK_ERROR = (_CHUNK + 1) * 2.0**-24
_ROWS_PER_TASK = 64


def check_search_settings(k, first_pass, device, memory_mb):
    """The device to use, "cpu" or "cuda", for settings of SelfSearch. Raises InputError for those that cannot be."""
    for name, value in (("k", k), ("memory_mb", memory_mb)):
        check_count(name, value)
    if first_pass not in ("auto", *KINDS):
        raise InputError(f"setting first_pass={first_pass!r}: expected auto, {', '.join(KINDS)}")
    device = choose_device(device)
    if first_pass not in ("auto", *kinds_of(device)):
        raise InputError(f"setting first_pass={first_pass}: not on this GPU; give float16 or auto, or device=cpu")
    return device


def plan_memory(shape, block, memory_mb, k=100):
    """(gallery rows compared at a time, threads) for a table of this shape, searched in blocks of so many rows. Raises
    InputError when memory_mb is too little."""
    count, width = shape
    block, total = min(block, count), memory_mb * 10**6
    candidates = min(max(WIDEST, k + 1), count)
    a_thread = 12 * candidates * width
    queries = block * (8 * width + 60 * candidates)
    # Products, and the gallery's rows as read and as rounded.
    a_row = 12 * min(block, QUERIES) + 6 * width
    least = queries + a_thread + a_row * min(count, 2 * WIDEST)
    if least > total:
        raise InputError(
            f"setting memory_mb={memory_mb}: blocks of {block} images of {width} dimensions need"
            f" {-(-least // 10**6)}; give more, or a smaller block"
        )
    threads = max(1, min(usable_cores(), total // 4 // a_thread))
    # Longer gallery blocks than that gain nothing.
    return min(count, 65536, max(2 * WIDEST, (total - queries - threads * a_thread) // a_row)), threads


class SelfSearch:
    """The k nearest other rows of rows of one table.

    rows: DescriptorRows or array [N, D], N >= 2. k: at most N - 1 are found. first_pass: float32, faiss (float32, too),
    bfloat16, float16, int8, or auto, the fastest on this machine for these rows. device: auto, cpu or cuda, of the
    first pass. memory_mb: of the search's own arrays (not of the page cache, through which rows are read); block: rows
    asked for at a time, at most. folder: for the rounded copy of the rows (N D to 2 N D bytes). summary: of
    summarize_rows, when at hand. Raises InputError for settings that cannot be and too little memory.

    kind: the first pass in use. keep: candidates kept a row. computed_again, searched_again: pairs and rows so far.
    """

    def __init__(self, rows, k, folder, first_pass="auto", device="auto", memory_mb=2000, block=4096, summary=None):
        check_count("block", block)
        self._device = check_search_settings(k, first_pass, device, memory_mb)
        self.rows = rows if isinstance(rows, DescriptorRows) else DescriptorRows(np.asarray(rows))
        if len(self.rows) < 2:
            raise InputError("neighbours among themselves need at least two images")
        self.k = min(k, len(self.rows) - 1)
        self.keep = 0
        self._bytes = memory_mb * 10**6
        self._block = min(block, len(self.rows))
        self._gallery_block, threads = plan_memory(self.rows.shape, block, memory_mb, k)
        self._summary = summary or summarize_rows(self.rows)
        self._folder = folder
        self._threads, self._own = ThreadPoolExecutor(threads), threading.local()
        self.computed_again = self.searched_again = 0
        self._choose(first_pass)

    def search(self, own, advance=lambda share: None):
        """Neighbours of the rows `own` (a slice or numbers) by falling similarity -> int64 [n, k]. advance(share) is
        called as the work goes on; the shares add up to 1."""
        own = np.arange(len(self.rows))[own]
        found = np.empty((len(own), self.k), dtype=np.int64)
        for start in range(0, len(own), self._block):
            part = own[start : start + self._block]
            share_of_all = len(part) / len(own)
            table, lowest, sure, _ = self._try(
                part, self.keep, lambda share, of_all=share_of_all: advance(share * of_all)
            )
            again = np.flatnonzero(~sure)
            if 0 < len(again) <= len(part) // 10:
                # Few rows of unusually many close neighbours: more candidates cost less than float64 over all rows.
                table[again], lowest[again], sure[again], _ = self._try(part[again], WIDEST)
                again = again[~sure[again]]
            if len(again):
                table[again] = self._search_all(part[again], lowest[again])
            self.searched_again += len(again)
            found[start : start + len(part)] = table
        return found

    def _choose(self, first_pass):
        if first_pass == "auto":
            few = self._device == "cpu" and len(self.rows) < _FEW
            kind = "float32" if few else fastest_kind(self.rows.shape[1], self._device)
            self._use(kind)
            if kind != "float32" and self._unsure > 0.02:
                # What is searched again costs more than float32 products of all.
                self._use("float32")
        else:
            self._use(first_pass)

    def _use(self, kind):
        self.kind = kind
        self._pass = FirstPass(self.rows, kind, self._device, self._folder, self._summary.longest, self._gallery_block)
        sample = np.unique(np.linspace(0, len(self.rows) - 1, _SAMPLE).astype(np.int64))
        widest = min(WIDEST, len(self.rows))
        _, _, sure, needed = self._try(sample, widest)
        self._unsure = 1 - sure.mean()
        usual = float(np.quantile(needed[sure], 0.98)) if sure.any() else self.k + 1
        self.keep = min(widest, int(1.15 * usual) + 24)
        self.computed_again = 0

    def _try(self, own, keep, advance=lambda share: None):
        """By the first pass -> (neighbours int64 [n, k], lower bounds of the k-th similarity [n], whether the
        neighbours are sure [n], candidates that had to be kept [n])."""
        products, indices = self._pass.top(own, max(min(keep, len(self.rows)), self.k + 1), advance)
        found = np.zeros((len(own), self.k), dtype=np.int64)
        lowest, sure = np.empty(len(own)), np.empty(len(own), dtype=bool)
        needed, computed = np.empty((2, len(own)), dtype=np.int64)

        def finish(start):
            part = slice(start, start + _ROWS_PER_TASK)
            found[part], lowest[part], sure[part], needed[part], computed[part] = self._finish(
                own[part], indices[part], products[part]
            )

        list(self._threads.map(finish, range(0, len(own), _ROWS_PER_TASK)))
        self.computed_again += int(computed.sum())
        return found, lowest, sure, needed

    def _finish(self, own, indices, products):
        """Neighbours of some rows from their candidates [n, m] by falling product; see _try()."""
        results = self._pass.result_error * np.abs(products)
        bounds = self._pass.bound(own, indices) + results
        # No product of what was not kept is larger than the last one's.
        others = products[:, -1] + results[:, -1] + self._pass.bound(own)
        queries = self.rows[own]
        lengths = np.array([np.linalg.norm(query.astype(np.float64)) for query in queries])
        errors = _CHUNK_ERROR * self._summary.longest * lengths
        itself = indices == own[:, None]
        # What is not computed, and the row itself, is -inf.
        values = np.full(indices.shape, -np.inf)
        count = min(self.k + 1, indices.shape[1])
        for row, query in enumerate(queries):
            values[row, :count] = self._similarities(query, indices[row, :count])
        first = np.where(itself[:, :count], -np.inf, values[:, :count])
        lowest = np.partition(first, count - self.k, axis=1)[:, count - self.k] - errors
        more = products + bounds >= lowest[:, None]
        more[:, :count] = False
        for row in np.flatnonzero(more.any(axis=1)):
            values[row, more[row]] = self._similarities(queries[row], indices[row, more[row]])
        more[:, :count] = True
        sure = (indices.shape[1] == len(self.rows)) | (others < lowest)
        # The bounds are proven; this notices a machine whose products are not what they are proven for.
        astray = np.abs(np.where(more, values, products) - products)
        sure &= (astray <= bounds + errors[:, None]).all(axis=1)
        # As many as a search with no more than necessary would keep.
        needed = np.count_nonzero(products + (others - products[:, -1])[:, None] >= lowest[:, None], axis=1)
        computed = np.count_nonzero(more, axis=1)
        values[itself] = -np.inf
        return self._ranked(queries, indices, values, errors), lowest, sure, needed, computed

    def _similarities(self, query, numbers):
        """Inner products float64 [n] of query [D] with the rows `numbers`, within _CHUNK_ERROR |query| |row|."""
        if not hasattr(self._own, "rows"):
            self._own.rows = np.empty((max(self.keep, WIDEST, self.k + 1), len(query)), np.float32)
        rows = self.rows.take(numbers, self._own.rows)
        whole = len(query) // _CHUNK * _CHUNK
        sums = np.vecdot(rows[:, :whole].reshape(len(rows), -1, _CHUNK), query[:whole].reshape(-1, _CHUNK))
        totals = sums.sum(axis=1, dtype=np.float64)
        return totals if whole == len(query) else totals + np.vecdot(rows[:, whole:], query[whole:])

    def _ranked(self, queries, indices, values, errors):
        """[n, k] of the candidates [n, m] of each query by falling float64 similarity, then by number; values are
        within `errors` [n] of it."""
        each = np.arange(len(queries))[:, None]
        order = np.argsort(-values, axis=1)
        indices, values = indices[each, order], values[each, order]
        reach = np.count_nonzero(values >= (values[:, self.k - 1] - 2 * errors)[:, None], axis=1).max()
        indices, values = indices[:, :reach], values[:, :reach]
        with np.errstate(invalid="ignore"):  # of -inf and -inf
            close = np.diff(values, axis=1) >= -2 * errors[:, None]
        none = np.zeros((len(queries), 1), bool)
        # Only what is next to an almost equal value needs all digits.
        unclear = np.hstack([close, none]) | np.hstack([none, close])
        for row in np.flatnonzero(unclear.any(axis=1)):
            values[row, unclear[row]] = _exact(queries[row], self.rows[indices[row, unclear[row]]])
        return indices[each, np.lexsort((indices, -values), axis=1)[:, : self.k]]

    def _search_all(self, own, lowest):
        """As search(), over float64 products with all rows; lowest: of _try(). Equal rows are computed once."""
        count, width = self.rows.shape
        step = max(1, min(len(own), 256, self._bytes // 4 // (16 * count)))
        gallery = max(64, min(count, self._bytes // 4 // (12 * width + 24 * step)))
        found = np.empty((len(own), self.k), dtype=np.int64)
        for start in range(0, len(own), step):
            part = slice(start, min(start + step, len(own)))
            queries = self.rows[own[part]].astype(np.float64)
            # Rounding of a float64 product of two rows, in any order.
            error = width * 2.0**-52 * self._summary.longest * np.linalg.norm(queries, axis=1) + 1e-300
            enough = (lowest[part] - error)[:, None]
            hits = []
            for block in bar(self.rows.blocks(gallery), "searching again", "block", passing=True):
                query, index = np.nonzero(queries @ self.rows[block].astype(np.float64).T >= enough)
                hits.append((query.astype(np.int32), (index + block.start).astype(np.int64)))
            query, index = (np.concatenate(each) for each in zip(*hits))
            order = np.argsort(query, kind="stable")
            bounds = np.searchsorted(query[order], np.arange(part.stop - part.start + 1))
            for row in range(part.stop - part.start):
                candidates = index[order[bounds[row] : bounds[row + 1]]]
                candidates = candidates[candidates != own[start + row]]
                distinct, which = np.unique(self._summary.first_equal[candidates], return_inverse=True)
                values = np.concatenate(
                    [
                        _exact(queries[row], self.rows[distinct[each : each + WIDEST]])
                        for each in range(0, len(distinct), WIDEST)
                    ]
                )[which]
                found[start + row] = candidates[np.lexsort((candidates, -values))[: self.k]]
        return found


def _exact(query, rows):
    """Inner products in float64, of one row at a time: equal rows get equal values wherever they are."""
    return np.vecdot(rows.astype(np.float64), query.astype(np.float64))
