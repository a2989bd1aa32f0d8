"""Opening whatever network a path holds: this project's weight files, or a SavedModel of the reference."""
from __future__ import annotations

from pathlib import Path

from delg_extract.inference import Network
from rrt.errors import sha256_of_file


def is_saved_model(path: str | Path) -> bool:
    """Whether the path is a folder, as SavedModels are; weight files are files."""
    return Path(path).is_dir()


def open_network(path: str | Path, precision: str = "float32", **override) -> Network:
    """The network at ``path``. ``precision`` and ``override`` (of the weight file's settings) are for weight files alone."""
    if is_saved_model(path):
        from delg_extract.saved_models import open_saved_model
        return open_saved_model(path)
    from delg_extract.network import DelgNetwork
    from delg_extract.weights import load_weights
    return DelgNetwork(load_weights(path, **override), precision)
