"""rrt/network/checkpoint.py: what the published program writes and reads, and one clear line for every other file."""

import pickle

import pytest
import torch

from rrt.errors import InputError
from rrt.network.checkpoint import load_checkpoint, load_weights, save_checkpoint
from rrt.network.model import RRT

SMALL = {"num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24, "num_encoder_layers": 2}


@pytest.fixture
def model():
    return RRT(**SMALL)


def assert_equal_weights(a, b):
    for (name, left), (other, right) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other and torch.equal(left, right)


def test_weights_optimizer_settings_and_progress_come_back(tmp_path, model):
    optimizer = torch.optim.AdamW(model.parameters())
    model(*_inputs()).sum().backward()
    optimizer.step()
    settings, progress = {"model": model.settings, "scale_binning": "exact"}, {"epoch": 3, "history": [{"loss": 0.5}]}
    path = save_checkpoint(tmp_path / "a.pt", model, optimizer, settings, progress)
    checkpoint = load_checkpoint(path)
    other = RRT(**SMALL)
    load_weights(other, checkpoint)
    assert_equal_weights(model, other)
    assert checkpoint.settings == settings and checkpoint.progress == progress
    torch.optim.AdamW(other.parameters()).load_state_dict(checkpoint.optim)
    assert len(checkpoint.sha256) == 64


def test_the_published_program_finds_its_two_keys(tmp_path, model):
    content = torch.load(save_checkpoint(tmp_path / "a.pt", model), weights_only=True)
    assert {"state", "optim"} <= content.keys()
    RRT(**SMALL).load_state_dict(content["state"], strict=True)


def test_a_module_prefix_is_taken_off(tmp_path, model):
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state": state, "optim": {}}, tmp_path / "a.pt")
    other = RRT(**SMALL)
    load_weights(other, load_checkpoint(tmp_path / "a.pt"))
    assert_equal_weights(model, other)


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"dim_feedforward": 32}, "linear1.weight' is [24, 16], the model of these settings has [32, 16]"),
        ({"num_encoder_layers": 3}, "encoder.layers.2.self_attn.in_proj_weight' is missing"),
        ({"num_encoder_layers": 1}, "has no 'encoder.layers.1."),
        ({"normalize_before": True}, "encoder.norm.weight' is missing"),
        ({"num_global_features": 8}, "remap.weight"),
    ],
)
def test_another_architecture_is_named_by_its_first_differing_tensor(tmp_path, model, settings, named):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "a.pt", model, settings={"model": model.settings}))
    with pytest.raises(InputError, match="another architecture") as error:
        load_weights(RRT(**SMALL | settings), checkpoint)
    assert named in str(error.value) and "model.dim_feedforward=24" in str(error.value)


def test_a_setting_that_shapes_no_tensor_is_compared_too(tmp_path, model):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "a.pt", model, settings={"model": model.settings}))
    with pytest.raises(InputError, match="model.nhead=4, these settings say 2"):
        load_weights(RRT(**SMALL, nhead=2), checkpoint)


def test_weights_that_are_not_finite_are_refused(tmp_path, model):
    with torch.no_grad():
        model.remap.bias[3] = torch.nan
    with pytest.raises(InputError, match="'remap.bias' holds NaN"):
        load_weights(RRT(**SMALL), load_checkpoint(save_checkpoint(tmp_path / "a.pt", model)))


ONE = {"a": torch.zeros(1)}


class Harmful:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    "write, named",
    [
        (lambda path: None, "no such checkpoint"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"no checkpoint at all" * 9), "checkpoint"),
        (lambda path: torch.save({"state": {}}, path), "no network under the key 'state'"),
        (lambda path: torch.save([1, 2], path), "no network"),
        (
            lambda path: torch.save({"state": ONE, "progress": torch.zeros(3)}, path),
            "its progress are Tensor, no table",
        ),
        (
            lambda path: torch.save({"state": ONE, "settings": {"model": [1]}}, path),
            "its settings of the model are list",
        ),
        (lambda path: torch.save({"state": {"a": Harmful()}}, path), "objects other than tensors"),
        (lambda path: path.write_bytes(pickle.dumps(Harmful())), "checkpoint"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, write, named, capsys):
    path = tmp_path / "a.pt"
    write(path)
    with pytest.raises(InputError, match=named) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("path", [None, 3, b"a.pt"])
def test_what_is_no_path_is_one_line(path):
    with pytest.raises(InputError, match="expected the path of a file"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, model, share):
    path = save_checkpoint(tmp_path / "a.pt", model)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="damaged or truncated"):
        load_checkpoint(path)


def _inputs():
    image = (
        torch.randn(2, 12),
        torch.randn(2, 3, 16),
        torch.zeros(2, 3, dtype=torch.bool),
        torch.zeros(2, 3, dtype=torch.long),
        None,
    )
    return [*image, *image]
