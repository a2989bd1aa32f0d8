"""The making of the shipped model: what it learns, and that the file computes what the torch network and NumPy do."""

import json
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lite0_torch import load_lite0
from lite0_weights import LITE0_WEIGHTS
from PIL import Image

from rrt.errors import InputError
from rrt.extraction.attention import Attention
from rrt.extraction.describer import OnnxDescriber
from rrt.extraction.lite0 import make
from rrt.extraction.lite0.graph import Graph, add_network, finished_model
from rrt.extraction.lite0.learning import Learned, Projection, fit_part, fit_projection
from rrt.extraction.lite0.network import fold_batch_norms, read_published
from rrt.files.shipped import shipped
from rrt.store.linear import l2_normalize


def drawn_images(folder, generator, count):
    images = [folder / f"{i}.png" for i in range(count)]
    for path in images:
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return images


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(Seven small images, the model that was made of them, its bytes)"""
    folder = tmp_path_factory.mktemp("made")
    images = drawn_images(folder, np.random.default_rng(2), 7)
    with small():
        return images, folder / "made.onnx", make.make_lite0(LITE0_WEIGHTS, images, folder / "made.onnx")


@contextmanager
def small():
    """Models made in this block have few dimensions, and look at images of 96 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("GLOBAL_DIM", 6), ("LOCAL_DIM", 8)):
            patch.setattr(make, name, value)
        patch.setattr(make, "SETTINGS", make.SETTINGS.model_copy(update={"image_size": 96}))
        yield


def opened(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several would keep each other waiting
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_a_projection_whitens_what_it_was_learned_on():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 6)) * [5, 4, 3, 2, 1, 0] + 7
    projected = (rows - fit_projection(rows, 4, 0.5).mean) @ fit_projection(rows, 4, 0.5).axes
    np.testing.assert_allclose(projected.T @ projected / 500, np.eye(4), atol=1e-4)
    with pytest.raises(InputError, match="a projection to 6 dimensions: the training descriptors vary in 5"):
        fit_projection(rows, 6, 0.5)
    with pytest.raises(InputError, match="vary in 2; give more"):
        fit_projection(np.random.default_rng(1).normal(size=(3, 40)), 4, 0.5)


def test_the_file_computes_what_the_torch_network_and_numpy_do():
    generator = np.random.default_rng(1)
    global_, local = (
        Projection(generator.normal(size=size) / size, generator.normal(size=(size, dim)).astype(np.float32))
        for size, dim in ((1280, 16), (672, 8))
    )
    learned = Learned((global_,), local)
    model = make.lite0_model(fold_batch_norms(read_published(LITE0_WEIGHTS)), learned, {}, half=False)
    session = opened(model.SerializeToString())
    pixels = generator.integers(0, 256, (97, 129, 3), np.uint8)
    global_, local, attention = session.run(["global", "local", "attention"], {"pixels": pixels[None]})
    with torch.inference_mode():
        maps = load_lite0(LITE0_WEIGHTS)(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
    head, cells = maps.head[0, :, 1:-1, 1:-1].numpy(), maps.expanded[0, :, 1:-1, 1:-1].permute(1, 2, 0).numpy()
    pooled = np.cbrt(np.mean(np.maximum(head, 1e-6) ** 3, (1, 2)))
    expected = (l2_normalize(pooled) - learned.global_[0].mean) @ learned.global_[0].axes
    np.testing.assert_allclose(global_[0], expected, atol=1e-4)
    expected = l2_normalize((l2_normalize(cells) - learned.local.mean) @ learned.local.axes)
    np.testing.assert_allclose(local[0], expected, atol=1e-4)
    np.testing.assert_allclose(attention[0], np.linalg.norm(cells, axis=2), atol=1e-4)


def test_a_learned_attention_weighs_the_cells_of_both_maps_in_the_global_descriptor_alone(made, tmp_path):
    images, plain, _ = made
    generator = np.random.default_rng(3)
    attention = Attention(generator.normal(size=8).astype(np.float16), 0.5, -1.5)
    attention.save(tmp_path / "attention.npz")
    joined = tmp_path / "joined.onnx"
    with small():
        size = make.add_attention(LITE0_WEIGHTS, images, plain, tmp_path / "attention.npz", joined)
    sessions = [opened(path) for path in (plain, joined)]
    sources = json.loads(sessions[1].get_modelmeta().custom_metadata_map["sources"])
    assert size == joined.stat().st_size and list(sources) == [LITE0_WEIGHTS.name, "attention.npz"]

    pixels = generator.integers(0, 256, (97, 129, 3), np.uint8)
    outputs = ["global", "local", "attention"]
    before, after = (session.run(outputs, {"pixels": pixels[None]}) for session in sessions)
    for name in (1, 2):
        np.testing.assert_array_equal(after[name], before[name])
    lengths = after[2][0]
    logit = attention.logit((after[1][0] * lengths[..., None]).reshape(-1, 8)).reshape(lengths.shape)

    folded = fold_batch_norms(read_published(LITE0_WEIGHTS))
    halved = {name: array.astype(np.float16).astype(np.float32) for name, array in folded.items()}
    graph = Graph()
    maps = dict(zip(["expanded", "head"], add_network(graph, halved)[1:]))
    shapes = {name: (graph.without_border(x), ["batch", None, None, None]) for name, x in maps.items()}
    session = opened(finished_model(graph, shapes, {}).SerializeToString())
    expanded, head = (found[0] for found in session.run(["expanded", "head"], {"pixels": pixels[None]}))
    around = [
        [logit[2 * y : 2 * y + 3, 2 * x : 2 * x + 3].mean() for x in range(head.shape[2])] for y in range(head.shape[1])
    ]
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in onnx.load(joined).graph.initializer}
    expected = []
    for map_, importance, part in ((head, np.array(around), "global"), (expanded, logit, "global.cells")):
        total, weights = 0, 0
        for y, x in np.ndindex(importance.shape):
            weight = np.exp(importance[y, x])
            total, weights = total + weight * np.maximum(map_[:, y, x], 1e-6) ** 3, weights + weight
        centred = l2_normalize(np.cbrt(total / weights)) - arrays[f"{part}.mean"].astype(np.float32)
        expected.append(centred @ arrays[f"{part}.axes"].astype(np.float32))
    assert [len(part) for part in expected] == [3, 3]
    np.testing.assert_allclose(after[0][0], np.concatenate(expected), atol=2e-3 * np.abs(expected).max())


