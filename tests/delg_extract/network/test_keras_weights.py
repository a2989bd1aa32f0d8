"""Keras ResNet files: every spelling of the names gives the same trunk, which computes what Keras' own network
computes."""

import h5py
import numpy as np
import pytest
from delg_golden import activations
from keras_files import DATASETS, as_applications, as_caffe, is_trunk, random_layers, tiny_network, write_keras

from delg_extract.network.convolutions import every_second
from delg_extract.network.keras_weights import read_keras_trunk, trunk_layer
from delg_extract.network.model import Delg, normalize_pixels
from delg_extract.network.weights import load_keras_notop
from rrt.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def assert_read(path, layers):
    """The file is read as exactly these layers, and nothing of it is left over."""
    found = read_keras_trunk(path)
    assert (
        found.values.keys() == {f"{layer}/{kind}" for layer, values in layers.items() for kind in values}
        and not found.unused
    )
    for name, value in found.values.items():
        layer, kind = name.split("/")
        np.testing.assert_array_equal(value, layers[layer][kind], err_msg=name)


class TestNames:
    @pytest.mark.parametrize(
        "theirs, ours",
        [
            ("conv1", "conv1"),
            ("bn_conv1", "bn_conv1"),
            ("res4b22_branch2a", "res4w_branch2a"),
            ("bn3b3_branch1", "bn3d_branch1"),
            ("res4b_branch2c", "res4b_branch2c"),
            ("conv2_block1_0_conv", "res2a_branch1"),
            ("conv4_block23_3_bn", "bn4w_branch2c"),
            ("predictions", None),
            ("fc1000", None),
            ("res6a_branch2a", None),
            ("conv2_block1_4_conv", None),
            ("conv4_block3_out", None),
            ("conv1_relu", None),
            ("layer_res4a_branch2a", None),
        ],
    )
    def test_names_of_one_layer(self, theirs, ours):
        assert trunk_layer(theirs) == ours

    @pytest.mark.parametrize("rename", [str, as_applications, as_caffe])
    @pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
    def test_every_spelling_gives_the_same_trunk(self, tmp_path, backbone, rename):
        assert_read(write_keras(tmp_path / "a.h5", random_layers(backbone), rename), random_layers(backbone))

    @pytest.mark.parametrize("layout", DATASETS)
    @pytest.mark.parametrize("text", [np.bytes_, str, None])
    def test_every_layout_gives_the_same_trunk(self, tmp_path, layout, text):
        layers = {
            layer: random_layers("resnet50")[layer] for layer in ("conv1", "bn_conv1", "res2a_branch1", "bn4f_branch2b")
        }
        for rename in (str, as_applications):
            assert_read(write_keras(tmp_path / "a.h5", layers, rename, DATASETS[layout], text), layers)


def write_numbered(path, layers, with_names=True):
    """The layout of ``.weights.h5``: layers by class and number, variables by number."""
    with h5py.File(path, "w") as file:
        for number, (layer, values) in enumerate(layers.items()):
            group = file.create_group(
                f"layers/{'conv2d' if 'kernel' in values else 'batch_normalization'}_{number}/vars"
            )
            if with_names:
                group.attrs["name"] = as_applications(layer)
            for index, array in enumerate(values.values()):
                group[str(index)] = array
    return path


class TestKeras3:
    def test_numbered_layers_are_read_by_the_names_noted_beside_them(self, tmp_path):
        assert_read(write_numbered(tmp_path / "a.weights.h5", random_layers("resnet50")), random_layers("resnet50"))

    def test_numbered_layers_without_names_are_refused_with_a_way_out(self, tmp_path):
        path = write_numbered(tmp_path / "a.weights.h5", random_layers("resnet50"), with_names=False)
        with pytest.raises(
            InputError, match="left their names out; load it in Keras and write it again with model.save"
        ) as error:
            read_keras_trunk(path)
        assert str(error.value).startswith(f"{path}: ")

    def test_what_keras_writes_today_is_laid_out_so(self, tmp_path):
        import keras

        network = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 7, name="conv1_conv"),
                keras.layers.BatchNormalization(name="conv1_bn"),
            ]
        )
        network.save_weights(tmp_path / "a.weights.h5")
        network.save(tmp_path / "a.h5")
        for name in ("a.weights.h5", "a.h5"):
            found = read_keras_trunk(tmp_path / name).values
            assert found.keys() == {
                "conv1/kernel",
                "conv1/bias",
                "bn_conv1/gamma",
                "bn_conv1/beta",
                "bn_conv1/moving_mean",
                "bn_conv1/moving_variance",
            }
            np.testing.assert_array_equal(found["conv1/kernel"], network.layers[0].kernel)
            np.testing.assert_array_equal(found["bn_conv1/moving_variance"], np.ones(4))


