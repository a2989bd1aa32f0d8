"""Binary codes of local descriptors: B bits each, the sides of B perpendicular planes on which a descriptor lies.

    code(x)_k = 1 where a_k . (x - mean) > 0                   axes a_1 .. a_B, perpendicular and of one length t
    as read:    x^ = y / |y|,  y = mean + sum over k of (+1 or -1) a_k

By ITQ (Gong and Lazebnik, "Iterative quantization: a Procrustean approach to learning binary codes", CVPR 2011) the
axes are the B leading principal directions turned by the rotation R that brings the projections V = (x - mean) W
nearest to corners of a cube: B = sign(V R), then R = argmin |B - V R|, in turns. A random rotation of the same
directions, or, where nothing is learned, of all of the space with mean 0, is what it is compared with.

Error: with p_k = a_k . (x - mean) / t and r the part of x - mean that is perpendicular to all axes,
|y - x|^2 = e^2 = sum over k of (|p_k| - t)^2 + |r|^2. For a unit row x and e < 1 the ball of radius e around x is seen
from the origin within arcsin(e), so the cosine of a descriptor with itself as read is at least sqrt(1 - e^2). With mean
0 and B = D = 128 it is exactly |p|_1 / sqrt(B): about 0.80 = sqrt(2 / pi) after a random rotation, never below 1 /
sqrt(B); and the cosine of two as read is 1 - 2 h / B, h the number of bits in which they differ.
"""

from dataclasses import dataclass

import numpy as np

from rrt.errors import InputError
from rrt.progress import bar
from rrt.store.linear import principal_components

KINDS = ("itq", "random")


@dataclass(frozen=True)
class BinaryCodes:
    """mean float32 [D], axes float32 [B, D]; B a multiple of 8."""

    mean: np.ndarray
    axes: np.ndarray

    @property
    def dim(self) -> int:
        """D of the descriptors."""
        return self.axes.shape[1]

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Descriptors float32 [n, D] -> codes uint8 [n, B / 8], the first bit the highest of its byte."""
        return np.packbits((rows - self.mean) @ self.axes.T > 0, axis=1)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes uint8 [n, B / 8] -> float32 [n, D], unit rows."""
        signs = np.unpackbits(np.ascontiguousarray(codes), axis=1).astype(np.float32)
        signs *= 2
        signs -= 1
        rows = signs @ self.axes
        rows += self.mean
        rows /= np.sqrt(np.maximum(np.vecdot(rows, rows), 1e-30))[:, None]
        return rows


def random_codes(dim: int, bits: int, seed: int = 0) -> BinaryCodes:
    """Codes that need no training: mean 0 and perpendicular axes of random directions, of length 1 / sqrt(bits)."""
    check_bits(dim, bits, seed)
    return BinaryCodes(np.zeros(dim, np.float32), (_rotation(dim, seed)[:bits] / np.sqrt(bits)).astype(np.float32))


def learn_codes(rows: np.ndarray, bits: int, kind: str = "itq", seed: int = 0, iterations: int = 50) -> BinaryCodes:
    """Codes learned from descriptors [n, D], the same for the same seed: "itq" by ``iterations`` turns, "random" leaves
    the principal directions turned at random. Memory: two tables of [n, bits] and one of [n, D] in float32. Raises
    InputError when the descriptors vary in fewer than ``bits`` directions."""
    check_bits(rows.shape[1], bits, seed)
    if kind not in KINDS or iterations < 0:
        raise InputError(
            f"binary codes '{kind}' of {iterations} iterations: choose {' or '.join(KINDS)}, and 0 iterations or more"
        )
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean.astype(np.float32)
    values, vectors = principal_components(centred.T.astype(np.float64) @ centred / max(1, len(rows)))
    usable = int(np.sum(values > values[0] * 1e-7)) if values[0] > 0 else 0
    if bits > usable:
        raise InputError(
            f"binary codes of {bits} bits: the {len(rows)} descriptors they are learned from vary in {usable}"
            " directions only; give fewer bits, or more images"
        )
    directions = vectors[:, :bits]
    projected = centred @ directions.astype(np.float32)
    rotation = _rotation(bits, seed)
    # Not faiss.ITQMatrix: that of faiss 1.15 does not converge, and is read little nearer than a turn at random.
    for _ in bar(range(iterations if kind == "itq" else 0), "turning", "iteration", passing=True):
        signs = np.where(projected @ rotation.astype(np.float32) > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd((projected.T @ signs).astype(np.float64))
        rotation = left @ right
    # The length of the axes that makes the error as small as it can be for all rows.
    length = np.abs(projected @ rotation.astype(np.float32)).mean(dtype=np.float64)
    return BinaryCodes(mean.astype(np.float32), (length * (directions @ rotation).T).astype(np.float32))


def check_bits(dim: int, bits: int, seed: int = 0) -> None:
    """InputError unless descriptors of ``dim`` dimensions can have codes of so many bits."""
    if seed < 0:
        raise InputError(f"binary codes with seed {seed}: it may not be negative")
    if bits < 8 or bits % 8 or bits > dim:
        raise InputError(
            f"binary codes of {bits} bits for {dim} dimensions: give a multiple of 8 that is no larger than {dim}"
        )


def _rotation(size, seed):
    """A random orthogonal matrix float64 [size, size], every one as likely as any other."""
    matrix, upper = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return matrix * np.sign(np.diagonal(upper))
