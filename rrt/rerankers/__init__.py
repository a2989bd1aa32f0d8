"""Reranking methods by name, all behind one interface (rrt/rerankers/base.py), alone or in chains:

    method = make_method("superglobal+geometric", {"geometric": {"model": "homography"}})
    ranks = rerank(space, method, ranks, similarities)

A method is a dataclass in a file of its own; METHODS says where, so that naming one loads nothing of the others.
"""

from dataclasses import fields, is_dataclass
from importlib import import_module

from rrt.errors import InputError

# {name: module and class}; the fields of the class are the settings.
METHODS: dict[str, str] = {
    "asmk": "rrt.rerankers.asmk:Asmk",
}


def method_class(name: str):
    """The class of a method. Raises InputError for a name that is none."""
    if name not in METHODS:
        raise InputError(f"reranker '{name}': no such method; there are {', '.join(METHODS)}, and chains of them as a+b")
    module, _, kind = METHODS[name].partition(":")
    return getattr(import_module(module), kind)


def default_settings(name: str) -> dict:
    """{setting: default} of a method."""
    kind = method_class(name)
    assert is_dataclass(kind)
    return {entry.name: entry.default for entry in fields(kind)}


def make_method(name: str, settings: dict | None = None):
    """The method of a name with settings {setting: value}. Raises InputError for a setting it does not have."""
    kind = method_class(name)
    unknown = sorted((settings or {}).keys() - default_settings(name).keys())
    if unknown:
        raise InputError(f"reranker '{name}' has no setting '{unknown[0]}'; it has {', '.join(default_settings(name)) or 'none'}")
    return kind(**(settings or {}))
