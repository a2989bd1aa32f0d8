"""What an index holds, for people and programs."""

from __future__ import annotations

from pathlib import Path

from rrt.photo_index.manifest import PENDING, read_manifest, segment_path
from rrt.photo_index.segments import alive_rows, open_segments

SHIPPED = "those of the shipped model"


def describe(folder: str | Path) -> dict:
    """{what: number or text} of an index. Raises InputError when there is none or it is damaged."""
    folder, manifest = Path(folder), read_manifest(folder)
    store = open_segments(folder, manifest.segments)
    contents, alive = manifest.contents(), alive_rows(store, manifest)
    names = store.names if store else []
    described = {names[row] for row in alive.tolist()}
    size = sum(segment_path(folder, name).stat().st_size for name in manifest.segments)
    whitening = manifest.whitening
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
        "local descriptors an image": round(float(store.local_counts()[alive].mean()), 1) if len(alive) else 0,
        "whitening": None
        if not whitening
        else whitening["from"]
        if whitening["from"] != "learned"
        else f"learned on the index, at most {whitening['dim']} dimensions, power {whitening['power']}",
        "options of the extraction": " ".join(word for flag in manifest.extraction["flags"] for word in flag)
        or SHIPPED,
        "SHA-256 of the model": manifest.extraction["model_sha256"],
    }
