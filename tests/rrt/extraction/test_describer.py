"""Descriptors of single images by ONNX files: shapes, order, borders, mirror images, and files that are refused."""

import csv

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from rrt.errors import InputError
from rrt.extraction.describer import open_describer
from rrt.extraction.levels import TooSmall
from rrt.extraction.settings import DescriberSettings

PHOTOGRAPHS = 16


@pytest.fixture(scope="module")
def lite0():
    return open_describer("lite0", threads=1)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photographs(shared_data):
    folder = shared_data / "landmarks"
    with open(folder / "test_gallery.txt") as file:
        names = [row[0] for row in csv.reader(file)]
    for name in names[:: len(names) // PHOTOGRAPHS]:
        yield np.asarray(Image.open(folder / name).convert("RGB"))


def foreign_model(path, *, map_channels=8, vector=None, external=None, domain="", size=(None, None)):
    """An ONNX file of a network as others export them: [1, 3, H, W] to a map of stride 8 and, perhaps, a vector."""
    kernel = np.random.default_rng(1).normal(size=(map_channels, 3, 8, 8)).astype(np.float32)
    weight = helper.make_tensor("kernel", TensorProto.FLOAT, kernel.shape, kernel.tobytes(), raw=True)
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["map"], strides=[8, 8], domain=domain)]
    outputs = [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, map_channels, None, None])]
    if vector:
        nodes.append(helper.make_node("ReduceMean", ["map"], ["vector"], axes=[2, 3], keepdims=0))
        outputs.append(helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, map_channels]))
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=external)
        path.parent.joinpath(external).write_bytes(kernel.tobytes())
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *size])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [weight])
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("width, height", [(320, 240), (97, 300), (12, 500), (96, 96)])
def test_a_description_has_what_a_store_keeps(lite0, width, height):
    found = lite0.describe(noise(width, height), "a.jpg")
    count = len(found.attention)
    assert found.name == "a.jpg" and found.size == (width, height) and 0 < count <= lite0.settings.max_features
    assert found.global_.shape == (lite0.global_dim,) and found.descriptors.shape == (count, lite0.local_dim)
    np.testing.assert_allclose(np.linalg.norm(found.global_), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert (np.diff(found.attention) <= 0).all() and found.attention[-1] >= 0
    assert (found.keypoints >= 0).all() and (found.keypoints <= np.array([width, height]) - 1).all()
    np.testing.assert_allclose(np.unique(found.scales), np.unique(1 / np.float32(lite0.settings.scales)))


def test_the_same_image_gives_the_same_numbers_whatever_was_described_before(lite0):
    first = lite0.describe(noise(200, 150))
    lite0.describe(noise(150, 200, seed=1))
    again = lite0.describe(noise(200, 150))
    np.testing.assert_array_equal(first.descriptors, again.descriptors)
    np.testing.assert_array_equal(first.global_, again.global_)


def test_keypoints_lie_where_the_image_differs(lite0):
    image = np.full((384, 384, 3), 90, np.uint8)
    image[240:300, 60:120] = noise(60, 60)
    strongest = lite0.describe(image).keypoints[:20]
    np.testing.assert_allclose(np.median(strongest, axis=0), [90, 270], atol=30)


def test_an_image_without_ten_pixels_is_too_small(lite0):
    with pytest.raises(TooSmall, match="a side is shorter than 10 pixels"):
        lite0.describe(noise(9, 200))


def test_no_descriptor_prefers_a_border(lite0, shared_data):
    shares = []
    for image in photographs(shared_data):
        found = lite0.describe(image)
        x, y = (found.keypoints[:100] / found.size).T
        shares.append([np.mean(side) for side in (x < 0.1, x > 0.9, y < 0.1, y > 0.9)])
    assert (np.mean(shares, axis=0) <= 0.2).all(), np.mean(shares, axis=0)


def shares_by_tenths(attention):
    """Share of the attention in each tenth of the width -> [10]."""
    columns = attention.sum(axis=0) / attention.sum()
    edges = np.interp(np.linspace(0, 1, 11), np.linspace(0, 1, len(columns) + 1), np.append(0, np.cumsum(columns)))
    return np.diff(edges)


def test_a_mirror_image_has_mirrored_attention(lite0, shared_data):
    # Cell by cell a network that was not made symmetric differs by more (about an eighth): this is about sides.
    shares = []
    for image in photographs(shared_data):
        level = np.asarray(Image.fromarray(image).resize(lite0.settings.level_size(image.shape[1::-1], 1.0)))
        attention, mirrored = (lite0.level(pixels).attention for pixels in (level, level[:, ::-1].copy()))
        shares.append([shares_by_tenths(attention), shares_by_tenths(mirrored[:, ::-1])])
        halves = [part[:5].sum() for part in shares[-1]]
        assert abs(halves[0] - halves[1]) <= 0.05
    plain, mirrored = np.mean(shares, axis=0)
    np.testing.assert_allclose(mirrored, plain, rtol=0.05)


def test_sides_are_multiples_near_the_shape_of_the_image():
    settings = DescriberSettings(extra=1, first=16.0, stride=16.0)
    assert settings.level_size((768, 576), 1.0) == (385, 289)
    assert settings.level_size((768, 20), 1.0) == (385, 65)
    assert settings.centres(3, 65, 65) == [16, 32, 48]
    assert DescriberSettings().centres(2, 64, 64) == [15.5, 47.5]


def test_any_network_with_a_map_describes(tmp_path):
    model = foreign_model(tmp_path / "net.onnx")
    describer = open_describer(f"onnx:{model}", threads=1, max_features=50)
    found = describer.describe(noise(200, 120))
    assert (describer.global_dim, describer.local_dim) == (8, 8) and found.descriptors.shape == (50, 8)
    with_vector = open_describer(f"onnx:{foreign_model(tmp_path / 'v.onnx', vector=True)}", threads=1)
    assert not np.allclose(with_vector.describe(noise(200, 120)).global_, found.global_)
    fixed = open_describer(f"onnx:{foreign_model(tmp_path / 'f.onnx', size=(64, 96))}", threads=1, scales=[1.0])
    assert len(fixed.describe(noise(200, 120)).attention) == 8 * 12


def test_weights_beside_the_file_are_read_and_those_outside_its_folder_are_not(tmp_path):
    (tmp_path / "models").mkdir()
    beside = foreign_model(tmp_path / "models" / "beside.onnx", external="beside.data")
    assert open_describer(f"onnx:{beside}", threads=1).local_dim == 8
    outside = foreign_model(tmp_path / "models" / "outside.onnx", external="../outside.data")
    with pytest.raises(InputError, match=r"outside.onnx: its weights are in '../outside.data', outside its folder"):
        open_describer(f"onnx:{outside}", threads=1)


def test_custom_operators_are_refused_by_name(tmp_path):
    model = foreign_model(tmp_path / "custom.onnx", domain="their.company")
    with pytest.raises(InputError, match="custom.onnx: it has the custom operator their.company:Conv"):
        open_describer(f"onnx:{model}", threads=1)


def test_what_is_no_model_is_refused_in_one_line(tmp_path, lite0):
    missing = tmp_path / "none.onnx"
    with pytest.raises(InputError, match="none.onnx: no such model; export the model again"):
        open_describer(f"onnx:{missing}")
    for name, data in (("text.onnx", b"not a model"), ("cut.onnx", lite0.path.read_bytes()[:100_000])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: "):
            open_describer(f"onnx:{tmp_path / name}")
    with pytest.raises(InputError, match="expected lite0, onnx:FILE or transformers:FOLDER_OR_NAME"):
        open_describer("resnet")
    with pytest.raises(InputError, match="setting max_features=0: "):
        open_describer("lite0", max_features=0)
    layer = foreign_model(tmp_path / "layer.onnx")
    with pytest.raises(InputError, match="layer.onnx: no map 'conv5'; its maps are: map"):
        open_describer(f"onnx:{layer}", threads=1, layer="conv5")


def test_a_model_without_a_map_is_refused(tmp_path):
    pooled = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["vector"], axes=[2, 3], keepdims=0)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, None, None])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(pooled, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "pooled.onnx")
    with pytest.raises(InputError, match=r"pooled.onnx: no output is a map .*vector \(1, 3\)"):
        open_describer(f"onnx:{tmp_path / 'pooled.onnx'}", threads=1)
