"""What is in a folder of photographs: which files are images, and the SHA-256 of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.files.images import NO_HEIF, SUFFIXES
from rrt.files.names import existing, is_excluded, is_left_out, shown
from rrt.formats.lists import read_image_list
from rrt.photo_index.manifest import Photograph
from rrt.progress import bar

_RAW = "a raw file of a kind that cannot be read; export it as JPEG"
_OTHER = {
    ".heic": NO_HEIF,
    ".heif": NO_HEIF,
    ".jxl": "JPEG XL cannot be read; convert it to JPEG",
    ".psd": "a Photoshop file, which cannot be read; export it as JPEG",
}
UNSUPPORTED = dict.fromkeys((".cr3", ".orf", ".x3f", ".gpr", ".mrw"), _RAW) | _OTHER
# Among them the films that belong to live photographs.
VIDEOS = frozenset(
    ".mov .mp4 .m4v .qt .avi .mkv .webm .wmv .asf .flv .mpg .mpeg .mts .m2ts .vob .3gp .3g2 .insv .lrv .ogv".split()
)


@dataclass
class Found:
    """files: {path relative to the folder: (bytes, time of change in ns)}; unread: {path: reason}; videos, ignored:
    number of films and of other files; closed: folders that could not be listed, each with a / at its end."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    videos: int = 0
    ignored: int = 0
    closed: list[str] = field(default_factory=list)


def scan(root: Path, apart: Path, follow_links: bool = False, exclude: Iterable[str] = ()) -> Found:
    """All images below ``root``, except hidden files and folders, those of operating systems, those that match a
    pattern of ``exclude``, and the folder ``apart``.

    Links to files count when they lead to a file below ``root``. With ``follow_links``, links to folders and links that
    lead out of ``root`` count, too; a folder counts once, however many links lead to it.
    """
    found, top = Found(), os.path.realpath(root)
    seen = {_identity(os.stat(top))}
    if apart.exists():
        seen.add(_identity(os.stat(apart)))
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(os.path.join(top, folder)), key=lambda entry: entry.name)
        except OSError as error:
            found.unread[folder or "."] = error.strerror or str(error)
            found.closed.append(folder)
            continue
        for entry in entries:
            name = folder + entry.name
            if is_left_out(entry.name) or is_excluded(name, exclude):
                continue
            try:
                if entry.is_dir():
                    if entry.is_symlink() and not follow_links:
                        continue
                    identity = _identity(entry.stat())
                    if identity not in seen:
                        seen.add(identity)
                        waiting.append(name + "/")
                else:
                    _take(found, name, entry, top, follow_links)
            except OSError as error:  # a broken or circular link, a file that was just removed
                if _suffix(name) in SUFFIXES:
                    found.unread[name] = error.strerror or str(error)
    return found


def _take(found: Found, name: str, entry, top: str, follow_links: bool) -> None:
    if _suffix(name) not in SUFFIXES:
        if _suffix(name) in UNSUPPORTED:
            found.unread[name] = UNSUPPORTED[_suffix(name)]
        elif _suffix(name) in VIDEOS:
            found.videos += 1
        else:
            found.ignored += 1
    elif entry.is_symlink() and not follow_links and not inside(entry.path, top):
        found.unread[name] = "a link that leads out of the folder; give --follow_links if it shall count"
    else:
        _add(found, name, entry.stat())


def scan_list(root: Path, path: str, follow_links: bool = False, exclude: Iterable[str] = ()) -> Found:
    """The images of an image list (lines ``path,label,width,height``), except those that match a pattern of
    ``exclude``. Raises InputError for a list that cannot be read."""
    found = Found()
    for listed in read_image_list(path).names:
        if is_excluded(listed, exclude):
            continue
        name = os.path.relpath(existing(root / listed), root) if not listed.isascii() else listed
        try:
            if not follow_links and not inside(root / name, os.path.realpath(root)):
                found.unread[name] = "lies outside of the folder"
            else:
                _add(found, name, os.stat(root / name))
        except OSError as error:
            found.unread[name] = error.strerror or str(error)
    return found


def _add(found: Found, name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        found.unread[name] = "not a file"
    else:
        found.files[name] = status.st_size, status.st_mtime_ns


def inside(path, top: str) -> bool:
    """Whether a path leads below the folder ``top`` (a real path) when its links are followed. Raises OSError for a
    broken link."""
    return Path(os.path.realpath(path, strict=True)).is_relative_to(top)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def hash_new(
    root: Path, found: Found, known: dict[str, Photograph], again: bool, threads: int
) -> dict[str, Photograph]:
    """{path: Photograph} of the files found. Only files whose size or time of change is not as ``known`` are read, or
    all with ``again``. Files that cannot be read are added to ``found.unread``."""
    photographs, todo = {}, []
    for path, (size, mtime_ns) in found.files.items():
        old = known.get(path)
        if old and not again and (old.size, old.mtime_ns) == (size, mtime_ns):
            photographs[path] = old
        else:
            todo.append(path)

    def read(path):
        try:
            return Photograph(*found.files[path], sha256_of_file(root / path))
        except OSError as error:
            return error.strerror or type(error).__name__

    with ThreadPoolExecutor(threads) as pool:
        for path, result in zip(todo, bar(pool.map(read, todo), "reading", "file", len(todo))):
            if isinstance(result, Photograph):
                photographs[path] = result
            else:
                found.unread[path] = result
    return photographs


def photographs_folder(path: str) -> Path:
    """The folder of photographs that a user names. Raises InputError when it does not exist."""
    if not os.path.isdir(path):
        raise InputError(f"{shown(path)}: no such folder; give the folder with the photographs")
    return Path(path)
