"""Where PyTorch computes and in which numbers: the one choice of a device and of the fastest type."""

import time

import torch

from rrt.errors import InputError

# Rows that are tried first, how many seconds the whole product may then be expected to take, and how many times slower
# than float32 a type may be.
_FEW, _LONG, _HOPELESS = 32, 2.0, 4.0


def choose_device(device: str | None = None, setting: str = "setting device") -> str:
    """The device of a setting: as it is named (cpu, cuda, cuda:1), for None and ``auto`` a GPU where PyTorch can use
    one, else the processor. Raises InputError, which names the setting, where there is no such device."""
    if device in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError, ValueError):
        kind = None
    if kind not in ("cpu", "cuda"):
        raise InputError(f"{setting}={device!r}: expected cpu or cuda, or auto to take a GPU where there is one")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{setting}={device!r}: no GPU that PyTorch can use is there; give cpu or auto")
    return str(device)


def fastest_type(
    types: dict[str, torch.dtype],
    device: torch.device | str,
    shape: tuple[int, int, int],
    repeats: int,
    worth: float,
    transposed: bool = False,
) -> str:
    """The name of the type that multiplies fastest on a device, float32 unless another is ``worth`` times as fast.
    types: {name: type}, float32 among them; the rest as for ``multiplication_rate``. A type that is many times slower
    with a few rows is not tried with all of them: where the processor only imitates it, that takes seconds."""
    few = (min(shape[0], _FEW), *shape[1:])
    rates = {name: multiplication_rate(dtype, device, few, 2, transposed) for name, dtype in types.items()}
    types = {name: dtype for name, dtype in types.items() if rates[name] > rates["float32"] / _HOPELESS}
    if list(types) == ["float32"]:
        return "float32"
    rates = {name: multiplication_rate(dtype, device, shape, repeats, transposed) for name, dtype in types.items()}
    best = max(rates, key=lambda name: rates[name])
    return best if rates[best] > worth * rates["float32"] else "float32"


def multiplication_rate(dtype, device, shape=(2048, 2048, 2048), repeats: int = 5, transposed: bool = False) -> float:
    """Operations a second of a matrix product [m, k] [k, n], the best of some, because other work on the machine may
    slow any one of them; 0 where the device cannot multiply the type.

    shape: (m, k, n); transposed: the second matrix is stored as [n, k].
    """
    m, k, n = shape
    # PyTorch has no other product of int8 matrices.
    multiply = torch._int_mm if dtype == torch.int8 else torch.mm  # pyright: ignore[reportPrivateImportUsage]
    try:
        left = torch.ones(m, k, dtype=dtype, device=device)
        right = torch.ones((n, k) if transposed else (k, n), dtype=dtype, device=device)

        def seconds(rows):
            start = time.perf_counter()
            product = multiply(rows, right.t() if transposed else right)
            product[0, 0].item()  # waits for a GPU
            return time.perf_counter() - start

        # A type that the processor can only imitate would take minutes: a few rows say so.
        few = left[:_FEW]
        best = min(seconds(few) for _ in range(2))
        if best * m / len(few) > _LONG:
            return 2 * len(few) * k * n / best
        best = min(seconds(left) for _ in range(repeats + 1))  # the first one warms up
    except (RuntimeError, AttributeError):
        return 0.0
    return 2 * m * k * n / best
