"""The one error a user can cause, files that are whole or not there, and the frame around every command."""

from dataclasses import fields
from numbers import Real
from typing import get_args


class InputError(ValueError):
    """Something given to the program is wrong: `file: what is wrong with which record; remedy`, always one line."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))


def check_count(name, value):
    """InputError unless the setting is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"setting {name}={value!r}: expected an integer of at least 1")


def check_types(settings, prefix=""):
    """InputError naming the first field of a dataclass of settings whose value is not of the type it is annotated with.

    Whole numbers are fit for float, lists for tuple, and True and False for bool alone. prefix: of the settings' names.
    """
    for entry in fields(settings):
        value, kinds = getattr(settings, entry.name), get_args(entry.type) or (entry.type,)
        fit = {
            int: isinstance(value, int) and not isinstance(value, bool),
            type(None): value is None,
            float: isinstance(value, (int, float)) and not isinstance(value, bool),
            tuple: isinstance(value, (tuple, list)),
        }
        if not any(fit.get(kind, isinstance(value, kind)) for kind in kinds):
            names = " or ".join(
                {
                    int: "an integer",
                    float: "a number",
                    bool: "True or False",
                    str: "a text",
                    tuple: "a list",
                    type(None): "None",
                }.get(kind, kind.__name__)
                for kind in kinds
            )
            raise InputError(f"setting {prefix}{entry.name}={value!r}: expected {names}")


def check_number(name, value, least=0.0, most=float("inf")):
    """InputError unless the setting is a finite number in least..most."""
    if not isinstance(value, Real) or not least <= value <= most or value == float("inf"):
        bounds = f"of at least {least:g}" if most == float("inf") else f"in {least:g}..{most:g}"
        raise InputError(f"setting {name}={value!r}: expected a number {bounds}")


def describe_error(error):
    """One line for the user from an InputError or an OSError (`file: reason`)."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines()) or type(error).__name__


def check_choice(name: str, value, choices) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r}: choose one of {', '.join(map(str, choices))}")
