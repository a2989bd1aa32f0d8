"""The one error that a user can cause, and the checks of settings that raise it."""

import errno
import re
from numbers import Integral, Real
from pathlib import Path
from typing import Any

# What libraries count with, and what fits the float32 that descriptors and networks are made of.
LARGEST_COUNT = 2**63 - 1
LARGEST_NUMBER = 3e38


_FULL = {errno.ENOSPC: "no room is left on the disk", errno.EDQUOT: "the disk quota is used up"}
_FULL |= {errno.EFBIG: "the file is larger than is allowed here"}
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


class InputError(ValueError):
    """Something given to the program is wrong: `file: what is wrong with which record; remedy`, always one line."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))


def check_count(name: str, value) -> int:
    """The value of a setting; InputError unless it is an integer of at least 1."""
    number: Any = value  # also one of NumPy
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= number <= LARGEST_COUNT:
        raise InputError(f"setting {name}={value!r}: expected an integer of at least 1")
    return int(number)


def check_least(name: str, value, least: int = 1) -> None:
    """InputError unless the value of an option, ``--NAME`` as a rule, is at least so much, or None."""
    if value is not None and value < least:
        raise InputError(f"{name} {value}: expected {least} or more")


def check_number(name, value, most=float("inf")):
    """InputError unless the setting is a finite number in 0..most that float32 can hold."""
    number: Any = value
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= number <= min(most, LARGEST_NUMBER):
        bounds = "of at least 0" if most == float("inf") else f"in 0..{most:g}"
        raise InputError(f"setting {name}={value!r}: expected a number {bounds}")


def disk_full(error: BaseException | None) -> str | None:
    """What is full and the remedy, when an error of whatever library came from a full disk; None for others."""
    while error is not None:
        numbers = {error.errno or 0} if isinstance(error, OSError) else set()
        # HDF5 and Rust say it in words alone.
        numbers |= {int(number) for number in re.findall(r"(?:errno = |os error |Errno )(\d+)", str(error))}
        if re.search(r"\d+ requested and \d+ written", str(error)):  # NumPy
            numbers = {errno.ENOSPC}
        for number in numbers & _FULL.keys():
            return f"{_FULL[number]}; make room or write elsewhere, and run again"
        error = error.__cause__ or error.__context__
    return None


def describe_error(error):
    """One line for the user from an InputError or an OSError (`file: reason`)."""
    reason = None
    if isinstance(error, OSError):
        reason = disk_full(error) or error.strerror
        if error.errno in _NO_RIGHT:
            reason = f"{error.strerror}; give a path where you may read and write, or get the rights to this one"
        if reason and error.filename is not None:
            return f"{error.filename}: {reason}"
        reason = disk_full(error)
    return reason or " ".join(str(error).splitlines()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """What an error of a library says first, at most 200 characters; the name of its kind where it says nothing."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_path(name: str, value) -> None:
    """InputError unless the setting is a path, or None."""
    if value is not None and (not isinstance(value, str | Path) or not str(value)):
        raise InputError(f"setting {name}={value!r}: expected the path of a file")


def check_choice(name: str, value, choices) -> None:
    """InputError unless the setting is one of the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r}: choose one of {', '.join(map(str, choices))}")
