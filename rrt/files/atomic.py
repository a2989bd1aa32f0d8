"""Files that are whole or not there at all, also after a power cut; and what is read and checked of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from rrt.errors import InputError, disk_full
from rrt.progress import read_shown

# What this process writes now: (process, file); a fork writes none of its parent's.
_writing: set[tuple[int, Path]] = set()
# Folders that hold no leftovers any more.
_swept: set[tuple[int, Path]] = set()
# The second form is that of versions before 0.2, which does not tell whose it is.
_TEMPORARY = re.compile(r"\.(?:([0-9a-f]{4})-(\d+)-[0-9a-f]{4}|[0-9a-f]{8})\.tmp(\.|$)")
_HOST = f"{zlib.crc32(socket.gethostname().encode()) & 0xFFFF:04x}"
# Leftovers whose process cannot be looked up, as those of other machines, go after so many seconds.
_ABANDONED = 86_400


# Of the group whose files are being written: (temporary path, path) of each that is whole.
_group: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("_group", default=None)


@contextmanager
def all_or_none():
    """The files that atomic_path() writes in the block appear together at its end, or none of them where it fails: for
    results that belong together. They cannot be read before."""
    group: list[tuple[Path, Path]] = []
    outer = _group.set(group)
    try:
        yield
        for temporary, path in group:
            os.replace(temporary, path)
    finally:
        _group.reset(outer)
        for temporary, _ in group:
            temporary.unlink(missing_ok=True)
            _writing.discard((os.getpid(), temporary))
    for folder in {path.parent for _, path in group}:
        flush_to_disk(folder)


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; when the block succeeds the file is flushed to disk and renamed to `path`.

    When the block fails (or is interrupted) the temporary file is removed and whatever was at `path` stays untouched.
    A process that is killed leaves the temporary file behind, which no reader takes for the real file, and which the
    next process that writes into the folder removes. Missing parent folders are made. The suffix is kept because numpy
    and matplotlib choose a format by it. Raises InputError naming `path` when the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = temporary_name(path)
    ours, group = (os.getpid(), temporary), _group.get()
    _writing.add(ours)
    try:
        yield temporary
        flush_to_disk(temporary)
        if group is not None:
            group.append((temporary, path))
            return
        os.replace(temporary, path)
    except BaseException as error:
        full = no_room(path, error)
        with suppress(FileNotFoundError):
            temporary.unlink()
        if full:
            raise full from None
        if isinstance(error, OSError) and error.filename in (str(temporary), temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None  # the name that was asked for
        raise
    finally:
        if not group or group[-1] != (temporary, path):
            _writing.discard(ours)
    flush_to_disk(path.parent)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that tells who writes there: `<stem>.<machine>-<process>-<random>.tmp<suffix>`."""
    return path.with_name(f"{path.stem}.{_HOST}-{os.getpid()}-{secrets.token_hex(2)}.tmp{path.suffix}")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is being written, or was left by a process that was killed."""
    return _TEMPORARY.search(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of processes that were killed; looked for once by each process."""
    key = os.getpid(), folder
    if key in _swept:
        return
    _swept.add(key)
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _TEMPORARY.search(entry.name)) and _is_abandoned(entry, match[1], int(match[2] or 0)):
                with suppress(OSError):  # another process removes it, too
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _is_abandoned(entry, host, process):
    try:
        if host != _HOST:
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's, or its file is gone
        return False
    return process == os.getpid() and (process, Path(entry.path)) not in _writing


def end_at_once(*_) -> None:
    """For a worker that is told to end (SIGTERM): nothing half-written is left, and no further job is begun."""
    for process, path in list(_writing):
        if process == os.getpid():
            path.unlink(missing_ok=True)
    os._exit(143)


def no_room(path, error: BaseException) -> InputError | None:
    """What to tell when an error, of whatever library, came from a full disk; None for others."""
    reason = disk_full(error)
    return InputError(f"{path}: {reason}") if reason else None


def check_room(path: Path, size: int) -> None:
    """InputError when the disk has no room for a file of so many bytes: HDF5 crashes when it closes a file that a full
    disk has not taken."""
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputError(
            f"{path}: takes {size:,} bytes, {free:,} are free on the disk; make room or write elsewhere, and run again"
        )


def take_room(path: Path) -> None:
    """Take the disk's room for a new file that is filled through a memory map, where a full disk kills the process.
    Raises InputError when there is too little."""
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size or 1)
        except OSError as error:
            if full := no_room(path, error):
                file.close()
                path.unlink()
                raise full from None


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
    return digest_of_file(path, "sha256")


def digest_of_file(path, kind, shown=True):
    """The same by another function of hashlib. shown: False where the caller has a bar."""
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        for data in read_shown(file, f"{kind} of {Path(path).name}", shown):
            digest.update(data)
    return digest.hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_csv(path: Path, rows: Iterable[Sequence], errors: str = "strict") -> Path:
    """Writes lines of CSV, which end with CR LF, that are there whole or not at all -> path. errors: as of
    ``str.encode``."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", errors))
    return path


def write_json(path: Path, value) -> Path:
    """Writes JSON that is there whole or not at all -> path; the keys of an object stay in their order."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())
    return path


def parse_json(data: str | bytes):
    """json.loads, which raises ValueError for a value nested too deeply, too; bytes may begin with a byte order
    mark."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, remedy: str = "delete it and run again"):
    """The JSON value in a file, or None when the file is not there. Raises InputError when it is damaged. remedy: what
    to do then; a file that a user named is not to be deleted."""
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); {remedy}") from None


def guard_settings(path: Path, settings: dict) -> None:
    """Writes `settings` to `path`, or checks that what is there is the same, so that a folder never mixes settings.

    Raises InputError naming the first setting that differs, and of a list its first entry.
    """
    there = read_json(path)
    settings = json.loads(json.dumps(settings))
    if there is None:
        write_json(path, settings)
        return
    if not isinstance(there, dict):
        raise InputError(f"{path}: not a table of settings; delete the folder or choose another one")
    for key in sorted(settings.keys() | there.keys()):
        before, now = there.get(key), settings.get(key)
        if before == now:
            continue
        if isinstance(before, list) and isinstance(now, list):  # may hold thousands of names
            place = next((i for i, (a, b) in enumerate(zip(before, now)) if a != b), None)
            key, before, now = (
                (f"number of {key}", len(before), len(now))
                if place is None
                else (f"{key}[{place}]", before[place], now[place])
            )
        raise InputError(
            f"{path}: the folder was made with {key} = {before!r}, now it is {now!r}; use the same settings, delete "
            "the folder or choose another one"
        )
