"""The files of an index: a folder with

    index.json                 the manifest, always replaced as a whole, so that a reader never sees half of a change
    segments/segment-00001.h5  descriptor stores, never changed; an image's name is the SHA-256 of its file's bytes
    whitening-00001.npz        the whitening, if the index has one
    pending.json               the images that are being described, until their segment is in the manifest
    thumbnails/                small images, made when they are first shown
    skipped.csv                the photographs that could not be read, and why
    lock                       held by the one process that changes the index

Descriptors belong to the content of a file, not to its path: a renamed or copied photograph keeps them. The row of a
removed photograph stays in its segment, unused, until segments are merged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from rrt.errors import InputError
from rrt.files.atomic import parse_json, write_bytes, write_csv
from rrt.files.names import same_text

SCHEMA, VERSION = "rrt-photo-index", 1
MANIFEST, PENDING, SKIPPED = "index.json", "pending.json", "skipped.csv"


class Photograph(NamedTuple):
    """A file as it was last seen: size in bytes, time of change in ns, SHA-256 of its content."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of index.json.

    root: folder of the photographs. extraction: how images are described (rrt.photo_index.extraction). follow_links:
    whether links that lead out of root count. photographs: {path relative to root: Photograph}. failed: {SHA-256: why
    its image has no descriptors}. unread: {path: why its file could not be read}. segments: file names of stores.
    whitening: {"file", "from", "dim", "power"} or None. number: of the file that was made last; no number is used
    twice. exclude: patterns of files to leave out.
    """

    root: str
    extraction: dict
    follow_links: bool = False
    photographs: dict[str, Photograph] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    segments: tuple[str, ...] = ()
    whitening: dict | None = None
    number: int = 0
    exclude: tuple[str, ...] = ()

    def contents(self) -> dict[str, list[str]]:
        """{SHA-256: sorted paths} of all photographs, in the order of their first paths."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.photographs):
            found.setdefault(self.photographs[path].sha256, []).append(path)
        return found

    def path_called(self, name: str | None) -> str | None:
        """The path of the photograph called ``name``, whatever the Unicode normal form of the two; None when there is
        none, or more than one."""
        if name is None or name in self.photographs or name.isascii():
            return name if name in self.photographs else None
        twins = [path for path in self.photographs if same_text(path) == same_text(name)]
        return twins[0] if len(twins) == 1 else None

    def skipped(self) -> dict[str, str]:
        """{path: reason} of the photographs without descriptors, by path."""
        failed = {
            path: self.failed[seen.sha256] for path, seen in self.photographs.items() if seen.sha256 in self.failed
        }
        return dict(sorted((self.unread | failed).items()))


def segment_path(folder: Path, name: str) -> Path:
    """The path of a segment's file."""
    return Path(folder) / "segments" / name


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of the index ``folder``. Raises InputError when there is none or it is damaged."""
    path = Path(folder) / MANIFEST
    try:
        content = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: no index there; make one with tools/search.py build PHOTOS --index {folder}"
        ) from None
    except ValueError as error:
        raise damaged(path, error) from None
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        raise damaged(path, f"no schema {SCHEMA!r}")
    version = content.pop("version", None)
    if version != VERSION:
        raise InputError(
            f"{path}: an index of version {version}, this program reads {VERSION}; build it again into another folder"
        )
    try:
        manifest = Manifest(**content)
        manifest = replace(
            manifest,
            segments=tuple(map(str, manifest.segments)),
            exclude=tuple(map(str, manifest.exclude)),
            photographs={path: Photograph(*seen) for path, seen in manifest.photographs.items()},
        )
        missing = {"flags", "model_sha256"} - manifest.extraction.keys()
        if missing or not isinstance(manifest.failed, dict) or not isinstance(manifest.unread, dict):
            raise TypeError(f"no {' and '.join(sorted(missing)) or 'reasons'}")
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, error) from None
    return manifest


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Replaces the manifest and skipped.csv; each is written as a whole or not at all."""
    folder = Path(folder)
    write_csv(folder / SKIPPED, [("name", "reason"), *manifest.skipped().items()], "backslashreplace")
    # Only ASCII escapes keep names that are not UTF-8. vars() without indentation, because a copy (asdict) with
    # indentation takes ten times as long for 100,000 photographs.
    content = json.dumps({"schema": SCHEMA, "version": VERSION, **vars(manifest)}, ensure_ascii=True)
    write_bytes(folder / MANIFEST, content.encode("ascii"))


def damaged(path, reason) -> InputError:
    """What to raise for a file of an index."""
    return InputError(f"{path}: damaged ({reason}); delete the folder of the index and build it again")
