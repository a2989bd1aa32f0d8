"""How many local descriptors images of a store have, and what is said where an image, or all, have none."""

from __future__ import annotations

import numpy as np

from rrt.errors import InputError
from rrt.progress import warn
from rrt.store.joined import JoinedStore
from rrt.store.memory import MemoryStore
from rrt.store.records import Skipped
from rrt.store.store import Store

AnyStore = Store | JoinedStore | MemoryStore


def check_locals(store: AnyStore, images: np.ndarray | None, wanted_by: str) -> None:
    """InputError when not one of the images (indices; None: all) has a local descriptor. wanted_by: who compares
    them."""
    counts = _counts(store, images)
    if store.local_dim and (counts.any() or not len(counts)):
        return
    if not store.local_dim or not store.local_counts().any():
        raise InputError(
            f"{store.path}: holds no local descriptors, which {wanted_by} compares: {len(store)} of {len(store)} images"
            " lack them; extract or import them too (was the threshold of attention that of another model?)"
        )
    first = store.names[int(images[0])] if images is not None else store.names[0]
    raise InputError(
        f"{store.path}: not one of {len(counts)} images has local descriptors, which {wanted_by} compares (first"
        f" {first!r}); extract these images again"
    )


def warn_without_locals(store: AnyStore, images: np.ndarray | None, wanted_by: str, remedy: str = "") -> None:
    """A line about how many of the images have no local descriptor, when there are such."""
    counts = _counts(store, images)
    lacking = np.flatnonzero(counts == 0)
    if len(lacking):
        first = store.names[int(lacking[0] if images is None else images[lacking[0]])]
        warn(
            f"{store.path}: {len(lacking)} of {len(counts)} images have no local descriptors, which {wanted_by}"
            f" compares (first {first!r}){remedy}"
        )


def tell_of_extraction(path, count: int, skipped: list[Skipped], with_locals: bool = True, remedy: str = "") -> None:
    """What a command prints of the store it has written: images, local descriptors an image, and the images left out.
    count: images asked for; with_locals: whether they were to have local descriptors; remedy: for those without."""
    written = f"wrote {path}: {count - len(skipped)} images"
    store = Store(path)
    if with_locals and len(store):
        counts = store.local_counts()
        written += f", {counts.mean():.1f} local descriptors an image ({counts.min()} to {counts.max()})"
    print(written)
    for image in skipped:
        print(f"skipped {image.name}: {image.reason}")
    if with_locals:
        warn_without_locals(store, None, "reranking", remedy)


def _counts(store, images):
    counts = store.local_counts()
    return counts if images is None else counts[np.asarray(images, np.int64)]
