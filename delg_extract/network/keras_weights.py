"""Reads the trunk of a ResNet out of Keras weight files (.h5), whatever Keras called its layers.

| layer | classic Keras | Keras from Caffe (ResNet-101) | keras.applications |
| --- | --- | --- | --- |
| convolution of conv1 | conv1 | conv1 | conv1_conv |
| third block of conv4, 3x3 convolution | res4c_branch2b | res4b2_branch2b | conv4_block3_2_conv |
| its batch norm | bn4c_branch2b | bn4b2_branch2b, then scale4b2_branch2b | conv4_block3_2_bn |
| shortcut of its first block | res4a_branch1 | res4a_branch1 | conv4_block1_0_conv |

The classic names are this project's. Files are weights alone or whole models (group ``model_weights``) of Keras 1 to 3,
and the ``.weights.h5`` of a Keras 3 that wrote the layers' names; nothing but the names of groups and datasets is
relied on otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from rrt.errors import InputError
from rrt.files.hdf5 import damage_named, find_item, open_hdf5, own_numbers

_CLASSIC = re.compile(r"(res|bn|scale)([2-5])([a-z])(\d*)_branch(1|2a|2b|2c)")
_MODERN = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)")
_STEM = {
    "conv1": "conv1",
    "conv1_conv": "conv1",
    "bn_conv1": "bn_conv1",
    "conv1_bn": "bn_conv1",
    "scale_conv1": "scale_conv1",
}
_BRANCHES = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}
_KINDS = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "moving_mean",
    "moving_variance": "moving_variance",
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
CONVOLUTION = ("kernel", "bias")
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


class KerasTrunk(NamedTuple):
    """values: arrays by this project's variable names, for a network with the file's batch norm and input; datasets:
    where in the file each is; unused: the file's other datasets; without_bias: convolutions that the file holds no
    bias of, here zeros."""

    values: dict[str, np.ndarray]
    datasets: dict[str, str]
    unused: list[str]
    without_bias: list[str]


def trunk_layer(name: str) -> str | None:
    """This project's name of a Keras layer: conv4_block3_2_bn -> bn4c_branch2b; None for a layer of no ResNet trunk."""
    classic, modern = _CLASSIC.fullmatch(name), _MODERN.fullmatch(name)
    if classic:
        kind, stage, letter, number, branch = classic.groups()
        return f"{kind}{stage}{_letter(int(number)) if number else letter}_branch{branch}"
    if modern:
        stage, block, layer, kind = modern.groups()
        return f"{'res' if kind == 'conv' else 'bn'}{stage}{_letter(int(block) - 1)}_branch{_BRANCHES[layer]}"
    return _STEM.get(name)


def _letter(index: int) -> str:
    # Networks of more blocks than letters are none of this project's; their names only must not collide.
    return chr(ord("a") + index) if 0 <= index < 26 else f"_{index}"


