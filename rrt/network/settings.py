"""The architecture of the network and how it begins: the ``model`` of the command lines."""

from typing import Any, Literal

from rrt.command_line.settings import setting, settings

Precision = Literal["auto", "float32", "bfloat16", "float16"]
ScoringPrecision = Literal["auto", "float32", "bfloat16", "float16", "int8"]


@settings("model.")
class ModelSettings:
    """The defaults are the published network; those of ``architecture`` are arguments of the network of this kind
    (``rrt.network.networks``)."""

    kind: Literal["RRT", "LATE"] = setting("RRT | LATE", default="RRT")
    name: str = setting("for the records alone", default="rrt")
    initialisation: str = setting("of a new network, see rrt.network.initialisation", default="published")
    num_global_features: int = setting("dimensions of the global descriptors", default=2048, ge=1)
    num_local_features: int = setting("dimensions of the local descriptors, and the network's width", default=128, ge=1)
    seq_len: int = setting("a record of the longest sequence it was meant for", default=1004, ge=1)
    dim_feedforward: int = setting("width inside a layer", default=1024, ge=1)
    nhead: int = setting("heads of the attention", default=4, ge=1)
    num_encoder_layers: int = setting(default=6, ge=1)
    dropout: float = setting(default=0.0, ge=0, lt=1)
    activation: str = setting("relu | gelu | glu", default="relu")
    normalize_before: bool = setting("normalise before a layer's parts instead of behind them", default=False)

    positions: bool = setting("of LATE: it sees where in the image a descriptor lies", default=True)
    vectors: bool = setting("of LATE: it changes descriptors, beside weighing them", default=True)
    weight_range: float = setting(
        "of LATE: no descriptor weighs more than e^(2 r) times another of its image; 0: all the same", default=3.0, ge=0
    )
    symmetric: bool = setting("of LATE: matches count in both directions", default=True)
    global_weight: float = setting(
        "of LATE: weight of the global similarity beside the matching, both standardised", default=1.0, ge=0
    )
    learn_global_weight: bool = setting("of LATE: training moves that weight", default=False)

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings that a network of this kind has, as checkpoints record them."""
        from rrt.network.networks import KINDS  # loads PyTorch, which not every command with these settings needs

        own = {name: getattr(self, name) for name in KINDS[self.kind]}
        return own if self.kind == "RRT" else {"kind": self.kind} | own
