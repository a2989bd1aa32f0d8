"""Principal components of more vectors than memory holds."""

from __future__ import annotations

import numpy as np

from rrt.store.linear import principal_components

_ROWS_AT_ONCE = 4096


class Moments:
    """Mean and covariance of any number of vectors, in the memory of one matrix [dim, dim]; all in float64."""

    def __init__(self, dim: int):
        self.count, self._sum, self._products = 0, np.zeros(dim), np.zeros((dim, dim))

    def add(self, x: np.ndarray) -> None:
        """Takes the rows of x [N, dim] into account."""
        for start in range(0, len(x), _ROWS_AT_ONCE):
            rows = x[start : start + _ROWS_AT_ONCE].astype(np.float64)
            self.count += len(rows)
            self._sum += rows.sum(0)
            self._products += rows.T @ rows

    def principal_components(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean [dim], variances [dim] (unbiased) falling, components [dim, dim] as rows, the largest part of each
        positive."""
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        values, columns = principal_components(covariance)
        return mean, np.maximum(values, 0), columns.T
