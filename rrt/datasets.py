"""A dataset folder opened and checked as a whole: store, lists, ground truth and neighbours that belong together.

Everything that can be wrong with the files is found here, before the long work starts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.groundtruth import load_neighbors
from rrt.lists import ImageList, read_image_list
from rrt.revisited import RevisitedSet, load_revisited_set
from rrt.store import Store
from rrt.store_values import as_float32

TEST_LISTS = ("test_query.txt", "test_gallery.txt")
# Local descriptors checked for NaN before training starts; every batch is checked again as it is read.
CHECKED_IMAGES = 20_000
_IMAGES_PER_BLOCK = 512


@dataclass(frozen=True)
class TestSet:
    """Queries and gallery in the Revisited format. query_index [Q], gallery_index [G]: places in the store;
    ranks int64 [Q, R]: gallery positions by falling global similarity."""

    __test__ = False  # not a test class, whatever its name says to pytest

    folder: Path
    images: RevisitedSet
    store: Store
    query_index: np.ndarray
    gallery_index: np.ndarray
    ranks: np.ndarray

    @property
    def gnd(self) -> list[dict]:
        return self.images.truth.gnd


@dataclass(frozen=True)
class TrainSet:
    """Training images. index [N]: places in the store; neighbors int64 [N, k] rows of the list, or None."""

    folder: Path
    store: Store
    images: ImageList
    index: np.ndarray
    neighbors: np.ndarray | None

    @property
    def labels(self) -> np.ndarray:
        return self.images.labels


def store_path(folder, desc_name: str) -> Path:
    return Path(folder) / f"delg_{desc_name}.h5"


def neighbors_path(folder, desc_name: str) -> Path:
    return Path(folder) / f"nn_inds_{desc_name}.pkl"


def open_test_set(folder, desc_name: str, gnd_file: str, lists=TEST_LISTS, max_local: int | None = None) -> TestSet:
    """Raises InputError when a file is missing or the parts do not fit together."""
    folder = Path(folder)
    images = load_revisited_set(*(folder / name for name in lists), folder / gnd_file)
    query, gallery = images.query, images.gallery
    store = Store(store_path(folder, desc_name))
    ranks = load_neighbors(neighbors_path(folder, desc_name), rows=len(query), columns_below=len(gallery))
    query_index, gallery_index = store.indices(query.names, query), store.indices(gallery.names, gallery)
    check_finite(store, np.unique(np.concatenate([query_index, gallery_index])), max_local)
    return TestSet(folder, images, store, query_index, gallery_index, ranks)


def open_train_set(
    folder, desc_name: str, train_txt: str, with_neighbors: bool, max_local: int | None = None
) -> TrainSet:
    """Raises InputError when a file is missing or the parts do not fit together."""
    folder = Path(folder)
    images = read_image_list(folder / train_txt)
    store = Store(store_path(folder, desc_name))
    index = store.indices(images.names, images)
    neighbors = None
    if with_neighbors:
        neighbors = load_neighbors(neighbors_path(folder, desc_name), rows=len(images), columns_below=len(images))
    check_finite(store, index[:: max(1, len(index) // CHECKED_IMAGES)], max_local)
    return TrainSet(folder, store, images, index, neighbors)


def check_finite(store: Store, indices: np.ndarray, max_local: int | None = None) -> None:
    """InputError naming the first of the images whose global or local descriptors are not all finite numbers."""
    descriptors = store.global_descriptors
    for start in range(0, len(indices), _IMAGES_PER_BLOCK):
        block = indices[start : start + _IMAGES_PER_BLOCK]
        bad = ~np.isfinite(descriptors[block]).all(axis=1)
        if bad.any():
            raise not_finite(store, block[np.argmax(bad)], "global descriptor")
        read_descriptors(store, block, max_local)


def read_descriptors(store, indices: np.ndarray, max_local: int | None):
    """``store.read_packed`` and its local descriptors as float32 [m, Dl]; InputError for NaN or infinity in them."""
    packed = store.read_packed(indices, max_local)
    descriptors = as_float32(packed.descriptors)
    # The sum is finite exactly when all summands are (unit rows cannot overflow it), and costs half the pass.
    if not np.isfinite(descriptors.sum()):
        row = int(np.argmin(np.isfinite(descriptors).all(axis=1)))
        raise not_finite(store, indices[np.searchsorted(packed.offsets, row, side="right") - 1], "local descriptors")
    return packed, descriptors


def not_finite(store, index: int, what: str) -> InputError:
    return InputError(
        f"{store.path}: {what} of '{store.names[int(index)]}' hold NaN or infinity; extract the image again"
    )


def check_sizes(store: Store, model_settings: dict) -> None:
    """InputError when the model of these settings takes descriptors of other sizes than the store has."""
    pairs = (("num_global_features", store.global_dim, "global"), ("num_local_features", store.local_dim, "local"))
    for setting, size, what in pairs:
        if model_settings[setting] != size:
            raise InputError(
                f"{store.path}: {what} descriptors have {size} dimensions, model.{setting} is"
                f" {model_settings[setting]}; give model.{setting}={size} or another store"
            )
