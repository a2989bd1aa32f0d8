"""Results of a query as text, as JSON, and as an HTML page in one file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import jinja2

from rrt.files.images import Box, Unreadable, small_jpeg
from rrt.files.names import shown
from rrt.photo_index.query import THUMBNAIL_SIDE, Hit, Hits, PhotoIndex
from rrt.photo_index.ranking import Ranker

PAGE = Path(__file__).with_name("page")
NOTHING = "nothing like it in these photographs"
HEADINGS = {"same": "The same", "maybe": "Maybe the same", "similar": "Similar only"}


@dataclass(frozen=True)
class Answer:
    """A query and its results. name: of the image, as the user gave it; entry: the number of the query in the index,
    which was left out of the results, -1: not there; same: the entry with the same bytes, -1: none; file: of the image;
    box: the part that was searched for, None = the whole."""

    name: str
    hits: Hits
    entry: int = -1
    same: int = -1
    file: Path | None = None
    box: Box | None = None


def as_text(index: PhotoIndex, answer: Answer, ranker: Ranker) -> str:
    """A table: rank, the figures of each result (the first says by what the results are sorted), name."""
    lines = [f"{_kind(answer)} {shown(answer.name)}" + (f", {_box(answer)}" if answer.box else "")]
    lines += _notes(index, answer, ranker, "note: ")
    rows = [dict(_figures(ranker, hit)) for hit in answer.hits]
    titles = [*rows[0]] if rows else []
    lines.append(f"{'rank':>4}  " + "".join(f"{title:>11}  " for title in titles) + "photograph")
    for rank, (hit, values) in enumerate(zip(answer.hits, rows), 1):
        lines.append(f"{rank:>4}  " + "".join(f"{values.get(title, ''):>11}  " for title in titles) + _names(hit))
    return "\n".join(lines)


def _kind(answer: Answer) -> str:
    return "photograph of the index" if answer.entry >= 0 else "image"


def _box(answer: Answer) -> str:
    return f"box {','.join(map(str, answer.box or ()))}"


def _notes(index: PhotoIndex, answer: Answer, ranker: Ranker, mark: str = "") -> list[str]:
    """Notes on the results; ``mark`` is put before the note on the method."""
    notes = [NOTHING] * (answer.hits.found is False)
    if answer.same >= 0 and answer.entry < 0:
        notes.append(f"the index has the same file: {shown(index.entries[answer.same].name)}")
    return notes + [mark + ranker.note] * bool(ranker.note)


def _figures(ranker: Ranker, hit: Hit) -> list[tuple[str, str]]:
    """(Title, text) of the probability, the group, the score and the similarity, as far as the result has them; results
    are sorted by the first of them."""
    found = []
    if hit.probability is not None:
        found.append(("probability", f"{hit.probability:.2f}"))
    if hit.group is not None:
        found.append(("group", hit.group))
    if hit.score is not None:
        found.append((ranker.score_name or "score", f"{hit.score:.{0 if ranker.score_name == 'inliers' else 3}f}"))
    return [*found, ("similarity", f"{hit.similarity:.4f}")]


def _names(hit: Hit) -> str:
    more = len(hit.entry.paths) - 1
    return shown(hit.entry.name) + (f" (and {more} more of the same content)" if more else "")


def as_json(index: PhotoIndex, answer: Answer, ranker: Ranker) -> dict:
    """The answer as plain values for JSON."""
    results = [
        {
            "rank": rank,
            "name": json_text(hit.entry.name),
            "paths": [json_text(path) for path in hit.entry.paths],
            "sha256": hit.entry.content,
            "size": list(hit.entry.size),
            "similarity": round(hit.similarity, 6),
            "score": None if hit.score is None else round(hit.score, 6),
            "probability": None if hit.probability is None else round(hit.probability, 4),
            "group": hit.group,
            "shared": hit.shared,
        }
        for rank, hit in enumerate(answer.hits, 1)
    ]
    return {
        "picture": json_text(answer.name),
        "box": list(answer.box) if answer.box else None,
        "method": ranker.name,
        "score": ranker.score_name,
        "note": ranker.note,
        "found": answer.hits.found,
        "same_file": json_text(index.entries[answer.same].name) if answer.same >= 0 else None,
        "results": results,
    }


def json_text(name: str) -> str:
    """The name of a file, with a replacement character for each byte that is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def saved_page(template: str, **values) -> str:
    """A page made from a template of rrt/photo_index/page; values are escaped."""
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGE), autoescape=True, undefined=jinja2.StrictUndefined)
    return pages.get_template(template).render(**values)


def as_html(index: PhotoIndex, answer: Answer, ranker: Ranker) -> str:
    """A page that needs no other file, because it contains the thumbnails."""
    notes = [f"searched for {_box(answer)}"] if answer.box else []
    notes += _notes(index, answer, ranker)
    notes.append(f"{len(answer.hits)} of {len(index.entries)} photographs, method {ranker.name}")
    return saved_page(
        "results.html",
        title=f"{_kind(answer)} {shown(answer.name)}",
        notes=notes,
        jpeg=_base64(_small(answer.file)),
        groups=[
            (HEADINGS.get(str(group)), [_result(index, hit, ranker, rank) for rank, hit in ranked])
            for group, ranked in groupby(enumerate(answer.hits, 1), lambda each: each[1].group)
        ],
    )


def _result(index: PhotoIndex, hit: Hit, ranker: Ranker, rank: int) -> dict:
    number = index.contents[hit.entry.content]
    file = index.file_of(number)
    figures = ", ".join(" ".join(each) for each in _figures(ranker, hit) if each[0] != "group")
    return {
        "jpeg": _base64(index.thumbnail(number)),
        "address": file.as_uri() if file else "",
        "name": shown(hit.entry.name),
        "names": _names(hit),
        "figures": figures,
        "rank": rank,
    }


def _small(file: Path | None) -> bytes | None:
    try:
        return small_jpeg(file, THUMBNAIL_SIDE, turned=True) if file else None
    except Unreadable:
        return None


def _base64(content: bytes | None) -> str:
    return base64.b64encode(content or b"").decode()
