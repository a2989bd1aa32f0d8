"""Measure how fast parts of this project are on this machine.

    python tools/benchmark.py store
    python tools/benchmark.py store --quick --json store.json

A benchmark NAME is a module tools/benchmarks/NAME.py with HELP (one line), add_arguments(parser) and run(args), which
returns rows (label, value, unit, note, target; see tools/benchmarks/common.py), the last two optional, and, if it
likes, with format_rows(rows), its own table. To add one, name it below.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tools is no installed package

from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError
from rrt.files.atomic import write_json
from rrt.progress import waiting
from tools.benchmarks.common import Row, format_rows, machine

# Imported when called, because some need TensorFlow and others PyTorch.
BENCHMARKS = (
    "cost",
    "duplicates",
    "extract",
    "geometric",
    "input",
    "late",
    "lite0",
    "loader",
    "metrics",
    "photos",
    "rerank",
    "scale",
    "store",
    "topk",
    "train",
    "train_rrt",
)


def load(name):
    """The module of a benchmark. Raises InputError when it or a package it needs is not there."""
    try:
        return importlib.import_module(f"tools.benchmarks.{name}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"benchmark {name}: {error.name} is not installed; install it or measure something else"
        ) from None


def _help_line(name):
    try:
        return f"  {name:10}{load(name).HELP}"
    except InputError as error:
        return f"  {name:10}({error})"


def _chosen():
    """The benchmark named first on the command line; ends with the list of them when there is none."""
    if sys.argv[1:2] == ["--quiet"]:
        sys.argv[1:] = [*sys.argv[2:], "--quiet"]
    if sys.argv[1:2] and sys.argv[1] in BENCHMARKS:
        return sys.argv[1]
    parser = CommandParser(__doc__, epilog="\n".join(["benchmarks:", *map(_help_line, BENCHMARKS)]))
    parser.add_argument("benchmark", choices=BENCHMARKS, help="what to measure; NAME --help shows its own options")
    return parser.parse_args(sys.argv[1:2]).benchmark


def main():
    """Run the benchmark named first on the command line; print its table and write it to --json."""
    name = _chosen()
    module = load(name)
    parser = CommandParser(module.HELP, prog=f"{Path(sys.argv[0]).name} {name}")
    module.add_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    args = parser.parse_args(sys.argv[2:])
    with waiting(f"measuring: {name}"):
        rows = [Row(*row) for row in module.run(args)]
    print(", ".join(f"{what} {value}" for what, value in machine().items()))
    print(getattr(module, "format_rows", format_rows)(rows))
    if args.json:
        write_json(
            Path(args.json),
            {"benchmark": name, "machine": machine(), "rows": [row._asdict() | {"met": row.met} for row in rows]},
        )


if __name__ == "__main__":
    run_command(main)
