"""Names of files as other programs write them: text in another normal form, bytes that are no text, what systems leave
in folders of images."""

import os
import re
import unicodedata
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from rrt.errors import InputError

# Folders of small copies, deleted files and resource forks, made by NAS systems, waste bins and archives.
SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),
        *("$recycle.bin", "system volume information", "lost+found", "__macosx"),
    )
)


def shown(name: str) -> str:
    """A file's name as it can be printed on one line: control characters and bytes that are no text become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name (without its path) is no one's photograph: hidden, or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path below a folder (parts joined by /), or a folder it lies in, fits one of the patterns (``*``,
    ``?``, ``[...]``) by its whole path or its last part."""
    parts = path.split("/")
    return any(
        fnmatchcase(name, pattern)
        for pattern in patterns
        for end, part in enumerate(parts, 1)
        for name in (part, "/".join(parts[:end]))
    )


def same_text(name: str) -> str:
    """A name in the form in which equal letters are equal (NFC); a Mac decomposes them (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def existing(path: str | Path) -> Path:
    """The path, or, where there is no such file, the one whose letters differ in their normal form alone."""
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    try:
        for part in path.parts[bool(path.anchor) :]:
            step = found / part
            if not os.path.lexists(step):
                twins = [name for name in os.listdir(found) if same_text(name) == same_text(part)]
                if len(twins) != 1:
                    return path
                step = found / twins[0]
            found = step
    except OSError:
        return path
    return found


class ImageNames:
    """Images by the names that lists, stores and ground truth give them: with or without folder and suffix."""

    def __init__(self, names: list[str]):
        self._names = names
        self._whole = {same_text(name): index for index, name in enumerate(names)}
        self._stems: dict[str, list[int]] = {}
        self._bare: dict[str, list[int]] = {}  # with folders, without suffix
        for index, name in enumerate(map(same_text, names)):
            stem = stem_of(name)
            self._stems.setdefault(stem, []).append(index)
            self._bare.setdefault(name[: name.rfind("/") + 1] + stem, []).append(index)

    def find(self, name: str) -> int | None:
        """The index of the image of this name, or of this file name without its suffix where one image alone has it;
        None when there is none. Raises InputError when several have it."""
        name = same_text(name)
        for whole in (name, name.rpartition(".")[0]):
            if whole in self._whole:
                return self._whole[whole]
        bare = name[: name.rfind("/") + 1] + stem_of(name)
        indices = self._bare.get(name) or self._bare.get(bare) if "/" in name else None
        indices = indices or self._stems.get(name.rpartition("/")[2]) or self._stems.get(stem_of(name), [])
        if len(indices) > 1:
            first, second = (self._names[index] for index in indices[:2])
            raise InputError(f"{name!r} may be {first!r} or {second!r}; use the whole names")
        return indices[0] if indices else None


def stem_of(name: str) -> str:
    """A file name without its folder and the suffix of an image; `church.1` has none."""
    return re.sub(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{1,4}$", "", name.rpartition("/")[2])