def read_keras_trunk(path: str | Path) -> KerasTrunk:
    """The trunk of a Keras ResNet file. Raises InputError naming the file and the layer that cannot be used."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; give the path of a Keras ResNet .h5 file")
    with damage_named(path, "not a readable HDF5 file", "copy or download it again"), open_hdf5(path) as file:
        if "schema" in file.attrs:
            raise InputError(
                f"{path}: a file of this project, not of Keras; weights written by train.py go to --init_weights"
            )
        inner = find_item(file, "model_weights")
        root = inner if isinstance(inner, h5py.Group) else file
        every: list[h5py.Dataset] = []
        root.visititems(lambda _, item: every.append(item) if isinstance(item, h5py.Dataset) else None)
        chosen: dict[str, h5py.Dataset] = {}
        for dataset in every:
            name = _variable(dataset)
            if name in chosen:
                raise InputError(
                    f"{path}: holds {name} twice, as {chosen[name].name} and {dataset.name}; "
                    "give the file of a single network"
                )
            if name:
                chosen[name] = dataset
        _refuse_foreign(path, [str(dataset.name) for dataset in every], bool(chosen))
        values = {name: _read(path, dataset) for name, dataset in chosen.items()}
        datasets = {name: str(dataset.name).lstrip("/") for name, dataset in chosen.items()}
        unused = {str(dataset.name).lstrip("/") for dataset in every} - set(datasets.values())
        unused |= {str(name) for name in file if root is not file and name != "model_weights"}
    _fold_scales(values)
    return KerasTrunk(values, datasets, sorted(unused), _completed(path, values))


def _variable(dataset: h5py.Dataset) -> str | None:
    """This project's name of the variable in a dataset, None when it is none of a trunk."""
    *groups, leaf = str(dataset.name).strip("/").split("/")
    if groups and groups[-1] == "vars":  # Keras 3 numbers layers and variables, and may note the layer's name
        layer = trunk_layer(str(dataset.parent.attrs.get("name", "")))
        kinds = CONVOLUTION if layer and layer.startswith(("conv", "res")) else BATCH_NORM
        return f"{layer}/{kinds[int(leaf)]}" if layer and leaf.isdecimal() and int(leaf) < len(kinds) else None
    leaf = re.sub(r"(_\d+)?(:0)?$", "", leaf)
    for group in reversed(groups):
        layer, kind = trunk_layer(group), _KINDS.get(leaf.removeprefix(f"{group}_"))
        if layer:
            return f"{layer}/{kind}" if kind else None
    return None


def _refuse_foreign(path, names: list[str], some_chosen: bool) -> None:
    """InputError for files of other networks and of no names at all; ``names``: those of all datasets."""
    if any("_preact_" in name for name in names):
        raise InputError(f"{path}: a ResNet V2, whose blocks are built otherwise; give the weights of a ResNet (V1)")
    if not some_chosen and any(re.search(r"/vars/\d+$", name) for name in names):
        raise InputError(
            f"{path}: Keras 3 numbered the layers of this .weights.h5 and left their names out; load it in Keras and "
            'write it again with model.save("NAME.h5")'
        )
    if not some_chosen:
        raise InputError(
            f"{path}: holds no variable of a ResNet trunk; the names of Keras are needed "
            "(res2a_branch2a or conv2_block1_1_conv)"
        )


def _read(path, dataset: h5py.Dataset) -> np.ndarray:
    if dataset.dtype.kind != "f" or dataset.nbytes > 1 << 28:
        raise InputError(
            f"{path}: {dataset.name} holds {dataset.dtype} {dataset.shape}, no weights; copy or download the file again"
        )
    values = own_numbers(dataset)[()]
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {dataset.name} holds values that are not finite; copy or download the file again")
    return values


def _fold_scales(values: dict[str, np.ndarray]) -> None:
    """Files made from Caffe's keep the factors of a batch norm in a layer after it: y = gamma' (gamma x + beta) +
    beta'."""
    for name in [name for name in values if name.startswith("scale") and name.endswith("/gamma")]:
        scale = name.removesuffix("/gamma")
        norm = scale.replace("scale", "bn", 1)
        if {f"{scale}/beta", f"{norm}/gamma", f"{norm}/beta"} <= values.keys():
            factor = values.pop(name)
            values[f"{norm}/gamma"] = values[f"{norm}/gamma"] * factor
            values[f"{norm}/beta"] = values[f"{norm}/beta"] * factor + values.pop(f"{scale}/beta")


def _completed(path, values: dict[str, np.ndarray]) -> list[str]:
    """Gives convolutions without bias zeros and returns their names. Raises InputError for layers of which something is
    missing."""
    without_bias = []
    for layer in sorted({name.split("/")[0] for name in values}):
        kinds = CONVOLUTION if layer.startswith(("conv", "res")) else BATCH_NORM
        lacking = [kind for kind in kinds if f"{layer}/{kind}" not in values]
        if lacking == ["bias"]:
            values[f"{layer}/bias"] = np.zeros(values[f"{layer}/kernel"].shape[-1], np.float32)
            without_bias.append(layer)
        elif lacking:
            raise InputError(
                f"{path}: layer {layer} is there without {', '.join(lacking)}; copy or download the file again"
            )
    return without_bias
