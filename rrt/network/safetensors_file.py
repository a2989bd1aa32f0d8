"""A network alone as a file of safetensors, which holds tensors and text and can run no code: its settings are the text
`rrt` of its metadata, as JSON (https://github.com/huggingface/safetensors)."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rrt.errors import InputError, first_line
from rrt.files.atomic import parse_json, write_bytes

SAFETENSORS = ".safetensors"


def save_safetensors(path, state: dict[str, torch.Tensor], settings: dict[str, Any]) -> Path:
    """Write tensors {name: tensor} and their settings, plain values; the file appears whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # Not save_file: whatever the umask, only the owner could read what it writes.
    write_bytes(path, save(tensors, metadata={"format": "pt", "rrt": json.dumps(settings)}))
    return Path(path)


def load_safetensors(path) -> tuple[dict[str, torch.Tensor], None, dict[str, Any]]:
    """(Tensors by name, no state of an optimiser, the settings; {} where the file records none). Raises InputError."""
    remedy = "copy it again, or save it with Reranker.save_pretrained"
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            settings = parse_json((file.metadata() or {}).get("rrt", "{}"))
        if not isinstance(settings, dict) or not isinstance(settings.get("model", {}), dict):
            raise ValueError("its settings are no table")
    except (SafetensorError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: no network in safetensors ({first_line(error)}); {remedy}") from None
    if not state:
        raise InputError(f"{path}: holds no tensors; {remedy}")
    return state, None, settings
