"""What is installed here and what it is good for: `rrt doctor`."""

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from rrt.extras import pip_line
from rrt.files.machine import free_memory, usable_cores, visible_gpus
from rrt.files.shipped import shipped
from rrt.version import __version__

MODELS = {
    "lite0.onnx": "describes images (docs/models.md)",
    "late_lite0.safetensors": "reranks what lite0 described (docs/late.md)",
    "rrt_lite0.pt": "the same by the reranking transformer",
}
# {what one can do: (packages it needs, the extra that brings what the core lacks)}
DOORS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "search photographs, match two": (("onnxruntime", "cv2", "h5py", "PIL"), None),
    "rerank, evaluate": (("torch", "faiss", "scipy"), None),
    "train a reranker": (("torch", "matplotlib"), None),
    "record runs": (("sacred",), "experiments"),
    "page for the browser": (("starlette", "uvicorn"), "web"),
    "DELG: extract, train": (("tensorflow", "pandas"), "delg"),
    "models of Hugging Face": (("transformers", "huggingface_hub"), "backbones"),
    "HEIC photographs": (("pillow_heif",), "heif"),
    "many machines": (("ray",), "cluster"),
}
_PACKAGES = (
    *("numpy", "torch", "faiss-cpu", "faiss-gpu", "onnxruntime", "opencv-python-headless", "h5py", "scipy", "pillow"),
    *("safetensors", "pydantic", "matplotlib", "tensorflow", "sacred", "starlette", "transformers", "huggingface_hub"),
)


def examine() -> dict[str, Any]:
    """{"rrt", "python", "system", "cores", "free_memory_gb", "gpus": of the machine; "packages": {name: version, None
    where it is not installed}; "models": {file: bytes, None where it did not come with the package}; "doors": {what:
    None where it works, else the remedy}}."""
    return {
        "rrt": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "free_memory_gb": round(free_memory() / 2**30, 1),
        "gpus": visible_gpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "models": {name: shipped(name).stat().st_size if shipped(name).is_file() else None for name in MODELS},
        "doors": {what: _remedy(*needs) for what, needs in DOORS.items()},
    }


def as_text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"rrt {found['rrt']}, Python {found['python']}, {found['system']}",
        f"{found['cores']} cores, {found['free_memory_gb']} GB of memory free, "
        + (f"{len(found['gpus'])} GPUs" if found["gpus"] else "no GPU: everything runs on the processor"),
        "",
        *(f"  {name:<24}{number or 'not installed'}" for name, number in found["packages"].items()),
        "",
        *(
            f"  {name:<24}" + (f"{size / 1e6:.1f} MB, " if size else "not shipped: ") + MODELS[name]
            for name, size in found["models"].items()
        ),
        "",
        *(f"  {what:<32}{remedy or 'ready'}" for what, remedy in found["doors"].items()),
    ]
    return "\n".join(lines)


def _remedy(modules: tuple[str, ...], extra: str | None) -> str | None:
    lacking = [module for module in modules if find_spec(module) is None]
    return f"{', '.join(lacking)} not installed: {pip_line(extra) if extra else 'pip install rrt'}" if lacking else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
