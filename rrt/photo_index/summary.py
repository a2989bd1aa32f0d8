"""What an update of an index did, as counts that add up and as lines of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rrt.files.names import shown
from rrt.photo_index.manifest import SKIPPED, Manifest
from rrt.photo_index.scan import Found

MOST_TOLD = 10  # skipped photographs that are named


@dataclass(frozen=True)
class Summary:
    """Counts of an update. ``files`` are all files that were found, except hidden and excluded ones. It is the sum of
    the new, changed, renamed (or copied) and unchanged photographs, the skipped ones, those that changed or disappeared
    during the update (postponed), the videos, and the other files (ignored). removed: photographs whose content is
    gone; described: contents that got descriptors; merged: whether segments were merged."""

    manifest: Manifest
    files: int
    new: int
    changed: int
    renamed: int
    unchanged: int
    skipped: int
    postponed: int
    videos: int
    ignored: int
    removed: int
    described: int
    merged: bool

    @property
    def photographs(self) -> int:
        """Files that can be searched."""
        return self.new + self.changed + self.renamed + self.unchanged


def summarize(old: Manifest, new: Manifest, found: Found, described: int, merged: bool) -> Summary:
    """The Summary of the update from the manifest ``old`` to ``new``."""
    before, after, skipped = old.photographs, new.photographs, new.skipped()
    known, held = ({seen.sha256 for seen in photographs.values()} for photographs in (before, after))

    def kind(path: str) -> str:
        if path not in before:
            return "renamed" if after[path].sha256 in known else "new"
        return "unchanged" if after[path].sha256 == before[path].sha256 else "changed"

    counts = Counter(kind(path) for path in after if path not in skipped)
    looked_at = found.files.keys() | found.unread.keys() | after.keys()
    return Summary(
        new,
        len(looked_at) + found.videos + found.ignored,
        **{name: counts[name] for name in ("new", "changed", "renamed", "unchanged")},
        skipped=len(skipped),
        postponed=len(looked_at - after.keys() - skipped.keys()),
        videos=found.videos,
        ignored=found.ignored,
        removed=sum(before[path].sha256 not in held for path in before.keys() - after.keys()),
        described=described,
        merged=merged,
    )


def lines_of_build(folder: str | Path, done: Summary) -> list[str]:
    """What an update of the index ``folder`` did: at most MOST_TOLD of the skipped photographs, then the counts."""
    skipped = done.manifest.skipped()
    lines = [f"skipped {shown(name)}: {reason}" for name, reason in list(skipped.items())[:MOST_TOLD]]
    if len(skipped) > MOST_TOLD:
        lines.append(f"and {len(skipped) - MOST_TOLD} more")
    counts = (
        f"{folder}: {done.photographs:,} photographs ({done.new:,} new, {done.changed:,} changed, {done.renamed:,} "
        f"renamed or copied, {done.unchanged:,} as before)"
        + f"; {done.skipped:,} skipped, see {Path(folder) / SKIPPED}" * bool(done.skipped)
        + f"; {done.postponed:,} changed meanwhile, build again" * bool(done.postponed)
        + f"; {done.videos:,} videos left out" * bool(done.videos)
        + f"; {done.ignored:,} other files left out" * bool(done.ignored)
        + f"; of {done.files:,} files in all; {done.removed:,} removed, {done.described:,} images described"
        + "; segments merged" * done.merged
    )
    return [*lines, counts]
