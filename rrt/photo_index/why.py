"""Why a photograph was found: the details that it shares with the image searched for."""

from __future__ import annotations

import numpy as np

from rrt.files.images import Box
from rrt.matching.images import BORDER, ImageFeatures, inner, match_images
from rrt.photo_index.query import PhotoIndex
from rrt.store.records import ImageRecord

MOST_DRAWN = 60  # more lines would hide the images


def shared_details(
    index: PhotoIndex, query: int | ImageRecord, number: int, whole: tuple[int, int], box: Box | None = None
) -> dict:
    """{"count": number of local descriptors of the query that match those of entry ``number`` and agree on one plane
    transform, "pairs": [x, y, x', y'] of at most MOST_DRAWN of them, as fractions of the two images' widths and
    heights}.

    query: an entry, or the descriptors of another image, whose size is ``whole`` (width, height); box: the part of it
    that is described, None = the whole. Raises InputError where the descriptors cannot be compared.
    """
    if isinstance(query, ImageRecord):
        first = _features("the image searched for", query.size, query.keypoints, query.descriptors)
    else:
        first = _of_entry(index, query)
    second = _of_entry(index, number)
    rows = match_images(first, second).inliers
    x1, y1, x2, y2 = box or (0, 0, *whole)
    scale = np.array([x2 - x1, y2 - y1]) / first.size
    pairs = np.hstack([(first.points[rows[:, 0]] * scale + (x1, y1)) / whole, second.points[rows[:, 1]] / second.size])
    if len(pairs) > MOST_DRAWN:  # spread over the image, not only its strongest corner
        pairs = pairs[np.linspace(0, len(pairs) - 1, MOST_DRAWN).astype(int)]
    return {"count": len(rows), "pairs": np.round(pairs, 4).tolist()}


def _of_entry(index: PhotoIndex, number: int) -> ImageFeatures:
    local = index.store.read_packed(index.rows[[number]], columns=("descriptors", "keypoints"))
    entry = index.entries[number]
    return _features(entry.name, entry.size, local.keypoints, np.asarray(local.descriptors, np.float32))


def _features(name: str, size, keypoints, descriptors) -> ImageFeatures:
    width, height = map(int, size)
    return inner(ImageFeatures(name, (width, height), keypoints, descriptors), BORDER)
