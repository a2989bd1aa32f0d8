"""The file of `--projection`: what was learned on top of a frozen network, and its application."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.extraction.attention import Attention
from rrt.extraction.lite0.learning import Projection
from rrt.files.arrays import load_npz
from rrt.files.atomic import atomic_path, sha256_of_file
from rrt.store.linear import l2_normalize

_REMEDY = "make it with tools/learn_projection.py"


@dataclass(frozen=True)
class Projections:
    """A projection of local descriptors and, where they were learned, of global ones and an attention."""

    local: Projection
    global_: Projection | None = None
    attention: Attention | None = None
    path: Path | None = None
    sha256: str = ""

    def dimensions(self, global_dim: int, local_dim: int) -> tuple[int, int]:
        """(global, local) dimensions behind the projections. Raises InputError where a model's are not those in front
        of them."""
        for kind, has, projection in (("local", local_dim, self.local), ("global", global_dim, self.global_)):
            if projection and len(projection.mean) != has:
                raise InputError(
                    f"{self.path}: learned for {kind} descriptors of {len(projection.mean)} dimensions, the model gives"
                    f" {has}; learn it again with tools/learn_projection.py and the same model, layer and pooling"
                )
        return (self.global_.axes.shape[1] if self.global_ else global_dim), self.local.axes.shape[1]

    def apply(self, global_: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global [Dg] and local [n, Dl] descriptors of unit length -> projected ones of unit length."""
        if self.global_:
            global_ = project(self.global_, global_)
        return global_, project(self.local, local)

    def save(self, path: str | Path) -> Path:
        """Write an .npz, whole or not at all."""
        arrays = {"local_mean": self.local.mean, "local_axes": self.local.axes}
        if self.global_:
            arrays |= {"global_mean": self.global_.mean, "global_axes": self.global_.axes}
        if self.attention:
            arrays |= {f"attention_{name}": np.asarray(value) for name, value in self.attention._asdict().items()}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **{name: array.astype(np.float32) for name, array in arrays.items()})
        return Path(path)


def project(projection: Projection, rows: np.ndarray) -> np.ndarray:
    """Rows [..., D] -> [..., d] float32 of unit length."""
    return l2_normalize((rows - projection.mean) @ projection.axes).astype(np.float32)


def load_projections(path: str | Path) -> Projections:
    """Read what Projections.save wrote. Raises InputError for a missing, damaged or different file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_REMEDY}")
    try:
        arrays = {name: np.asarray(array, np.float32) for name, array in load_npz(path).items()}
        local = _projection(arrays, "local")
        global_ = _projection(arrays, "global") if "global_mean" in arrays else None
        attention = None
        if "attention_weight" in arrays:
            of_length, bias = (float(arrays[f"attention_{name}"]) for name in ("of_length", "bias"))
            attention = Attention(arrays["attention_weight"].reshape(len(local.mean)), of_length, bias)
    except Exception as error:  # zipfile, numpy and struct raise many kinds for a damaged file
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not a file of projections ({reason}); {_REMEDY}") from None
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(f"{path}: holds values that are not finite; {_REMEDY}")
    return Projections(local, global_, attention, path, sha256_of_file(path))


def _projection(arrays: dict[str, np.ndarray], kind: str) -> Projection:
    found = Projection(arrays[f"{kind}_mean"], arrays[f"{kind}_axes"])
    if found.mean.ndim != 1 or found.axes.ndim != 2 or len(found.mean) != len(found.axes) or not found.axes.shape[1]:
        raise ValueError(f"{kind}: mean {found.mean.shape} and axes {found.axes.shape} do not fit together")
    return found
