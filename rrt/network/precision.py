"""How the scorer computes: precision and memory."""

import torch

from rrt.command_line.settings import setting, settings
from rrt.devices import fastest_type
from rrt.files.machine import free_memory
from rrt.network.settings import ScoringPrecision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Tokens computed at a time by each worker. A processor: 1,000 to 4,000 are fastest, of half precision three times as
# many; more leave the cache; below, calls begin to cost. GPU: enough to fill it.
BATCH_TOKENS = {"cpu": 2048, "cpu, half precision": 6144, "cuda": 262144}
# Half precision must be this much faster than float32 for `auto` to give up exactness.
_WORTH_IT = 1.1


@settings()
class ScoringSettings:
    """How the scorer computes."""

    precision: ScoringPrecision = setting(
        "float32 (exact), bfloat16, float16, int8 (``rrt.network.int8``), or auto: which of the first three multiplies"
        " fastest on the device (resolve_precision)",
        default="float32",
    )
    compile: bool = setting(
        "torch.compile for the rows after attention; takes a minute, and a C++ compiler where there is no GPU",
        default=False,
    )
    memory_mb: int | None = setting(
        "MiB for embedded images and for what is computed at a time; None: default_memory_mb", default=None, ge=1
    )
    batch_tokens: int | None = setting(
        "tokens computed at a time; None: found from the device and memory_mb", default=None, ge=1
    )
    threads: int | None = setting("workers on a processor; None: PyTorch's threads", default=None, ge=1)


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
