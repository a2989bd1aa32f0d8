"""The architecture of the network and how it begins: the ``model`` of the command lines."""

from dataclasses import asdict
from typing import Any, Literal

from rrt.command_line.settings import setting, settings

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@settings("model.")
class ModelSettings:
    """The defaults are the published network; all but ``name`` and ``initialisation`` are arguments of
    ``rrt.network.model.RRT``."""

    name: str = setting("for the records alone", default="rrt")
    initialisation: str = setting("of a new network, see rrt.network.initialisation", default="published")
    num_global_features: int = setting("dimensions of the global descriptors", default=2048)
    num_local_features: int = setting("dimensions of the local descriptors, and the network's width", default=128)
    seq_len: int = setting("a record of the longest sequence it was meant for", default=1004)
    dim_feedforward: int = setting("width inside a layer", default=1024)
    nhead: int = setting("heads of the attention", default=4)
    num_encoder_layers: int = setting(default=6)
    dropout: float = setting(default=0.0)
    activation: str = setting("relu | gelu | glu", default="relu")
    normalize_before: bool = setting("normalise before a layer's parts instead of behind them", default=False)

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of ``RRT``."""
        return {name: value for name, value in asdict(self).items() if name not in ("name", "initialisation")}
