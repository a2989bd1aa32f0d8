"""The one error that a user can cause, and the checks of settings that raise it."""

from dataclasses import fields
from numbers import Real
from typing import get_args, get_type_hints


class InputError(ValueError):
    """Something given to the program is wrong: `file: what is wrong with which record; remedy`, always one line."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))


def check_count(name, value):
    """InputError unless the setting is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"setting {name}={value!r}: expected an integer of at least 1")


# {type a setting is annotated with: (what it is called, types that are accepted)}
_KINDS = {
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
    bool: ("True or False", (bool,)),
    str: ("a text", (str,)),
    tuple: ("a list", (tuple, list)),
    type(None): ("None", (type(None),)),
}


def check_types(settings, prefix=""):
    """InputError naming the first field of a dataclass of settings whose value is not of the type it is annotated with.

    Integers are accepted for float, lists for tuple, and True and False for bool alone. prefix: of the settings' names.
    """
    annotated = get_type_hints(type(settings))
    for entry in fields(settings):
        value, wanted = getattr(settings, entry.name), annotated[entry.name]
        kinds = [_KINDS.get(kind, (kind.__name__, (kind,))) for kind in get_args(wanted) or (wanted,)]
        accepted = [kind for _, types in kinds for kind in types]
        if type(value) not in accepted if isinstance(value, bool) else not isinstance(value, tuple(accepted)):
            names = " or ".join(name for name, _ in kinds)
            raise InputError(f"setting {prefix}{entry.name}={value!r}: expected {names}")


def check_number(name, value, least=0.0, most=float("inf")):
    """InputError unless the setting is a finite number in least..most."""
    if not isinstance(value, Real) or not least <= float(value) <= most or value == float("inf"):
        bounds = f"of at least {least:g}" if most == float("inf") else f"in {least:g}..{most:g}"
        raise InputError(f"setting {name}={value!r}: expected a number {bounds}")


def describe_error(error):
    """One line for the user from an InputError or an OSError (`file: reason`)."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines()) or type(error).__name__


def check_choice(name: str, value, choices) -> None:
    """InputError unless the setting is one of the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r}: choose one of {', '.join(map(str, choices))}")
