"""This project's weight files, looked at without TensorFlow (layout: weights.py)."""

from __future__ import annotations

import json
from pathlib import Path

import h5py

from rrt.errors import InputError

SCHEMA = "delg-weights"


def open_weight_file(path: str | Path) -> h5py.File:
    """The open file. Raises InputError when it is missing, damaged or another kind of file."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such weight file; give the path of a .h5 file written by delg_extract/train.py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path}: not a readable HDF5 file ({str(error).splitlines()[0]}); copy or download it again"
        ) from error
    if file.attrs.get("schema") != SCHEMA:
        file.close()
        raise InputError(
            f"{path}: not a weight file of this project (no schema {SCHEMA!r}); "
            "ImageNet files go to --imagenet_checkpoint"
        )
    return file


def read_settings(path: str | Path) -> dict:
    """The settings stored in a weight file of this project."""
    with open_weight_file(path) as file:
        return json.loads(str(file.attrs["settings"]))


def local_depth(path: str | Path) -> int:
    """The size of the local descriptors that the network of a weight file gives."""
    with open_weight_file(path) as file:
        reduced, whole = (file.get(f"{layer}/kernel") for layer in ("autoenc_conv1", "attn_conv1"))
        if isinstance(reduced, h5py.Dataset):
            return reduced.shape[-1]
        assert isinstance(whole, h5py.Dataset)
        return whole.shape[-2]
