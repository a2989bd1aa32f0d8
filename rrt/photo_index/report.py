"""Results of a query for people and programs: text, JSON, and an HTML page in one file."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path

from rrt.files.pictures import Unreadable, small_jpeg
from rrt.photo_index.manifest import shown
from rrt.photo_index.query import THUMBNAIL_SIDE, Hit, PhotoIndex, Ranker


@dataclass(frozen=True)
class Answer:
    """What a query was and what was found. image: as the user named it; entry: the one it is, which was left out, -1:
    none; same: the entry of the same bytes, -1: none; file: of the image; box: what was searched for, None = the
    whole."""

    picture: str
    hits: list[Hit]
    entry: int = -1
    same: int = -1
    file: Path | None = None
    box: tuple[int, int, int, int] | None = None


def as_text(index: PhotoIndex, answer: Answer, ranker: Ranker) -> str:
    """A table: rank, similarity, the method's score, name."""
    what = "photograph of the index" if answer.entry >= 0 else "picture"
    lines = [f"{what} {shown(answer.picture)}" + (f", box {','.join(map(str, answer.box))}" if answer.box else "")]
    if answer.same >= 0 and answer.entry < 0:
        lines.append(f"the index has the same file: {shown(index.entries[answer.same].name)}")
    if ranker.note:
        lines.append(f"note: {ranker.note}")
    score = ranker.score_name or ""
    lines.append(f"{'rank':>4}  {'similarity':>10}  " + (f"{score:>11}  " if score else "") + "photograph")
    for rank, hit in enumerate(answer.hits, 1):
        value = f"{_score(ranker, hit.score):>11}  " if score else ""
        lines.append(f"{rank:>4}  {hit.similarity:>10.4f}  {value}{_names(hit)}")
    return "\n".join(lines)


def _score(ranker: Ranker, value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if ranker.score_name == "inliers" else f"{value:.3f}"


def _names(hit: Hit) -> str:
    more = len(hit.entry.paths) - 1
    return shown(hit.entry.name) + (f" (and {more} more of the same content)" if more else "")


def as_json(index: PhotoIndex, answer: Answer, ranker: Ranker) -> dict:
    """Plain values; the names as text that JSON can hold."""
    results = [
        {
            "rank": rank,
            "name": json_text(hit.entry.name),
            "paths": [json_text(path) for path in hit.entry.paths],
            "sha256": hit.entry.content,
            "size": list(hit.entry.size),
            "similarity": round(hit.similarity, 6),
            "score": None if hit.score is None else round(hit.score, 6),
        }
        for rank, hit in enumerate(answer.hits, 1)
    ]
    return {
        "picture": json_text(answer.picture),
        "box": list(answer.box) if answer.box else None,
        "method": ranker.name,
        "score": ranker.score_name,
        "note": ranker.note,
        "same_file": json_text(index.entries[answer.same].name) if answer.same >= 0 else None,
        "results": results,
    }


def json_text(name: str) -> str:
    """A file's name with a replacement character for every byte that is no text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem auto; padding: 0 1rem; max-width: 75rem; }
h1 { font-size: 1.3rem; } header { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
header img { max-width: 256px; max-height: 256px; border-radius: 4px; }
ol { list-style: none; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap:
1rem; } li { border: 1px solid #8884; border-radius: 6px; padding: .6rem; overflow-wrap: anywhere; }
.frame { display: grid; place-items: center; height: 180px; background: #8881; border-radius: 4px; }
.frame img { max-width: 100%; max-height: 180px; } p { margin: .3rem 0 0; } .figures { font-variant-numeric:
tabular-nums; }
"""


def as_html(index: PhotoIndex, answer: Answer, ranker: Ranker) -> str:
    """A page that needs nothing beside it: thumbnails are part of it."""
    title = f"{'photograph' if answer.entry >= 0 else 'picture'} {shown(answer.picture)}"
    notes = [f"searched for the box {','.join(map(str, answer.box))}"] if answer.box else []
    notes += (
        [f"the index has the same file: {shown(index.entries[answer.same].name)}"]
        if answer.same >= 0 and answer.entry < 0
        else []
    )
    notes += [ranker.note] if ranker.note else []
    notes.append(f"{len(answer.hits)} of {len(index.entries)} photographs, method {ranker.name}")
    own = _image(_small(answer.file), "the image searched for") if answer.file else ""
    items = "\n".join(_item(index, rank, hit, ranker) for rank, hit in enumerate(answer.hits, 1))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head>
<body><header>{own}<div><h1>{html.escape(title)}</h1>{"".join(f"<p>{html.escape(note)}</p>" for note in notes)}</div></header>
<main><ol>
{items}
</ol></main></body></html>
"""


def _item(index, rank, hit, ranker) -> str:
    number = index.contents[hit.entry.content]
    picture = _image(index.thumbnail(number), hit.entry.name) or "<span>no longer there</span>"
    file = index.file_of(number)
    if file:
        picture = f'<a href="{html.escape(file.as_uri())}">{picture}</a>'
    figures = f"similarity {hit.similarity:.4f}"
    if ranker.score_name and hit.score is not None:
        figures += f", {ranker.score_name} {_score(ranker, hit.score)}"
    return (
        f'<li><div class="frame">{picture}</div><p><b>{rank}</b> {html.escape(_names(hit))}</p>'
        f'<p class="figures">{figures}</p></li>'
    )


def _small(file) -> bytes | None:
    try:
        return small_jpeg(file, THUMBNAIL_SIDE, turned=True)
    except Unreadable:
        return None


def _image(jpeg: bytes | None, name: str) -> str:
    if not jpeg:
        return ""
    return (
        f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" '
        f'alt="{html.escape(shown(name), quote=True)}">'
    )
