"""A query of the command line: `search.py query`."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rrt.errors import InputError
from rrt.files.images import Box
from rrt.files.names import shown
from rrt.photo_index.extraction import open_describer
from rrt.photo_index.manifest import Manifest, read_manifest

if TYPE_CHECKING:  # answer_query imports them late, because they load slowly
    from rrt.photo_index.query import PhotoIndex
    from rrt.photo_index.ranking import Ranker
    from rrt.photo_index.report import Answer


class Answered(NamedTuple):
    """index, ranker: opened, as the reports of an answer take them; note: on a file that may have been meant, or ""."""

    index: PhotoIndex
    ranker: Ranker
    answer: Answer
    note: str


def answer_query(folder: str | Path, image: str, box: Box | None, k: int, ranking) -> Answered:
    """The photographs of an index most like ``image``, one of the index or a file from anywhere. box: the part of it
    to search for, None = the whole; k: number of results; ranking: options for ``rrt.photo_index.ranking.ranker_of``.
    Raises InputError."""
    manifest = read_manifest(folder)
    with closing(open_describer(Path(folder), manifest.extraction)) as describer:
        if box or not _is_photograph(manifest, image):
            if not Path(image).is_file() and not manifest.path_called(image):
                other = "a folder or no regular file; give an image"
                nothing = f"neither a file nor a photograph of the index {folder}"
                raise InputError(f"{shown(image)}: {other if Path(image).exists() else nothing}")
            describer.start()  # a DELG model loads while the next lines run
        from rrt.photo_index.query import PhotoIndex
        from rrt.photo_index.ranking import ranker_of
        from rrt.photo_index.service import answer_file, answer_photograph

        index = PhotoIndex(folder)
        ranker = ranker_of(index.manifest, ranking, index.whitening)
        number, note = index.find(image), ""
        if number is None:
            answer = answer_file(index, Path(image), image, ranker, describer, k, box)
        else:
            answer = answer_photograph(index, number, ranker, describer, k, box)
            if index.is_another_file(image, number):
                note = (
                    f"searched for the photograph of the index; there is also a file {shown(image)} here: give it as "
                    f"{shown(os.path.join(os.curdir, image))}"
                )
    return Answered(index, ranker, answer, note)


def _is_photograph(manifest: Manifest, image: str) -> bool:
    path = os.path.relpath(os.path.realpath(image), manifest.root)
    return bool(manifest.path_called(image) or manifest.path_called(path))
