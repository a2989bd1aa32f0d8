"""Vision models of transformers as describers: every family, and what the descriptors are, by hand."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_backbones import FAMILIES, MEAN, STD, normalized, save_backbone

from rrt.errors import InputError
from rrt.extraction.describer import open_describer
from rrt.extraction.levels import TooSmall

PIXELS = np.random.default_rng(0).integers(0, 256, (112, 168, 3), dtype=np.uint8)
# {family: (global, local dimensions, pixels of a cell, what is chosen for the global descriptor and for attention)}
EXPECTED = {
    "dinov2": (32, 32, 14, "cls", "cls"),
    "dinov2_with_registers": (32, 32, 14, "cls", "cls"),
    "dinov3_vit": (32, 32, 16, "cls", "cls"),
    "dinov3_convnext": (32, 32, 32, "cls", "norm"),
    "siglip": (32, 32, 16, "pooled", "cls"),
    "siglip2": (32, 32, 16, "pooled", "cls"),
    "clip": (32, 32, 14, "cls", "cls"),
    "vit": (32, 32, 16, "cls", "cls"),
    "convnextv2": (32, 32, 32, "gem", "norm"),
    "resnet": (32, 32, 32, "gem", "norm"),
    "sam": (24, 24, 16, "gem", "norm"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a family's model, made when it is first asked for."""
    root = tmp_path_factory.mktemp("models")
    return lambda family: root / family if (root / family).exists() else save_backbone(root, family)


def opened(folder, **settings):
    return open_describer(f"transformers:{folder}", **{"image_size": 168} | settings)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def in_order(record):
    """Descriptors and attention of a record in the order of the image's cells."""
    order = np.lexsort((record.keypoints[:, 0], record.keypoints[:, 1]))
    return record.descriptors[order], record.attention[order]


