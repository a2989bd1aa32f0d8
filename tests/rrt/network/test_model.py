"""rrt/network/model.py: the published numbers, and every shortcut against the plain computation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from places import GOLDEN
from torch import nn

from rrt.errors import InputError
from rrt.network.attention import Packing
from rrt.network.initialisation import initialise
from rrt.network.model import RRT

IMAGE = ("global", "local", "mask", "scales", "positions")


def golden_model(folder, name):
    """The network and the arrays of golden/rrt_<name>."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(folder / f"rrt_{name}.npz").items()}
    dim_global, dim, num_local, feedforward, heads, layers = arrays["config"].tolist()
    model = RRT(dim_global, dim, 2 * num_local + 4, feedforward, heads, layers)
    state = torch.load(folder / f"rrt_{name}.pt", weights_only=True)["state"]
    model.load_state_dict(state, strict=True)
    return model, arrays


def golden_inputs(arrays):
    return [arrays[f"{side}_{part}"] for side in ("query", "gallery") for part in IMAGE]


def assert_golden(folder, name):
    model, arrays = golden_model(folder, name)
    logits = model(*golden_inputs(arrays))
    expected = arrays["logits"]
    assert (logits - expected).abs().max() < 1e-4 * (expected.max() - expected.min())
    loss = F.binary_cross_entropy_with_logits(logits, arrays["labels"])
    assert loss.item() == pytest.approx(arrays["loss"].item(), rel=1e-4)
    loss.backward()
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()
    assert norm.item() == pytest.approx(arrays["grad_norm"].item(), rel=1e-3)


def test_small_golden_logits_loss_and_gradient_norm():
    assert_golden(GOLDEN, "small")


def test_published_size_golden_logits_loss_and_gradient_norm(shared_golden):
    assert_golden(shared_golden, "full")


def test_the_defaults_are_the_published_network():
    model = RRT()
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_243_201
    layer = {
        "self_attn.in_proj_weight": [384, 128],
        "self_attn.in_proj_bias": [384],
        "self_attn.out_proj.weight": [128, 128],
        "self_attn.out_proj.bias": [128],
        "linear1.weight": [1024, 128],
        "linear1.bias": [1024],
        "linear2.weight": [128, 1024],
        "linear2.bias": [128],
    } | {f"norm{i}.{kind}": [128] for i in (1, 2) for kind in ("weight", "bias")}
    expected = {f"encoder.layers.{i}.{name}": shape for i in range(6) for name, shape in layer.items()}
    expected |= {
        "remap.weight": [128, 2048],
        "remap.bias": [128],
        "scale_encoder.weight": [7, 128],
        "seg_encoder.weight": [6, 128],
    }
    expected |= {"classifier.weight": [1, 128], "classifier.bias": [1]}
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == expected


