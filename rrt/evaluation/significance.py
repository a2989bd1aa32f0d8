"""Whether a method is better than another on the same queries, and the methods that a reranker is to be compared with
(docs/protocol.md 6.5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rrt.evaluation.metrics import ProtocolResult, bootstrap_interval
from rrt.formats.ground_truth import chosen_protocol
from rrt.rerankers.fusion import Fusion
from rrt.rerankers.shipped import SETTINGS


def baselines(local: int | None, fusion: Fusion | None = None, num: int | None = None) -> list[str]:
    """Plain matching alone and blended with the global similarity, geometry, and the transformer alone and, where its
    fusion blends it, so: with ``local`` local descriptors of an image (None: all) on the same candidates.

    fusion: of the transformer, None = there is no transformer; num: candidates, None = 100.
    """
    shared = f"local={local}" + (f",num={num}" if num else "")
    blended = SETTINGS["maxsim"]
    names = [
        f"maxsim[{shared}]",
        f"maxsim[{shared},weight={blended['weight']},symmetric={blended['symmetric']}]",
        f"geometric[{shared}]",
    ]
    if fusion:
        names += [f"rrt[{shared},weight=0]"] + [f"rrt[{shared}]"] * (fusion.weight > 0)
    return names


def paired_gains(results: Sequence[dict[str, ProtocolResult]], against: int) -> list[dict[str, Any]]:
    """Of each method over the one of index ``against``, by Medium where there is one: {"gain", "gain_interval"} in
    percent, "p", and "p_holm" for as many tests as there are; None in the row of that one itself."""
    protocol = chosen_protocol(results[0])
    aps = [found[protocol].aps for found in results]
    rows: list[dict[str, Any]] = []
    for index, own in enumerate(aps):
        gains = own - aps[against]
        if index == against or not np.isfinite(gains).any():
            rows.append({"gain": None, "gain_interval": None, "p": None})
            continue
        interval = [round(100 * end, 2) for end in bootstrap_interval(gains)]
        rows.append({"gain": round(100 * float(np.nanmean(gains)), 2), "gain_interval": interval})
        rows[-1]["p"] = randomisation_p(gains)
    for row, corrected in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = corrected
    return rows


def randomisation_p(differences: np.ndarray) -> float | None:
    """Two-sided p of paired differences [Q] (NaN left out) under random signs; None where all are zero."""
    differences = differences[np.isfinite(differences)]
    if not differences.any():
        return None
    if len(differences) == 1:  # which SciPy refuses: either sign is as far from zero
        return 1.0
    from scipy.stats import permutation_test  # half a second, for which help has no time

    found = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979):
    the i-th smallest of m, counted from 0, times m - i, at least that of the one before, at most 1. None stays and is
    no test."""
    known = sorted((value, index) for index, value in enumerate(values) if value is not None)
    corrected, least = list(values), 0.0
    for rank, (value, index) in enumerate(known):
        least = corrected[index] = max(least, min(1.0, (len(known) - rank) * value))
    return corrected


def gain_text(row: dict[str, Any]) -> str:
    """`+1.20 (+0.3 to +2.1), p 0.012` of a row of ``paired_gains``; empty where there is none."""
    if row["gain"] is None:
        return ""
    p = p_text(row["p_holm"])
    return "{:+.2f} ({:+.1f} to {:+.1f})".format(row["gain"], *row["gain_interval"]) + (f", p {p}" if p else "")


def p_text(p: float | None) -> str:
    """A p value for a table."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
