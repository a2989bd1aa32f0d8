"""What a path holds that can describe images: a weight file of this project, or a SavedModel of the reference. Loads
TensorFlow only when a network is opened."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from delg_extract.extraction.extractor import Network
from delg_extract.network.model_files import is_saved_model, read_settings, saved_model_sha256
from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file


def open_network(path: str | Path, precision: str = "float32", **override) -> Network:
    """The network at ``path``. ``precision`` and ``override`` (of the weight file's settings) are for weight files
    alone."""
    if is_saved_model(path):
        from delg_extract.extraction.saved_models import open_saved_model

        return open_saved_model(path)
    from delg_extract.extraction.delg import DelgNetwork
    from delg_extract.network.weights import load_weights

    return DelgNetwork(load_weights(path, **override), precision)


def model_facts(path: str | Path, precision: str, **override) -> tuple[dict, str]:
    """(settings of the network as the store keeps them, SHA-256 of its files). Raises InputError when there is no
    model, or when a SavedModel is asked for what was fixed at its export."""
    if not is_saved_model(path):
        return {**read_settings(path), **override}, sha256_of_file(path)
    if override or precision != "float32":
        asked = ", ".join([*override, *["precision"] * (precision != "float32")])
        raise InputError(
            f"{path}: a SavedModel, whose {asked} was fixed at its export; leave the flag out or give a weight file"
        )
    return {"kind": "saved_model"}, saved_model_sha256(path)


def in_another_process(function, *arguments):
    """``function(*arguments)`` in a fresh process, so that TensorFlow is not left in this one; the function is one of a
    module."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except BrokenProcessPool:
        raise InputError(
            "a process that runs the network died (out of memory?); give a smaller --max_image_size"
        ) from None


def fastest_precision() -> str:
    """The precision that "auto" means on this machine; for ``in_another_process``."""
    from delg_extract.extraction.delg import fastest_precision as measured

    return measured()
