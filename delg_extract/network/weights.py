"""Weight files of the DELG network: this project's own HDF5 files, and the ImageNet files of Keras.

An own file holds one dataset per variable, under the variable's name, and the settings of the network in the root
attribute ``settings`` (JSON). It is plain numbers: nothing in it can run code, and it can be read without TensorFlow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from delg_extract.network.keras_weights import read_keras_trunk
from delg_extract.network.model import BATCH_NORM_EPSILON, Delg
from delg_extract.network.weight_file import SCHEMA, open_weight_file, read_settings
from rrt.errors import InputError
from rrt.files.atomic import atomic_path
from rrt.files.hdf5 import create_hdf5, own_numbers

KERAS_EPSILON = 1.001e-5
KERAS_MEAN_BGR = np.array([103.939, 116.779, 123.68])


def save_weights(path: str | Path, model: Delg, dtype: str = "float32", **extra) -> Path:
    """Writes every variable of ``model`` as ``dtype`` ("float32" or "float16"); ``extra`` joins the settings (JSON
    values)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, create_hdf5(temporary) as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["settings"] = json.dumps({**model.settings, **extra}, sort_keys=True)
        for name, variable in model.variables_by_name.items():
            file.create_dataset(name, data=variable.numpy().astype(dtype))
    return path


def load_weights(path: str | Path, **override) -> Delg:
    """The network of a weight file. ``override`` changes settings that have no variables (``block3_strides``,
    ``gem_power``).

    Raises InputError when the file is not a whole weight file, or does not hold exactly the variables of its network.
    """
    settings = {**read_settings(path), **override}
    try:
        model = Delg(**_network_settings(settings), seed=None)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: its settings describe no network ({error!r}); copy or download it again") from None
    restore_weights(path, model)
    return model


def _network_settings(settings: dict) -> dict:
    keys = ("backbone", "local_dim", "embedding_dim", "gem_power", "block3_strides", "use_global")
    return {key: settings[key] for key in keys}


