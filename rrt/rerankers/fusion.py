"""A reranker's logits blended with the similarities of the search."""

from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np

from rrt.calibration import sigmoid
from rrt.errors import LARGEST_NUMBER, InputError
from rrt.files.atomic import parse_json


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Fusion:
    """Score of a reranked candidate: ``weight * global similarity + (1 - weight) * sigmoid(temperature * logit)``.

    weight 0 ranks by the logit alone (the published way).
    """

    weight: float = 0.0
    temperature: float = 1.0

    def __post_init__(self):
        if not _is_number(self.weight) or not 0 <= self.weight <= 1:
            raise InputError(f"fusion: lambda={self.weight!r} must lie in 0..1")
        if not _is_number(self.temperature) or not 0 < self.temperature <= LARGEST_NUMBER:
            raise InputError(f"fusion: temperature={self.temperature!r} must be positive and finite")

    def scores(self, similarities: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """[n], of global similarities [n] and logits [n]."""
        if self.weight == 0:
            # Not through the sigmoid: it saturates, and saturated logits would tie.
            return logits
        probability = sigmoid(self.temperature * logits.astype(np.float64))
        return self.weight * similarities + (1 - self.weight) * probability


PLAIN = Fusion()


def read_fusion(path, weight: float = 0.0, temperature: float = 1.0) -> Fusion:
    """The Fusion of a file of ``tools/tune_fusion.py``; that of weight and temperature where path is None."""
    if not path:
        return Fusion(weight, temperature)
    try:
        chosen = parse_json(Path(path).read_bytes())
        return Fusion(chosen["lambda"], chosen["temperature"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with tools/tune_fusion.py") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path}: no lambda and temperature in it ({error}); make it again with tools/tune_fusion.py"
        ) from None
