"""Supervised (discriminative) whitening learned from matching pairs of images.

Mikolajczyk and Matas, ICCV 2007; for image retrieval Radenovic, Tolias and Chum, PAMI 2018, section 3.4. With x_i the
global descriptors, mu their mean and S the covariance of the differences of matching pairs,

    S = mean over matching pairs (i, j) of (x_i - x_j) (x_i - x_j)^T / 2
    y = unit length of V^T S^(-1/2) (x - mu)

V: the leading eigenvectors of the covariance of the descriptors so whitened, S^(-1/2) (x - mu). What differs between
images of the same thing is made equally strong in all directions before those are kept in which images differ most.
Few pairs do not determine S, and it is shrunk towards a multiple of the identity (Ledoit and Wolf 2004):
(1 - shrinkage) S + shrinkage trace(S) / r, over the r directions in which the training descriptors vary at all.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from rrt.errors import InputError, check_path
from rrt.files.arrays import load_npz
from rrt.files.atomic import atomic_path, sha256_of_file
from rrt.store.checked import as_rows, refuse_not_finite
from rrt.store.linear import fixed_signs, l2_normalize, principal_components


def fit_supervised_whitening(x, dim, labels=None, pairs=None, power=0.5, shrinkage=0.5):
    """Learn a projection to `dim` dimensions from descriptors x [N, D] and their matching pairs -> Whitening.

    Matching are all pairs of equal labels [N], each counted once, or the rows of pairs int [P, 2], numbers below N.
    power: S is raised to -power; 0.5 whitens, 0 is PCA alone. shrinkage: 0..1, 1 is PCA alone, too. InputError without
    a matching pair, for `dim` beyond the directions that vary, and for a singular S (0 shrinkage and few pairs).
    """
    if (labels is None) == (pairs is None):
        raise ValueError("give labels or pairs")
    if not (0 <= shrinkage <= 1 and 0 <= power < np.inf and dim >= 1):
        raise InputError(
            f"whitening with dim {dim}, power {power} and shrinkage {shrinkage}: dim must be at least 1,"
            " power not negative, shrinkage within 0..1"
        )
    if pairs is not None and not len(pairs):
        raise InputError("supervised whitening: no matching pairs; give some, or --method pca")
    if labels is not None and len(np.unique(labels)) == len(labels):
        raise InputError("supervised whitening: no two images have the same label; give --pairs, or --method pca")
    x = np.asarray(x, dtype=np.float32)
    if labels is not None and len(labels) != len(x):
        raise InputError(f"supervised whitening: {len(labels)} labels for {len(x)} descriptors; give one for each")
    # Outside of the span of the training descriptors S says nothing, and the last step would cut it off.
    basis = fit_pca_whitening(x, None, power=0)
    rank = basis.projection.shape[1]
    if dim > rank:
        raise InputError(
            f"whitening to {dim} dimensions: {len(x)} images of {x.shape[1]} dimensions vary in {rank}"
            f" directions only; give a dim of at most {rank}, or more images"
        )
    turn = basis.projection.astype(np.float64)
    turned = (x - basis.mean) @ turn
    if pairs is None:
        scatter = _covariance_of_labels(turned, np.asarray(labels))
    else:
        scatter = _covariance_of_pairs(turned, np.asarray(pairs))
    values, vectors = principal_components(scatter)
    values = (1 - shrinkage) * np.maximum(values, 0) + shrinkage * values.mean()
    if power and values[-1] <= 1e-10 * values[0]:
        raise InputError(
            f"supervised whitening: the matching pairs differ in {np.sum(values > 1e-10 * values[0])} of"
            f" {rank} directions only; give a shrinkage above 0, or more pairs"
        )
    whitened = vectors / values**power
    spread = np.cov((turned @ whitened).T, bias=True).reshape(rank, rank)
    projection = fixed_signs(turn @ whitened @ principal_components(spread)[1][:, :dim])
    return Whitening(basis.mean, projection.astype(np.float32))


def _covariance_of_labels(x, labels):
    """S of all pairs of equal labels: the differences of the n rows of a label have n times their scatter as sum."""
    total, count = np.zeros((x.shape[1], x.shape[1])), 0
    order = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[order])) + 1
    for rows in np.split(order, bounds):
        centred = x[rows] - x[rows].mean(axis=0)
        total += len(rows) * (centred.T @ centred)
        count += len(rows) * (len(rows) - 1) // 2
    return total / (2 * count)


def _covariance_of_pairs(x, pairs):
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(pairs), 4096):
        first, second = pairs[start : start + 4096].T
        difference = x[first] - x[second]
        total += difference.T @ difference
    return total / (2 * len(pairs))


@dataclass(frozen=True)
class Whitening:
    """y = unit length of (x - mean) projection, with mean [D] and projection [D, d] float32."""

    mean: np.ndarray
    projection: np.ndarray
    path: Path | None = None

    def apply(self, x):
        """Descriptors [N, D] -> [N, d] float32 of unit length; InputError when they have another dimension."""
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 2:
            where = self.path or "whitening"
            raise InputError(f"{where}: descriptors of shape {x.shape}; expected [images, dimensions]")
        if x.shape[1] != len(self.mean):
            raise InputError(
                f"{self.path or 'whitening'}: learned for {len(self.mean)} dimensions, the descriptors have"
                f" {x.shape[1]}; learn it again with tools/learn_whitening.py"
            )
        return l2_normalize((x - self.mean) @ self.projection)

    def __repr__(self):
        return f"<whitening of {len(self.mean)} dimensions to {self.projection.shape[1]}>"

    @property
    def digest(self) -> str:
        """SHA-256 of its numbers, in hexadecimal."""
        arrays = (np.ascontiguousarray(array, np.float32) for array in (self.mean, self.projection))
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def save(self, path):
        """Write an .npz, or a .safetensors, whole or not at all."""
        with atomic_path(path) as temporary:
            if Path(path).suffix == ".safetensors":
                arrays = {"mean": self.mean, "projection": self.projection}
                save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
            else:
                with open(temporary, "wb") as file:
                    np.savez(file, mean=self.mean, projection=self.projection)
        return Path(path)

    @staticmethod
    def load(path) -> "Whitening":
        """See ``load_whitening``."""
        return load_whitening(path)

    @staticmethod
    def fit(x, dim=None, labels=None, power=0.5) -> "Whitening":
        """Learn one from descriptors x [N, D]: of their covariance, or with labels [N] of the differences between those
        of equal labels (``fit_pca_whitening``, ``fit_supervised_whitening``). dim: dimensions kept, None = all that
        vary (of labels: as many as x has)."""
        if labels is None:
            return fit_pca_whitening(x, dim, power)
        return fit_supervised_whitening(x, np.shape(x)[1] if dim is None else dim, labels, power=power)


def load_whitening(path):
    """Read what Whitening.save wrote; InputError for a missing, damaged or different file."""
    path = Path(str(path))
    remedy = "make it with tools/learn_whitening.py"
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        arrays = load_file(path) if path.suffix == ".safetensors" else load_npz(path, ("mean", "projection"))
        mean, projection = arrays["mean"], arrays["projection"]
    except Exception as error:  # zipfile, numpy and struct raise many kinds for a damaged file
        raise InputError(f"{path}: not a whitening file ({error}); {remedy}") from error
    if mean.ndim != 1 or projection.ndim != 2 or len(mean) != len(projection) or not projection.shape[1]:
        raise InputError(f"{path}: mean {mean.shape} and projection {projection.shape} do not fit together; {remedy}")
    if not (np.isfinite(mean).all() and np.isfinite(projection).all()):
        raise InputError(f"{path}: holds values that are not finite; {remedy}")
    return Whitening(mean.astype(np.float32), projection.astype(np.float32), path)


def describe_whitening(path):
    """{"whitening": path as text, "whitening_sha256": of its bytes}, or None in both, for a record of what was used."""
    check_path("whitening", path)
    return {"whitening": str(path) if path else None, "whitening_sha256": sha256_of_file(path) if path else None}


def fit_pca_whitening(x, dim, power=0.5):
    """Learn a projection to `dim` dimensions, None = all that vary, from descriptors x [N, D] -> Whitening.

    Columns of the projection are the leading eigenvectors of the covariance divided by eigenvalue**power: power 0.5
    makes every direction equally strong (whitening), 0 only turns and cuts (PCA). InputError when fewer than `dim`
    directions carry variance.
    """
    x = as_rows(x, "whitening")
    refuse_not_finite("whitening", range(len(x)), x)
    x = x.astype(np.float64)
    if (dim is not None and dim < 1) or not 0 <= power < np.inf:
        raise InputError(f"whitening to {dim} dimensions and power {power}: dim must be at least 1, power not negative")
    mean = x.mean(axis=0)
    centred = x - mean
    # With fewer images than dimensions the small Gram matrix has the same non-zero eigenvalues as the covariance.
    small = len(x) < x.shape[1]
    values, vectors = principal_components((centred @ centred.T if small else centred.T @ centred) / len(x))
    usable = int(np.sum(values > values[0] * 1e-10)) if values[0] > 0 else 0
    dim = max(usable, 1) if dim is None else dim
    if dim > usable:
        raise InputError(
            f"whitening to {dim} dimensions: {len(x)} images of {x.shape[1]} dimensions vary in {usable} directions"
            f" only; give a dim of at most {usable}, or more images"
        )
    values, vectors = values[:dim], vectors[:, :dim]
    if small:
        vectors = fixed_signs(centred.T @ vectors / np.sqrt(values * len(x)))
    return Whitening(mean.astype(np.float32), (vectors / values**power).astype(np.float32))
