"""Tests of delg_extract are collected where TensorFlow is installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("tensorflow") else ["*"]


@pytest.fixture(scope="module")
def tiny():
    """The backbone `small` has half the layers and few channels (tiny_delg.py), where what a run does is the same."""
    from tiny_delg import TINY

    from delg_extract.network.model import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "small", TINY)
        yield


@pytest.fixture(scope="module")
def opened_once():
    """Commands that run in this process share the network of a weight file and its graphs, which take longer to make
    than such commands have use for them."""
    from delg_extract.extraction import answer, one_image
    from delg_extract.extraction import open as opening
    from rrt.files.atomic import sha256_of_file

    plain, known = opening.open_network, {}

    def open_network(path, precision="float32", **override):
        if not Path(path).is_file() or opening.is_saved_model(path):
            return plain(path, precision, **override)
        key = sha256_of_file(path), precision, *sorted(override.items())
        if key not in known:
            known[key] = plain(path, precision, **override)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (opening, one_image, answer):
            patch.setattr(module, "open_network", open_network)
        yield


@pytest.fixture
def untraced():
    """TensorFlow computes without making graphs, each of which takes as long as ten steps of a small network."""
    from delg_extract.network.tensorflow import tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
