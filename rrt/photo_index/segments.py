"""The descriptors of an index: stores that are read as one, and merged when there are many of them or when many of
their rows are unused; and what the index holds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import parse_json
from rrt.photo_index.extraction import BLOCK
from rrt.photo_index.manifest import PENDING, Manifest, damaged, read_manifest, segment_path
from rrt.progress import warn
from rrt.store.file import Sizes, write_finished
from rrt.store.joined import JoinedStore
from rrt.store.schema import LOCAL_COLUMNS
from rrt.store.store import Store

MOST_SEGMENTS = 8
# Copying the other rows is worth it when this many rows are unused, and this part of all rows.
MANY_DEAD, DEAD_PART = 64, 0.3
_IMAGES_PER_BLOCK = 64
_STALE = 300.0  # seconds without progress after which a build counts as stopped


def open_segments(folder: Path, names: Iterable[str]) -> Store | JoinedStore | None:
    """All stores of an index as one, None when there are none. All their data are memory-mapped now, so that the files
    may be removed while they are read."""
    stores = [open_segment(folder, name) for name in names]
    return reduce(JoinedStore, stores) if stores else None


def open_segment(folder: Path, name: str) -> Store:
    """One of them. Raises InputError."""
    path = segment_path(folder, name)
    try:
        store = Store(path)
        _ = store.global_descriptors
        for column in LOCAL_COLUMNS:
            store.local_rows(column, 0, 0)
    except InputError as error:  # its remedies are those for a store of one's own
        raise damaged(path, str(error).removeprefix(f"{path}: ").rpartition("; ")[0] or str(error)) from None
    return store


def alive_rows(store, manifest: Manifest) -> np.ndarray:
    """The rows int64 [n] of a store that belong to photographs of the manifest; none where ``store`` is None."""
    held = {seen.sha256 for seen in manifest.photographs.values()}
    return np.array([row for row, name in enumerate(store.names) if name in held] if store else [], np.int64)


def wants_merging(manifest: Manifest, store, alive: int) -> bool:
    """Whether the segments should be merged. store: all of them as one; alive: how many of its rows are in use."""
    dead = len(store) - alive if store else 0
    return len(manifest.segments) > MOST_SEGMENTS or (dead >= MANY_DEAD and dead > DEAD_PART * len(store))


def write_rows(store: Store | JoinedStore, rows: np.ndarray, path: Path, config: dict, model_sha256: str) -> None:
    """Writes a store of the images ``rows`` [n] of another store, in that order, without changing a bit. Needs the
    memory of a block of images."""
    rows = np.asarray(rows, np.int64)
    names = store.names
    sizes = Sizes(
        [names[row] for row in rows], int(store.local_counts()[rows].sum()), store.global_dim, store.local_dim
    )
    attributes = {"desc_name": "photographs", "model_sha256": model_sha256, "config": json.dumps(config)}
    write_finished(path, sizes, [], _blocks(store, rows), store.local_dtype, None, attributes)


def warn_of_matchless(folder: Path, segment: Path, files: dict[str, str]) -> None:
    """Warns of images in a new segment that have no local descriptors. files: {name in the store: path}."""
    with Store(segment) as store:
        lacking = np.flatnonzero(store.local_counts() == 0)
        if len(lacking):
            warn(
                f"{folder}: {len(lacking)} of {len(store)} new photographs have no local descriptors and match nothing"
                f" (first {files[store.names[lacking[0]]]!r})"
            )


def _blocks(store, rows):
    for start in range(0, len(rows), _IMAGES_PER_BLOCK):
        block = rows[start : start + _IMAGES_PER_BLOCK]
        packed = store.read_packed(block)
        yield {
            "image_size": store.image_size[block],
            "global": np.asarray(store.global_descriptors[block]),
            "local/offsets": packed.offsets,
            **{f"local/{name}": getattr(packed, name) for name in LOCAL_COLUMNS},
        }


def under_way(folder: str | Path) -> tuple[int, int] | None:
    """(Images described, images to describe) of the running build of an index, in whatever process; None where none is
    running, or where it has made no progress for _STALE seconds."""
    pending = Path(folder) / PENDING
    try:
        number, count = _pending(pending, pending.stat().st_mtime_ns)
        parts = segment_path(Path(folder), f"segment-{number:05d}.h5.parts")
        found = [path.stat().st_mtime for path in parts.glob("*.h5")]
        if not (Path(folder) / "lock").exists() or time.time() - max(pending.stat().st_mtime, *found, 0) > _STALE:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return min(BLOCK * len(found), count), count


@lru_cache(4)
def _pending(path: Path, changed: int) -> tuple[int, int]:
    content = parse_json(path.read_bytes())
    return int(content["number"]), len(content["table"])


def describe(folder: str | Path) -> dict:
    """{title: number or text} about an index. Raises InputError when there is none or it is damaged."""
    folder, manifest = Path(folder), read_manifest(folder)
    store = open_segments(folder, manifest.segments)
    contents, alive = manifest.contents(), alive_rows(store, manifest)
    names = store.names if store else []
    described = {names[row] for row in alive.tolist()}
    size = sum(segment_path(folder, name).stat().st_size for name in manifest.segments)
    options = [word for flag in manifest.extraction["flags"] for word in flag]
    whitening = (manifest.whitening or {}).get("from")
    if manifest.whitening and whitening == "learned":
        dim, power = manifest.whitening["dim"], manifest.whitening["power"]
        whitening = f"learned on the index, at most {dim} dimensions, power {power}"
    return {
        "photographs": sum(len(paths) for content, paths in contents.items() if content in described),
        "contents": len(described),
        "folder": manifest.root,
        "skipped": len(manifest.skipped()),
        "still to be described": len(contents.keys() - described - manifest.failed.keys()),
        "an extraction was interrupted": (folder / PENDING).exists(),
        "segments": len(manifest.segments),
        "rows of removed photographs": len(names) - len(alive),
        "megabytes of descriptors": round(size / 1e6, 1),
        "local descriptors an image": round(float(store.local_counts()[alive].mean()), 1)
        if store and len(alive)
        else 0,
        "whitening": whitening,
        "options of the extraction": " ".join(options) or "those of lite0",
        "SHA-256 of the model": manifest.extraction["model_sha256"],
    }
