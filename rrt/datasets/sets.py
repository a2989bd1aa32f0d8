"""A dataset folder opened and checked as a whole: store, lists, ground truth and neighbours that belong together.

Everything that can be wrong with the files is found here, before the long work starts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError, check_count
from rrt.formats.lists import ImageList, read_image_list
from rrt.formats.revisited import RevisitedSet, load_revisited_set
from rrt.search.table import check_origin, load_neighbors
from rrt.store.checked import check_finite
from rrt.store.joined import JoinedStore
from rrt.store.store import Store

TEST_LISTS = ("test_query.txt", "test_gallery.txt")
# Local descriptors checked for NaN before training starts; every batch is checked again as it is read.
CHECKED_IMAGES = 20_000


def add_test_lists(parser) -> None:
    """The option --lists of commands that take --data_dir."""
    parser.add_argument(
        "--lists",
        nargs=2,
        default=TEST_LISTS,
        metavar=("QUERIES", "GALLERY"),
        help=f"image lists in it ({' '.join(TEST_LISTS)})",
    )


@dataclass(frozen=True)
class TestSet:
    """Queries and gallery in the Revisited format. query_index [Q], gallery_index [G]: indices in the store;
    ranks int64 [Q, R]: gallery positions by falling global similarity; search: how they were found (query expansion,
    whitening), None where nothing beside the table says so. query_store: that of the queries where they lie in one of
    their own, ``store`` then holds the gallery's images and behind them its."""

    __test__ = False  # not a test class, whatever its name says to pytest

    folder: Path
    images: RevisitedSet
    store: Store | JoinedStore
    query_index: np.ndarray
    gallery_index: np.ndarray
    ranks: np.ndarray
    search: dict | None = None
    query_store: Store | None = None

    @property
    def gnd(self) -> list[dict]:
        """For every query its box and its graded gallery positions, as in ``GroundTruth``."""
        return self.images.truth.gnd

    @property
    def search_label(self) -> str:
        """What tables call the ranking of the neighbour table: ``global``, or ``global+aQE`` where its queries were
        expanded, which is more than global search."""
        return "global+aQE" if (self.search or {}).get("aqe") else "global"


@dataclass(frozen=True)
class TrainSet:
    """Training images. index [N]: indices in the store; neighbors int32 [N, k] rows of the list, or None."""

    folder: Path
    store: Store
    images: ImageList
    index: np.ndarray
    neighbors: np.ndarray | None

    @property
    def labels(self) -> np.ndarray:
        """Landmark of each image, int64 [N]."""
        return self.images.labels


def store_path(folder, desc_name: str) -> Path:
    """The descriptor store of a dataset's folder."""
    return Path(folder) / f"delg_{desc_name}.h5"


def query_store_path(store) -> Path:
    """The store of queries that lie in one of their own, beside that of the gallery: cropped queries whose whole images
    are in the gallery, under the same names (classic Oxford5k)."""
    path = Path(store)
    return path.with_name(f"{path.stem}_queries{path.suffix}")


def open_stores(store, queries=None) -> tuple[Store, Store]:
    """The stores of the gallery and of the queries, mostly one and the same. store: path of the gallery's; queries: of
    that of the queries, None = ``query_store_path`` where it is there. Raises InputError."""
    opened = Store(store)
    path = Path(queries) if queries else query_store_path(store)
    if path == Path(store) or not queries and not path.exists():
        return opened, opened
    of_queries = Store(path)
    check_same_network(of_queries, opened)
    JoinedStore(opened, of_queries, same_names=True)  # refuses descriptors of other sizes
    return opened, of_queries


def check_same_network(store, other) -> None:
    """InputError where two stores say that their descriptors were made by different networks."""
    models = [each.attributes["model_sha256"] for each in (store, other)]
    if all(models) and models[0] != models[1]:
        raise InputError(f"{store.path}: made by another network than {other.path}; extract both with one")


def add_query_store(parser) -> None:
    """The option --query_store of commands that take --store."""
    parser.add_argument(
        "--query_store", help="that of the queries, where they lie apart (default: STORE_queries.h5 where it is there)"
    )


def neighbors_path(folder, desc_name: str) -> Path:
    """The neighbour table of a dataset's folder."""
    return Path(folder) / f"nn_inds_{desc_name}.pkl"


def open_test_set(folder, desc_name: str, gnd_file: str, lists=TEST_LISTS, max_local: int | None = None) -> TestSet:
    """Raises InputError when a file is missing or the parts do not fit together."""
    folder = Path(folder)
    query_list, gallery_list = lists
    images = load_revisited_set(folder / query_list, folder / gallery_list, folder / gnd_file)
    query, gallery = images.query, images.gallery
    store, query_store = open_stores(store_path(folder, desc_name))
    table = neighbors_path(folder, desc_name)
    ranks = load_neighbors(table, rows=len(query), columns_below=len(gallery))
    query_index, gallery_index = query_store.indices(query.names, query), store.indices(gallery.names, gallery)
    search = check_origin(table, store, query, gallery, query_store)
    check_finite(query_store, np.unique(query_index), max_local)
    check_finite(store, np.setdiff1d(gallery_index, query_index if query_store is store else []), max_local)
    if query_store is store:
        return TestSet(folder, images, store, query_index, gallery_index, ranks, search)
    joined = JoinedStore(store, query_store, same_names=True)
    return TestSet(folder, images, joined, len(store) + query_index, gallery_index, ranks, search, query_store)


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
        table = neighbors_path(folder, desc_name)
        neighbors = load_neighbors(table, rows=len(images), columns_below=len(images))
        check_origin(table, store, images, images)
        _refuse_own_neighbors(table, neighbors)
        # Of 1.6 million images half a gigabyte less, for as long as the training lasts.
        neighbors = neighbors.astype(np.int32)
    check_finite(store, index[:: max(1, len(index) // CHECKED_IMAGES)], max_local)
    return TrainSet(folder, store, images, index, neighbors)


def _refuse_own_neighbors(path, neighbors: np.ndarray) -> None:
    """InputError for a table of plain search, every image its own nearest: pairs of an image with itself teach nothing.

    Some rows may: published tables leave out the first column, which is not the image where a duplicate came first.
    """
    own = (neighbors == np.arange(len(neighbors))[:, None]).any(axis=1)
    if 2 * np.count_nonzero(own) > len(own):
        raise InputError(
            f"{path}: {np.count_nonzero(own)} of {len(own)} rows list the image itself, the first is row"
            f" {np.argmax(own)}; leave it out, or make the table again with tools/prepare_topk_gldv2.py"
        )


def check_num_rerank(test: TestSet, num_rerank: int) -> int:
    """``num_rerank``, or the size of a smaller gallery; InputError when it asks for more than the ranking lists."""
    check_count("num_rerank", num_rerank)
    listed, num_gallery = test.ranks.shape[1], len(test.gallery_index)
    if min(num_rerank, num_gallery) > listed:
        raise InputError(
            f"{test.folder}: the neighbour table lists {listed} of {num_gallery} gallery images, "
            f"num_rerank={num_rerank}"
            f" asks for more; give num_rerank={listed} or make the table again with tools/prepare_topk_revisited.py"
        )
    return min(num_rerank, num_gallery)
