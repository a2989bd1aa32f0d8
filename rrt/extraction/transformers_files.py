"""Finding and opening a checkpoint of Hugging Face transformers: safetensors alone, no code that comes with it."""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rrt.errors import InputError, first_line
from rrt.files.atomic import parse_json, sha256_of_file
from rrt.files.hub import ask_hub

# What is fetched of the hub; weights in other formats are not even downloaded.
PATTERNS = ["config.json", "preprocessor_config.json", "processor_config.json", "model*.safetensors", "*.index.json"]
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Parts that no description looks at, which many checkpoints lack; heads are looked at by the pooling `pooled`.
_HEADS = re.compile(r"^(?:vision_model\.)?(?:pooler|head)\.")
_UNUSED = re.compile(r"mask_token$")
_CLS_ATTENTION = "rrt_cls"


class Checkpoint(NamedTuple):
    """A model on disk. name: of the folder, or of the hub with its revision. A pixel is (value factor - mean) / std."""

    folder: Path
    name: str
    sha256: str
    config_sha256: str
    factor: np.float32
    mean: np.ndarray
    std: np.ndarray


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint in a folder, or fetched of the hub by OWNER/NAME[@REVISION]. Raises InputError."""
    folder = Path(name).expanduser()
    label = folder.resolve().name
    if not folder.is_dir():
        folder, label = _fetched(name)
    weights = sorted(folder.glob("model*.safetensors"))
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{config}: no such file; give the folder of a model saved by transformers (save_pretrained)")
    if not weights:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        reason = f"its weights are pickled ({pickled[0]}), which can run code" if pickled else "it holds no weights"
        raise InputError(
            f"{folder}: {reason}; only safetensors are read: save the model with save_pretrained of transformers"
        )
    sums = [sha256_of_file(path) for path in weights]
    whole = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    return Checkpoint(folder, label, whole, sha256_of_file(config), *_normalization(folder))


def _fetched(name: str) -> tuple[Path, str]:
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.startswith("."):
        raise InputError(f"{name}: no such folder; give that of a model, or OWNER/NAME of the Hugging Face hub")
    options = {"revision": revision or None, "allow_patterns": PATTERNS}
    try:
        folder = Path(ask_hub(name, lambda hub: hub.snapshot_download(repository, **options)))
    except ImportError:
        raise _not_installed(name) from None
    return folder, f"{repository}@{folder.name}"


def _normalization(folder: Path) -> tuple[np.float32, np.ndarray, np.ndarray]:
    """(factor, mean [3], std [3]) of the preprocessor's settings."""
    remedy = "put the model's own there, with image_mean and image_std"
    path = folder / "preprocessor_config.json"
    found = path if path.is_file() else folder / "processor_config.json"
    if not found.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        settings = parse_json(found.read_bytes())
        settings = settings.get("image_processor", settings)
        factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
        normalize = settings.get("do_normalize", True)
        mean, std = (
            np.array(settings[key] if normalize else [default] * 3, np.float32)
            for key, default in (("image_mean", 0), ("image_std", 1))
        )
        if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all() or not np.isfinite(mean).all():
            raise ValueError("image_mean and image_std are not three numbers each")
        return np.float32(factor), mean, std
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{found}: no settings of a preprocessor ({error}); {remedy}") from None


def open_model(checkpoint: Checkpoint, device: str) -> tuple[Any, bool]:
    """(the vision part of the model in float32 for inference, whether the weights of its head are missing). Raises
    InputError."""
    folder = checkpoint.folder
    try:
        # Not by its name, for which a checker of types would read every model there is.
        transformers: Any = import_module("transformers")
    except ImportError:
        raise _not_installed(checkpoint.name) from None
    _register_cls_attention(transformers)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **options)
        except Exception as error:  # transformers raises those of its readers and checks
            raise InputError(f"{folder / 'config.json'}: {first_line(error)}; fetch the model again") from None
        # Of models of images and text only the tower of the images is loaded.
        config = getattr(config, "vision_config", config)
        options |= {"config": config, "use_safetensors": True, "output_loading_info": True, "dtype": "float32"}
        load = partial(transformers.AutoModel.from_pretrained, folder, **options)
        try:
            try:
                model, report = load(attn_implementation=_CLS_ATTENTION)
            except KeyError:  # of models that know a fixed set of implementations
                model, report = load(attn_implementation="eager")
        except Exception as error:  # those of safetensors and of missing libraries, besides
            raise InputError(
                f"{folder}: the model cannot be loaded ({first_line(error)}); fetch it again, or give another"
            ) from None
    if model.main_input_name != "pixel_values":
        raise InputError(f"{folder}: {type(model).__name__} takes {model.main_input_name}, not images; give another")
    missing = sorted(key for key in report["missing_keys"] if not _UNUSED.search(key))
    heads = [key for key in missing if _HEADS.match(key)]
    lost = [key for key in missing if key not in heads]
    if lost:
        raise InputError(
            f"{folder}: {len(lost)} weights of {type(model).__name__} are missing, first {lost[0]}; the file is damaged"
            " or of another model, fetch it again"
        )
    return model.to(device).eval(), bool(heads)


def _register_cls_attention(transformers: Any) -> None:
    """Teaches transformers an attention that hands out the row of the first token alone: all rows of all blocks would
    take gigabytes, and the fused kernels keep none."""
    from torch.nn.functional import scaled_dot_product_attention

    def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **ignored):
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query[:, :, :1] @ key.transpose(-1, -2) * scale
        if attention_mask is not None and attention_mask.is_floating_point():  # a bias of relative positions
            scores = scores + attention_mask[:, :, :1]
        return mixed.transpose(1, 2).contiguous(), scores.softmax(-1)

    transformers.AttentionInterface.register(_CLS_ATTENTION, attend)
    masks = import_module("transformers.masking_utils")
    transformers.AttentionMaskInterface.register(_CLS_ATTENTION, masks.sdpa_mask)


@contextmanager
def _quiet(transformers):
    """Without the library's bars and its report of the text tower's weights, which are not wanted."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _not_installed(name: str) -> InputError:
    return InputError(f"--model transformers:{name}: transformers is not installed; pip install 'rrt[backbones]'")
