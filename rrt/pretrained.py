"""Rerankers by name: those that come with the package, those in a folder, those of the Hugging Face hub."""

import re
from pathlib import Path

from rrt.errors import InputError
from rrt.extras import pip_line
from rrt.files.hub import ask_hub
from rrt.files.shipped import shipped
from rrt.network import reranker as network
from rrt.network.checkpoint import KEPT
from rrt.network.safetensors_file import SAFETENSORS, save_safetensors
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.build import make_method
from rrt.rerankers.shipped import SETTINGS

# {name: its file} of the networks for descriptors of lite0 that may come with the package.
NETWORKS = {"late_lite0": "late_lite0.safetensors", "rrt_lite0": "rrt_lite0.pt"}
_MEANINGS = {
    "lite0": "describes images (global 512, local 128), and names the reranker of what it described (docs/models.md)",
    "late_lite0": "the transformer of single images for descriptors of lite0 (docs/late.md)",
    "rrt_lite0": "the reranking transformer for descriptors of lite0",
}
WEIGHTS = f"model{SAFETENSORS}"


def list_models() -> dict[str, str]:
    """{name: what it does} of the models that come with the package, for ``describe(image, model=NAME)`` and
    ``Reranker.from_pretrained(NAME)``."""
    return {name: what for name, what in _MEANINGS.items() if name not in NETWORKS or shipped(NETWORKS[name]).is_file()}


class Reranker(network.Reranker):
    """The reranking transformer (``rrt.network.reranker.Reranker``) with weights by name."""

    @classmethod
    def from_pretrained(cls, name, **settings) -> "network.Reranker | RerankMethod":
        """A reranker for descriptors of the model it is named after.

        name: one of ``list_models()``; a checkpoint or a .safetensors file; a folder of ``save_pretrained``; or
        `OWNER/NAME` of the Hugging Face hub, `OWNER/NAME@REVISION`. settings: of ``from_checkpoint`` (device,
        precision, ...). Raises InputError. Where no network for lite0 is part of the package, `lite0` is plain
        matching, which has the same ``rerank(query, candidates)``.
        """
        known = list_models()
        if str(name) == "lite0":
            name = next((each for each in NETWORKS if each in known), name)
        if str(name) in NETWORKS and str(name) in known:
            return cls.from_checkpoint(shipped(NETWORKS[str(name)]), **settings)
        if str(name) == "lite0":
            device = {"device": settings["device"]} if "device" in settings else {}
            return make_method("maxsim", SETTINGS["maxsim"] | device)
        return cls.from_checkpoint(_found(str(name)), **settings)

    def save_pretrained(self, folder) -> Path:
        """Write the network and its settings as model.safetensors into a folder, whole or not at all -> the file."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = {name: self.recorded[name] for name in KEPT if name in self.recorded}
        settings |= {"model": self.model.settings, "scale_binning": self.binning, "max_sequence_len": self.max_local}
        return save_safetensors(Path(folder) / WEIGHTS, self.model.state_dict(), settings)

    def __repr__(self):
        count = sum(tensor.numel() for tensor in self.model.parameters())
        return f"<{type(self.model).__name__} of {count / 1e6:.1f} million weights, {self.checkpoint or 'new'}>"


def _found(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        files = [path / WEIGHTS, *sorted(path.glob(f"*{SAFETENSORS}")), *sorted(path.glob("*.pt"))]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise InputError(f"{path}: holds no {WEIGHTS} and no other checkpoint; make one with save_pretrained")
        return found
    if path.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name):
        if path.is_file():
            return path
        known = ", ".join(list_models())
        raise InputError(f"{name}: no such file or folder, nor a model of the package ({known}), nor OWNER/NAME")
    return _fetched(name)


def _fetched(name: str) -> Path:
    repository, _, revision = name.partition("@")
    lacking = f"has no {WEIGHTS}; it was not saved by Reranker.save_pretrained"
    try:
        return Path(
            ask_hub(name, lambda hub: hub.hf_hub_download(repository, WEIGHTS, revision=revision or None), lacking)
        )
    except ImportError:
        raise InputError(f"{name}: to fetch it needs huggingface_hub; {pip_line('backbones')}") from None
