"""delg_extract/network/weight_file.py: weight files that are damaged, foreign or lead elsewhere are one line."""

import json

import h5py
import numpy as np
import pytest

from delg_extract.network.keras_weights import read_keras_trunk
from delg_extract.network.weight_file import SCHEMA, local_depth, read_settings
from rrt.errors import InputError


def write(path, settings='{"backbone": "small"}', schema=SCHEMA):
    with h5py.File(path, "w") as file:
        if settings is not None:
            file.attrs["settings"] = settings
        file.attrs["schema"] = schema
        file["attn_conv1/kernel"] = np.ones((1, 1, 64, 8), np.float32)
    return path


def test_settings_and_the_size_of_local_descriptors_are_read(tmp_path):
    path = write(tmp_path / "w.h5")
    assert read_settings(path) == {"backbone": "small"} and local_depth(path) == 64


@pytest.mark.parametrize("settings", [None, "", "{", "[]", "3", "[" * 50_000 + "]" * 50_000])
def test_settings_that_do_not_parse_are_one_line(tmp_path, settings):
    with pytest.raises(InputError, match=r"w.h5: its settings cannot be read; copy or download it again"):
        read_settings(write(tmp_path / "w.h5", settings))


def test_every_damaged_file_is_one_line(tmp_path):
    whole, path = write(tmp_path / "w.h5").read_bytes(), tmp_path / "damaged.h5"
    rng = np.random.default_rng(0)
    for cut in [0, 1, 7, 100, len(whole) // 2, len(whole) - 1, *[None] * 60]:
        data = bytearray(whole if cut is None else whole[:cut])
        for place in rng.integers(0, len(whole), 20) if cut is None else ():
            data[place] = rng.integers(256)
        path.write_bytes(data)
        for read in (read_settings, local_depth, read_keras_trunk):
            try:
                json.dumps(read(path))
            except InputError as error:
                assert str(path) in str(error)


def test_a_layer_that_lies_in_another_file_is_refused(tmp_path):
    other, path = write(tmp_path / "other.h5"), write(tmp_path / "w.h5")
    with h5py.File(path, "r+") as file:
        del file["attn_conv1"]
        file["attn_conv1"] = h5py.ExternalLink(str(other), "/attn_conv1")
    with pytest.raises(InputError, match="link to elsewhere"):
        local_depth(path)


def test_a_file_without_the_layer_says_what_it_lacks(tmp_path):
    with h5py.File(write(tmp_path / "w.h5"), "r+") as file:
        del file["attn_conv1"]
    with pytest.raises(InputError, match="lacks variable 'attn_conv1/kernel'"):
        local_depth(tmp_path / "w.h5")


def test_a_file_that_is_open_elsewhere_is_not_called_damaged(tmp_path):
    with h5py.File(write(tmp_path / "w.h5"), "r+", libver=("v110", "v110")) as file:
        file.attrs["more"] = 1
        file.flush()
        assert read_settings(tmp_path / "w.h5")
