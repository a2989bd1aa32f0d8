"""Vision models of transformers, tiny and of random weights, saved to disk as the published ones are."""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
TEXT |= {"bos_token_id": 0, "eos_token_id": 1}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
# {family: (name of its configuration, settings)}
FAMILIES = {
    "dinov2": ("Dinov2Config", {**TOWER, "patch_size": 14, "image_size": 56}),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", {**TOWER, "patch_size": 14, "image_size": 56}),
    "dinov3_vit": ("DINOv3ViTConfig", {**TOWER, "patch_size": 16, "num_register_tokens": 4}),
    "dinov3_convnext": ("DINOv3ConvNextConfig", STAGES),
    "siglip": ("SiglipConfig", {"text_config": TEXT, "vision_config": {**TOWER, "patch_size": 16, "image_size": 64}}),
    "siglip2": (
        "Siglip2Config",
        {"text_config": TEXT, "vision_config": {**TOWER, "patch_size": 16, "num_patches": 16}},
    ),
    "clip": ("CLIPConfig", {"text_config": TEXT, "vision_config": {**TOWER, "patch_size": 14, "image_size": 56}}),
    "vit": ("ViTConfig", {**TOWER, "patch_size": 16, "image_size": 64}),
    "convnextv2": ("ConvNextV2Config", STAGES),
    "resnet": ("ResNetConfig", {**STAGES, "embedding_size": 8, "layer_type": "basic"}),
    # Positions of one size of image alone.
    "sam": (
        "SamVisionConfig",
        {
            **TOWER,
            "output_channels": 24,
            "patch_size": 16,
            "image_size": 64,
            "global_attn_indexes": [1],
            "initializer_range": 0.02,
        },
    ),
    # What cannot be described.
    "levit": (
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2] * 3,
            "depths": [1] * 3,
            "key_dim": [8] * 3,
        },
    ),
    "bert": ("BertConfig", {**TOWER, "vocab_size": 20}),
}
MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.2, 0.25]


def save_backbone(folder: Path, family: str, **changed) -> Path:
    """The model and the settings of its preprocessor in ``folder``/``family`` -> that folder."""
    kind, settings = FAMILIES[family]
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(getattr(transformers, kind)(**{**settings, **changed}))
    model.save_pretrained(folder / family)
    preprocessor = {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD}
    (folder / family / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder / family


def normalized(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] -> what the models take, [1, 3, H, W]."""
    values = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values.transpose(2, 0, 1)[None]).float()