def restore_weights(path: str | Path, model: Delg, partial: bool = False) -> list[str]:
    """Fills ``model`` from a weight file; every variable must be there with its shape, and none besides.

    ``partial``: takes what both have and leaves the rest as initialised. Returns the names left.
    """
    with open_weight_file(path) as file:
        stored = {}
        file.visititems(lambda name, item: stored.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        shapes = {name: item.shape for name, item in stored.items()}
        return fill_network(model, path, shapes, lambda name: own_numbers(stored[name])[()], partial)


def fill_network(
    model: Delg,
    path: str | Path,
    shapes: dict[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    partial: bool = False,
) -> list[str]:
    """Fills ``model`` with what ``path`` holds: ``shapes`` by name of the variable, its values by ``read(name)``. See
    restore_weights."""
    wanted = model.variables_by_name
    for name in sorted(set(shapes) ^ set(wanted)) if not partial else ():
        kind = "lacks" if name in wanted else "holds the unknown"
        raise InputError(
            f"{path}: {kind} variable {name!r}; the file belongs to another network than "
            f"{model.backbone} (local_dim {model.local_dim}, global {model.use_global})"
        )
    left = sorted(set(wanted) - set(shapes))
    wanted = {name: variable for name, variable in wanted.items() if name in shapes}
    for name, variable in wanted.items():
        if tuple(shapes[name]) != tuple(variable.shape):
            raise InputError(
                f"{path}: {name} has shape {tuple(shapes[name])}, the network needs {tuple(variable.shape)}; "
                f"give the weights of a {model.backbone}"
            )
    for name, variable in wanted.items():
        value = read(name).astype(np.float32)
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite; take an earlier checkpoint")
        variable.assign(value)
    return left


# ---- Keras files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadReport:
    """What a weight file gave to a network, and what not. loaded, left: names of the network's variables, in its order;
    unused: datasets of the file; without_bias: convolutions the file holds no bias of, which was set to zero."""

    path: str
    loaded: list[str]
    left: list[str]
    unused: list[str]
    without_bias: list[str]

    def __str__(self) -> str:
        stages = _by_stage([*self.loaded, *self.left])
        loaded, left = _by_stage(self.loaded), _by_stage(self.left)
        counts = [
            f"{stage} {len(loaded[stage])}" + (f" of {len(stages[stage])}" if stage in left else "") for stage in loaded
        ]
        lines = [
            f"{self.path}: loaded {len(self.loaded)} of {len(self.loaded) + len(self.left)} variables: "
            f"{', '.join(counts)}"
        ]
        for stage, names in left.items():
            lines.append(
                f"  left as initialised: {stage} {len(names)}"
                + (f" of {len(stages[stage])}" if stage in loaded else " (all)")
                + f": {_first(names)}"
            )
        if self.unused:
            lines.append(f"  of the file not used: {len(self.unused)}: {_first(self.unused)}")
        if self.without_bias:
            lines.append(
                f"  convolutions without bias, set to zero: {len(self.without_bias)}: {_first(self.without_bias)}"
            )
        return "\n".join(lines)


def _stage(name: str) -> str:
    """Where a variable belongs: conv1 ... conv5 or heads."""
    block = re.match(r"(?:res|bn)([2-5])", name)
    return f"conv{block[1]}" if block else "conv1" if name.startswith(("conv1/", "bn_conv1/")) else "heads"


def _by_stage(names: list[str]) -> dict[str, list[str]]:
    stages: dict[str, list[str]] = {}
    for name in names:
        stages.setdefault(_stage(name), []).append(name)
    return stages


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def load_keras_notop(path: str | Path, model: Delg, partial: bool = False) -> LoadReport:
    """Copies the trunk from a Keras ResNet HDF5 file, the stem included, and adapts it to DELG's input.

    Those files were trained with BGR pixels minus their mean and batch norm epsilon 1.001e-5; DELG feeds RGB (x - 128)
    / 128 and uses 1e-3. The first convolution and the batch norm scales are changed so that the trunk computes the same
    function (at the border of an image the padding differs: the mean colour there, grey 128 here). The file may use
    the names of classic Keras or of keras.applications (keras_weights.py). A layer is loaded whole or not at all, the
    heads never. Raises InputError when the file lacks a trunk variable or holds blocks that this trunk has not, unless
    ``partial``; and when a layer has another shape or only a part of its variables.
    """
    found = read_keras_trunk(path)
    trunk = [name for name in model.variables_by_name if _stage(name) != "heads"]
    missing = [name for name in trunk if name not in found.values]
    foreign = [name for name in found.values if name not in model.variables_by_name]
    if foreign and not partial:
        raise InputError(
            f"{path}: holds {len(foreign)} trunk variables that a {model.backbone} has not, first {foreign[0]}; "
            "choose the --backbone of the file, or take what fits with --partial_weights"
        )
    if missing and not partial:
        counts = ", ".join(f"{stage} {len(names)}" for stage, names in _by_stage(missing).items())
        raise InputError(
            f"{path}: lacks {len(missing)} of the {len(trunk)} trunk variables ({counts}), first {missing[0]}; "
            "--partial_weights takes what is there and leaves the rest as initialised"
        )
    loaded = [name for name in trunk if name in found.values]
    if not loaded:
        raise InputError(f"{path}: holds no variable of a {model.backbone} trunk; choose the --backbone of the file")
    for name in loaded:
        shape, needed = found.values[name].shape, tuple(model.variables_by_name[name].shape)
        if shape != needed:
            raise InputError(
                f"{path}: {name} has shape {shape}, the {model.backbone} trunk needs {needed}; "
                "choose the --backbone of the file"
            )
    for name in loaded:
        model.variables_by_name[name].assign(_adapted(name, found.values).astype(np.float32))
    left = [name for name in model.variables_by_name if name not in found.values]
    unused = sorted([*found.unused, *(found.datasets[name] for name in foreign if name in found.datasets)])
    return LoadReport(
        str(path), loaded, left, unused, [layer for layer in found.without_bias if f"{layer}/bias" in loaded]
    )


def _adapted(name: str, stored: dict[str, np.ndarray]) -> np.ndarray:
    """A trunk variable as this network needs it, float64."""
    value = stored[name].astype(np.float64)
    if name == "conv1/kernel":
        return 128.0 * value[:, :, ::-1]
    if name == "conv1/bias":
        # BGR value minus mean = 128 * normalised + (128 - mean); the constant goes into the bias.
        return value + np.einsum("hwio,i->o", stored["conv1/kernel"].astype(np.float64), 128.0 - KERAS_MEAN_BGR)
    if name.endswith("/gamma"):
        variance = stored[name.replace("/gamma", "/moving_variance")].astype(np.float64)
        return value * np.sqrt((variance + BATCH_NORM_EPSILON) / (variance + KERAS_EPSILON))
    return value