def test_parts_of_the_global_descriptor_count_alike():
    rows = np.random.default_rng(4).normal(size=(300, 6)) * [9, 5, 3, 2, 1, 1] + 2
    projection = fit_part(rows, 4, 0.25)
    lengths = np.linalg.norm((rows - projection.mean) @ projection.axes, axis=1)
    np.testing.assert_allclose(np.mean(lengths**2), 1, atol=1e-4)
    ratio = projection.axes / fit_projection(rows, 4, 0.25).axes
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)


def test_what_is_no_attention_or_no_such_model_is_named(tmp_path):
    Attention(np.ones(8, np.float32), 0.5, 0.0).save(tmp_path / "eight.npz")
    Attention(np.full(128, np.nan, np.float32), 0.5, 0.0).save(tmp_path / "nan.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "eight.npz").read_bytes()[:100])
    np.savez(tmp_path / "other.npz", weight=np.ones(128, np.float32))
    (tmp_path / "cut.onnx").write_bytes(b"no model")
    lite0 = shipped("lite0.onnx")
    for model, attention, words in (
        (lite0, "eight.npz", "eight.npz: not an attention for finite descriptors of 128 dimensions"),
        (lite0, "nan.npz", "nan.npz: not an attention for finite"),
        (lite0, "cut.npz", "cut.npz: not a file of an attention"),
        (lite0, "other.npz", "other.npz: not a file of an attention .it has no 'of_length'"),
        (lite0, "none.npz", "none.npz: no such file; make it with tools/learn_attention.py"),
        (tmp_path / "cut.onnx", "eight.npz", "cut.onnx"),
    ):
        with pytest.raises(InputError, match=words):
            make.add_attention(LITE0_WEIGHTS, [], model, tmp_path / attention, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_is_made_of_photographs_and_describes(made, tmp_path):
    images, path, size = made
    describer = OnnxDescriber(path, threads=1)
    assert size == path.stat().st_size and (describer.global_dim, describer.local_dim) == (6, 8)
    assert len(describer.describe(np.asarray(Image.open(images[0]))).attention)
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3.png: not an image that can be read; leave it out of the list"), small():
        make.make_lite0(LITE0_WEIGHTS, [images[0], tmp_path / "3.png"], tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_the_shipped_file_is_small_and_says_what_it_is_made_of():
    assert shipped("lite0.onnx").stat().st_size <= 10_000_000
    session = onnxruntime.InferenceSession(str(shipped("lite0.onnx")), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["licence"] == "Apache-2.0" and list(json.loads(metadata["sources"])) == [
        LITE0_WEIGHTS.name,
        "attention.npz",
    ]
    assert json.loads(metadata["rrt"]) == make.SETTINGS.model_dump(mode="json")
