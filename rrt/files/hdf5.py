"""HDF5 files: those of any program opened without locks, and nothing read that lies in another file; own ones
written so that a full disk is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import h5py

from rrt.errors import InputError

# gzip, the strongest of the compressions, makes at most 1032 bytes of one.
_LARGEST_EXPANSION = 1032
_COPY = "read and write it again with h5py, so that the file holds its numbers itself"


def open_hdf5(path) -> h5py.File:
    """A file open for reading; raises what h5py does (see damage_named). No lock is asked for: some network file
    systems have none, and what is read here is finished."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # which this process has open already, with a lock


def create_hdf5(path) -> h5py.File:
    """A new file in which nothing depends on the clock, so that equal content makes equal bytes. Numbers go to the disk
    when they are written, past HDF5's own caches: what a full disk did not take of those is told to nobody when a
    dataset is closed, and makes HDF5 crash when the process ends."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # The 1.10 format has checksums on everything but the numbers.
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    # A mapped column must start at a multiple of its type.
    access.set_alignment(1, 64)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    # Nobody else has the file's name yet, and some network file systems have no locks.
    access.set_file_locking(False, True)
    objects, chunks, _, preemption = access.get_cache()
    access.set_cache(objects, chunks, 0, preemption)
    access.set_sieve_buf_size(0)
    root = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    root.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, root, access))


@contextmanager
def damage_named(path, said: str, remedy: str) -> Iterator[None]:
    """What h5py and numpy raise for a damaged file, nearly every kind of exception, as InputError: `path: <said>
    (reason); <remedy>`. A file that is missing, may not be read or is open elsewhere is not damaged."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give one of the kind that is asked for") from None
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        damaged = f"{path}: {said} ({text[:120]}); {remedy}"
        raise InputError(why_unopened(path, error) or damaged) from None


def why_unopened(path, error: BaseException) -> str | None:
    """The message of a file that is not damaged and yet could not be opened; None for every other error."""
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder; give the .h5 file"
    if isinstance(error, PermissionError):
        return f"{path}: may not be read; change its permissions"
    text = str(error)
    if "lock file" in text:
        return (
            f"{path}: the file system has no locks, or another program holds one; close it there, or set "
            "HDF5_USE_FILE_LOCKING=FALSE in the environment"
        )
    if "already open" in text:
        return (
            f"{path}: is open for writing, here or in another program; close it there. A program that was killed while "
            "it wrote leaves the same mark: then copy the file again or make it again"
        )
    return None


def find_item(file: Any, name: str) -> Any:
    """The group or dataset of a name, None where there is none; InputError where the name, or the numbers, lead into
    another file, which would be read, waited for or shown instead of what was given."""
    item = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{file.file.filename}: /{name} is a link to elsewhere; {_COPY}")
        item = cast(Any, item)[part]
    return own_numbers(item)


def own_numbers(item: Any) -> Any:
    """The group or dataset; InputError for a dataset whose numbers are in other files."""
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise InputError(f"{item.file.filename}: {item.name} keeps its numbers in other files; {_COPY}")
    return item


def fits_file(dataset: h5py.Dataset) -> bool:
    """False when a dataset claims to be larger than any compression could make it from its file."""
    return dataset.nbytes <= _LARGEST_EXPANSION * dataset.file.id.get_filesize()
