"""Keras ResNet files: every spelling of the names gives the same trunk, which computes what Keras' own network
computes."""

from functools import cache
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
from mutations import mutations

from delg_extract.network.convolutions import every_second
from delg_extract.network.keras_weights import read_keras_trunk, trunk_layer
from delg_extract.network.model import BACKBONES, Backbone, Delg, normalize_pixels
from delg_extract.network.weights import LoadReport, load_keras_notop, save_weights
from delg_extract.training.flags import parse
from delg_extract.training.run import build_trainer
from rrt.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
# The blocks of the real networks with hardly any channels.
TINY = {
    "resnet50": Backbone(3, (1, 1, 2, 1), (3, 4, 6, 3), 2, 4),
    "resnet101": Backbone(3, (1, 1, 2, 1), (3, 4, 23, 3), 2, 4),
}


def tiny_network(backbone, seed=1):
    with mock.patch.dict(BACKBONES, TINY):
        return Delg(backbone, seed=seed)


@pytest.fixture(scope="module")
def tiny50():
    """For tests that leave it as it is."""
    return tiny_network("resnet50")


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
    return random_trunk(tiny_network(backbone))


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


@cache
def keras_network(build):
    """A network of Keras with random statistics, variances small enough for epsilon to count."""
    network = build(weights=None, include_top=False, input_shape=(None, None, 3))
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


@pytest.mark.parametrize(
    "backbone, build",
    [
        ("resnet50", keras.applications.ResNet50),
        pytest.param("resnet101", keras.applications.ResNet101, marks=pytest.mark.slow),
    ],
)
def test_the_trunk_computes_what_keras_own_network_computes(tmp_path, backbone, build):
    network, model = keras_network(build), Delg(backbone)
    network.save(tmp_path / "whole.h5")
    report = load_keras_notop(tmp_path / "whole.h5", model)
    assert set(report.loaded) == set(filter(is_trunk, model.variables_by_name)) and not report.unused
    # Both are given the same tensor: their stems pad differently.
    x = np.abs(np.random.default_rng(1).standard_normal((1, 33, 46, 64))).astype(np.float32)
    expected = keras.Model(network.get_layer("pool1_pool").output, stage_ends(network))(x)
    for stage, theirs in zip((2, 3, 4, 5), expected):
        x = model._stage(x if stage == 2 else every_second(x), stage, training=False)
        assert x.shape == theirs.shape and relative_difference(x, theirs) < 1e-4, stage
    if backbone == "resnet50":
        # The stem, with its adapted input, is the same for both.
        compare_images(network, model)


def compare_images(network, model):
    """Where no padding is seen (Keras pads with the mean colour, DELG with grey), both networks must see the same in a
    image.

    Keras' pooling windows begin one cell earlier, so its image begins two pixels later. A cell of conv4 sees 145
    pixels to each side, one of conv5 241.
    """
    rgb = np.random.default_rng(2).integers(0, 256, (1, 513, 513, 3), dtype=np.uint8)
    taps = {}
    conv4 = model.conv4(normalize_pixels(rgb), taps=taps)
    caffe_input = keras.applications.resnet.preprocess_input(rgb[:, 2:, 2:].astype(np.float32))
    outputs = [network.get_layer("conv1_relu").output, network.get_layer("pool1_pool").output, *stage_ends(network)[2:]]
    stem, pooled, theirs4, theirs5 = keras.Model(network.input, outputs)(caffe_input)
    assert relative_difference(taps["block0"][:, 3:-3, 3:-3], stem[:, 2:-2, 2:-2][:, :251, :251]) < 1e-4
    assert relative_difference(taps["block0mp"][:, 2:-2, 2:-2], pooled[:, 2:126, 2:126]) < 1e-4
    assert relative_difference(conv4[:, 10:22, 10:22], theirs4[:, 10:22, 10:22]) < 1e-4
    assert relative_difference(model.conv5(conv4)[:, 8, 8], theirs5[:, 8, 8]) < 1e-4


