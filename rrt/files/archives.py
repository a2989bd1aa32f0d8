"""Unpacking tar archives of other people: whole or not at all, nothing outside the folder, a damaged archive is one
line."""

import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from rrt.errors import InputError
from rrt.progress import bar

_CHUNK = 1 << 20
# What tarfile and the decompressors raise for bad bytes.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, KeyError, ValueError, OverflowError)


class ArchiveError(InputError):
    """The archive itself is wrong (damaged, hostile, without the files): it is of no use to unpack it again."""


def unpack_tar(archive, folder, *, strip: int | None = 0, wanted=None, merge=False, links=True, shown=True):
    """Unpack a tar archive (plain or compressed) into `folder` -> number of files written, 0 when it was there already.

    It is unpacked beside the folder, which appears when all of it is there; so a folder that is there has been unpacked
    and is left alone. With `merge` the files are added to a folder, each of them whole, and replace those of the same
    name; whether all are there the caller must remember: run it again after an interruption.

    strip: so many leading folders are taken off every name (a file with fewer is left out), None: all of them. wanted:
    function of a file's name after that -> whether to unpack it. links: whether the archive may have links; never when
    all folders are stripped. shown: False where the caller has a bar. Absolute names, names and link targets with `..`,
    devices and pipes are refused, whether wanted or not. The checksum of a compressed archive is checked to its end.
    Raises ArchiveError, or InputError when the disk is at fault; then nothing is left behind.
    """
    # Where a linked folder really is: only beside it a rename is possible.
    archive, folder = Path(archive), Path(folder).resolve()
    if folder.exists() and not merge:
        return 0
    beside = folder.with_name(f"{folder.name}.{archive.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        count = _unpack(archive, beside, strip, wanted, links and strip is not None, shown)
        # All files at once: flushing thousands of small ones singly takes minutes.
        os.sync()
        if folder.exists():
            _move_into(beside, folder)
        else:
            os.rename(beside, folder)
    except OSError as error:
        if error.errno is None:  # as gzip and bz2 report bad bytes
            raise _damaged(archive, error) from None
        if error.filename == str(archive):
            raise InputError(f"{archive}: cannot be read ({error.strerror}); download it again") from None
        raise InputError(
            f"{folder}: {archive.name} cannot be unpacked ({error.strerror}); make room or mend the folder, and run "
            "again"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def _unpack(archive, folder, strip, wanted, links, shown):
    written = {}

    def chosen(member, destination):
        """A filter for tarfile: what goes below the folder, None for nothing. Stricter than `data`, which mends an
        absolute name and takes `..` that stays inside, where a link to a link can lead out."""
        unpacked.update(raw.tell() - unpacked.n)
        parts = _inside(archive, member.name)
        linked = member.issym() or member.islnk()
        target = _inside(archive, member.linkname) if linked else ()
        if linked and not links:
            raise ArchiveError(f"{archive}: {member.name!r} is a link, and none belongs here; do not use this archive")
        if not (linked or member.isfile() or member.isdir()):
            raise ArchiveError(f"{archive}: {member.name!r} is a device or a pipe; do not use this archive")
        name = "/".join(parts[strip:] if strip is not None else parts[-1:])
        if not name or (member.isdir() and (strip is None or wanted)) or (wanted and not wanted(name)):
            return None
        if strip is None and written.get(name, member.name) != member.name:
            raise ArchiveError(f"{archive}: {written[name]!r} and {member.name!r} have one name without their folders")
        if not member.isdir():
            written[name] = member.name
        link = "/".join(target[strip:]) if member.islnk() else member.linkname
        return tarfile.data_filter(member.replace(name=name, linkname=link, deep=False), destination)

    with (
        open(archive, "rb") as raw,
        _opened(archive, raw) as tar,
        bar(what=f"unpack {archive.name}", unit="B", total=os.path.getsize(archive), shown=shown) as unpacked,
    ):
        try:
            tar.extractall(folder, filter=chosen)
            _check_end(tar, raw)
        except InputError:
            raise
        except _DAMAGE as error:
            raise _damaged(archive, error) from None
    if not written:
        raise ArchiveError(f"{archive}: none of the files looked for are in it; get the archive that belongs here")
    return len(written)


def _opened(archive, raw):
    try:
        return tarfile.open(fileobj=raw, mode="r:*")
    except _DAMAGE:
        raise ArchiveError(f"{archive}: not a tar archive, or damaged at its start; download it again") from None


def _inside(archive, name):
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ArchiveError(f"{archive}: {name!r} leads out of the folder it is unpacked to; do not use this archive")
    return path.parts


def _check_end(tar, raw):
    """tarfile takes a cut between two files, and a header that makes no sense, for the end; and stops before gzip's
    checksum."""
    if tar.fileobj is raw:
        raw.seek(tar.offset)
        end = raw.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError("no end mark")
        return
    if tar.fileobj.tell() <= tar.offset:
        raise tarfile.ReadError("no end mark")
    while tar.fileobj.read(_CHUNK):
        pass


def _damaged(archive, error):
    return ArchiveError(f"{archive}: damaged archive ({error or type(error).__name__}); download it again")


def _move_into(source, folder):
    for root, folders, files in os.walk(source):
        target = folder / Path(root).relative_to(source)
        target.mkdir(exist_ok=True)
        for name in files + [name for name in folders if os.path.islink(os.path.join(root, name))]:
            os.replace(os.path.join(root, name), target / name)
