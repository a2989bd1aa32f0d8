"""What is installed only when it is asked for, as by `pip install 'rrt[web]'`, and the line that says so."""

# {extra: (its modules, what it is for)}; of two that bring a module the first is named. The packages: pyproject.toml.
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "experiments": (("sacred", "pymongo", "pandas"), "records of runs, in files or MongoDB; tables of pairs"),
    "delg": (("tensorflow", "keras", "tensorboard", "pandas"), "DELG models: extraction and training"),
    "web": (("starlette", "uvicorn", "watchdog"), "the page of `rrt search serve`; `--watch`"),
    "backbones": (("transformers", "huggingface_hub"), "models of Hugging Face"),
    "heif": (("pillow_heif",), "photographs in HEIC and HEIF"),
    "gpu": (("faiss",), "faiss on GPUs"),
    "cluster": (("ray",), "many machines"),
    "docs": (("mkdocs", "mkdocstrings"), "the site of docs/"),
    "dev": (("pytest", "ruff", "onnx", "skimage"), "tests, benchmarks, the making of lite0"),
}


def extra_of(module: str) -> str | None:
    """The first extra that brings a module, None where none does."""
    top = module.partition(".")[0]
    return next((name for name, (modules, _) in EXTRAS.items() if top in modules and name != "gpu"), None)


def pip_line(extra: str) -> str:
    """What installs an extra."""
    return f"pip install 'rrt[{extra}]'"


def describe_missing(error: ModuleNotFoundError) -> str | None:
    """One line with the remedy for a package that an extra brings, None for any other."""
    extra = extra_of(error.name or "")
    return extra and f"the package {error.name} is not installed; {pip_line(extra)}"