class TestReport:
    def test_a_file_without_conv5_is_refused_or_reported_as_such(self, tmp_path):
        layers = {
            layer: values
            for layer, values in random_layers("resnet50").items()
            if not layer.startswith(("res5", "bn5"))
        }
        path, model = write_keras(tmp_path / "notop.h5", layers), tiny_network("resnet50")
        before = {name: variable.numpy() for name, variable in model.variables_by_name.items()}
        with pytest.raises(InputError) as error:
            load_keras_notop(path, model)
        assert "lacks 60 of the 318 trunk variables (conv5 60), first res5a_branch2a/kernel; --partial_weights" in str(
            error.value
        )
        assert all(np.array_equal(model.variables_by_name[name], value) for name, value in before.items())
        report = load_keras_notop(path, model, partial=True)
        assert {
            name for name, value in before.items() if not np.array_equal(model.variables_by_name[name], value)
        } == set(report.loaded)
        assert set(report.left) == before.keys() - set(report.loaded)
        assert {name for name in report.left if is_trunk(name)} == {
            name for name in before if name.startswith(("res5", "bn5"))
        }
        lines = str(report).splitlines()
        assert lines[0] == f"{path}: loaded 258 of 332 variables: conv1 6, conv2 60, conv3 78, conv4 114"
        assert lines[1] == (
            "  left as initialised: conv5 60 (all): res5a_branch2a/kernel, res5a_branch2a/bias, "
            "bn5a_branch2a/gamma, ..."
        )
        assert lines[2].startswith("  left as initialised: heads 14 (all): embedding_layer/kernel") and len(lines) == 3

    def test_the_real_file_without_conv5_is_reported_as_such(self, shared_data):
        model = Delg("resnet50")
        before = trunk_of(model)
        report = load_keras_notop(
            shared_data / "weights/resnet50_imagenet_conv1_to_conv4_notop.h5", model, partial=True
        )
        assert (len(report.loaded), len(report.left), report.unused, report.without_bias) == (258, 74, [], [])
        assert "conv5 60 (all)" in str(report)
        after = trunk_of(model)
        changed = {name for name in after if not np.array_equal(after[name], before[name])}
        assert changed <= set(report.loaded)
        # Many biases are zero in the file as well.
        assert {name for name in report.loaded if not name.endswith("/bias")} | {"conv1/bias"} <= changed

    def test_what_of_the_file_is_not_used_is_named(self, tmp_path):
        path = write_keras(tmp_path / "whole.h5", random_layers("resnet50"), as_applications, DATASETS["Keras 3"])
        with h5py.File(path, "a") as file:
            file["model_weights/predictions/predictions/kernel"] = np.zeros((4, 2), np.float32)
            file["optimizer_weights/SGD/conv1_conv/kernel"] = np.zeros((7, 7, 3, 3), np.float32)
        report = load_keras_notop(path, tiny_network("resnet50"))
        assert report.unused == ["model_weights/predictions/predictions/kernel", "optimizer_weights"]
        assert (
            str(report).splitlines()[-1]
            == "  of the file not used: 2: model_weights/predictions/predictions/kernel, optimizer_weights"
        )

    def test_a_deeper_networks_file_is_refused_unless_a_part_will_do(self, tmp_path, tiny50):
        path = write_keras(tmp_path / "deep.h5", random_layers("resnet101"), as_applications)
        with pytest.raises(
            InputError, match="holds 306 trunk variables that a resnet50 has not, first .*; choose the --backbone"
        ):
            load_keras_notop(path, tiny50)
        report = load_keras_notop(path, tiny_network("resnet50"), partial=True)
        assert (
            len(report.loaded) == 318
            and len(report.unused) == 306
            and report.unused[0].startswith("conv4_block10_1_bn/")
        )

    def test_a_shallower_networks_file_leaves_blocks_of_conv4(self, tmp_path):
        path, model = write_keras(tmp_path / "shallow.h5", random_layers("resnet50")), tiny_network("resnet101")
        with pytest.raises(
            InputError, match=r"lacks 306 of the 624 trunk variables \(conv4 306\), first res4g_branch2a/kernel"
        ):
            load_keras_notop(path, model)
        report = str(load_keras_notop(path, model, partial=True))
        assert "conv4 114 of 420" in report and "left as initialised: conv4 306 of 420: res4g_branch2a/kernel" in report

    def test_an_empty_report_has_one_line(self):
        assert str(LoadReport("x.h5", ["conv1/kernel"], [], [], [])) == "x.h5: loaded 1 of 1 variables: conv1 1"

    def test_training_prints_it(self, tmp_path, capsys):
        layers = {
            layer: values
            for layer, values in random_trunk(Delg("small")).items()
            if not layer.startswith(("res5", "bn5"))
        }
        path = write_keras(tmp_path / "notop.h5", layers)
        args = [
            "--train_list",
            "x",
            "--image_dir",
            "x",
            "--backbone",
            "small",
            "--delg_global_features",
            "--imagenet_checkpoint",
            str(path),
            "--partial_weights",
        ]
        build_trainer(parse("", args), None, num_classes=2)
        printed = capsys.readouterr().out
        assert (
            f"{path}: loaded 150 of 206 variables: conv1 6" in printed
            and "left as initialised: conv5 42 (all)" in printed
        )


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


