"""Commands whose settings are given as `with setting=value`: what they are, before any library is loaded for them.

A run is Sacred's (`rrt.command_line.sacred_runs`), which records it; where Sacred is not installed it is a plain one
(`rrt.command_line.plain_runs`), which does not. Help needs neither.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rrt.command_line.parser import QUIET_HELP, as_called, called_as, ended_in_a_line, expand_home
from rrt.progress import set_quiet

ROOT = Path(__file__).resolve().parents[2]
Entries = dict[str, Any]

_OPTIONS = {
    "-h, --help": "this text",
    "-Q, --quiet": QUIET_HELP,
    "-F, --file_storage DIR": "record the run in this folder (default: its temp_dir, where it has one)",
    "-m, --mongo_db [HOST:PORT:]DB": "record it in a MongoDB",
    "-u, --unobserved": "do not record it",
    "-p, --print-config": "print all settings before it begins",
    "-d, --debug": "show the traceback of every error",
}


class Described(dict):
    """{setting: (default, meaning)}; a default that follows from others is a function of {name: value}."""

    def plain(self) -> Entries:
        """{setting: default} of those that follow from nothing."""
        return {name: default for name, (default, _) in self.items() if not callable(default)}

    def derived(self) -> dict[str, Callable[[Entries], Any]]:
        """{setting: what it follows from}."""
        return {name: default for name, (default, _) in self.items() if callable(default)}


class Ingredient:
    """A part of the settings, ``path.NAME`` on command lines, with named configurations ``path.CONFIGURATION``."""

    def __init__(self, path: str):
        self.path = path
        self._configs: list[Described | Callable[[], Entries]] = []
        self.named: dict[str, Entries] = {}

    def add_config(self, entries: Entries | Callable[[], Entries]) -> None:
        """More settings with their defaults; a function is called when they are needed."""
        self._configs.append(entries if callable(entries) else Described({k: (v, "") for k, v in entries.items()}))

    def add_settings(self, described: dict[str, tuple]) -> None:
        """More settings {name: (default, meaning)}. A default that follows from others is a function of {name: value},
        which holds what the user gave."""
        self._configs.append(Described(described))

    def add_named_config(self, name: str, entries: Entries) -> None:
        """A configuration that a command line picks by its name."""
        self.named[name] = entries

    def configs(self) -> Iterator[Described]:
        """What was added, in this order."""
        for config in self._configs:
            yield config if isinstance(config, Described) else Described({k: (v, "") for k, v in config().items()})


class Command(Ingredient):
    """An experiment of Sacred that is made when it is first needed: what is not found here is looked for there.

    ingredients: other parts of the settings; module: {name: value} of the module it is defined in, whose docstring is
    its help; uses: modules that it imports only when it runs, whose sources a record holds, too.
    """

    def __init__(self, name: str, ingredients: Sequence[Ingredient], module: dict[str, Any], uses: Sequence[str] = ()):
        super().__init__("")
        self.name, self.ingredients, self.module, self.uses = name, list(ingredients), module, uses
        self.function: Callable | None = None

    @property
    def doc(self) -> str:
        """The docstring of its module."""
        return self.module.get("__doc__") or ""

    def main(self, function: Callable) -> Callable:
        """Decorates what runs; its arguments are names of settings, `_config` for all of them, `_run` for the run."""
        self.function = function
        return function

    def load(self) -> None:
        """Import what it uses."""
        for name in self.uses:
            self.module[name] = import_module(name)

    @cached_property
    def experiment(self) -> Any:
        """The experiment of Sacred."""
        from rrt.command_line.sacred_runs import as_experiment

        self.load()
        return as_experiment(self)

    def add_artifact(self, path) -> None:
        """A file that a record keeps; nothing where the run is not recorded."""
        if "experiment" in vars(self):
            self.experiment.add_artifact(path)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.experiment, name)

    def help_text(self, program: str) -> str:
        """What --help prints."""
        usage = [
            f"{program} [(with UPDATE...)] [options]",
            f"{program} print_config [(with UPDATE...)]",
            f"{program} (-h | --help)",
        ]
        lines = ["Usage:", *(f"  {line}" for line in usage), "", self.doc.strip(), "", "Settings, as name=value:"]
        for part in [self, *self.ingredients]:
            prefix = part.path and f"{part.path}."
            for described in part.configs():
                for name, (default, meaning) in described.items():
                    value = "" if callable(default) else repr(default)
                    lines.append(f"  {prefix}{name}={value}" + f"  {meaning}" * bool(meaning))
        named = [f"{part.path}.{name}" for part in self.ingredients for name in part.named]
        if named:
            lines += ["", "Named configurations, each some settings at once:", f"  {', '.join(named)}"]
        lines += ["", "Options:", *(f"  {option:<32}{meaning}" for option, meaning in _OPTIONS.items())]
        return as_called("\n".join(lines), program)


def make_experiment(name: str, ingredients: Sequence[Ingredient] = (), uses: Sequence[str] = ()) -> Command:
    """A Command for the calling module; see there.

    Run it with run_sacred, or from Python with `command.run(config_updates={...})`, which raises InputError as it
    comes and records nothing.
    """
    return Command(name, ingredients, sys._getframe(1).f_globals, uses)


def run_sacred(command: Command, argv=None):
    """Run the command line (default sys.argv); what a user got wrong ends as one line `error: ...`.

    The run is recorded (FileStorage) in the folder of `-F DIR`, or in the MongoDB of `-m [HOST:PORT:]DB` and in files
    where that fails, or without either in its temp_dir where it has one; `-u` records nothing. An InputError or OSError
    of the command marks the run FAILED in its record. An unexpected exception keeps its traceback, and `-d` (debug)
    shows one for every error.
    """
    with ended_in_a_line():
        return _run(command, expand_home([str(word) for word in (sys.argv if argv is None else argv)]))


def _run(command, argv):
    set_quiet(False)  # of an earlier command of this process
    if argv[1:] and all(word in ("-h", "--help", "help") for word in argv[1:]):
        print(command.help_text(called_as(argv[0])))
        sys.exit(0)
    if find_spec("sacred") is None:
        from rrt.command_line.plain_runs import run_plain

        return run_plain(command, argv)
    from rrt.command_line.sacred_runs import run_recorded

    return run_recorded(command.experiment, argv)


def is_first_process() -> bool:
    """Whether this process is the only one, or of those of torchrun the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"
