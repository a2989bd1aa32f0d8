"""Which local descriptors are worth keeping, learned by late interaction from images whose landmarks are known.

A descriptor is worth keeping when images of its landmark hold a better match of it than other images do. With m_j(c)
the best cosine of descriptor c among those of image j,

    gain(c) = mean over images j of the same landmark of m_j(c) - mean over other images of m_j(c)

which is the contribution of c to the margin of ColBERT's late interaction (Khattab and Zaharia, SIGIR 2020). The
attention is the ridge regression of the gain on the direction of the cell and the logarithm of its length. Of
descriptors that are projected already (lite0's), what a trained LATE weighs them takes the place of the gain, and the
attention that they have that of the length (tools/learn_attention.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rrt.errors import InputError
from rrt.files.arrays import load_npz
from rrt.files.atomic import atomic_path

# The gain is scaled to about this spread before the softplus, so that attention is spread over its whole range.
SPREAD = 2.0
_REMEDY = "make it with tools/learn_attention.py"


class Attention(NamedTuple):
    """softplus(direction @ weight [D] + of_length * log(length) + bias) of a cell's direction and length."""

    weight: np.ndarray
    of_length: float
    bias: float

    def __call__(self, cells: np.ndarray) -> np.ndarray:
        """Cells [n, D] -> attention [n], above 0."""
        return np.logaddexp(0, self.logit(cells))

    def logit(self, cells: np.ndarray) -> np.ndarray:
        """The same before the softplus, [n]."""
        direction, log_length = _parts(cells)
        return direction @ self.weight + self.of_length * log_length + self.bias

    def save(self, path: str | Path) -> Path:
        """Write an .npz, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **{name: np.float32(value) for name, value in self._asdict().items()})
        return Path(path)


def load_attention(path: str | Path, dim: int) -> Attention:
    """Read what Attention.save wrote, for descriptors of ``dim`` dimensions. Raises InputError for a missing, damaged
    or different file."""
    try:
        arrays = load_npz(path)
        found = Attention(arrays["weight"], float(arrays["of_length"]), float(arrays["bias"]))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {_REMEDY}") from None
    except Exception as error:  # zipfile, numpy and struct raise many kinds for a damaged file
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not a file of an attention ({reason}); {_REMEDY}") from None
    if found.weight.shape != (dim,) or not np.isfinite([*found.weight, found.of_length, found.bias]).all():
        raise InputError(f"{path}: not an attention for finite descriptors of {dim} dimensions; {_REMEDY}")
    return found


def gains(
    descriptors: list[np.ndarray], labels: np.ndarray, same: int, others: int, generator: np.random.Generator
) -> list[np.ndarray | None]:
    """gain(c) of every descriptor of every image, None for images whose label has fewer than two others.

    descriptors: unit rows [n, d] of each image. same, others: how many images of either kind are looked at.
    """
    found = []
    for image, own in enumerate(descriptors):
        alike = np.flatnonzero((labels == labels[image]) & (np.arange(len(labels)) != image))
        different = np.flatnonzero(labels != labels[image])
        if len(alike) < 2 or not len(different):
            found.append(None)
            continue
        means = []
        for rows, count in ((alike, same), (different, others)):
            chosen = generator.choice(rows, min(count, len(rows)), replace=False)
            means.append(np.mean([(own @ descriptors[row].T).max(axis=1) for row in chosen], axis=0))
        found.append(means[0] - means[1])
    return found


def fit_attention(cells: np.ndarray, gain: np.ndarray, ridge: float) -> Attention:
    """The ridge regression of the gain [n] on cells [n, D]. ridge: share of the mean variance of a direction that is
    added to each."""
    direction, log_length = _parts(cells)
    inputs = np.concatenate([direction, log_length[:, None]], axis=1).astype(np.float64)
    mean = inputs.mean(axis=0)
    centred = inputs - mean
    scatter = centred.T @ centred / len(centred)
    penalty = np.full(len(scatter), ridge * np.trace(scatter[:-1, :-1]) / (len(scatter) - 1))
    # Of the length, too, something: where all are equal (after a final norm) nothing else determines its weight.
    penalty[-1] = max(ridge * scatter[-1, -1], 1e-6)
    weight = np.linalg.solve(scatter + np.diag(penalty), centred.T @ (gain - gain.mean()) / len(centred))
    weight *= SPREAD / max(float(np.std(centred @ weight)), 1e-12)
    return Attention(weight[:-1].astype(np.float32), float(weight[-1]), float(-mean @ weight))


def _parts(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions [n, D] and logarithms of the lengths [n] of cells."""
    length = np.maximum(np.linalg.norm(cells, axis=1), 1e-6)
    return cells / length[:, None], np.log(length)
