"""Principal components of descriptors as DELF and DELG apply them (docs/delg.md 5.3): normalise, project, normalise
again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.formats.delf import read_datum, write_datum
from rrt.store.linear import l2_normalize

# As the published DELF model has them beside it.
MEAN_FILE, MATRIX_FILE, VARIANCES_FILE = "mean.datum", "pca_proj_mat.datum", "pca_variances.datum"
# Descriptors shorter than this are divided by it: TensorFlow's l2_normalize takes squares below 1e-12 as 1e-12.
SHORTEST = 1e-6


@dataclass(frozen=True)
class Pca:
    """mean [D], matrix [D', D] with a component in each row, the strongest first, of which the first ``dim`` are used;
    variances [dim or more] of the components for whitening, None without. All float32; see ``read_pca``. source: where
    they come from, for messages. Two of them are equal when they compute the same."""

    mean: np.ndarray = field(compare=False, repr=False)
    matrix: np.ndarray = field(compare=False, repr=False)
    dim: int
    variances: np.ndarray | None = field(default=None, compare=False, repr=False)
    source: str = field(default="PCA", compare=False)
    sha256: str = field(init=False)

    def __post_init__(self):
        digest = hashlib.sha256(f"{self.dim} of {len(self.mean)}, whitening {self.variances is not None}".encode())
        for array in (self.mean, self.matrix[: self.dim], () if self.variances is None else self.variances[: self.dim]):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        object.__setattr__(self, "sha256", digest.hexdigest())

    def as_json(self) -> dict:
        """What tells this projection from another: its size and the SHA-256 of the numbers it uses."""
        return {"dim": self.dim, "sha256": self.sha256}

    def check_depth(self, depth: int) -> None:
        """InputError unless the projection is one of descriptors of ``depth`` dimensions."""
        if depth != len(self.mean):
            raise InputError(
                f"{self.source}: for descriptors of {len(self.mean)} dimensions, the model gives {depth}; "
                "give the PCA that belongs to the model"
            )

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """The components of x [..., D], float32 [..., dim]: (x - mean) times the matrix transposed, over the standard
        deviations."""
        self.check_depth(x.shape[-1])
        components = (x.astype(np.float32) - self.mean) @ self.matrix[: self.dim].T
        return components if self.variances is None else components / np.sqrt(self.variances[: self.dim])

    def project(self, x: np.ndarray) -> np.ndarray:
        """Descriptors [N, D] of any length -> their components [N, dim], of unit length: L2, PCA, L2 (docs/delg.md
        5.3)."""
        if not len(x):
            return np.empty((0, self.dim), np.float32)
        return l2_normalize(self.rotate(l2_normalize(x, SHORTEST)), SHORTEST)


def write_pca_folder(folder: str | Path, mean: np.ndarray, matrix: np.ndarray, variances: np.ndarray) -> None:
    """The files of a PCA: mean [D], matrix [D', D], variances [D'] of its components. mean.datum, written last, stands
    for all."""
    for name, array in ((VARIANCES_FILE, variances), (MATRIX_FILE, matrix), (MEAN_FILE, mean)):
        write_datum(Path(folder) / name, array)


def read_pca_folder(folder: str | Path, dim: int | None = None, whitening: bool = False) -> Pca:
    """The projection in a folder; see ``read_pca``."""
    if not (Path(folder) / MEAN_FILE).is_file():
        raise InputError(f"{folder}: no {MEAN_FILE} in it; give the folder that delg_extract/train_pca.py wrote")
    mean, matrix, variances = (Path(folder) / name for name in (MEAN_FILE, MATRIX_FILE, VARIANCES_FILE))
    return read_pca(mean, matrix, dim, variances if whitening else None)


def read_pca(mean: str | Path, matrix: str | Path, dim: int | None = None, variances: str | Path | None = None) -> Pca:
    """The projection in .datum files: mean [D] and matrix [D', D], of which ``dim`` rows (None: all) are used; with
    ``variances`` it whitens.

    Raises InputError naming the file that cannot be read or does not fit the others.
    """
    mean_values, matrix_values = _numbers(mean).ravel(), _numbers(matrix)
    if matrix_values.ndim != 2 or matrix_values.shape[1] != len(mean_values) or not matrix_values.size:
        raise InputError(
            f"{matrix}: a matrix of shape {list(matrix_values.shape)} does not fit the {len(mean_values)} values of "
            f"{mean}; give the two files of one PCA"
        )
    dim = len(matrix_values) if dim is None else dim
    if not 1 <= dim <= len(matrix_values):
        raise InputError(
            f"{matrix}: holds {len(matrix_values)} components, {dim} are asked for; set pca_dim to 1 to "
            f"{len(matrix_values)}"
        )
    variance_values = None
    if variances is not None:
        variance_values = _numbers(variances).ravel()
        if len(variance_values) < dim or variance_values[:dim].min() <= 0:
            raise InputError(
                f"{variances}: whitening needs {dim} variances above zero, these are {len(variance_values)} from "
                f"{variance_values.min(initial=np.inf):g}; give the file of the same PCA, or set use_whitening to false"
            )
    return Pca(mean_values, matrix_values, dim, variance_values, str(matrix))


def _numbers(path: str | Path) -> np.ndarray:
    values = read_datum(path).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite; copy the file again")
    return values
