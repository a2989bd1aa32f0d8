"""rrt/store/joined.py: two stores read as the one store that holds all their images."""

import numpy as np
import pytest
from builders import make_records, make_store

from rrt.errors import InputError
from rrt.network.pairs import read_images
from rrt.store.joined import JoinedStore
from rrt.store.schema import LOCAL_COLUMNS
from rrt.store.store import Store
from rrt.store.writer import write_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """(the joined view of two stores, one store with the images of both)"""
    folder = tmp_path_factory.mktemp("joined")
    records = make_records([f"a{i}.jpg" for i in range(9)], num_local=[3, 0, 5, 2, 0, 4, 1, 6, 2])
    paths = [
        write_store(folder / f"{name}.h5", part, "test", {})
        for name, part in (("first", records[:5]), ("second", records[5:]), ("all", records))
    ]
    first, second, whole = map(Store, paths)
    return JoinedStore(first, second), whole


@pytest.mark.parametrize("indices", [range(9), [8, 0, 4, 8, 5, 1], [1, 2], [7, 6], [], [4, 5]])
@pytest.mark.parametrize("max_local", [None, 2, 0])
def test_packed_images_are_those_of_a_single_store(stores, indices, max_local):
    joined, whole = (store.read_packed(np.array(indices, int), max_local) for store in stores)
    for column in (*LOCAL_COLUMNS, "offsets"):
        np.testing.assert_array_equal(getattr(joined, column), getattr(whole, column))


def test_everything_else_is_that_of_a_single_store(stores):
    joined, whole = stores
    assert joined.names == whole.names and len(joined) == 9
    assert (joined.global_dim, joined.local_dim) == (whole.global_dim, whole.local_dim)
    np.testing.assert_array_equal(joined.local_counts(3), whole.local_counts(3))
    for key in (np.array([8, 1, 1]), slice(3, 7), slice(None, None, 2), 6, np.array([], int)):
        np.testing.assert_array_equal(joined.global_descriptors[key], whole.global_descriptors[key])
    for ours, theirs in zip(
        vars(read_images(joined, np.array([7, 2]), 2)).values(), vars(read_images(whole, np.array([7, 2]), 2)).values()
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_columns_of_different_precision_become_the_finer_one(tmp_path):
    half = make_store(tmp_path, 2, names=["a", "b"], desc_name="half")
    single = make_store(tmp_path, 2, names=["c", "d"], desc_name="single", local_dtype="float32", seed=1)
    packed = JoinedStore(half, single).read_packed([3, 0])
    assert packed.descriptors.dtype == np.float32
    np.testing.assert_array_equal(
        packed.descriptors, np.concatenate([single.read(1).descriptors, half.read(0).descriptors])
    )


@pytest.mark.parametrize(
    "other, message",
    [
        ({"names": ["x", "b"]}, "other.h5: 'b' is in .*first.h5, too"),
        ({"global_dim": 7}, "other.h5: global descriptors have 7 dimensions, those of .*first.h5 have 16"),
        ({"local_dim": 4}, "other.h5: local descriptors have 4 dimensions"),
    ],
)
def test_stores_that_do_not_fit_together_are_refused(tmp_path, other, message):
    first = make_store(tmp_path, names=["a", "b"], file_name="first.h5")
    with pytest.raises(InputError, match=message):
        JoinedStore(first, make_store(tmp_path, file_name="other.h5", **({"names": ["x", "y"]} | other)))


def test_an_index_of_neither_is_refused(stores):
    with pytest.raises(InputError, match="there is no image 9"):
        stores[0].read_packed([0, 9])
