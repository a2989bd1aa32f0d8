"""Files that are whole or not there at all, also after a power cut; and what is read and checked of them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from rrt.errors import InputError
from rrt.progress import read_shown


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
    """Have the disk keep a file's bytes or a folder's entries: a rename alone may survive a power cut that the bytes do
    not."""
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


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value) -> Path:
    """Writes JSON that is there whole or not at all -> path; the keys of an object stay in their order."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())
    return path


def read_json(path: Path):
    """The JSON value in a file, or None when the file is not there. Raises InputError when it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and run again") from None


def guard_settings(path: Path, settings: dict) -> None:
    """Writes `settings` to `path`, or checks that what stands there is the same, so that a folder never mixes settings.

    Raises InputError naming the first setting that differs.
    """
    there = read_json(path)
    settings = json.loads(json.dumps(settings))
    if there is None:
        write_json(path, settings)
        return
    if not isinstance(there, dict):
        raise InputError(f"{path}: not a table of settings; delete the folder or choose another one")
    for key in sorted(settings.keys() | there.keys()):
        if settings.get(key) != there.get(key):
            raise InputError(
                f"{path}: the folder was made with {key} = {there.get(key)!r}, now it is "
                f"{settings.get(key)!r}; use the same settings, delete the folder or choose another one"
            )
