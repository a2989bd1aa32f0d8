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
from rrt.extraction.attention import Attention, load_attention
from rrt.extraction.lite0.graph import (
    PIXELS,
    Graph,
    add_cells,
    add_heads,
    add_importance,
    add_local,
    add_network,
    add_pooled_maps,
    finished_model,
)
from rrt.extraction.lite0.learning import Learned, Projection, fit_part, fit_projection
from rrt.extraction.lite0.network import fold_batch_norms, read_published
from rrt.extraction.onnx_file import open_onnx
from rrt.extraction.settings import DescriberSettings
from rrt.files.atomic import sha256_of_file, write_bytes
from rrt.files.jobs import run_jobs
from rrt.formats.image_jobs import Job, read_image

# Sides of 32 n + 1 pixels: every stride of two halves them evenly, so that the cells of a map lie symmetrically. Its
# outermost cells, centred on the border, are left out.
SETTINGS = DescriberSettings(extra=1, first=16.0, stride=16.0)
# Components of the global descriptor, chosen on held-out landmarks; eigenvalues are divided out to this power. With an
# attention half of them are of the head, half of the cells of the local descriptors.
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
        "global": ["batch", sum(part.axes.shape[1] for part in learned.global_)],
        "local": ["batch", "rows", "columns", local_dim],
        "attention": ["batch", "rows", "columns"],
    }
    metadata = {"rrt": SETTINGS.model_dump_json(), "sources": json.dumps(sources), "licence": LICENCE}
    return finished_model(graph, {name: (heads[name], shape) for name, shape in shapes.items()}, metadata)


def feature_model(weights: dict[str, np.ndarray], taught: tuple[Projection, Attention] | None = None):
    """The same before global projections are learned: `global_0` and, with a projection of local descriptors and an
    attention to them, `global_1`; before anything is learned `cells`. As the projections take them."""
    graph = Graph()
    _, expanded, head = add_network(graph, weights)
    outputs, importance = {}, None
    if taught is None:
        outputs["cells"] = add_cells(graph, expanded), ["batch", "rows", "columns", None]
    else:
        local, attention = taught
        importance = add_importance(graph, *add_local(graph, expanded, local), attention)
    for number, pooled in enumerate(add_pooled_maps(graph, head, expanded, importance)):
        outputs[f"global_{number}"] = pooled, ["batch", None]
    return finished_model(graph, outputs, {})


def make_lite0(weights: str | Path, images: list[Path], output: str | Path, num_workers: int = 1) -> int:
    """Learn on the images and write the model; returns its bytes. Raises InputError naming the file that is wrong."""
    folded = fold_batch_norms(read_published(weights), weights)
    (head,), cells = _described(feature_model(folded), images, num_workers)
    global_ = fit_projection(head, GLOBAL_DIM, GLOBAL_POWER)
    learned = Learned((global_,), fit_projection(cells, LOCAL_DIM, LOCAL_POWER))
    return _write(folded, learned, output, weights)


def add_attention(
    weights: str | Path,
    images: list[Path],
    model: str | Path,
    attention: str | Path,
    output: str | Path,
    num_workers: int = 1,
) -> int:
    """Write another model with the local descriptors of one that make_lite0 wrote, a learned attention
    (tools/learn_attention.py), and projections of what it weighs, learned on the images; returns its bytes. Raises
    InputError naming the file that is wrong."""
    open_onnx(model, threads=1)  # refuses what is no model
    loaded = onnx.load(str(model), load_external_data=False)
    arrays = {array.name: numpy_helper.to_array(array) for array in loaded.graph.initializer}
    if not {"local.mean", "local.axes"} <= arrays.keys():
        raise InputError(f"{model}: not a model that tools/make_lite0.py wrote; give one of those")
    local = Projection(*(arrays[f"local.{part}"].astype(np.float32) for part in Projection._fields))
    taught = local, load_attention(attention, local.axes.shape[1])
    folded = fold_batch_norms(read_published(weights), weights)
    parts, _ = _described(feature_model(folded, taught), images, num_workers)
    global_ = tuple(fit_part(rows, GLOBAL_DIM // len(parts), GLOBAL_POWER) for rows in parts)
    return _write(folded, Learned(global_, *taught), output, weights, attention)


def _write(folded, learned, output, *sources) -> int:
    model = lite0_model(folded, learned, {Path(source).name: sha256_of_file(source) for source in sources})
    write_bytes(Path(output), model.SerializeToString())
    return Path(output).stat().st_size


def _described(model, images, num_workers) -> tuple[list[np.ndarray], np.ndarray]:
    """(each part of the global features of all images [n, D], their strongest cells [m, 672], if the model has any)."""
    with TemporaryDirectory() as folder:
        features = Path(folder) / "features.onnx"
        features.write_bytes(model.SerializeToString())
        found = run_jobs(_features, [(features, image) for image in images], num_workers, "describing")
    return [np.stack(part) for part in zip(*(one[0] for one in found))], np.concatenate([one[1] for one in found])


def _features(job: tuple[Path, Path]) -> tuple[list[np.ndarray], np.ndarray]:
    """The global features of an image, [1280] and perhaps [672], the mean over scales, and the unit rows of its
    strongest cells."""
    model, path = job
    image = read_image(Job(path.name, path))
    if image.pixels is None:
        raise InputError(f"{path}: {image.reason}; leave it out of the list")
    whole, size = Image.fromarray(image.pixels), image.pixels.shape[1::-1]
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    levels = []
    for scale in SETTINGS.scales:
        level = np.asarray(whole.resize(SETTINGS.level_size(size, scale), Image.Resampling.BILINEAR))
        levels.append(dict(zip(names, map(np.asarray, session.run(names, {PIXELS: level[None]})))))
    parts = [np.mean([level[name][0] for level in levels], axis=0) for name in names if name != "cells"]
    cells = [level["cells"].reshape(-1, level["cells"].shape[3]) for level in levels if "cells" in names]
    strongest = np.concatenate(cells or [np.zeros((0, 1), np.float32)])
    length = np.linalg.norm(strongest, axis=1)
    best = np.argsort(-length, kind="stable")[:SAMPLE]
    return parts, strongest[best] / np.maximum(length[best, None], 1e-12)


@lru_cache
def _session(model: Path):
    return open_onnx(model, threads=1)
