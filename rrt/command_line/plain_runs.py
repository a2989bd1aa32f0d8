"""Runs of commands of settings where Sacred is not installed: the same settings and errors, without a record."""

import inspect
import sys
from typing import Any

from rrt.command_line.parser import run_command
from rrt.command_line.plain_settings import SUFFIXES, plain_literal, read_settings_file, suggest, wrong_kind
from rrt.command_line.sacred import Command, Entries
from rrt.errors import InputError
from rrt.extras import pip_line
from rrt.progress import set_quiet

_QUIET, _UNRECORDED, _PRINTED, _DEBUG = ("-Q", "--quiet"), ("-u", "--unobserved"), ("-p", "--print-config"), "-d"


class PlainRun:
    """What a command finds as `_run`: its results and scalars go nowhere."""

    def __init__(self):
        self.info: dict[str, Any] = {}

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Nothing keeps it."""


def run_plain(command: Command, argv: list[str]) -> Any:
    """Run a command line; the process ends with one line where it is wrong. Returns what the command returned."""
    words, updates = argv[1:], []
    if "with" in words:
        words, updates = words[: words.index("with")], words[words.index("with") + 1 :]
        words += [word for word in updates if word.startswith("-")]
        updates = [word for word in updates if not word.startswith("-")]
    printed = False
    for word in words:
        if word in _QUIET:
            set_quiet(True)
        elif word in _PRINTED or word == "print_config":
            printed = True
        elif word not in (*_UNRECORDED, _DEBUG, "--debug", "main", command.name):
            _exit(_refused(word, argv[0]))
    result = []

    def run():
        config = settings_of(command, updates)
        if printed:
            print("\n".join(f"{name} = {value!r}" for name, value in _flat(config)))
        if "print_config" not in words:
            command.load()
            result.append(_called(command, config))

    if _DEBUG in words or "--debug" in words:
        run()
        return result
    try:
        run_command(run)
    except SystemExit as ended:
        if ended.code:
            raise
    return result[0] if result else None


def _refused(word: str, program: str) -> str:
    if word.startswith("-"):
        remedy = pip_line("experiments")
        return f"{word}: needs Sacred, which records runs: {remedy}; without it there are -h, -Q, -p, -d and -u"
    hint = f"settings come after the word with: {program} with {word}" if "=" in word else "known: main, print_config"
    return f"unknown command {word!r}; {hint}"


def _called(command: Command, config: Entries) -> Any:
    assert command.function is not None  # every command decorates it
    known = {**config, "_config": config, "_run": PlainRun()}
    return command.function(**{name: known[name] for name in inspect.signature(command.function).parameters})


def settings_of(command: Command, updates: list[str]) -> Entries:
    """All settings of a command, those of its ingredients as a dictionary of each. updates: `name=value`, or a named
    configuration. Raises InputError for what there is not, or is of another kind."""
    files = [word for word in updates if word.endswith(SUFFIXES) and "=" not in word]
    given = [setting for path in files for setting in _read_file(path)]
    given += [_read(word) for word in updates if "=" in word]
    named = [word for word in updates if "=" not in word and word not in files]
    config: Entries = {}
    for part in [*command.ingredients, command]:
        prefix = f"{part.path}." if part.path else ""
        own: Entries = {}
        chosen = [(name[len(prefix) :], value) for name, value in given if name.startswith(prefix)]
        for described in part.configs():
            own |= described.plain()
            known = own | {name: value for name, value in chosen if "." not in name}
            own |= {name: follows(known) for name, follows in described.derived().items()}
        if part.path:
            config[part.path] = own
        else:
            config |= own
    for name in named:
        owner, _, last = name.partition(".")
        part = next((part for part in command.ingredients if part.path == owner and last in part.named), None)
        if part is None:
            known = [f"{part.path}.{name}" for part in command.ingredients for name in part.named]
            raise InputError(
                f"unknown named configuration {name!r} (a setting needs name=value); {suggest(name, known)}"
            )
        config[owner] |= part.named[last]
    for name, value in given:
        _set(config, name, value, [part.path for part in command.ingredients])
    return config


def _read(word: str) -> tuple[str, Any]:
    name, _, text = word.partition("=")
    return name, plain_literal(text)


def _read_file(path: str) -> list[tuple[str, Any]]:
    try:
        with open(path, "rb") as file:
            return _flat(read_settings_file(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of settings") from None


def _set(config: Entries, name: str, value: Any, parts: list[str]) -> None:
    *owners, last = name.split(".")
    place = config
    for owner in owners:
        place = place.get(owner) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        prefix = f"{owners[0]}." if owners and isinstance(config.get(owners[0]), dict) else ""
        known = [each for each, _ in _flat(config) if each.startswith(prefix)]
        if not prefix:
            known = [each for each in known if each.partition(".")[0] not in parts]
        raise InputError(f"unknown setting {name!r}; {suggest(name, known)}")
    default = place[last]
    if None not in (default, value) and type(default) is not type(value):
        if {type(default), type(value)} not in ({int, float}, {list, tuple}):
            raise wrong_kind(name, value, type(default))
    place[last] = default | value if isinstance(default, dict) and isinstance(value, dict) else value


def _flat(config: Entries, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _exit(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
