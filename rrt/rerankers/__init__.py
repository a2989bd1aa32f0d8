"""Reranking methods by name, all behind one interface (rrt/rerankers/base.py), alone or in chains:

    method = make_chain("superglobal+geometric", {"geometric": {"geometry": "homography"}})
    lists = reorder(space, method, shortlists)

A method is a dataclass in a file of its own; METHODS says where, so that naming one loads nothing of the others.
"""

from dataclasses import fields, is_dataclass
from importlib import import_module

from rrt.errors import InputError

# {name: module and class}; the fields of the class are the settings.
METHODS: dict[str, str] = {
    "rrt": "rrt.rerankers.transformer:Transformer",
    "geometric": "rrt.rerankers.geometric:Geometric",
    "aqe": "rrt.rerankers.aqe:AverageQueryExpansion",
    "alpha_qe": "rrt.rerankers.aqe:AlphaQueryExpansion",
    "database_augmentation": "rrt.rerankers.database_augmentation:DatabaseAugmentation",
    "diffusion": "rrt.rerankers.diffusion:Diffusion",
    "k_reciprocal": "rrt.rerankers.k_reciprocal:KReciprocal",
    "superglobal": "rrt.rerankers.superglobal:SuperGlobal",
    "asmk": "rrt.rerankers.asmk:Asmk",
}


def method_class(name: str):
    """The class of a method. Raises InputError for a name that is none."""
    if name not in METHODS:
        raise InputError(
            f"reranker '{name}': no such method; there are {', '.join(METHODS)}, and chains of them as a+b"
        )
    module, _, kind = METHODS[name].partition(":")
    return getattr(import_module(module), kind)


def default_settings(name: str) -> dict:
    """{setting: default} of a method."""
    kind = method_class(name)
    assert is_dataclass(kind)
    return {entry.name: entry.default for entry in fields(kind)}


def make_method(name: str, settings: dict | None = None):
    """The method of a name with settings {setting: value}. Raises InputError for a setting it does not have."""
    kind, known = method_class(name), default_settings(name)
    unknown = sorted((settings or {}).keys() - known.keys())
    if unknown:
        raise InputError(f"reranker '{name}' has no setting '{unknown[0]}'; it has {', '.join(known) or 'none'}")
    return kind(**(settings or {}))


def make_chain(names: str, settings: dict | None = None):
    """The method of a name, or a chain of those of names with + between them. settings: {name: {setting: value}}."""
    from rrt.rerankers.chain import Chain

    methods = [make_method(name, (settings or {}).get(name)) for name in str(names).split("+")]
    return methods[0] if len(methods) == 1 else Chain(tuple(methods))


def reorder(space, method, shortlists, depth=None):
    """``rrt.rerankers.chain.reorder``."""
    from rrt.rerankers import chain

    return chain.reorder(space, method, shortlists, depth)
