"""The network of the golden vectors: weights by rule from name, shape and kind (tests/golden/delg/WEIGHT_RULE.md)."""
import json
import zlib
from pathlib import Path

import numpy as np

from delg_extract.losses import add_classifiers
from delg_extract.model import Delg

GOLDEN = Path(__file__).parent / "golden" / "delg"
SEED = 1


def rule_value(name, shape, kind, attn_out_bias):
    normal = np.random.default_rng(zlib.crc32(name.encode()) ^ SEED).standard_normal(shape)
    fan_in = np.prod(shape[:-1])
    return {
        "conv_kernel": lambda: normal * np.sqrt(2 / fan_in),
        "linear_kernel": lambda: normal * np.sqrt(1 / fan_in),
        "attn_out_kernel": lambda: 6.0 * normal * np.sqrt(1 / fan_in),
        "attn_out_bias": lambda: np.full(shape, attn_out_bias),
        "bias": lambda: 0.02 * normal,
        "bn_gamma": lambda: 1 + 0.05 * normal,
        "bn_gamma_last": lambda: 0.3 + 0.05 * normal,
        "bn_beta": lambda: 0.05 * normal,
        "bn_moving_mean": lambda: 0.05 * normal,
        "bn_moving_variance": lambda: 1 + 0.1 * np.abs(normal),
    }[kind]().astype(np.float32)


def rule_model(**settings):
    """A ResNet-50 DELG (or DELF with ``use_global=False``) with 11 classes, filled by the rule."""
    model = Delg("resnet50", **settings)
    add_classifiers(model, 11)
    bias = json.loads((GOLDEN / "seed1/weights_check.json").read_text())["attn_conv2/bias"]
    kinds = {v["name"]: v["kind"] for v in json.loads((GOLDEN / "weights_index.json").read_text())["variables"]}
    for name, variable in model.variables_by_name.items():
        variable.assign(rule_value(name, tuple(variable.shape), kinds[name], bias))
    return model
