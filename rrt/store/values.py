"""Local descriptors as the store keeps them (float16, float32 or int8) and as programs compute with them (float32).

int8 keeps the direction of a descriptor alone. A row x of D numbers is scaled until its largest component in magnitude
is 127 and rounded to the nearest integer, ties to even: q = rint(127 x / m) with m = max |x_i|. Reading divides q by
its own length. A row of zeros stays one.

Error of int8: with y = 127 x / m every component of q is within 1/2 of that of y, so |q - y| <= sqrt(D) / 2, and
|y| = 127 / m for a unit row. A ball of radius r around a point at distance R is seen from the origin within the angle
arcsin(r / R); hence sin(angle(q, x)) <= s = sqrt(D) m / 254, and

    cosine of a descriptor with itself as read   >= sqrt(1 - s^2)             (D = 128: 0.99901 at worst, m = 1)
    change of the cosine of any two descriptors  <= s_1 + s_2 <= sqrt(D) / 127

because the angle between two rows changes by at most arcsin(s_1) + arcsin(s_2) =: d, a cosine by at most 2 sin(d / 2),
and sines of half a sum are at most half the sum of sines. Real descriptors spread over many components (m about 0.25 at
D = 128) and rounding errors do not line up, so what is seen is far smaller: a root mean square of about m / 311 for the
cosine of two, as errors uniform in +-m / 254 give.
"""

import numpy as np

LOCAL_DTYPES = ("float16", "float32", "int8")
GLOBAL_DTYPES = ("float32", "float16")
INT8_LARGEST = 127


def to_stored(rows, dtype):
    """Unit rows [n, D] -> [n, D] in the type `dtype` of LOCAL_DTYPES: nearest value, ties to even."""
    if dtype == rows.dtype and dtype != "int8":
        return rows
    rows = as_float32(rows)
    if dtype == "float16":
        return _float32_to_halves(rows)
    if dtype == "float32":
        return rows
    largest = np.abs(rows).max(axis=1, initial=0)
    scaled = rows * (INT8_LARGEST / np.where(largest > 0, largest, 1)).astype(np.float32)[:, None]
    return np.rint(scaled, out=scaled).astype(np.int8)


def to_float32(stored):
    """Descriptors [n, D] as stored -> float32 [n, D] in memory of its own; int8 becomes unit rows, others keep
    values."""
    if stored.dtype == np.float16:
        return _halves_to_float32(stored)
    rows = stored.astype(np.float32)
    if stored.dtype == np.int8:
        # Every row of integers but that of zeros is at least 1 long.
        rows *= (1 / np.sqrt(np.maximum(np.vecdot(rows, rows), 1)))[:, None]
    return rows


class Float32Rows:
    """A table of halves [N, D], read-only, that gives float32 rows by slice, number or array of numbers: what is asked
    for is converted, never the whole but by np.asarray()."""

    dtype = np.dtype(np.float32)

    def __init__(self, halves):
        self.halves, self.shape = halves, halves.shape

    def __len__(self):
        return len(self.halves)

    def __getitem__(self, key):
        return self.halves[key].astype(np.float32)

    def __array__(self, dtype=None, copy=None):
        return self.halves[:].astype(np.float32 if dtype is None else dtype)


def as_float32(stored):
    """to_float32() of what is not float32 already."""
    return stored if stored.dtype == np.float32 else to_float32(stored)


def all_finite(rows):
    """Whether every number of descriptors [n, D] (float16 or float32, near unit rows) is finite; nothing is copied."""
    if rows.dtype == np.float16:
        # As integers with and without sign: infinity and NaN are the largest of the positive and of the negative bits.
        bits = np.ascontiguousarray(rows)
        largest = [bits.view(kind).max(initial=0) for kind in (np.int16, np.uint16)]
        return bool(largest[0] < 0x7C00 and largest[1] < 0xFC00)
    # The sum is finite exactly when all summands are (unit rows cannot overflow it), and costs half the pass.
    return bool(np.isfinite(rows.sum()))


def _float32_to_halves(values):
    # Not at the top of the file: only those who write need it. NumPy's own rounding takes five times as long.
    try:
        import cv2
    except ImportError:
        return values.astype(np.float16)
    # OpenCV's stubs do not know that the second operand may be a number.
    return cv2.subtract(values, 0.0, dtype=cv2.CV_16F) if values.size else values.astype(np.float16)  # pyright: ignore


def _halves_to_float32(halves):
    """halves.astype(float32) in a third of the time: mantissa and exponent moved to where float32 has them."""
    bits = np.ascontiguousarray(halves).view(np.int16).astype(np.int32)
    bits <<= 13
    # The sign was copied into the three bits beside it.
    bits &= np.int32(-0x70000001)
    values = bits.view(np.float32)
    # The exponents of the two types count from 15 and from 127. Subnormal numbers come out right as well.
    values *= np.float32(2.0**112)
    # Infinities and NaN have become numbers above the largest half.
    flat = values.reshape(-1)
    return values if flat @ flat < 2.0**32 else halves.astype(np.float32)
