"""Reranking methods by name, all behind one interface (rrt/rerankers/base.py), alone or in chains:

    method = make_method("superglobal+geometric", {"geometric": {"geometry": "homography"}})
    lists = reorder(space, method, shortlists)

A method is a dataclass in a file of its own; METHODS says where, so that naming one loads nothing of the others.
"""

from dataclasses import fields, is_dataclass
from importlib import import_module

from rrt.errors import InputError

# {name: module and class}; the fields of the class are the settings.
METHODS: dict[str, str] = {
    "rrt": "rrt.rerankers.transformer:Transformer",
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
    """The method of a name, or a chain of names with + between them. settings: {name of a method: {setting: value}}.
    Raises InputError for a setting a method does not have."""
    from rrt.rerankers.chain import Chain

    methods = []
    for part in str(name).split("+"):
        kind, given = method_class(part), (settings or {}).get(part) or {}
        known = default_settings(part)
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise InputError(f"reranker '{part}' has no setting '{unknown[0]}'; it has {', '.join(known) or 'none'}")
        methods.append(kind(**given))
    return methods[0] if len(methods) == 1 else Chain(tuple(methods))


def reorder(space, method, shortlists, depth=None, progress=False):
    """``rrt.rerankers.chain.reorder``."""
    from rrt.rerankers import chain

    return chain.reorder(space, method, shortlists, depth, progress)
