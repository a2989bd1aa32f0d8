"""Networks filled from the weight files of Keras: what was loaded is said, and what does not fit is refused."""

import h5py
import numpy as np
import pytest
from keras_files import (
    DATASETS,
    as_applications,
    is_trunk,
    random_layers,
    random_trunk,
    tiny_network,
    trunk_of,
    write_keras,
)
from mutations import mutations

from delg_extract.network.keras_weights import read_keras_trunk
from delg_extract.network.model import Delg
from delg_extract.network.weights import LoadReport, load_keras_notop, save_weights
from delg_extract.training.flags import parse
from delg_extract.training.run import build_trainer
from rrt.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="module")
def tiny50():
    """For tests that leave it as it is."""
    return tiny_network("resnet50")


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
        self.refused(tmp_path, tiny50, "is a folder; give the .h5 file")
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
