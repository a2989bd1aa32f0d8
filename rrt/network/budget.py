"""How much memory the scorer uses for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.precision import BATCH_TOKENS

if TYPE_CHECKING:
    from rrt.network.scorer import Scorer


@dataclass(frozen=True)
class Budget:
    """rows: of embedded images kept; step: of images read at a time; batch: tokens computed at a time by a worker."""

    rows: int
    step: int
    batch: int


def budget_of(scorer: Scorer, counts: np.ndarray) -> Budget:
    """How memory_mb is shared when images of ``counts`` rows are scored: a quarter for reading, a quarter or less
    for computing, the rest for embedded images. InputError when it does not hold a single pair."""
    width, cuda = scorer.network.seg_encoder.embedding_dim, scorer.device.type == "cuda"
    row = width * scorer.dtype.itemsize
    # Tokens, projections, attention and its float32 copies, sums; the feed-forward's middle on a GPU.
    token = 12 * width * (scorer.dtype.itemsize if cuda else 4)
    if cuda:
        token += 2 * scorer.network.encoder.layers[0].linear1.out_features * scorer.dtype.itemsize
    # As stored, as float32, normalised, embedded; of two steps, one being read and one embedded.
    reading = 2 * width * (2 + 3 * 4)
    pair, total = 2 * int(counts.max()) + 2, scorer.memory_mb * 2**20
    least = pair * (row + scorer.threads * token + reading)
    if least > total:
        raise InputError(
            f"memory_mb={scorer.memory_mb}: a pair of {pair} tokens in each of {scorer.threads} workers needs"
            f" {least / 2**20:.0f} MiB; give more, or a smaller max_sequence_len"
        )
    kind = "cuda" if cuda else "cpu" if scorer.dtype == torch.float32 else "cpu, half precision"
    batch = scorer.settings.batch_tokens or BATCH_TOKENS[kind]
    batch = max(1, min(batch, total // (4 * scorer.threads * token)))
    step = max(pair, total // (4 * reading))
    rows = (total - scorer.threads * max(batch, pair) * token - step * reading) // row
    return Budget(max(rows, pair), step, batch)
