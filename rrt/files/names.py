"""Names of files as other programs write them: text in another normal form, bytes that are no text, what systems leave
in folders of images."""

import os
import unicodedata
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

# Folders of small copies, deleted files and resource forks, made by NAS systems, waste bins and archives.
SYSTEM_FOLDERS = frozenset(("@eadir", "#recycle", "$recycle.bin", "__macosx"))


def shown(name: str) -> str:
    """A file's name as it can be printed on one line: control characters and bytes that are no text become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name (without its path) is no one's photograph: hidden, or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path below a folder (parts joined by /) fits one of the patterns (``*``, ``?``, ``[...]``) as a whole
    or in its last part."""
    last = path.rpartition("/")[2]
    return any(fnmatchcase(last, pattern) or fnmatchcase(path, pattern) for pattern in patterns)


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
