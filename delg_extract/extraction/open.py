"""What a path holds that can describe images: a weight file of this project, or a SavedModel of the reference. Loads
TensorFlow only when a network is opened."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from delg_extract.extraction.extractor import Network
from delg_extract.network.weight_file import read_settings
from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file

GRAPH_FILE = "saved_model.pb"
# A reduced precision must be worth its rounding.
_WORTH = 1.2


def open_network(path: str | Path, precision: str = "float32", **override) -> Network:
    """The network at ``path``. ``precision`` and ``override`` (of the weight file's settings) are for weight files
    alone."""
    if is_saved_model(path):
        from delg_extract.extraction.saved_models import open_saved_model

        return open_saved_model(saved_model_folder(path))
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
    """What "auto" means on this machine: bfloat16 where convolutions of a middle stage run clearly faster in it, else
    float32 (a quarter of a second); for ``in_another_process``."""
    from delg_extract.network.tensorflow import tf

    seconds = {}
    for precision in ("float32", "bfloat16"):
        x = tf.ones([1, 64, 64, 256], precision)
        kernel = tf.fill([3, 3, 256, 256], tf.constant(1e-3, precision))
        convolve = tf.function(lambda x, kernel=kernel: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")))
        convolve(x)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            convolve(x).numpy()
            took.append(time.perf_counter() - began)
        seconds[precision] = min(took)
    return "bfloat16" if seconds["float32"] > _WORTH * seconds["bfloat16"] else "float32"


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
