"""Settings of files and of the command line as plain values: numbers, texts, lists and dicts, never code.

Sacred decodes `with FILE.json` and `with name=value` with jsonpickle, `with FILE.pickle` with pickle, and fills in a
template.html that lies in the folder of `-F`: each runs what it finds there. ``keep_sacred_plain`` has it use the
functions of this module instead.
"""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from typing import IO, Any

import yaml

from rrt.errors import InputError, first_line

SUFFIXES = (".json", ".yaml", ".yml")
_PLAIN = (str, int, float, bool, type(None))
_DEEPEST = 50


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


def plain_literal(text: str) -> Any:
    """The value of `name=text`: a literal of Python, or the text itself; `~/` is the user's folder."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        value = text
    except (MemoryError, RecursionError):
        raise InputError(f"{text[:40]}...: nested too deeply for a setting; at most {_DEEPEST} levels") from None
    return _plain(value, text if len(text) < 80 else text[:80] + "...")


def check_settings(values: dict, where: str) -> dict:
    """The settings with `~/` as the user's folder and tuples as lists; InputError naming ``where`` and what Sacred has
    no place for."""
    return _plain(values, where)


class _PlainLoader(yaml.SafeLoader):
    """Without names for parts, of which a few lines can make more values than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="a reference (*name); write its value out", problem_mark=mark)
        return super().compose_node(parent, index)


def _plain(value: Any, where: str, name: str = "", depth: int = 0) -> Any:
    """The value if nothing but plain ones is in it, tuples as lists; InputError naming where it stands."""
    if depth > _DEEPEST:
        raise InputError(f"{where}: nested too deeply for a setting; at most {_DEEPEST} levels")
    if name == "seed" and not isinstance(value, int | None):
        raise InputError(f"setting seed={value!r}: expected an integer")
    if isinstance(value, dict):
        return {key: _plain(each, where, key, depth + 1) for key, each in value.items() if _checked_name(key, where)}
    if isinstance(value, list | tuple):
        return [_plain(each, where, "", depth + 1) for each in value]
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