def small_model(seed=0, **settings):
    torch.manual_seed(seed)
    return RRT(
        **{"num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24, "num_encoder_layers": 3}
        | settings
    )


def random_pairs(batch=5, longest=(7, 9), seed=0, settings=(12, 16)):
    """Padded inputs of ``RRT.forward``: row 0 full, row 1 empty, others between."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for length in longest:
        counts = torch.randint(1, length, (batch,), generator=generator)
        counts[0], counts[1] = length, 0
        inputs += [
            torch.randn(batch, settings[0], generator=generator),
            torch.randn(batch, length, settings[1], generator=generator),
            torch.arange(length) >= counts[:, None],
            torch.randint(0, 7, (batch, length), generator=generator),
            torch.rand(batch, length, 2, generator=generator),
        ]
    return inputs


def plain_logits(model, inputs):
    """The same network by PyTorch's own padded encoder layers, every row of every layer."""
    settings, state = model.settings, model.state_dict()
    layer = nn.TransformerEncoderLayer(
        settings["num_local_features"],
        settings["nhead"],
        settings["dim_feedforward"],
        0.0,
        getattr(F, settings["activation"]),
        batch_first=True,
        norm_first=settings["normalize_before"],
    )
    norm = nn.LayerNorm(settings["num_local_features"]) if settings["normalize_before"] else None
    encoder = nn.TransformerEncoder(layer, settings["num_encoder_layers"], norm, enable_nested_tensor=False)
    encoder.load_state_dict(
        {name[len("encoder.") :]: value for name, value in state.items() if name.startswith("encoder.")}
    )
    segment = state["seg_encoder.weight"]
    tokens, padding = [], []
    for side, (global_, local, mask, scales, _) in enumerate((inputs[:5], inputs[5:])):
        batch = len(global_)
        mark = segment[2 + side].expand(batch, 1, -1)
        global_token = F.normalize(model.remap(global_), dim=-1) + segment[4 + side]
        local_tokens = F.normalize(local, dim=-1) + state["scale_encoder.weight"][scales] + segment[side]
        tokens += [mark, global_token[:, None], local_tokens]
        padding += [torch.zeros(batch, 2, dtype=torch.bool), mask]
    encoded = encoder(torch.cat(tokens, 1), src_key_padding_mask=torch.cat(padding, 1))
    return model.classifier(encoded[:, 0]).squeeze(1)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_logits_and_gradients_equal_those_of_pytorchs_own_encoder(before, activation):
    model = small_model(activation=activation, normalize_before=before)
    inputs = random_pairs()
    logits = model(*inputs)
    torch.testing.assert_close(logits, plain_logits(model, inputs), atol=1e-5, rtol=1e-5)
    if before:
        assert "encoder.norm.weight" in model.state_dict()


@pytest.mark.parametrize(
    "settings", [{}, {"normalize_before": True}, {"activation": "glu"}, {"nhead": 2, "num_encoder_layers": 1}]
)
def test_computing_cls_alone_in_the_last_layer_changes_nothing(settings):
    model = small_model(**settings)
    tokens = torch.randn(20, 16, requires_grad=True)
    packing = Packing.of(torch.tensor([6, 9, 5]))
    outputs = model.encoder(tokens, packing), model.encoder.all_rows(tokens, packing).index_select(0, packing.first)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    inputs = [tokens, *model.encoder.parameters()]
    gradients = [torch.autograd.grad(out.square().sum(), inputs) for out in outputs]
    for short, full in zip(*gradients):
        torch.testing.assert_close(short, full, atol=1e-4, rtol=1e-4)


def test_glu_gates_one_half_of_the_feedforward_with_the_other():
    model = small_model(activation="glu")
    layer = model.encoder.layers[0]
    assert layer.linear1.out_features == 48 and layer.linear2.in_features == 24
    x = torch.randn(4, 16)
    value, gate = layer.linear1(x).chunk(2, dim=-1)
    torch.testing.assert_close(layer.feedforward(x), layer.linear2(value * torch.sigmoid(gate)))


def test_an_image_without_local_descriptors_scores_from_its_global():
    model = small_model()
    inputs = random_pairs()
    for side in (2, 7):
        inputs[side][:] = True
    logits = model(*inputs)
    assert torch.isfinite(logits).all()
    inputs[0] = inputs[0] + 1
    assert not torch.isclose(logits, model(*inputs)).any()


def test_what_stands_in_the_padding_does_not_matter():
    model = small_model()
    inputs = random_pairs()
    logits = model(*inputs)
    for local, mask in ((1, 2), (6, 7)):
        inputs[local][inputs[mask]] = torch.nan
    torch.testing.assert_close(model(*inputs), logits)


def test_the_order_of_local_descriptors_and_their_positions_do_not_matter():
    model = small_model()
    inputs = random_pairs()
    order = torch.randperm(7)
    shuffled = [inputs[0], *(x[:, order] for x in inputs[1:5]), *inputs[5:9], torch.zeros_like(inputs[9])]
    torch.testing.assert_close(model(*shuffled), model(*inputs), atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_alone():
    model = small_model(dropout=0.5)
    inputs = random_pairs()
    torch.testing.assert_close(model.eval()(*inputs), model(*inputs))
    model.train()
    assert not torch.allclose(model(*inputs), model(*inputs))


@pytest.mark.parametrize("kind", ["published", "matching"])
@pytest.mark.parametrize("settings", [{}, {"normalize_before": True}])
def test_every_initialisation_is_finite_and_names_the_same_tensors(kind, settings):
    model = small_model(**settings)
    names = list(model.state_dict())
    initialise(model, kind)
    assert list(model.state_dict()) == names
    assert torch.isfinite(model(*random_pairs())).all()


def test_a_matching_start_attends_to_equal_tokens():
    model = small_model(num_local_features=64)
    tokens = F.normalize(torch.randn(30, 64), dim=1)
    for kind, sees_itself in (("published", False), ("matching", True)):
        initialise(model, kind)
        weight = model.encoder.layers[0].self_attn.in_proj_weight
        heads = [(tokens @ part.T).view(30, 4, 16).transpose(0, 1) for part in weight[:128].split(64)]
        attended = (heads[0] @ heads[1].transpose(1, 2)).mean(0).argmax(1)
        assert ((attended == torch.arange(30)).float().mean() > 0.9) == sees_itself


@pytest.mark.parametrize(
    "settings, named",
    [({"nhead": 3}, "nhead"), ({"activation": "tanh"}, "activation"), ({"num_encoder_layers": 0}, "layers")],
)
def test_impossible_settings_are_named(settings, named):
    with pytest.raises(InputError, match=named):
        small_model(**settings)


def test_an_unknown_initialisation_is_named():
    with pytest.raises(InputError, match="initialisation.*published, matching"):
        initialise(small_model(), "kaiming")
