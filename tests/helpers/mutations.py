"""Damaged copies of a file's bytes, the same ones for the same seed, for tests of readers."""

import random
from collections.abc import Iterator

# Bytes that lengths and counts are most easily spoilt with.
_EXTREMES = (b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", b"\x80", b"\0\0\0\x40")


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies of `data`, each with one to three faults and never equal to it.

    A fault is one of: some bits flipped, a few bytes replaced by extreme numbers or by noise, a cut at the end, a block
    removed, inserted, repeated, or swapped with another. Half of the faults lie within the first 512 bytes, where
    most formats keep their headers.
    """
    draw = random.Random(seed)
    for _ in range(count):
        damaged = data
        while damaged == data:
            for _ in range(draw.choice((1, 1, 2, 3))):
                damaged = draw.choice(_FAULTS)(damaged, draw)
        yield damaged


def _place(data, draw):
    return draw.randrange(1 + min(len(data), 512) if draw.random() < 0.5 else 1 + len(data))


def _block(data, draw):
    start = _place(data, draw)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 64, 500)))


def _flip_bits(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8)) if data else 0):
        damaged[min(_place(data, draw), len(data) - 1)] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _overwrite(data, draw):
    start = _place(data, draw)
    value = draw.choice((*_EXTREMES, draw.randbytes(4), draw.randbytes(32)))
    return (data[:start] + value + data[start + len(value) :])[: max(len(data), 1)]


def _cut(data, draw):
    return data[: _place(data, draw)]


def _remove(data, draw):
    start, end = _block(data, draw)
    return data[:start] + data[end:]


def _insert(data, draw):
    start = _place(data, draw)
    return data[:start] + draw.randbytes(draw.choice((1, 2, 8, 100))) + data[start:]


def _repeat(data, draw):
    start, end = _block(data, draw)
    return data[:end] + data[start:]


def _swap(data, draw):
    (start, end), (other, other_end) = sorted((_block(data, draw), _block(data, draw)))
    if end > other:
        return data
    return data[:start] + data[other:other_end] + data[end:other] + data[start:end] + data[other_end:]


_FAULTS = (_flip_bits, _flip_bits, _overwrite, _cut, _remove, _insert, _repeat, _swap)
