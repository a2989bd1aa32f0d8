"""Makes the shipped model: published weights, projections learned on training photographs, one ONNX file."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

from rrt.errors import InputError
from rrt.extraction.attention import load_attention
from rrt.extraction.lite0.graph import PIXELS, Graph, add_cells, add_heads, add_network, add_pooled, finished_model
from rrt.extraction.lite0.learning import Learned, Projection, fit_projection
from rrt.extraction.lite0.network import fold_batch_norms, read_published
from rrt.extraction.onnx_file import open_onnx
from rrt.extraction.settings import DescriberSettings
from rrt.files.atomic import sha256_of_file, write_bytes
from rrt.files.jobs import run_jobs
from rrt.formats.image_jobs import Job, read_image

# Sides of 32 n + 1 pixels: every stride of two halves them evenly, so that the cells of a map lie symmetrically. Its
# outermost cells, centred on the border, are left out.
SETTINGS = DescriberSettings(extra=1, first=16.0, stride=16.0)
# Components of the global descriptor, chosen on held-out landmarks; eigenvalues are divided out to this power.
GLOBAL_DIM, GLOBAL_POWER = 512, 0.25
LOCAL_DIM, LOCAL_POWER = 128, 0.5
# Local descriptors of an image, over the scales, that the projection is learned on.
SAMPLE = 100
LICENCE = "Apache-2.0"


def lite0_model(weights: dict[str, np.ndarray], learned: Learned, sources: dict[str, str], half: bool = True):
    """The ONNX model of one scale. weights: of fold_batch_norms. sources: {file: SHA-256} of what it is made of."""
    graph = Graph(half)
    _, expanded, head = add_network(graph, weights)
    heads = add_heads(graph, head, expanded, learned)
    local_dim = learned.local.axes.shape[1]
    shapes = {
        "global": ["batch", learned.global_.axes.shape[1]],
        "local": ["batch", "rows", "columns", local_dim],
        "attention": ["batch", "rows", "columns"],
    }
    metadata = {"rrt": SETTINGS.model_dump_json(), "sources": json.dumps(sources), "licence": LICENCE}
    return finished_model(graph, {name: (heads[name], shape) for name, shape in shapes.items()}, metadata)


def feature_model(weights: dict[str, np.ndarray]):
    """The same before anything is learned: `global` and `cells` as the projections take them."""
    graph = Graph()
    _, expanded, head = add_network(graph, weights)
    outputs = {
        "global": (add_pooled(graph, head), ["batch", None]),
        "cells": (add_cells(graph, expanded), ["batch", "rows", "columns", None]),
    }
    return finished_model(graph, outputs, {})


def make_lite0(weights: str | Path, images: list[Path], output: str | Path, num_workers: int = 1) -> int:
    """Learn on the images and write the model; returns its bytes. Raises InputError naming the file that is wrong."""
    folded = fold_batch_norms(read_published(weights), weights)
    with TemporaryDirectory() as folder:
        features = Path(folder) / "features.onnx"
        features.write_bytes(feature_model(folded).SerializeToString())
        found = run_jobs(_features, [(features, image) for image in images], num_workers, "describing")
    global_ = fit_projection(np.stack([one[0] for one in found]), GLOBAL_DIM, GLOBAL_POWER)
    local = fit_projection(np.concatenate([one[1] for one in found]), LOCAL_DIM, LOCAL_POWER)
    return _write(folded, Learned(global_, local), output, weights)


def add_attention(weights: str | Path, model: str | Path, attention: str | Path, output: str | Path) -> int:
    """Write another model with the projections of one that make_lite0 wrote and a learned attention
    (tools/learn_attention.py); returns its bytes. Raises InputError naming the file that is wrong."""
    open_onnx(model, threads=1)  # refuses what is no model
    loaded = onnx.load(str(model), load_external_data=False)
    arrays = {array.name: numpy_helper.to_array(array) for array in loaded.graph.initializer}
    if not {"global.mean", "global.axes", "local.mean", "local.axes"} <= arrays.keys():
        raise InputError(f"{model}: not a model that tools/make_lite0.py wrote; give one of those")
    global_, local = (
        Projection(*(arrays[f"{name}.{part}"].astype(np.float32) for part in Projection._fields))
        for name in ("global", "local")
    )
    learned = Learned(global_, local, load_attention(attention, local.axes.shape[1]))
    return _write(fold_batch_norms(read_published(weights), weights), learned, output, weights, attention)


def _write(folded, learned, output, *sources) -> int:
    model = lite0_model(folded, learned, {Path(source).name: sha256_of_file(source) for source in sources})
    write_bytes(Path(output), model.SerializeToString())
    return Path(output).stat().st_size


def _features(job: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
    """The global features [1280] of an image, the mean over scales, and the unit rows of its strongest cells."""
    model, path = job
    image = read_image(Job(path.name, path))
    if image.pixels is None:
        raise InputError(f"{path}: {image.reason}; leave it out of the list")
    whole, size = Image.fromarray(image.pixels), image.pixels.shape[1::-1]
    globals_, cells = [], []
    for scale in SETTINGS.scales:
        level = np.asarray(whole.resize(SETTINGS.level_size(size, scale), Image.Resampling.BILINEAR))
        global_, local = map(np.asarray, _session(model).run(["global", "cells"], {PIXELS: level[None]}))
        globals_.append(global_[0])
        cells.append(local.reshape(-1, local.shape[3]))
    strongest = np.concatenate(cells)
    length = np.linalg.norm(strongest, axis=1)
    best = np.argsort(-length, kind="stable")[:SAMPLE]
    return np.mean(globals_, axis=0), strongest[best] / np.maximum(length[best, None], 1e-12)


@lru_cache
def _session(model: Path):
    return open_onnx(model, threads=1)
