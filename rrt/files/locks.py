"""One process at a time: a lock file that another process, also one that was killed, cannot leave locked."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rrt.errors import InputError

# What file systems without locks answer, such as some mounts over a network.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path, doing: str, subject: Path | None = None) -> Iterator[tuple[int, ...]]:
    """Hold the lock file ``path`` while the block runs; it is made when missing and removed at the end.

    Yields the descriptors that hold it, for ``subprocess.Popen(pass_fds=...)``: a child process that has them goes on
    holding the lock when this process is killed. None on a file system without locks, where the block runs unguarded.

    Raises InputError `subject: another process is <doing>; wait for it to end` at once when the lock is held, by
    another process or another thread of this one. subject: what the message names, ``path`` where not given.
    """
    descriptors: list[int] = []
    lock = FileLock(path, timeout=0, fallback_to_soft=False, on_acquired=descriptors.append)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{subject or path}: another process is {doing}; wait for it to end") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(subject or path.parent)) from None
    try:
        yield tuple(descriptors)
    finally:
        # Before the release: afterwards it might be the file of the next process.
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def owned(
    folder: Path | str, doing: str, name: str = ".lock", subject: Path | None = None
) -> Iterator[tuple[int, ...]]:
    """Hold an output folder, which is made when missing, for one run: two would mix their files, or one would be lost.

    Yields what locked() does; InputError `folder: another process is <doing>; wait for it to end` when another run has
    it. subject: what the message names, the folder where not given. A folder that was made for a run that wrote nothing
    is removed.
    """
    folder = Path(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / name, doing, subject or folder) as descriptors:
            yield descriptors
    finally:
        if new:
            with suppress(OSError):  # it holds something now
                folder.rmdir()
