"""The one builder of reranking methods: by name, alone or in chains, with the settings of a command or of a caller.

A method is a dataclass in a file of its own; METHODS says where, so that naming one loads nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rrt.errors import InputError
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.chain import Chain
from rrt.rerankers.chain_text import Member, read_chain

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


def identity_of(method: RerankMethod) -> list[dict[str, Any]]:
    """A dictionary for each member of a chain: its name as ``method`` (its class, where it is none of METHODS), and
    what its scores depend on."""
    names = {path: name for name, path in METHODS.items()}
    found = []
    for each in method.methods if isinstance(method, Chain) else (method,):
        path = f"{type(each).__module__}:{type(each).__qualname__}"
        found.append({"method": names.get(path, path)} | each.score_settings())
    return found


def make_chain(names: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> RerankMethod:
    """The method or chain that a text names (rrt/rerankers/chain_text.py). settings: {name: {setting: value}} of all
    members of a name, which those in its brackets replace."""
    configured = configure(str(names), settings or {}, network_later=False)
    assert configured is not None
    return configured.method()


@dataclass(frozen=True)
class ConfiguredMethod:
    """members: of a chain, in order, or a single one; ready: the method of each that is made already, None for ``rrt``,
    whose network must see the store first; num_rerank: as it was set."""

    members: tuple[Member, ...]
    ready: tuple[RerankMethod | None, ...]
    num_rerank: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(member.name for member in self.members)

    @property
    def label(self) -> str:
        """What tables call it."""
        text = "+".join(member.text for member in self.members)
        return "RRT" if text == "rrt" else text

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """{member as it was written: {setting: value}}; of ``rrt`` what its brackets say."""
        return {
            member.text: asdict(method) if method else member.settings  # pyright: ignore[reportArgumentType]
            for member, method in zip(self.members, self.ready)
            if method or member.settings
        }

    @property
    def depths(self) -> list[int | None]:
        """Candidates that each method of the chain reorders, None = all."""
        own = [member.num or method_class(member.name).depth for member in self.members]
        return own[:-1] + [own[-1] if self.num_rerank is None else self.num_rerank]

    def method(self, transformer: Transformer | None = None) -> RerankMethod:
        """The method, or the chain; transformer: ``rrt``, where it is among them, without settings of a member."""
        ready = [
            method or _with_network(transformer, member.settings) for member, method in zip(self.members, self.ready)
        ]
        if len(ready) == 1 and not self.members[0].num:
            return ready[0]
        return Chain(tuple(ready), tuple(member.num for member in self.members))

    def listed_among_distractors(self) -> int:
        """Candidates that a ranking among distractors must list. InputError for methods that reorder the whole of it,
        because with distractors only its beginning is kept."""
        depths = [depth for depth in self.depths if depth is not None]
        if len(depths) < len(self.members):
            name = self.names[self.depths.index(None)]
            raise InputError(
                f"reranker {name} reorders whole rankings, of which only the beginning is kept with distractors; give"
                " num_rerank=, or a store that holds the distractors, too"
            )
        return max(depths)


def configure(
    reranker: str | None,
    settings: Mapping[str, Any],
    checkpoint=None,
    num_rerank: int | None = None,
    cpu: bool = False,
    network_later: bool = True,
) -> ConfiguredMethod | None:
    """The method or chain ``reranker`` (rrt/rerankers/chain_text.py) with its settings {name: {setting: value}}, which
    those in brackets replace; the transformer where only a checkpoint is given, None without either. cpu: for all
    methods that would take a GPU; network_later: ``rrt`` gets its network by ``method()``. Raises InputError."""
    if reranker is None:
        return ConfiguredMethod((Member("rrt", "rrt"),), (None,), num_rerank) if checkpoint else None
    if not isinstance(reranker, str):
        raise InputError(
            f"setting reranker={reranker!r}: expected the name of a method, as geometric, or a chain of them, as a+b"
        )
    members = tuple(read_chain(reranker))
    for member in members:
        method_class(member.name)
    if network_later and not checkpoint and any(member.name == "rrt" for member in members):
        raise InputError(f"setting reranker={reranker}: give the checkpoint of rrt as resume=FILE")
    if members[-1].num and num_rerank and members[-1].num != num_rerank:
        raise InputError(
            f"reranker '{members[-1].text}': num_rerank={num_rerank} says another number; give one of them"
        )
    members = tuple(replace(member, settings=_named(member)) for member in members)
    ready = [_made(member, settings.get(member.name), cpu, network_later) for member in members]
    return ConfiguredMethod(members, tuple(ready), num_rerank)


def _named(member: Member) -> dict[str, Any]:
    """The settings of a member by the names of its method: ``local`` becomes those that it has."""
    given, known = dict(member.settings), default_settings(member.name)
    if "local" not in given or "local" in known:
        return given
    names = [name for name in ("query_local", "gallery_local", "max_local") if name in known]
    if not names:
        raise InputError(f"reranker '{member.text}': {member.name} uses no local descriptors; leave local out")
    value = given.pop("local")
    return dict.fromkeys(names, value) | given


def _with_network(transformer: Transformer | None, settings: Mapping[str, Any]) -> Any:
    """The transformer with the settings of a member; without one they are checked alone."""
    if not settings:
        return transformer
    from rrt.rerankers.transformer import MemberSettings

    checked = MemberSettings(**settings)
    return transformer and transformer.changed(checked)


def _made(member: Member, settings: Mapping[str, Any] | None, cpu: bool, network_later: bool) -> RerankMethod | None:
    given = dict(settings or {}) | member.settings
    if cpu and given.get("device", "") is None:
        given["device"] = "cpu"
    try:
        if member.name != "rrt" or not network_later:
            return make_method(member.name, given)
        _with_network(None, member.settings)
    except InputError as error:
        raise InputError(f"reranker '{member.text}': {error}" if member.settings else str(error)) from None
    return None