def keras_network():
    """A network of Keras with random statistics, variances small enough for epsilon to count."""
    import keras  # a second to load, which those who only collect the tests need not wait

    network = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(None, None, 3))
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.gamma.shape
            variance = 10.0 ** rng.uniform(-4, -1, channels)
            # The factor of the whole layer stays moderate, and small where it is added to the shortcut.
            strength = 0.3 if layer.name.endswith("_3_bn") else 0.01 if layer.name == "conv1_bn" else 1.0
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, channels) * np.sqrt(variance) * strength,
                    rng.normal(0, 0.1, channels),
                    rng.normal(0, 0.1, channels),
                    variance,
                ]
            )
        elif isinstance(layer, keras.layers.Conv2D):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    return network


def stage_ends(network):
    """Outputs of conv2 to conv5."""
    names = [layer.name for layer in network.layers]
    return [
        [
            network.get_layer(name).output
            for name in names
            if name.startswith(f"conv{stage}_") and name.endswith("_out")
        ][-1]
        for stage in (2, 3, 4, 5)
    ]


def relative_difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_the_trunk_computes_what_keras_own_network_computes(tmp_path):
    """A ResNet-101 is the same with more blocks, see TestNames."""
    import keras

    network, model = keras_network(), Delg("resnet50", seed=None)
    network.save(tmp_path / "whole.h5")
    report = load_keras_notop(tmp_path / "whole.h5", model)
    assert set(report.loaded) == set(filter(is_trunk, model.variables_by_name)) and not report.unused
    # Both are given the same tensor: their stems pad differently.
    x = np.abs(np.random.default_rng(1).standard_normal((1, 33, 46, 64))).astype(np.float32)
    expected = keras.Model(network.get_layer("pool1_pool").output, stage_ends(network))(x)
    for stage, theirs in zip((2, 3, 4, 5), expected):
        x = model._stage(x if stage == 2 else every_second(x), stage, training=False)
        assert x.shape == theirs.shape and relative_difference(x, theirs) < 1e-4, stage
    compare_images(network, model)


def compare_images(network, model):
    """Where no padding is seen (Keras pads with the mean colour, DELG with grey), both networks must see the same in a
    image.

    Keras' pooling windows begin one cell earlier, so its image begins two pixels later. A cell of conv4 sees 145
    pixels to each side, one of conv5 241.
    """
    import keras

    rgb = np.random.default_rng(2).integers(0, 256, (1, 513, 513, 3), dtype=np.uint8)
    blocks = activations(model, normalize_pixels(rgb))
    caffe_input = keras.applications.resnet.preprocess_input(rgb[:, 2:, 2:].astype(np.float32))
    outputs = [network.get_layer("conv1_relu").output, network.get_layer("pool1_pool").output, *stage_ends(network)[2:]]
    stem, pooled, theirs4, theirs5 = keras.Model(network.input, outputs)(caffe_input)
    assert relative_difference(blocks["block0"][:, 3:-3, 3:-3], stem[:, 2:-2, 2:-2][:, :251, :251]) < 1e-4
    assert relative_difference(blocks["block0mp"][:, 2:-2, 2:-2], pooled[:, 2:126, 2:126]) < 1e-4
    assert relative_difference(blocks["conv4"][:, 10:22, 10:22], theirs4[:, 10:22, 10:22]) < 1e-4
    assert relative_difference(blocks["block4"][:, 8, 8], theirs5[:, 8, 8]) < 1e-4


def test_files_made_from_caffes_without_biases_and_with_factors_in_layers_of_their_own_compute_the_same(tmp_path):
    """Their batch norms are followed by a layer of factors."""
    layers, folded, split = random_layers("resnet101"), {}, {}
    rng = np.random.default_rng(3)
    for layer, values in layers.items():
        if "kernel" in values:
            folded[layer] = {**values, "bias": np.zeros_like(values["bias"])}
            split[layer] = {"kernel": values["kernel"]}
        else:
            gamma, beta = rng.uniform(0.5, 1.5, (2, *values["gamma"].shape)).astype(np.float32)
            folded[layer] = {**values, "gamma": gamma * values["gamma"], "beta": gamma * values["beta"] + beta}
            split[layer] = values
            split[layer.replace("bn", "scale", 1)] = {"gamma": gamma, "beta": beta}
    path = write_keras(tmp_path / "split.h5", split, as_caffe, DATASETS["Keras 1"])
    assert_read(path, folded)
    report = load_keras_notop(path, tiny_network("resnet101"))
    assert len(report.without_bias) == 104 and not report.unused
    assert "  convolutions without bias, set to zero: 104: conv1, res2a_branch1, res2a_branch2a, ..." in str(report)
