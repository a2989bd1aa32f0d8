"""The one builder of reranking methods: by name, alone or in chains, with the settings of a command or of a caller.

A method is a dataclass in a file of its own; METHODS says where, so that naming one loads nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rrt.errors import InputError
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.chain import Chain

if TYPE_CHECKING:
    from rrt.rerankers.transformer import Transformer

# {name: module and class}; the fields of the class are the settings.
METHODS: dict[str, str] = {
    "rrt": "rrt.rerankers.transformer:Transformer",
    "maxsim": "rrt.rerankers.maxsim:MaxSim",
    "late": "rrt.rerankers.late:Late",
    "geometric": "rrt.rerankers.geometric:Geometric",
    "aqe": "rrt.rerankers.aqe:AverageQueryExpansion",
    "alpha_qe": "rrt.rerankers.aqe:AlphaQueryExpansion",
    "database_augmentation": "rrt.rerankers.database_augmentation:DatabaseAugmentation",
    "diffusion": "rrt.rerankers.diffusion:Diffusion",
    "k_reciprocal": "rrt.rerankers.k_reciprocal:KReciprocal",
    "superglobal": "rrt.rerankers.superglobal:SuperGlobal",
    "asmk": "rrt.rerankers.asmk:Asmk",
}


def method_class(name: str) -> type[RerankMethod]:
    """The class of a method. Raises InputError for a name that is none."""
    if name not in METHODS:
        raise InputError(
            f"reranker '{name}': no such method; there are {', '.join(METHODS)}, and chains of them as a+b"
        )
    module, _, kind = METHODS[name].partition(":")
    return getattr(import_module(module), kind)


def default_settings(name: str) -> dict[str, Any]:
    """{setting: default} of a method; the network of ``rrt`` has none."""
    kind = method_class(name)
    assert is_dataclass(kind)
    return {entry.name: None if entry.default is MISSING else entry.default for entry in fields(kind)}


def all_default_settings() -> dict[str, dict[str, Any]]:
    """{method: {setting: default}} of all but ``rrt``, whose settings are those of the commands themselves."""
    return {name: default_settings(name) for name in METHODS if name != "rrt"}


def make_method(name: str, settings: Mapping[str, Any] | None = None) -> RerankMethod:
    """The method of a name with settings {setting: value}. Raises InputError for a setting it does not have."""
    kind, known = method_class(name), default_settings(name)
    unknown = sorted((settings or {}).keys() - known.keys())
    if unknown:
        raise InputError(f"reranker '{name}' has no setting '{unknown[0]}'; it has {', '.join(known) or 'none'}")
    if name == "rrt" and not (settings or {}).get("reranker"):
        raise InputError("reranker 'rrt' needs a network; give it reranker=rrt.Reranker.from_checkpoint(FILE)")
    return kind(**(settings or {}))


def make_chain(names: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> RerankMethod:
    """The method of a name, or a chain of those of names with + between them. settings: {name: {setting: value}}."""
    return _joined([make_method(name, (settings or {}).get(name)) for name in str(names).split("+")])


def _joined(methods: list[RerankMethod]) -> RerankMethod:
    return methods[0] if len(methods) == 1 else Chain(tuple(methods))


@dataclass(frozen=True)
class ConfiguredMethod:
    """names: methods of a chain, in order, or of a single one; ready: those of them that are made already, all but
    ``rrt``, whose network must see the store first; num_rerank: as it was set."""

    names: tuple[str, ...]
    ready: dict[str, RerankMethod]
    num_rerank: int | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        return "RRT" if self.names == ("rrt",) else "+".join(self.names)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """{name: {setting: value}} of all but ``rrt``."""
        return {name: asdict(method) for name, method in self.ready.items()}  # pyright: ignore[reportArgumentType]

    @property
    def depths(self) -> list[int | None]:
        """Candidates that each method of the chain reorders, None = all."""
        own = [self.ready[name].depth if name in self.ready else method_class(name).depth for name in self.names]
        return own[:-1] + [own[-1] if self.num_rerank is None else self.num_rerank]

    def method(self, transformer: Transformer | None = None) -> RerankMethod:
        """The method, or the chain; transformer: ``rrt``, where it is among them."""
        ready = self.ready if transformer is None else self.ready | {"rrt": transformer}
        return _joined([ready[name] for name in self.names])

    def listed_among_distractors(self) -> int:
        """Candidates that a ranking among distractors must list. InputError for methods that reorder the whole of it,
        because with distractors only its beginning is kept."""
        depths = [depth for depth in self.depths if depth is not None]
        if len(depths) < len(self.names):
            name = self.names[self.depths.index(None)]
            raise InputError(
                f"reranker {name} reorders whole rankings, of which only the beginning is kept with distractors; give"
                " num_rerank=, or a store that holds the distractors, too"
            )
        return max(depths)


def configure(
    reranker: str | None, settings: Mapping[str, Any], checkpoint=None, num_rerank: int | None = None, cpu: bool = False
) -> ConfiguredMethod | None:
    """The method or chain ``reranker`` with its settings {name: {setting: value}}; the transformer where only a
    checkpoint is given, None without either. cpu: for all methods that would take a GPU. Raises InputError."""
    if reranker is None:
        return ConfiguredMethod(("rrt",), {}, num_rerank) if checkpoint else None
    if not isinstance(reranker, str):
        raise InputError(
            f"setting reranker={reranker!r}: expected the name of a method, as geometric, or a chain of them, as a+b"
        )
    names = tuple(reranker.split("+"))
    for name in names:
        method_class(name)
    if "rrt" in names and not checkpoint:
        raise InputError(f"setting reranker={reranker}: give the checkpoint of rrt as resume=FILE")
    ready = {name: make_method(name, _given(settings.get(name), cpu)) for name in names if name != "rrt"}
    return ConfiguredMethod(names, ready, num_rerank)


def _given(settings: Mapping[str, Any] | None, cpu: bool) -> dict[str, Any]:
    given = dict(settings or {})
    if cpu and given.get("device", "") is None:
        given["device"] = "cpu"
    return given
