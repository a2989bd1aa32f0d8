"""Weight files of the DELG network: this project's own HDF5 files, and the classic Keras ``..._notop.h5`` ImageNet files.

An own file holds one dataset per variable, under the variable's name, and the settings of the network in the root attribute
``settings`` (JSON). It is plain numbers: nothing in it can run code, and it can be read without TensorFlow.
"""
from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np

from delg_extract.model import BATCH_NORM_EPSILON, Delg
from rrt.errors import InputError, atomic_path

SCHEMA = "delg-weights"
KERAS_EPSILON = 1.001e-5
KERAS_MEAN_BGR = np.array([103.939, 116.779, 123.68])


def save_weights(path: str | Path, model: Delg, dtype: str = "float32", **extra) -> Path:
    """Writes every variable of ``model`` as ``dtype`` ("float32" or "float16"); ``extra`` joins the settings (JSON values)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["settings"] = json.dumps({**model.settings, **extra}, sort_keys=True)
        for name, variable in model.variables_by_name.items():
            file.create_dataset(name, data=variable.numpy().astype(dtype))
    return path


def read_settings(path: str | Path) -> dict:
    """The settings stored in a weight file of this project."""
    with _open(path) as file:
        return json.loads(file.attrs["settings"])


def load_weights(path: str | Path, **override) -> Delg:
    """The network of a weight file. ``override`` changes settings that have no variables (``block3_strides``, ``gem_power``).

    Raises InputError when the file is not a whole weight file, or does not hold exactly the variables of its network.
    """
    settings = {**read_settings(path), **override}
    model = Delg(**_network_settings(settings))
    restore_weights(path, model)
    return model


def _network_settings(settings: dict) -> dict:
    keys = ("backbone", "local_dim", "embedding_dim", "gem_power", "block3_strides", "use_global")
    return {key: settings[key] for key in keys}


def restore_weights(path: str | Path, model: Delg, partial: bool = False) -> list[str]:
    """Fills ``model`` from a weight file; every variable must be there with its shape, and none besides.

    ``partial``: takes what both have and leaves the rest as initialised. Returns the names left.
    """
    with _open(path) as file:
        stored = {}
        file.visititems(lambda name, item: stored.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        wanted = model.variables_by_name
        for name in sorted(set(stored) ^ set(wanted)) if not partial else ():
            kind = "lacks" if name in wanted else "holds the unknown"
            raise InputError(f"{path}: {kind} variable {name!r}; the file belongs to another network than "
                             f"{model.backbone} (local_dim {model.local_dim}, global {model.use_global})")
        left = sorted(set(wanted) - set(stored))
        wanted = {name: variable for name, variable in wanted.items() if name in stored}
        for name, variable in wanted.items():
            if stored[name].shape != tuple(variable.shape):
                raise InputError(f"{path}: {name} has shape {stored[name].shape}, the network needs {tuple(variable.shape)}; "
                                 f"give the weights of a {model.backbone}")
        for name, variable in wanted.items():
            value = stored[name][()].astype(np.float32)
            if not np.isfinite(value).all():
                raise InputError(f"{path}: {name} holds values that are not finite; take an earlier checkpoint")
            variable.assign(value)
    return left


def _open(path: str | Path) -> h5py.File:
    if not Path(path).exists():
        raise InputError(f"{path}: no such weight file; give the path of a .h5 file written by delg_extract/train.py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({str(error).splitlines()[0]}); copy or download it again") from error
    if file.attrs.get("schema") != SCHEMA:
        file.close()
        raise InputError(f"{path}: not a weight file of this project (no schema {SCHEMA!r}); "
                         "ImageNet files go to --imagenet_checkpoint")
    return file


# ---- classic Keras files -------------------------------------------------------------------------------------------------


def load_keras_notop(path: str | Path, model: Delg, partial: bool = False) -> tuple[list[str], list[str]]:
    """Copies the trunk from a classic Keras ResNet "notop" HDF5 file, the stem included, and adapts it to DELG's input.

    Those files were trained with BGR pixels minus their mean and batch norm epsilon 1.001e-5; DELG feeds RGB (x - 128) / 128 and
    uses 1e-3. The first convolution and the batch norm scales are changed so that the trunk computes the same function.
    Returns (names loaded, trunk names left alone). Raises InputError when a trunk variable is missing and not ``partial``.
    """
    stored = _read_keras(path)
    trunk = [name for name in model.variables_by_name if name.startswith(("conv1/", "bn_conv1/", "res", "bn"))]
    missing = [name for name in trunk if name not in stored]
    if missing and not partial:
        raise InputError(f"{path}: lacks {len(missing)} of the {len(trunk)} trunk variables, first {missing[0]}; "
                         "--partial_weights takes what is there and leaves the rest as initialised")
    loaded = [name for name in trunk if name in stored]
    if not loaded:
        raise InputError(f"{path}: holds no variable of a {model.backbone} trunk; the classic Keras names are needed (res2a_branch2a)")
    for name in loaded:
        value, variable = stored[name], model.variables_by_name[name]
        if value.shape != tuple(variable.shape):
            raise InputError(f"{path}: {name} has shape {value.shape}, the {model.backbone} trunk needs {tuple(variable.shape)}")
        if name == "conv1/kernel":
            # BGR value minus mean = 128 * normalised + (128 - mean); the constant goes into the bias.
            model.variables_by_name["conv1/bias"].assign(
                stored["conv1/bias"] + np.einsum("hwio,i->o", value, 128.0 - KERAS_MEAN_BGR))
            value = 128.0 * value[:, :, ::-1]
        elif name == "conv1/bias":
            continue
        elif name.endswith("/gamma"):
            variance = stored[name.replace("/gamma", "/moving_variance")]
            value = value * np.sqrt((variance + BATCH_NORM_EPSILON) / (variance + KERAS_EPSILON))
        variable.assign(value.astype(np.float32))
    return loaded, missing


def _read_keras(path: str | Path) -> dict[str, np.ndarray]:
    """Every weight of a classic Keras file as ``layer/kernel``, ``layer/gamma``, ...; float64."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; give the path of a Keras ResNet notop .h5 file")
    short = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            leaf = re.sub(r"(_\d+)?:0$", "", name.rsplit("/", 1)[-1])
            layer = name.split("/")[0]
            for kind in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", *short):
                if leaf == kind or leaf == f"{layer}_{kind}":
                    found[f"{layer}/{short.get(kind, kind)}"] = item[()].astype(np.float64)

    try:
        with h5py.File(path, "r") as file:
            (file["model_weights"] if "model_weights" in file else file).visititems(visit)
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({str(error).splitlines()[0]}); copy or download it again") from error
    return found
