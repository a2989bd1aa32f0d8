"""The one error a user can cause, files that are whole or not there, and the frame around every command."""

import hashlib
import os
import secrets
import sys
from contextlib import contextmanager
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import get_args

from rrt.progress import read_shown


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
        fit = {int: isinstance(value, int) and not isinstance(value, bool), type(None): value is None,
               float: isinstance(value, (int, float)) and not isinstance(value, bool), tuple: isinstance(value, (tuple, list))}
        if not any(fit.get(kind, isinstance(value, kind)) for kind in kinds):
            names = " or ".join({int: "an integer", float: "a number", bool: "True or False", str: "a text", tuple: "a list",
                                 type(None): "None"}.get(kind, kind.__name__) for kind in kinds)
            raise InputError(f"setting {prefix}{entry.name}={value!r}: expected {names}")


def check_number(name, value, least=0.0, most=float("inf")):
    """InputError unless the setting is a finite number in least..most."""
    if not isinstance(value, Real) or not least <= value <= most or value == float("inf"):
        bounds = f"of at least {least:g}" if most == float("inf") else f"in {least:g}..{most:g}"
        raise InputError(f"setting {name}={value!r}: expected a number {bounds}")


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; when the block succeeds the file is flushed to disk and renamed to `path`.

    When the block fails (or is interrupted) the temporary file is removed and whatever stood at `path` stays untouched.
    A process that is killed leaves `<stem>.<random>.tmp<suffix>` behind, which no reader takes for the real file.
    Missing parent folders are made. The suffix is kept because numpy and matplotlib choose a format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def flush_to_disk(path):
    """Have the disk keep a file's bytes or a folder's entries: a rename alone may survive a power cut that the bytes do not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path):
    """SHA-256 of a file's bytes as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for data in read_shown(file, f"sha256 of {Path(path).name}"):
            digest.update(data)
    return digest.hexdigest()


def run_command(main):
    """Run `main()` as a command: its return value (None = 0) is the exit status.

    InputError and OSError become one line `error: ...` on standard error and exit status 1; an interrupt becomes 130.
    """
    try:
        status = main()
    except (InputError, OSError) as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)


def describe_error(error):
    """One line for the user from an InputError or an OSError (`file: reason`)."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines()) or type(error).__name__
