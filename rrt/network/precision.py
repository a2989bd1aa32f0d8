"""How the scorer computes: precision, memory, and a switch for every saving."""

from dataclasses import dataclass

import torch

from rrt.devices import fastest_type
from rrt.errors import InputError
from rrt.files.machine import free_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("auto", *DTYPES)
# Tokens computed at a time by each worker. A processor: 1,000 to 4,000 are fastest, of half precision three times as
# many; more leave the cache; below, calls begin to cost. GPU: enough to fill it.
BATCH_TOKENS = {"cpu": 2048, "cpu, half precision": 6144, "cuda": 262144}
# Half precision must be this much faster than float32 for `auto` to give up exactness.
_WORTH_IT = 1.1


@dataclass(frozen=True)
class ScoringSettings:
    """precision: float32 (exact), bfloat16, float16, or auto: what multiplies fastest on the device (``resolve``).

    compile: torch.compile for the rows after attention; takes a minute, and a C++ compiler where there is no GPU.
    memory_mb: MiB for embedded images and for what is computed at a time, None = ``default_memory_mb``.
    batch_tokens: tokens computed at a time, None = found from the device and memory_mb. threads: workers on a
    processor, None = PyTorch's threads.
    The rest are savings that do not change the result, each with its off switch: packed (False: one pair at a time),
    fused_attention (False: PyTorch's plain kernel, which stores the attention matrix), cls_only (False: every row of
    the last layer), cached (False: images are read and embedded anew for each query), prepared (False: the first
    layer's projection of a query is computed for each of its pairs), overlap (False: images are read in between).
    """

    precision: str = "float32"
    compile: bool = False
    memory_mb: int | None = None
    batch_tokens: int | None = None
    threads: int | None = None
    packed: bool = True
    fused_attention: bool = True
    cls_only: bool = True
    cached: bool = True
    prepared: bool = True
    overlap: bool = True

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise InputError(f"precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        for name in ("memory_mb", "batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name}={value!r}: give a positive integer, or None to have it found")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` becomes bfloat16 where it multiplies faster than float32 on this device, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    types = {name: DTYPES[name] for name in ("float32", "bfloat16")}
    return fastest_type(types, device, (2048, 128, 1024), repeats=20, worth=_WORTH_IT)


def default_memory_mb(device: torch.device) -> int:
    """MiB: half of what is free on a GPU; beside a processor a quarter of what is available, at most 4 GiB."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2**21
    return max(1, min(free_memory() // 4, 2**32) // 2**20)
