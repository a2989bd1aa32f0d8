"""rrt/store/checked.py: keypoints of a store that another program wrote are refused where they are not finite."""

import h5py
import numpy as np
import pytest
from builders import make_store

from rrt.errors import InputError
from rrt.network.pairs import read_images
from rrt.store.joined import JoinedStore
from rrt.store.store import Store


@pytest.fixture
def path(tmp_path):
    """A store whose image 2 has a keypoint that is no number."""
    with make_store(tmp_path, n=4, num_local=[3, 0, 5, 2]) as store:
        path = store.path
    with h5py.File(path, "r+") as file:
        file["local/keypoints"][4, 1] = np.nan
    return path


WHAT = "{}: keypoints of 'jpg/img_002.jpg' hold NaN or infinity; extract the image again"


def test_keypoints_are_refused_naming_file_and_image(path):
    with Store(path) as store, pytest.raises(InputError) as error:
        read_images(store, np.array([3, 2, 0]), None, positions=True)
    assert str(error.value) == WHAT.format(path)


def test_what_is_not_read_is_not_refused(path):
    with Store(path) as store:
        read_images(store, np.array([3, 2, 0]), None)
        read_images(store, np.array([3, 2, 0]), 1, positions=True)


def test_of_two_stores_the_one_that_holds_the_image_is_named(path, tmp_path):
    with (
        Store(path) as store,
        make_store(tmp_path, n=3, desc_name="other") as other,
        pytest.raises(InputError) as error,
    ):
        read_images(JoinedStore(other, store, same_names=True), np.array([0, 5]), None, positions=True)
    assert str(error.value) == WHAT.format(path)
