"""Answering queries: which photograph is meant, its descriptors, the search. What command line and web page share."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.photo_index.extraction import Describer
from rrt.photo_index.manifest import shown
from rrt.photo_index.query import PhotoIndex, Ranker
from rrt.photo_index.report import Answer
from rrt.store.store import Store

Box = tuple[int, int, int, int]


def parse_box(text: str) -> Box:
    """``x1,y1,x2,y2`` in pixels, right and lower border outside. Raises InputError."""
    try:
        x1, y1, x2, y2 = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--crop {text}: expected x1,y1,x2,y2, four whole numbers of pixels") from None
    return checked_box((x1, y1, x2, y2))


def checked_box(box: Box) -> Box:
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 10**6 and 0 <= y1 < y2 <= 10**6):
        raise InputError(
            f"the box {x1},{y1},{x2},{y2} is empty or has its corners the wrong way round; expected x1 < x2 and y1 < y2"
        )
    return box


def answer_photograph(
    index: PhotoIndex, number: int, ranker: Ranker, describer: Describer, k: int, box: Box | None = None
) -> Answer:
    """Photographs like one of the index, which is left out; its own descriptors serve unless a box is searched for."""
    file, entry = index.file_of(number), index.entries[number]
    if not box:
        return Answer(entry.name, index.search(number, ranker, k), number, number, file)
    if file is None:
        raise InputError(
            f"{shown(entry.name)}: the photograph is no longer there or has changed; run tools/search.py build again"
        )
    hits = [
        hit
        for hit in _described(index, file, entry.name, ranker, describer, k + 1, box)
        if hit.entry.content != entry.content
    ]
    return Answer(entry.name, hits[:k], number, number, file, box)


def answer_file(
    index: PhotoIndex, file: Path, name: str, ranker: Ranker, describer: Describer, k: int, box: Box | None = None
) -> Answer:
    """Photographs like an image from anywhere, called ``name``; one of the same bytes is found, too."""
    same = index.contents.get(sha256_of_file(file), -1)
    return Answer(name, _described(index, file, name, ranker, describer, k, box), -1, same, file, box)


def _described(index, file, name, ranker, describer, k, box):
    with TemporaryDirectory(prefix="rrt_query_") as folder:
        path = Path(folder) / "query.h5"
        try:
            describer.describe(Path(file).absolute(), path, box)
        except InputError as error:
            raise InputError(f"{shown(name)}: {error}") from None
        with Store(path) as store:
            return index.search(store, ranker, k)
