"""A second look at the images themselves, where descriptors leave the first answer unsure. It finds prints, covers and
signs photographed from the side, and photographs taken from the same position (docs/calibration.md 7)."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from rrt.calibration import GROUPS
from rrt.files.images import Box, Unreadable, decode, small_jpeg
from rrt.files.machine import usable_cores
from rrt.matching.sift import SIDE, SiftPoints, points_in_common, sift_points
from rrt.photo_index.query import Hit, Hits, PhotoIndex
from rrt.photo_index.ranking import Ranker

LOOKED_AT = 10  # results
ENOUGH = 10  # points in common; no wrong result had more than 8
_DOUBT = 0.02  # divided by the points in common: the probability that they mislead


def wants_second_look(hits: Hits, ranker: Ranker) -> bool:
    """Whether the first answer is unsure: its probability is not 0, but it is not called the same."""
    return ranker.second_look and bool(hits) and bool(hits[0].probability) and hits[0].group in ("maybe", "similar")


def look_again(
    index: PhotoIndex, hits: Hits, ranker: Ranker, image: Path | np.ndarray | None, box: Box | None = None
) -> Hits:
    """The results. Where the first answer is unsure, those of the first LOOKED_AT that share at least ENOUGH points
    with the query are called the same and come first. image: file of the query or its pixels, uint8 [H, W, 3] in RGB,
    None = there are none; box: of the upright pixels of a file, None = the whole."""
    query = _points(image, box) if wants_second_look(hits, ranker) else None
    if query is None or len(query.points) < ENOUGH:
        return hits

    def seen(hit: Hit) -> Hit:
        points = _points(index.file_of(index.contents[hit.entry.content]))
        shared = points_in_common(query, points) if points else 0
        if shared < ENOUGH:
            return hit
        return hit._replace(
            probability=max(hit.probability or 0.0, 1 - _DOUBT / shared), group=GROUPS[0], shared=shared
        )

    with ThreadPoolExecutor(usable_cores()) as pool:
        looked = [*pool.map(seen, hits[:LOOKED_AT]), *hits[LOOKED_AT:]]
    return Hits(sorted(looked, key=lambda hit: -(hit.probability or 0.0)))


def _points(image: Path | np.ndarray | None, box: Box | None = None) -> SiftPoints | None:
    """The SIFT points of an image made smaller; None where its file is missing or cannot be read."""
    if not isinstance(image, np.ndarray):
        try:
            image = decode(io.BytesIO(small_jpeg(image, SIDE, box, turned=True))).pixels if image else None
        except Unreadable:
            return None
    if image is None:
        return None
    grey, scale = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), min(1.0, SIDE / max(image.shape[:2]))
    return sift_points(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
