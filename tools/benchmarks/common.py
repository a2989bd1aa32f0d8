"""What the benchmarks of tools/benchmark.py share: options, timing, memory, made-up rows, tables, and the machine
measured on."""

import argparse
import multiprocessing
import operator
import os
import platform
import resource
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rrt.errors import InputError, check_count
from rrt.evaluation.tables import padded
from rrt.progress import bar

# Of local descriptors, 1 / image scale as DELG stores it.
SCALES = np.array([4, 2.828427, 2, 1.4142135, 1, 0.70710677, 0.5], np.float32)
_COMPARISONS = {">=": operator.ge, "<=": operator.le}


class Row(NamedTuple):
    """A figure. value: None when it could not be measured (the note says why). target: `>= 10`, `<= 0.5`, or empty."""

    label: str
    value: float | None
    unit: str
    note: str = ""
    target: str = ""

    @property
    def met(self):
        """Whether the target is met; None without a target or a value."""
        if not self.target or self.value is None:
            return None
        comparison, number = self.target.split()
        return _COMPARISONS[comparison](self.value, float(number))


def add_options(parser, *names, quick):
    """Those of device, dir and seed that a benchmark has, and --quick. quick: what it then measures."""
    if "dir" in names:
        parser.add_argument("--dir", help="folder for what is written and removed (default: the system's)")
    if "device" in names:
        parser.add_argument("--device", type=usable_device, default=best_device())
    if "seed" in names:
        parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help=f"{quick}, to see that it works; the figures mean nothing")


def check_counts(args, *names):
    """InputError unless each of these options is an integer of at least 1."""
    for name in names:
        check_count(name, getattr(args, name))


def in_new_process(function, *arguments):
    """What a function of a module returns that a process of its own calls, whose memory is that of the call alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def median_seconds(functions, arguments):
    """{name: median wall seconds of function(argument)} of functions {name: function} that take turns over `arguments`.

    Taking turns, they meet the same disturbances of a busy machine.
    """
    times = {name: [] for name in functions}
    for argument in bar(arguments, "taking turns", "turn", passing=True):
        for name, function in functions.items():
            began = time.perf_counter()
            function(argument)
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def best_device():
    """ "cuda" where PyTorch can use a GPU, else "cpu"."""
    from rrt.devices import choose_device  # not every benchmark has torch in its process

    return choose_device()


def usable_device(name):
    """The value of an option --device: cpu, cuda, cuda:1; refused where there is no such device."""
    from rrt.devices import choose_device

    try:
        return choose_device(name, "--device")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class PeakMemory:
    """The most anonymous memory, in MB, that this process holds within `with` blocks: peak, beyond what it held when
    this was made; total, all."""

    def __init__(self):
        self._before = anonymous_bytes() / 1e6
        self.peak, self.total = 0.0, self._before

    def __enter__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.02):
            self.total = max(self.total, anonymous_bytes() / 1e6)
            self.peak = self.total - self._before


def peak_memory():
    """The most that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def anonymous_bytes(process="self"):
    """What a process holds beside what the page cache could drop: its own memory and what it shares."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def unit_rows(generator, count, width):
    """Random unit rows float32 [count, width]."""
    return unit(generator.standard_normal((count, width), np.float32))


def unit(rows):
    """The rows, none of them zero, divided by their length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clustered_rows(generator, count, width, decay):
    """Unit rows [count, width] of landmarks of 10 to 30 images each in random order, similar by 0.6 within one."""
    scale = np.float32(np.arange(1, width + 1) ** (-decay / 2))
    sizes = generator.integers(10, 31, count // 10 + 1)
    landmark = generator.permutation(np.repeat(np.arange(len(sizes)), sizes)[:count])
    centres = generator.standard_normal((len(sizes), width), np.float32)
    rows = np.empty((count, width), np.float32)
    for start in range(0, count, 4096):
        own = landmark[start : start + 4096]
        rows[start : start + 4096] = unit(
            (centres[own] + 0.8 * generator.standard_normal((len(own), width), np.float32)) * scale
        )
    return rows


def exact_products(table, query):
    """float64 [N]: products of all rows of a table, read in blocks, with a query."""
    query = query.astype(np.float64)
    blocks = (table[start : start + 4096].astype(np.float64) for start in range(0, len(table), 4096))
    return np.concatenate([np.vecdot(block, query) for block in blocks])


def format_rows(rows):
    """The rows as a table in Markdown."""
    cells = [("what", "value", "unit", "target", "met", "note")]
    cells += [
        (
            row.label,
            "-" if row.value is None else f"{row.value:.4g}",
            row.unit,
            row.target,
            {True: "yes", False: "no", None: ""}[row.met],
            row.note,
        )
        for row in rows
    ]
    return padded(cells, len(cells[0]))


def format_figures(rows):
    """Rows labelled `way: figure` as a table in Markdown with a row a way and a column a figure; a target stands with
    its value, notes below."""
    ways, figures = (list(dict.fromkeys(row.label.split(": ")[part] for row in rows)) for part in (0, 1))
    units = {row.label.split(": ")[1]: row.unit for row in rows}
    found = {row.label: row for row in rows}
    cells = [("way", *(f"{figure} ({units[figure]})" if units[figure] else figure for figure in figures))]
    for way in ways:
        line = [found.get(f"{way}: {figure}") for figure in figures]
        cells.append((way, *("" if row is None else _figure(row) for row in line)))
    notes = [f"{row.label}: {row.note}" for row in rows if row.note]
    return "\n".join([padded(cells, len(cells[0])), *notes])


def _figure(row):
    value = "-" if row.value is None else f"{row.value:.4g}"
    return value if row.met is None else f"{value} ({row.target}: {'yes' if row.met else 'no'})"


def machine():
    """{what: text or number} of this machine and the libraries that matter."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
