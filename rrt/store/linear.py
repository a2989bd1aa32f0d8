"""Linear algebra of descriptor rows that the store, the search and the DELG side share."""

import numpy as np


def l2_normalize(x: np.ndarray, least: float = 1e-12) -> np.ndarray:
    """Rows of x [..., D] divided by their length, or by ``least`` where they are shorter (a zero row stays zero);
    float32, of float64 float64."""
    x = np.asarray(x)
    x = x.astype(np.result_type(x, np.float32), copy=False)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), least)


def uniformity(descriptors: np.ndarray) -> float:
    """The mean cosine of the local descriptors [n, D] of an image with one another: of photographs nearly 0, where
    they are whitened, and near 1 where they all say the same, as on an empty image. 0 without any."""
    return float(np.square(l2_normalize(descriptors).mean(0)).sum()) if len(descriptors) else 0.0


def principal_components(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [D], falling, and eigenvectors, a column each, of a covariance [D, D]; signs as of fixed_signs()."""
    values, vectors = np.linalg.eigh(symmetric)
    return values[::-1], fixed_signs(vectors[:, ::-1])


def fixed_signs(columns: np.ndarray) -> np.ndarray:
    """Columns [D, n] turned so that the largest component of each is positive: eigenvectors come with an arbitrary
    sign, and two runs should be comparable."""
    largest = np.abs(columns).argmax(axis=0)
    return columns * np.sign(columns[largest, np.arange(columns.shape[1])])
