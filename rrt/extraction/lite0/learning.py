"""What is learned on top of the frozen network: projections of its global and its local descriptors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rrt.errors import InputError
from rrt.extraction.attention import Attention
from rrt.store.linear import principal_components


class Projection(NamedTuple):
    """(x - mean) @ axes: mean [D], axes [D, d]."""

    mean: np.ndarray
    axes: np.ndarray


class Learned(NamedTuple):
    """All that is learned: the projections of global and of local descriptors, and perhaps an attention over local
    descriptors and the lengths of their cells; with it the global descriptor has a second part, of these cells."""

    global_: tuple[Projection, ...]
    local: Projection
    attention: Attention | None = None


def fit_projection(rows: np.ndarray, dim: int, power: float) -> Projection:
    """PCA of rows [n, D] to `dim`, each component divided by its eigenvalue to `power` (0.5 whitens).

    Raises InputError when the rows vary in fewer directions than `dim`.
    """
    rows = rows.astype(np.float32)
    mean = rows.mean(axis=0)
    centred = rows - mean
    values, vectors = principal_components((centred.T @ centred).astype(np.float64) / len(centred))
    varying = min(int(np.sum(values > 1e-9 * values[0])), len(rows) - 1)
    if dim > varying:
        raise InputError(f"a projection to {dim} dimensions: the training descriptors vary in {varying}; give more")
    return Projection(mean, (vectors[:, :dim] / values[:dim] ** power).astype(np.float32))


def fit_part(rows: np.ndarray, dim: int, power: float) -> Projection:
    """The same, scaled so that projected rows have a mean square length of 1: parts that are joined count alike."""
    projection = fit_projection(rows, dim, power)
    projected = (rows - projection.mean) @ projection.axes
    return projection._replace(axes=projection.axes / np.sqrt(np.mean(np.sum(projected**2, axis=1))))
