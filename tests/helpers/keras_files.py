"""Weight files as Keras writes them, of ResNets with hardly any channels."""

from functools import cache
from unittest import mock

import h5py
import numpy as np

from delg_extract.network.model import BACKBONES, Backbone, Delg

# The blocks of the real networks with hardly any channels.
TINY = {
    "resnet50": Backbone(3, (1, 1, 2, 1), (3, 4, 6, 3), 2, 4),
    "resnet101": Backbone(3, (1, 1, 2, 1), (3, 4, 23, 3), 2, 4),
}


def tiny_network(backbone, seed=1):
    with mock.patch.dict(BACKBONES, TINY):
        return Delg(backbone, seed=seed)


def is_trunk(name):
    return name.startswith(("conv1/", "bn", "res"))


def random_trunk(model):
    """{layer: {kind: values}} for every layer of a network's trunk, as a file of Keras holds them."""
    rng, layers = np.random.default_rng(0), {}
    for name, variable in model.variables_by_name.items():
        if is_trunk(name):
            layer, kind = name.split("/")
            layers.setdefault(layer, {})[kind] = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
    return layers


@cache
def random_layers(backbone):
    return random_trunk(tiny_network(backbone, seed=None))


def as_applications(layer):
    if layer in ("conv1", "bn_conv1"):
        return {"conv1": "conv1_conv", "bn_conv1": "conv1_bn"}[layer]
    block, branch = layer.split("_branch")
    number = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[branch]
    return (
        f"conv{block[-2]}_block{ord(block[-1]) - ord('a') + 1}_{number}_{'conv' if block.startswith('res') else 'bn'}"
    )


def as_caffe(layer):
    block, _, branch = layer.partition("_branch")
    return layer if not branch or block[-1] == "a" else f"{block[:-1]}b{ord(block[-1]) - ord('a')}_branch{branch}"


SHORT = {
    "kernel": "W",
    "bias": "b",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}


DATASETS = {
    "Keras 1": lambda layer, kind: f"{layer}/{layer}_{SHORT[kind]}:0",
    "Keras 1, saved twice": lambda layer, kind: f"{layer}/{layer}_{SHORT[kind]}_1:0",
    "Keras 2": lambda layer, kind: f"{layer}/{layer}/{kind}:0",
    "Keras 2, built twice": lambda layer, kind: f"{layer}/{layer}_1/{kind}:0",
    "Keras 2, part of another model": lambda layer, kind: f"model_weights/resnet/{layer}/{kind}:0",
    "Keras 3": lambda layer, kind: f"model_weights/{layer}/{layer}/{kind}",
}


def write_keras(path, layers, rename=str, dataset=DATASETS["Keras 2"], text=np.bytes_):
    """A Keras file of {layer: {kind: values}}; ``text``: type of the attributes with the names, None: without them."""
    with h5py.File(path, "w") as file:
        for layer, values in layers.items():
            for kind, array in values.items():
                file[dataset(rename(layer), kind)] = array
        if text is not None:
            group = file["model_weights"] if "model_weights" in file else file
            group.attrs["layer_names"] = [text(rename(layer)) for layer in layers]
            group.attrs["backend"] = text("tensorflow")
            for layer in group:
                group[layer].attrs["weight_names"] = [text(f"{layer}/kernel:0")]
    return path


def trunk_of(model):
    return {name: variable.numpy() for name, variable in model.variables_by_name.items() if is_trunk(name)}
