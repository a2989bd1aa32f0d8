"""Settings of files and of the command line as plain values: numbers, texts, lists and dicts, never code.

Sacred decodes `with FILE.json` and `with name=value` with jsonpickle, `with FILE.pickle` with pickle, and fills in a
template.html that lies in the folder of `-F`: each runs what it finds there. ``keep_sacred_plain`` has it use the
functions of this module instead.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import warnings
from collections.abc import Iterable
from typing import IO, Any

import yaml

from rrt.errors import InputError, first_line

SUFFIXES = (".json", ".yaml", ".yml")
_PLAIN = (str, int, float, bool, type(None))
_DEEPEST = 50
_KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "a text", dict: "a dict", list: "a list"}


def keep_sacred_plain() -> None:
    """Replace every reader of Sacred that can run code."""
    with warnings.catch_warnings():  # as in rrt.command_line.sacred_runs
        warnings.simplefilter("ignore")
        from sacred import arg_parser
        from sacred.config import config_files
        from sacred.observers import FileStorageObserver

    config_files.HANDLER_BY_EXT.clear()
    config_files.HANDLER_BY_EXT.update(
        {suffix: config_files.Handler(read_settings_file, _refuse_to_write, "b") for suffix in SUFFIXES}
    )
    arg_parser._convert_value = plain_literal
    FileStorageObserver.render_template = lambda self: None


def read_settings_file(file: IO[bytes]) -> dict[str, Any]:
    """The settings in an open file of JSON or YAML, whose suffix says which; InputError naming it otherwise."""
    path = file.name
    try:
        text = file.read().decode("utf-8-sig")
        values = json.loads(text) if path.endswith(".json") else yaml.load(text, _PlainLoader)
    except RecursionError:
        raise InputError(f"{path}: nested too deeply for settings; at most {_DEEPEST} levels") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in UTF-8; save it as plain JSON or YAML") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{path}: {line}{error.problem or error.context}; plain YAML is needed") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {first_line(error)}; plain JSON or YAML is needed") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings; a table of name: value is needed")
    return check_settings(values, path)


def wrong_kind(name: str, value: Any, expected: type) -> InputError:
    """The error of a setting of another kind than its default."""
    remedy = f"; in quotes it is one: \"{name}='{value}'\"" if expected is str else ""
    return InputError(f"setting {name}={value!r}: expected {_KINDS.get(expected, expected.__name__)}{remedy}")


def suggest(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is unknown, and what is known."""
    listing = sorted(known)
    meant = "".join(f"did you mean {close!r}? " for close in difflib.get_close_matches(name, listing, n=1))
    return meant + f"known: {', '.join(listing) or 'none'}"


def plain_literal(text: str) -> Any:
    """The value of `name=text`: a literal of Python, or the text itself; `~/` is the user's folder."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        value = text
    except (MemoryError, RecursionError):
        raise InputError(f"{text[:40]}...: nested too deeply for a setting; at most {_DEEPEST} levels") from None
    return check_settings(value, text if len(text) < 80 else text[:80] + "...")


class _PlainLoader(yaml.SafeLoader):
    """Without names for parts, of which a few lines can make more values than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="a reference (*name); write its value out", problem_mark=mark)
        return super().compose_node(parent, index)


def check_settings(value: Any, where: str, name: str = "", depth: int = 0) -> Any:
    """A value of settings, or all of them, with `~/` as the user's folder and tuples as lists; InputError naming
    ``where``, and what is not plain or Sacred has no place for."""
    if depth > _DEEPEST:
        raise InputError(f"{where}: nested too deeply for a setting; at most {_DEEPEST} levels")
    if name == "seed" and not isinstance(value, int | None):
        raise InputError(f"setting seed={value!r}: expected an integer")
    if isinstance(value, dict):
        checked = [(key, each) for key, each in value.items() if _checked_name(key, where)]
        return {key: check_settings(each, where, key, depth + 1) for key, each in checked}
    if isinstance(value, list | tuple):
        return [check_settings(each, where, "", depth + 1) for each in value]
    if not isinstance(value, _PLAIN):
        raise InputError(
            f"{where}: a setting cannot be of type {type(value).__name__}; give a number, a list, a dict, or a text "
            "in quotes"
        )
    return os.path.expanduser(value) if isinstance(value, str) and re.match(r"~(/|$)", value) else value


def _checked_name(name: Any, where: str) -> bool:
    """True, or InputError for a name that Sacred has no place for, such as those with which jsonpickle marks code."""
    if not isinstance(name, str) or not name or name.startswith(("$", "py/", "json://")) or "=" in name:
        raise InputError(f"{where}: {name!r} cannot be the name of a setting; give a text of letters")
    if "." in name:
        first, _, rest = name.partition(".")
        raise InputError(f"{where}: {name!r} cannot be the name of a setting; write {{{first}: {{{rest}: ...}}}}")
    return True


def _refuse_to_write(config: Any, file: Any) -> None:
    raise InputError(f"{file.name}: settings are read from such files, not written")
