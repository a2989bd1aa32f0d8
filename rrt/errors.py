"""The one error that a user can cause, and the checks of settings that raise it."""

from numbers import Real


class InputError(ValueError):
    """Something given to the program is wrong: `file: what is wrong with which record; remedy`, always one line."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))


def check_count(name: str, value) -> int:
    """The value of a setting; InputError unless it is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"setting {name}={value!r}: expected an integer of at least 1")
    return value


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


def first_line(error: BaseException) -> str:
    """What an error of a library says first, at most 200 characters; the name of its kind where it says nothing."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_choice(name: str, value, choices) -> None:
    """InputError unless the setting is one of the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r}: choose one of {', '.join(map(str, choices))}")
