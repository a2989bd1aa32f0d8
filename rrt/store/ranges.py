"""Ranges of the rows of a packed column."""

import numpy as np


def concatenated_ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """``starts[0], starts[0] + 1, ..`` (sizes[0] numbers), then the next range: int64 [sum(sizes)]."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)
