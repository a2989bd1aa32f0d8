"""The image that the descriptors of a stored image belong to: the whole file, or a query's crop."""

from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.images import Box, Decoded, Unreadable, decode

# Published lists count a box's both ends, so that imported sizes are a pixel off its rounded sides.
_TOLERANCE = 2


def resolve(store, image: str | int) -> int:
    """The index of an image given by its name in the store, its file stem or its index. Raises InputError when there is
    none."""
    if isinstance(image, str) and image.isdecimal() and image not in store:
        image = int(image)
    return store[image].index


def read_stored_image(store, index: int, image_dir: str | Path, box: Box | None = None) -> np.ndarray:
    """uint8 RGB [H, W, 3] that the keypoints of a stored image lie on, as an extraction reads it (EXIF orientation is
    ignored). box: (x1, y1, x2, y2) that queries were cropped to, if this image is one.

    The size in the store says whether the box was cut out; where it is that of the whole image, as Paris6k's
    published lists have it, the keypoints do: of a crop none lies beyond the crop's sides. Raises InputError for a file
    that cannot be read and for an image of another size.
    """
    file, stored = Path(image_dir) / store.names[index], tuple(store.image_size[index].tolist())
    whole = _decode(file, None, image_dir)
    if box is not None:
        crop = _decode(file, box, image_dir)
        if _alike(stored, crop.size) or (_alike(stored, whole.size) and _within(store, index, crop.size)):
            return crop.pixels
    if _alike(stored, whole.size):
        return whole.pixels
    sizes = "{} x {}".format(*stored), "{} x {}".format(*whole.whole_size)
    cut = "" if box is None else " (its box {} x {})".format(*crop.size)
    raise InputError(
        f"{store.path}: {store.names[index]!r} was extracted from {sizes[0]} pixels, {file} has {sizes[1]}{cut}; give"
        " the folder of the images that were extracted and, for a cropped query, the ground truth with its box"
    )


def _decode(file: Path, box: Box | None, image_dir) -> Decoded:
    try:
        return decode(file, box)
    except Unreadable as reason:
        remedy = "mend the image" if box is None else "give a box x1, y1, x2, y2 in pixels of the whole image"
        if not file.exists():
            remedy = f"give the folder that the names in the store are relative to, not {image_dir}"
        raise InputError(f"{file}: {reason}; {remedy}") from None


def _alike(size, other) -> bool:
    return max(abs(a - b) for a, b in zip(size, other)) <= _TOLERANCE


def _within(store, index, size) -> bool:
    keypoints = store.local_rows("keypoints", *store.offsets[index : index + 2])
    return bool((keypoints <= np.array(size) + _TOLERANCE).all())