@pytest.mark.parametrize("family", EXPECTED)
def test_every_family_describes_an_image(folder, family):
    global_dim, local_dim, cell, pool, attention = EXPECTED[family]
    describer = opened(folder(family))
    record = describer.describe(PIXELS, "a.jpg")
    assert (describer.global_dim, describer.local_dim) == (global_dim, local_dim)
    assert (describer.identity["global_pool"], describer.identity["attention"]) == (pool, attention)
    assert describer.settings.multiple == cell
    if family == "sam":
        cells = (4, 4)
    else:
        width, height = describer.settings.level_size((168, 112), 1.0)
        cells = (width // cell, height // cell)
    assert record.name == "a.jpg" and record.size == (168, 112)
    assert record.descriptors.shape == (np.prod(cells), local_dim) and record.global_.shape == (global_dim,)
    np.testing.assert_allclose(np.linalg.norm(record.descriptors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(record.global_), 1, atol=1e-5)
    assert (np.diff(record.attention) <= 0).all() and record.attention[-1] >= 0
    # Cells divide the image evenly: their centres are half a cell from its border.
    step = np.array([168, 112]) / cells
    np.testing.assert_allclose(record.keypoints.min(0), step / 2 - 0.5, atol=1e-3)
    np.testing.assert_allclose(record.keypoints.max(0), [168, 112] - step / 2 - 0.5, atol=1e-3)


@pytest.mark.parametrize("family, in_front", [("dinov2", 1), ("dinov2_with_registers", 5), ("vit", 1), ("clip", 1)])
def test_tokens_behind_cls_and_registers_are_local_and_attention_is_that_of_cls(folder, family, in_front):
    describer = opened(folder(family))
    width, height = describer.settings.level_size((168, 112), 1.0)
    pixels = PIXELS[:height, :width]
    pixels = np.pad(pixels, ((0, height - len(pixels)), (0, width - pixels.shape[1]), (0, 0)))
    record = describer.describe(pixels)
    config = transformers.AutoConfig.from_pretrained(folder(family))
    model = transformers.AutoModel.from_pretrained(
        folder(family), config=getattr(config, "vision_config", config), attn_implementation="eager"
    )
    more = {"interpolate_pos_encoding": True} if family in ("vit", "clip") else {}
    with torch.inference_mode():
        output = model(normalized(pixels), output_attentions=True, **more)
    tokens = output.last_hidden_state[0].numpy()
    descriptors, attention = in_order(record)
    np.testing.assert_allclose(descriptors, unit(tokens[in_front:]), atol=1e-5)
    np.testing.assert_allclose(record.global_, unit(tokens[0]), atol=1e-5)
    row = output.attentions[-1][0, :, 0, in_front:].mean(0).numpy()
    np.testing.assert_allclose(attention, row * len(row), rtol=1e-4)


def test_the_head_of_siglip_is_global_and_its_query_gives_attention(folder):
    describer = opened(folder("siglip"))
    record = describer.describe(PIXELS)
    config = transformers.AutoConfig.from_pretrained(folder("siglip")).vision_config
    model = transformers.AutoModel.from_pretrained(folder("siglip"), config=config)
    width, height = describer.settings.level_size((168, 112), 1.0)

    resized = np.asarray(Image.fromarray(PIXELS).resize((width, height), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        output = model(normalized(resized), interpolate_pos_encoding=True)
        probe = model.head.probe
        weights = model.head.attention(probe, output.last_hidden_state, output.last_hidden_state)[1][0, 0].numpy()
    np.testing.assert_allclose(record.global_, unit(output.pooler_output[0].numpy()), atol=1e-5)
    np.testing.assert_allclose(in_order(record)[1], weights * len(weights), rtol=1e-4)


def test_without_cls_token_and_head_there_is_no_attention_and_the_mean_is_global(tmp_path):
    tower = FAMILIES["siglip"][1]["vision_config"] | {"vision_use_head": False}
    describer = opened(save_backbone(tmp_path, "siglip", vision_config=tower))
    assert (describer.identity["global_pool"], describer.identity["attention"]) == ("mean", "norm")


def test_patches_of_siglip2_are_cut_as_its_own_processor_cuts_them(folder):
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    from rrt.extraction.transformers_backbone import _patches

    pixels = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    patches, shapes = _patches(torch.from_numpy(pixels.transpose(2, 0, 1)[None]), 16)
    np.testing.assert_array_equal(patches[0].numpy(), convert_image_to_patches(pixels.transpose(2, 0, 1), 16))
    assert shapes.tolist() == [[2, 3]]


def test_global_descriptors_by_mean_and_gem(folder):
    tokens = {}
    for pool in ("mean", "gem"):
        describer = opened(folder("resnet"), global_pool=pool)
        level = describer.level(np.zeros((64, 96, 3), np.uint8) + PIXELS[:64, :96])
        tokens[pool] = level.global_
        cells = level.local * level.attention[..., None]  # the attention is the norm
    np.testing.assert_allclose(tokens["mean"], unit(cells.mean((0, 1))), atol=1e-5)
    np.testing.assert_allclose(tokens["gem"], unit(np.cbrt((np.maximum(cells, 0) ** 3).mean((0, 1)))), atol=1e-4)


def test_a_layer_gives_the_local_descriptors_and_leaves_the_global_one(folder):
    last, first = (opened(folder("dinov2"), layer=layer) for layer in (None, "1"))
    pixels = PIXELS[:112, :168]
    model = transformers.AutoModel.from_pretrained(folder("dinov2"))
    with torch.inference_mode():
        state = model(normalized(pixels), output_hidden_states=True).hidden_states[1][0].numpy()
    record = first.describe(pixels)
    np.testing.assert_allclose(in_order(record)[0], unit(state[1:]), atol=1e-5)
    np.testing.assert_array_equal(record.global_, last.describe(pixels).global_)
    assert first.identity["layer"] == 1 and last.identity["layer"] is None
    finer = opened(folder("resnet"), layer=-2).describe(pixels)
    assert finer.descriptors.shape[1] == 24 and len(finer.descriptors) == 4 * len(
        opened(folder("resnet")).describe(pixels).descriptors
    )


def test_scales_are_described_one_after_the_other(folder):
    record = opened(folder("dinov2"), scales=[0.5, 1.0]).describe(PIXELS)
    counts = {scale: int((record.scales == np.float32(scale)).sum()) for scale in (2, 1)}
    assert counts == {2: 6 * 4, 1: 12 * 8}
    assert len(opened(folder("dinov2"), max_features=5).describe(PIXELS).descriptors) == 5


def test_what_shapes_the_numbers_is_in_the_identity_and_no_path_of_this_machine(folder):
    identity = opened(folder("dinov2")).identity
    assert identity["model"] == "transformers:dinov2" and str(folder("dinov2").parent) not in str(identity)
    np.testing.assert_allclose([identity["mean"], identity["std"]], [MEAN, STD])
    assert len(identity["model_sha256"]) == len(identity["config_sha256"]) == 64


def test_an_image_without_a_side_is_too_small(folder):
    with pytest.raises(TooSmall, match="shorter than 10 pixels"):
        opened(folder("dinov2")).describe(np.zeros((9, 50, 3), np.uint8))


@pytest.mark.parametrize(
    "family, settings, part",
    [
        ("resnet", {"global_pool": "cls"}, "no CLS token; give another --global_pool"),
        ("resnet", {"attention": "cls"}, "give --attention norm"),
        ("dinov2", {"layer": 3}, "no layer 3; --layer takes -3..2"),
        ("dinov2", {"layer": "conv1"}, "--layer conv1: the layers of a transformers model are whole numbers"),
        ("dinov2", {"attention": "learned"}, "tools/learn_projection.py --learn_attention"),
        ("dinov2", {"attention": "best"}, "--attention='best': choose one of cls, norm, learned"),
        ("dinov2", {"multiple": 16}, "multiples of 14 pixels"),
        ("dinov2", {"image_size": 0}, "setting image_size=0"),
        ("dinov2", {"device": "tpu"}, "expected cpu or cuda"),
        ("levit", {}, "a model without spatial tokens"),
        ("bert", {}, "BertModel takes input_ids, not images"),
    ],
)
def test_what_cannot_be_described_is_said_with_one_line(folder, family, settings, part):
    with pytest.raises(InputError) as error:
        opened(folder(family), **settings)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_every_family_of_the_tests_is_expected_or_refused():
    assert set(FAMILIES) == set(EXPECTED) | {"levit", "bert"}
