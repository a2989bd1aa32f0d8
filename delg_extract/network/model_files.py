"""Files of models, looked at without TensorFlow: this project's weight files (layout: delg_extract/network/weights.py),
and SavedModels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file

SCHEMA = "delg-weights"
GRAPH_FILE = "saved_model.pb"


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
        return json.loads(file.attrs["settings"])


def local_depth(path: str | Path) -> int:
    """The size of the local descriptors that the network of a weight file gives."""
    with open_weight_file(path) as file:
        reduced = file.get("autoenc_conv1/kernel")
        return reduced.shape[-1] if reduced is not None else file["attn_conv1/kernel"].shape[-2]


def is_saved_model(path: str | Path) -> bool:
    """Whether a path means a SavedModel, whole or not, and no weight file: a folder, or the file saved_model.pb in
    one."""
    return Path(path).is_dir() or Path(path).name == GRAPH_FILE


def saved_model_sha256(path: str | Path) -> str:
    """SHA-256 over the names and contents of saved_model.pb and the files of variables/, wherever the folder lies."""
    folder = saved_model_folder(path)
    digest = hashlib.sha256()
    for file in sorted([folder / GRAPH_FILE, *(file for file in (folder / "variables").rglob("*") if file.is_file())]):
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256_of_file(file)}\n".encode())
    return digest.hexdigest()


def saved_model_folder(path: str | Path) -> Path:
    """The folder with saved_model.pb: the path, the folder around it, or the one below it. Raises InputError when there
    is none."""
    path = Path(path)
    if path.name == GRAPH_FILE:
        path = path.parent
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the folder of a SavedModel, the one with {GRAPH_FILE}")
    if (path / GRAPH_FILE).is_file():
        return path
    below = sorted(file.parent for file in path.glob(f"*/{GRAPH_FILE}"))
    if not below:
        raise InputError(f"{path}: no {GRAPH_FILE} here or one folder below; give the folder of a SavedModel")
    if len(below) > 1:
        names = ", ".join(folder.name for folder in below)
        raise InputError(f"{path}: {len(below)} SavedModels lie below ({names}); give the folder of one")
    return below[0]
