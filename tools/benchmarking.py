"""What the benchmarks of tools/benchmark.py share: timing, rows of a table, and the machine they were measured on."""

import argparse
import operator
import os
import platform
import statistics
import time
from typing import NamedTuple

import numpy as np

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


def median_seconds(functions, arguments):
    """{name: median wall seconds of function(argument)} of functions {name: function} that take turns over `arguments`.

    Taking turns, they meet the same disturbances of a busy machine.
    """
    times = {name: [] for name in functions}
    for argument in arguments:
        for name, function in functions.items():
            began = time.perf_counter()
            function(argument)
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def best_device():
    """"cuda" where PyTorch can use a GPU, else "cpu"."""
    import torch  # not every benchmark has it in its process

    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name):
    """The value of an option --device: cpu, cuda, cuda:1; refused where there is no such device."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        raise argparse.ArgumentTypeError(f"{name!r}: no such device here; give cpu, or cuda where there is a GPU") from None
    return name


def format_rows(rows):
    """The rows as a table in Markdown."""
    cells = [("what", "value", "unit", "target", "met", "note")]
    cells += [(row.label, "-" if row.value is None else f"{row.value:.4g}", row.unit, row.target,
               {True: "yes", False: "no", None: ""}[row.met], row.note) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells)


def machine():
    """{what: text or number} of this machine and the libraries that matter."""
    return {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system(),
            "python": platform.python_version(), "numpy": np.__version__}