class TestMistakes:
    def refused(self, path, model, *parts, partial=False):
        with pytest.raises(InputError) as error:
            load_keras_notop(path, model, partial)
        message = str(error.value)
        assert message.startswith(f"{path}: ") and "\n" not in message and all(part in message for part in parts), (
            message
        )

    def test_files_that_are_no_keras_files_are_refused(self, tmp_path, tiny50):
        self.refused(tmp_path / "none.h5", tiny50, "no such file")
        for name, content in (("empty.h5", b""), ("text.h5", b"not weights")):
            (tmp_path / name).write_bytes(content)
            self.refused(tmp_path / name, tiny50, "not a readable HDF5 file")
        self.refused(tmp_path, tiny50, "not a readable HDF5 file")
        whole = write_keras(tmp_path / "whole.h5", random_layers("resnet50")).read_bytes()
        (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
        self.refused(tmp_path / "cut.h5", tiny50, "truncated")
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["dense/kernel:0"] = np.zeros(3)
        self.refused(tmp_path / "other.h5", tiny50, "holds no variable of a ResNet trunk")
        self.refused(save_weights(tmp_path / "own.h5", tiny50), tiny50, "a file of this project", "--init_weights")

    def test_a_network_built_otherwise_is_refused(self, tmp_path, tiny50):
        path = write_keras(tmp_path / "v2.h5", random_layers("resnet50"), as_applications)
        with h5py.File(path, "a") as file:
            file["conv2_block1_preact_bn/conv2_block1_preact_bn/gamma:0"] = np.ones(3)
        self.refused(path, tiny50, "ResNet V2", partial=True)

    @pytest.mark.parametrize(
        "layer, kind, array, what",
        [
            ("res3b_branch2a", "kernel", np.ones((1, 1, 5, 5)), "res3b_branch2a/kernel has shape (1, 1, 5, 5)"),
            ("bn3b_branch2a", "gamma", None, "layer bn3b_branch2a is there without gamma"),
            ("res3b_branch2a", "kernel", None, "layer res3b_branch2a is there without kernel"),
            ("bn_conv1", "moving_variance", None, "layer bn_conv1 is there without moving_variance"),
            ("bn3b_branch2a", "beta", np.array([np.nan]), "not finite"),
            ("bn3b_branch2a", "beta", np.array([1]), "no weights"),
            ("bn3b_branch2a", "beta", np.array([b"text"]), "no weights"),
        ],
    )
    def test_a_layer_that_cannot_be_used_is_named_and_nothing_loaded(self, tmp_path, tiny50, layer, kind, array, what):
        layers = {name: dict(values) for name, values in random_layers("resnet50").items()}
        layers[layer][kind] = array
        if array is None:
            del layers[layer][kind]
        before = trunk_of(tiny50)
        path = write_keras(tmp_path / "a.h5", layers)
        for partial in (False, True):
            self.refused(path, tiny50, what, partial=partial)
        for name, value in trunk_of(tiny50).items():
            np.testing.assert_array_equal(value, before[name])

    def test_two_networks_in_one_file_are_refused(self, tmp_path, tiny50):
        path = write_keras(tmp_path / "two.h5", random_layers("resnet50"))
        with h5py.File(path, "a") as file:
            file["model_2/conv1_conv/kernel:0"] = np.ones((7, 7, 3, 3))
        self.refused(path, tiny50, "holds conv1/kernel twice")

    def test_a_dataset_of_gigabytes_is_not_read(self, tmp_path, tiny50):
        path = write_keras(tmp_path / "a.h5", random_layers("resnet50"))
        with h5py.File(path, "a") as file:
            del file["conv1/conv1/kernel:0"]
            file.create_dataset("conv1/conv1/kernel:0", (1 << 20, 1 << 20), "f4", chunks=(1 << 8, 1 << 8))
        self.refused(path, tiny50, "no weights")

    def test_a_damaged_file_is_read_or_refused_in_one_line(self, tmp_path):
        layers = random_layers("resnet50")
        path = write_keras(tmp_path / "a.h5", {name: layers[name] for name in ("conv1", "bn_conv1", "res2a_branch2a")})
        refused = 0
        for damaged in mutations(path.read_bytes(), 100, seed=1):
            path.write_bytes(damaged)
            try:
                read_keras_trunk(path)
            except InputError as error:
                refused += 1
                assert str(error).startswith(f"{path}: ") and len(str(error)) < 1000
        assert 0 < refused <= 100
