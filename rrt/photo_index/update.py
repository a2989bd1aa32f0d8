"""Builds an index, and updates it when its folder has changed. Each step leaves a complete index; when a run is killed,
the next one continues its work.

1. The folder is scanned, and new and changed files are hashed; then the manifest lists the files that exist now.
2. Contents without descriptors are listed in pending.json and described into a new segment, in parts.
3. The segment is added to the manifest, without the descriptors of files that changed meanwhile.
4. Segments are merged when there are many; a whitening that was learned on the index is learned again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import parse_json, write_bytes
from rrt.files.locks import owned
from rrt.files.machine import usable_cores
from rrt.files.names import shown
from rrt.photo_index import extraction
from rrt.photo_index.dates import update_dates
from rrt.photo_index.manifest import MANIFEST, PENDING, SKIPPED, Manifest, read_manifest, segment_path, write_manifest
from rrt.photo_index.scan import Found, hash_new, photographs_folder, scan, scan_list
from rrt.photo_index.segments import (
    alive_rows,
    open_segment,
    open_segments,
    wants_merging,
    warn_of_matchless,
    write_rows,
)
from rrt.photo_index.summary import Summary, summarize
from rrt.search.whitening import Whitening, fit_pca_whitening, load_whitening
from rrt.store.skipped import read_skipped
from rrt.store.store import Store

TABLE = "pending-table.json"
LEARNED = "learned"  # "from" of a whitening that was learned on the index, not read from a file


@dataclass(frozen=True)
class BuildSettings:
    """flags: options of the extraction, () = those of the index, at first lite0. whitening: a file of
    tools/learn_whitening.py. whiten: most dimensions of a PCA whitening learned on the index itself, with the
    eigenvalues to the power -power. Where both are None the whitening stays as it is, at first none; no_whitening:
    removes it.

    image_list: only the photographs of this list. follow_links: whether links that lead out of the folder count, None =
    as before. exclude: patterns of files to leave out, None = as before. moved: the photographs are in another folder
    now. rehash: read every file again. num_workers: processes that describe images, 0 = chosen automatically.
    """

    flags: tuple[list[str], ...] = ()
    whitening: str | None = None
    whiten: int | None = None
    power: float = 0.5
    no_whitening: bool = False
    image_list: str | None = None
    follow_links: bool | None = None
    exclude: tuple[str, ...] | None = None
    moved: bool = False
    rehash: bool = False
    num_workers: int = 0


def update(folder: str | Path, photos: str, settings: BuildSettings = BuildSettings()) -> Summary:
    """Makes the index ``folder`` of the photographs in ``photos``, or updates it. Raises InputError naming what is
    wrong."""
    folder, root = Path(folder), photographs_folder(photos)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file; give the folder of an index, or a new one")
    if folder.is_dir() and not (folder / MANIFEST).exists():
        others = [
            path.name for path in folder.iterdir() if path.name not in ("lock", SKIPPED) and ".tmp." not in path.name
        ]
        if others:
            raise InputError(f"{folder}: holds other files ({shown(others[0])}), but no index; give a new folder")
    with owned(folder, "changing this index", "lock") as lock:
        old = _opened(folder, root, settings)
        _remove_leftovers(folder, old)
        before = _described_names(folder, old)
        manifest = _take_pending(folder, old, settings, lock)
        manifest, found = _look(folder, root, manifest, settings)
        while _without_descriptors(folder, manifest):
            manifest = _describe(folder, manifest, settings, lock)
        described = len(_described_names(folder, manifest) - before)
        manifest, merged = _merged(folder, manifest)
        manifest = _whitened(folder, manifest, settings)
        _remove_leftovers(folder, manifest)
        update_dates(folder, manifest)
    return summarize(old, manifest, found, described, merged)


def _opened(folder, root, settings) -> Manifest:
    """The manifest of the index, or a new one without photographs, checked against the settings."""
    real = os.path.realpath(root)
    if not (folder / MANIFEST).exists():
        asked = extraction.describe_extraction(list(settings.flags))
        return Manifest(real, asked, bool(settings.follow_links), exclude=settings.exclude or ())
    known = read_manifest(folder)
    asked = extraction.describe_extraction(extraction.merged_flags(known.extraction["flags"], list(settings.flags)))
    extraction.check_same_extraction(folder, known.extraction, asked)
    if real != known.root and not settings.moved:
        raise InputError(
            f"{folder}: an index of {known.root}, not of {shown(real)}; give --moved if the folder has moved, or build "
            "another index"
        )
    links = known.follow_links if settings.follow_links is None else settings.follow_links
    exclude = known.exclude if settings.exclude is None else settings.exclude
    return replace(known, root=real, extraction=asked, follow_links=links, exclude=exclude)


def _look(folder: Path, root: Path, manifest: Manifest, settings) -> tuple[Manifest, Found]:
    if settings.image_list:
        found = scan_list(root, settings.image_list, manifest.follow_links, manifest.exclude)
    else:
        found = scan(root, folder, manifest.follow_links, manifest.exclude)
    if not found.files and not found.closed:
        there = f"{len(manifest.photographs)} photographs were there before; " if manifest.photographs else ""
        others = found.ignored + found.videos
        first = next((f"; the first is {shown(name)}: {why}" for name, why in found.unread.items()), "")
        raise InputError(
            f"{shown(str(root))}: no images in this folder ({others} other files, {len(found.unread)} that "
            f"cannot be read{first}); {there}give the folder with the photographs"
        )
    photographs = hash_new(root, found, manifest.photographs, settings.rehash, usable_cores())
    for path, seen in manifest.photographs.items():  # in folders that cannot be listed now
        if path.startswith(tuple(found.closed)):
            photographs[path] = seen
    held = {seen.sha256 for seen in photographs.values()}
    failed = {sha256: reason for sha256, reason in manifest.failed.items() if sha256 in held}
    manifest = replace(
        manifest,
        photographs=dict(sorted(photographs.items())),
        unread=dict(sorted(found.unread.items())),
        failed=failed,
    )
    write_manifest(folder, manifest)
    return manifest, found


# ---- descriptors -----------------------------------------------------------------------------------------------------


def _described_names(folder, manifest) -> set[str]:
    return {name for segment in manifest.segments for name in open_segment(folder, segment).names}


def _without_descriptors(folder: Path, manifest: Manifest) -> dict[str, str]:
    """{SHA-256: path} of the contents that are not described yet."""
    done = _described_names(folder, manifest) | manifest.failed.keys()
    return {sha256: paths[0] for sha256, paths in manifest.contents().items() if sha256 not in done}


def _describe(folder: Path, manifest: Manifest, settings, lock) -> Manifest:
    """Describes the contents without descriptors into a new segment."""
    todo = _without_descriptors(folder, manifest)
    number = manifest.number + 1
    pending = {
        "number": number,
        "table": {sha256: os.path.join(manifest.root, path) for sha256, path in todo.items()},
        "seen": {sha256: manifest.photographs[path][:2] for sha256, path in todo.items()},
    }
    write_bytes(folder / PENDING, json.dumps(pending).encode())
    return _take_pending(folder, manifest, settings, lock)


def _take_pending(folder: Path, manifest: Manifest, settings, lock) -> Manifest:
    """Finishes the extraction listed in pending.json, if there is one, and adds its segment to the manifest."""
    path = folder / PENDING
    try:
        pending = parse_json(path.read_bytes())
        number, table, seen = pending["number"], pending["table"], pending["seen"]
    except FileNotFoundError:
        return manifest
    except (ValueError, KeyError, TypeError):
        path.unlink()  # nothing is lost but the parts of one extraction
        return manifest
    name = f"segment-{number:05d}.h5"
    output = segment_path(folder, name)
    if name in manifest.segments:  # killed after the manifest was written
        path.unlink()
        return manifest
    write_bytes(folder / TABLE, json.dumps(table).encode())
    try:
        extraction.extract(manifest.extraction["flags"], folder / TABLE, output, len(table), settings.num_workers, lock)
    except InputError:
        if len(read_skipped(output)) < len(table):
            raise
    reasons = {skipped.name: skipped.reason for skipped in read_skipped(output)}
    changed = {sha256 for sha256, file in table.items() if not _as_it_was(file, seen[sha256])}
    failed = {sha256: reason for sha256, reason in reasons.items() if sha256 not in changed}
    kept = set(table) - reasons.keys() - changed
    segments = manifest.segments
    if kept:
        if len(kept) < len(table) - len(reasons):
            number += 1
            name = f"segment-{number:05d}.h5"
            with Store(output) as store:
                rows = np.array([row for row, sha256 in enumerate(store.names) if sha256 in kept])
                write_rows(store, rows, segment_path(folder, name), store.config, manifest.extraction["model_sha256"])
        segments += (name,)
        warn_of_matchless(folder, segment_path(folder, name), table)
    # Files that changed or disappeared meanwhile are scanned again, by this run or the next.
    photographs = {
        path: photograph for path, photograph in manifest.photographs.items() if photograph.sha256 not in changed
    }
    manifest = replace(
        manifest, segments=segments, failed=manifest.failed | failed, photographs=photographs, number=number
    )
    write_manifest(folder, manifest)
    path.unlink()
    _remove_leftovers(folder, manifest)
    return manifest


def _as_it_was(file: str, seen) -> bool:
    try:
        status = os.stat(file)
    except OSError:
        return False
    return [status.st_size, status.st_mtime_ns] == list(seen)


# ---- upkeep ----------------------------------------------------------------------------------------------------------


def _merged(folder: Path, manifest: Manifest) -> tuple[Manifest, bool]:
    store = open_segments(folder, manifest.segments)
    alive = alive_rows(store, manifest)
    if not wants_merging(manifest, store, len(alive)):
        return manifest, False
    number = manifest.number + 1
    names: tuple[str, ...] = ()
    if store and len(alive):
        names = (f"segment-{number:05d}.h5",)
        config = open_segment(folder, manifest.segments[0]).config
        write_rows(store, alive, segment_path(folder, names[0]), config, manifest.extraction["model_sha256"])
    manifest = replace(manifest, segments=names, number=number)
    write_manifest(folder, manifest)
    return manifest, True


def _whitened(folder: Path, manifest: Manifest, settings: BuildSettings) -> Manifest:
    """The manifest with the whitening asked for, else with the one it has. A whitening learned on the index is learned
    again when its contents changed."""
    known, asked = manifest.whitening, dict[str, Any]()
    if settings.no_whitening or not manifest.segments:
        return _with_whitening(folder, manifest, None)
    if settings.whitening:
        asked = {"from": os.path.abspath(settings.whitening)}
    elif settings.whiten is not None:
        asked = {"from": LEARNED, "dim": settings.whiten, "power": settings.power}
    elif known and known["from"] == LEARNED:
        asked = {name: known[name] for name in ("from", "dim", "power")}
    else:
        return manifest
    store = open_segments(folder, manifest.segments)
    assert store is not None
    rows = alive_rows(store, manifest)
    if asked["from"] == LEARNED:
        names = store.names
        asked["learned_on"] = hashlib.sha256("".join(sorted(names[row] for row in rows)).encode()).hexdigest()
        if known and asked == {name: value for name, value in known.items() if name != "file"}:
            return manifest
        if len(rows) < 2:
            return _with_whitening(folder, manifest, None)
        whitening = fit_pca_whitening(np.asarray(store.global_descriptors[rows]), None, float(asked["power"]))
        # There may be fewer dimensions than asked for when there are few photographs.
        whitening = Whitening(whitening.mean, whitening.projection[:, : asked["dim"]])
    else:
        whitening = load_whitening(asked["from"])
        whitening.apply(np.asarray(store.global_descriptors[rows[:1]]))  # fails for descriptors of another dimension
    number = manifest.number + 1
    name = f"whitening-{number:05d}.npz"
    whitening.save(folder / name)
    return _with_whitening(folder, replace(manifest, number=number), {"file": name, **asked})


def _with_whitening(folder, manifest, whitening) -> Manifest:
    if whitening != manifest.whitening:
        manifest = replace(manifest, whitening=whitening)
        write_manifest(folder, manifest)
    return manifest


def _remove_leftovers(folder: Path, manifest: Manifest) -> None:
    """Removes the files that killed runs, merges and removed photographs left, but not those of a pending
    extraction."""
    pending = f"segment-{_pending_number(folder):05d}.h5"
    kept = {
        *manifest.segments,
        pending,
        f"{pending}.parts",
        f"{pending}.skipped.csv",
        (manifest.whitening or {}).get("file"),
    }
    held = {seen.sha256 for seen in manifest.photographs.values()}
    for path in {*(folder / "segments").glob("*"), *folder.glob("whitening-*.npz"), *folder.glob("*.tmp.*")}:
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder / "thumbnails").glob("*"):
        if path.name.partition(".")[0] not in held:
            path.unlink()
    if not (folder / PENDING).exists():
        (folder / TABLE).unlink(missing_ok=True)


def _pending_number(folder) -> int:
    try:
        return int(parse_json((folder / PENDING).read_bytes())["number"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
