"""When the photographs of an index were taken, kept in its dates.json: {SHA-256: time, "" where the file does not
say}."""

from __future__ import annotations

from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import read_json, write_json
from rrt.files.images import taken
from rrt.photo_index.manifest import Manifest
from rrt.progress import bar

DATES = "dates.json"


def read_dates(folder: str | Path) -> dict[str, str]:
    """{SHA-256: time as rrt.files.images.taken() gives it} of the photographs whose files were looked at; {} where
    dates.json is missing or damaged."""
    try:
        dates = read_json(Path(folder) / DATES)
    except InputError:
        return {}
    if not isinstance(dates, dict) or not all(isinstance(date, str) for date in dates.values()):
        return {}
    return dates


def update_dates(folder: str | Path, manifest: Manifest) -> None:
    """Adds the dates of new photographs to dates.json, and drops those of photographs that are gone."""
    known, contents = read_dates(folder), manifest.contents()
    new = [content for content in contents if content not in known and content not in manifest.failed]
    root = Path(manifest.root)
    found = {content: taken(root / contents[content][0]) for content in bar(new, "dates", "file", passing=True)}
    dates = {content: date for content, date in (known | found).items() if content in contents}
    if dates != known:
        write_json(Path(folder) / DATES, dates)
