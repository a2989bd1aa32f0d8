"""What the command tools/learn_attention.py does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rrt.errors import InputError, check_count, check_number
from rrt.extraction.attention import fit_attention
from rrt.formats.lists import read_image_list
from rrt.network.encoding import open_late_scorer
from rrt.progress import bar
from rrt.store.linear import l2_normalize
from rrt.store.store import Store


def learn_attention(
    store, checkpoint, out, list=None, images: int = 1000, ridge: float = 0.1, seed: int = 0
) -> tuple[Path, int, float]:
    """Fit an ``Attention`` to the logarithms of what a LATE weighs the descriptors of up to ``images`` images of the
    store, of the list if one is given, and write it -> (``out``, images, share of their variance that it explains).

    Of a descriptor d with attention a it sees d and log a; the mean of an image is taken from its logarithms first.
    Raises InputError.
    """
    if not str(out).endswith(".npz"):
        raise InputError(f"{out}: the name of a file of an attention ends in .npz")
    check_count("images", images)
    check_number("ridge", ridge)
    with Store(store) as opened:
        listed = read_image_list(list) if list else None
        rows = opened.indices(listed.names, listed) if listed else np.arange(len(opened))
        rows = rows[opened.local_counts()[rows] > 1]
        if not len(rows):
            raise InputError(f"{list or store}: no image has two local descriptors to choose between")
        rows = np.sort(np.random.default_rng(seed).choice(rows, min(images, len(rows)), replace=False))
        scorer = open_late_scorer(checkpoint, opened)
        cells, wanted = [], []
        for row, (_, weights) in zip(rows, bar(scorer.encoded(rows), "encode", "image", total=len(rows), leave=False)):
            local = opened.read(int(row), len(weights))
            cells.append(l2_normalize(local.descriptors) * local.attention[:, None])
            logarithms = np.log(np.maximum(weights.float().cpu().numpy(), np.finfo(np.float32).tiny))
            wanted.append(logarithms - logarithms.mean())
    joined, target = np.concatenate(cells), np.concatenate(wanted)
    if not np.isfinite(joined).all():
        raise InputError(f"{store}: holds an attention that is not finite; look at it with tools/check_store.py")
    if target.std() < 1e-5:  # by rounding alone
        raise InputError(f"{checkpoint}: weighs all descriptors of an image alike; train it, or give another")
    attention = fit_attention(joined, target, ridge)
    explained = float(np.corrcoef(attention.logit(joined), target)[0, 1] ** 2)
    return attention.save(out), len(rows), explained
