"""Methods as a command's settings ask for them."""

from dataclasses import asdict, dataclass

from rrt.errors import InputError
from rrt.rerankers import make_method, method_class
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.chain import Chain
from rrt.rerankers.fusion import Fusion
from rrt.rerankers.transformer import Transformer


@dataclass(frozen=True)
class ConfiguredMethod:
    """names: methods of a chain, in order, or of a single one; ready: those of them that are made already, all but
    ``rrt``, whose network must see the store first; num_rerank: as it was set."""

    names: tuple[str, ...]
    ready: dict[str, RerankMethod]
    num_rerank: int | None

    @property
    def label(self) -> str:
        """What tables call it."""
        return "RRT" if self.names == ("rrt",) else "+".join(self.names)

    @property
    def settings(self) -> dict:
        """{name: {setting: value}} of all but ``rrt``."""
        return {name: asdict(method) for name, method in self.ready.items()}

    @property
    def depths(self) -> list[int | None]:
        """Candidates that each method of the chain reorders, None = all."""
        own = [Transformer.depth if name == "rrt" else self.ready[name].depth for name in self.names]
        return own[:-1] + [own[-1] if self.num_rerank is None else self.num_rerank]

    def method(self, scorer=None, fusion: Fusion = Fusion()) -> RerankMethod:
        """The method, or the chain; scorer: of ``rrt``, where it is among them."""
        ready = self.ready
        if "rrt" in self.names:
            ready = ready | {"rrt": Transformer(weight=fusion.weight, temperature=fusion.temperature, scorer=scorer)}
        methods = tuple(ready[name] for name in self.names)
        return methods[0] if len(methods) == 1 else Chain(methods)

    def listed_among_distractors(self) -> int:
        """Candidates that a ranking among distractors must list. InputError for methods that reorder the whole of it,
        of which with distractors only the beginning is kept."""
        if None in self.depths:
            name = self.names[self.depths.index(None)]
            raise InputError(
                f"reranker {name} reorders whole rankings, of which only the beginning is kept with distractors; give"
                " num_rerank=, or a store that holds the distractors, too"
            )
        return max(self.depths)


def configure(settings: dict) -> ConfiguredMethod | None:
    """The method ``settings["reranker"]`` with its own settings {name: {setting: value}}; the transformer where only a
    checkpoint (``resume``) is given, None without either. Raises InputError."""
    reranker, checkpoint = settings["reranker"], settings["resume"]
    if reranker is None:
        return ConfiguredMethod(("rrt",), {}, settings["num_rerank"]) if checkpoint else None
    if not isinstance(reranker, str):
        raise InputError(
            f"setting reranker={reranker!r}: expected the name of a method, as geometric, or a chain of them, as a+b"
        )
    names = tuple(reranker.split("+"))
    for name in names:
        method_class(name)
    if ("rrt" in names) != bool(checkpoint):
        remedy = "give the checkpoint of rrt as resume=FILE"
        if checkpoint:
            remedy = "resume is the checkpoint of rrt, which is not among them"
        raise InputError(f"setting reranker={reranker}: {remedy}")
    ready = {name: make_method(name, _given(name, settings)) for name in names if name != "rrt"}
    return ConfiguredMethod(names, ready, settings["num_rerank"])


def _given(name, settings):
    """The settings of a method; cpu=True is meant for all that would take a GPU."""
    given = dict(settings.get(name) or {})
    if settings.get("cpu") and given.get("device", "") is None:
        given["device"] = "cpu"
    return given
