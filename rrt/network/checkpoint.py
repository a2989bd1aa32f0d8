"""Checkpoints of the reranking transformer: loadable by the published program, and carrying their settings and
state."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import torch

from rrt.calibration import Calibration, calibration_of
from rrt.errors import InputError
from rrt.files.atomic import atomic_path, sha256_of_file
from rrt.network.safetensors_file import SAFETENSORS, load_safetensors, save_safetensors
from rrt.store.store import Store


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    state: the network's tensors by name, without any ``module.`` prefix; optim: optimizer state or None; settings: the
    plain dictionaries that made it ({} for published files): ``model``, ``scale_binning`` and more; progress and
    training: what a resumed training needs ({} where there is nothing to resume), where it was, and states of
    generators and the like.
    """

    path: Path
    state: dict
    optim: dict | None = None
    settings: dict = field(default_factory=dict)
    progress: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return sha256_of_file(self.path)


def save_checkpoint(path, model, optimizer=None, settings=None, progress=None, training=None) -> Path:
    """Write ``{'state', 'optim'}``, the keys the published program reads, and ``settings``, ``progress`` and
    ``training`` beside them.

    The file appears whole or not at all. These three may hold plain Python values and tensors only.
    """
    content = {"state": model.state_dict(), "optim": optimizer.state_dict() if optimizer else None}
    content |= {"settings": settings or {}, "progress": progress or {}, "training": training or {}}
    # Into a file of Python's, whose error says that the disk is full.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
    return Path(path)


def load_checkpoint(path) -> Checkpoint:
    """Read a checkpoint, published or ours, or a network alone as .safetensors; nothing in it can run code. Raises
    InputError for any other file."""
    if not isinstance(path, str | PathLike):
        raise InputError(f"checkpoint {path!r}: expected the path of a file")
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint; train one with experiment.py or give the path of a published one"
        )
    if path.suffix == SAFETENSORS:
        return Checkpoint(path, *load_safetensors(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # nearly every kind, for damaged files
        # PyTorch's own message here advises to load without the protection.
        kind = "holds objects other than tensors" if "weights_only" in str(error).lower() else "is damaged or truncated"
        raise InputError(f"{path}: {kind}, or is no PyTorch checkpoint at all; copy or train it again") from None
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(
            f"{path}: no network under the key 'state'; expected a checkpoint of experiment.py or a published one"
        )
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    beside = {name: content.get(name) for name in ("settings", "progress", "training")}
    beside = {name: {} if values is None else values for name, values in beside.items()}
    for name, values in (*beside.items(), ("settings of the model", _model_of(beside["settings"]))):
        if not isinstance(values, dict):
            raise InputError(f"{path}: its {name} are {type(values).__name__}, no table; copy or train it again")
    return Checkpoint(path, state, content.get("optim"), **beside)


def _model_of(settings):
    return settings.get("model", {}) if isinstance(settings, dict) else {}


def load_weights(model, checkpoint: Checkpoint) -> None:
    """Load the weights strictly. Raises InputError naming the first tensor, or setting, in which the architectures
    differ."""
    recorded = checkpoint.settings.get("model", {})
    remedy = ""
    if recorded:
        remedy = "; it was made with " + " ".join(f"model.{name}={value}" for name, value in sorted(recorded.items()))
    check_kind(checkpoint, model)
    own = model.state_dict()
    for name, tensor in own.items():
        found = checkpoint.state.get(name)
        if found is None or found.shape != tensor.shape:
            there = "is missing" if found is None else f"is {list(found.shape)}"
            raise InputError(
                f"{checkpoint.path}: another architecture: '{name}' {there}, the model of these settings has"
                f" {list(tensor.shape)}{remedy}"
            )
        if not torch.isfinite(found).all():
            raise InputError(f"{checkpoint.path}: '{name}' holds NaN or infinity; take an earlier checkpoint")
    unknown = [name for name in checkpoint.state if name not in own]
    if unknown:
        raise InputError(
            f"{checkpoint.path}: another architecture: the model of these settings has no '{unknown[0]}'{remedy}"
        )
    # These shape no tensor, so a difference would pass unnoticed and score nonsense.
    for name in ("nhead", "activation", "symmetric", "vectors", "weight_range"):
        here = model.settings.get(name)
        if name in recorded and recorded[name] != here:
            raise InputError(
                f"{checkpoint.path}: trained with model.{name}={recorded[name]}, these settings say {here}"
            )
    model.load_state_dict(checkpoint.state)


def check_kind(checkpoint: Checkpoint, model) -> None:
    """InputError when the checkpoint records a network of another kind (``rrt.network.networks``)."""
    recorded = checkpoint.settings.get("model", {})
    found, own = (settings.get("kind", "RRT") for settings in (recorded, model.settings))
    if recorded and found != own:
        raise InputError(f"{checkpoint.path}: holds a network of model.{found}, these settings say model.{own}")


def check_sizes(store: Store, model_settings: dict, checkpoint=None) -> None:
    """InputError when the model of these settings takes descriptors of other sizes than the store has.

    checkpoint: path of the one the model comes from, whose sizes no setting can change; None for a new model.
    """
    pairs = (("num_global_features", store.global_dim, "global"), ("num_local_features", store.local_dim, "local"))
    for setting, size, what in pairs:
        if model_settings[setting] == size:
            continue
        held = f"{what} descriptors have {size} dimensions" if size else f"holds no {what} descriptors"
        if checkpoint:
            wanted = f"{checkpoint} was trained on {model_settings[setting]}"
            remedy = "take the checkpoint that belongs to these descriptors, or the other way round"
        else:
            wanted = f"model.{setting} is {model_settings[setting]}"
            remedy = f"give model.{setting}={size} or another store" if size else "extract or import them too"
        raise InputError(f"{store.path}: {held}, {wanted}; {remedy}")


# What rrt.training.run, rrt.network.reranker and rrt.evaluation.run read of a checkpoint's settings.
KEPT = ("model", "scale_binning", "max_sequence_len", "selection", "calibrations")


def attach_calibration(path, calibration: Calibration) -> Path:
    """Write a calibration into a checkpoint, in the place of one of the same scores; all else stays as it is. The file
    is replaced whole or not at all. Raises InputError."""
    checkpoint = load_checkpoint(path)
    others = [calibration_of(each, path) for each in checkpoint.settings.get("calibrations", [])]
    scored = calibration.method, calibration.descriptors, calibration.whitening
    kept = [each.as_dict() for each in others if each.difference(*scored)]
    content = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
    content["settings"] = checkpoint.settings | {"calibrations": [*kept, calibration.as_dict()]}
    with atomic_path(checkpoint.path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
    return checkpoint.path


class _Weights:
    """What save_checkpoint takes for a network."""

    def __init__(self, state: dict):
        self.state = state

    def state_dict(self) -> dict:
        return self.state


def strip_checkpoint(source, out, half: bool = False, overwrite: bool = False) -> Path:
    """Write ``out`` from the checkpoint ``source`` -> its path; in safetensors where it is named so. Raises InputError
    where it exists, or a weight does not fit half precision."""
    out = Path(out)
    checkpoint = load_checkpoint(source)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; give another name or --overwrite")
    state = checkpoint.state
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise InputError(f"{source}: '{name}' holds numbers too large for half precision; leave --half out")
    settings = {name: checkpoint.settings[name] for name in KEPT if name in checkpoint.settings}
    if out.suffix == SAFETENSORS:
        return save_safetensors(out, state, settings)
    return save_checkpoint(out, _Weights(state), settings=settings)
