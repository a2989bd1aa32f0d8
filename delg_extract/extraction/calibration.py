"""The attention threshold for a wanted number of local descriptors an image, found on a sample and remembered beside
the store.

A threshold belongs to the weights it was chosen for: the published ones (100 and more) leave nothing of a network whose
attention stays near 1 (docs/delg.md 5.2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from delg_extract.extraction.extractor import Network
from delg_extract.extraction.pyramid import MIN_SIDE
from delg_extract.extraction.settings import ExtractionSettings
from rrt.errors import InputError
from rrt.files.atomic import read_json, write_json
from rrt.store.schema import canonical_settings, first_difference

# What a graph takes for "no limit": the largest number its int32 input can hold.
_NO_LIMIT = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Calibration:
    """threshold: smallest attention that is kept. kept_mean, kept_fewest, kept_most: local descriptors that it and
    max_features leave of an image of the sample. num_pictures: size of the sample, images too small for extraction
    not counted."""

    threshold: float
    kept_mean: float
    kept_fewest: int
    kept_most: int
    num_pictures: int


def calibration_sample(names: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """``count`` of the names (all, when there are fewer), sorted; the same ones in whatever order and however often
    they are given.

    Those whose SHA-256, together with the seed, is smallest: a name added to the list displaces one name of the sample
    at most.
    """
    if count < 1:
        raise InputError(f"calibration on {count} images; give at least 1")
    return sorted(sorted(set(names), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:count])


def calibrate_threshold(
    network: Network, settings: ExtractionSettings, images: Iterable[np.ndarray], features_per_image: int
) -> Calibration:
    """The largest threshold that leaves at least ``features_per_image`` local descriptors an image on average.

    images: uint8 [H, W, 3], each at the size it is described at (``Extractor.resize``); those with a side under 10
    pixels are passed over. The average is over the others of min(max_features, descriptors whose attention reaches the
    threshold); the threshold of ``settings`` plays no part. Descriptors of equal attention are kept or left out
    together, so the average can be above what was asked for. Of all thresholds that keep the same ones, the middle
    between the weakest kept and the strongest left out is taken, so that rounding in another run changes nothing.
    Raises InputError when there is no image, when no local descriptors are extracted, and when fewer than asked for
    remain without any threshold, naming the most that is possible.
    """
    if features_per_image < 1:
        raise InputError(f"{features_per_image} features an image are asked for; give at least 1")
    if not settings.use_local:
        raise InputError("a threshold is asked for, but no local descriptors are extracted; switch them on")
    everything = replace(settings, score_threshold=0.0, max_features=_NO_LIMIT, use_global=False, global_pca=None)
    # Without a threshold the strongest come first, so the limit leaves the first ones at any threshold.
    scores = [
        network.local_and_global(image[None], everything)[0].scores[: settings.max_features]
        for image in images
        if min(image.shape[:2]) >= MIN_SIDE
    ]
    if not scores:
        raise InputError(
            f"no image to find the threshold for {features_per_image} features an image on; give images of at least "
            f"{MIN_SIDE} pixels a side"
        )
    strongest_first = -np.sort(-np.concatenate(scores).astype(np.float32))
    wanted = features_per_image * len(scores)
    if wanted > len(strongest_first):
        most = len(strongest_first) / len(scores)
        raise InputError(
            f"{features_per_image} features an image cannot be kept: {len(scores)} images have {most:.1f} on average, "
            f"at most {settings.max_features} each; ask for {int(most)} or fewer"
        )
    threshold = _below(strongest_first, wanted)
    kept = [int((of_image >= threshold).sum()) for of_image in scores]
    return Calibration(float(threshold), float(np.mean(kept)), min(kept), max(kept), len(scores))


def _below(strongest_first: np.ndarray, wanted: int) -> np.float32:
    """A threshold that keeps the first ``wanted`` values and those equal to the last of them; float32, as attention is
    compared in."""
    weakest_kept = strongest_first[wanted - 1]
    weaker = strongest_first[strongest_first < weakest_kept]
    strongest_left = weaker[0] if len(weaker) else np.float32(0)
    middle = strongest_left + (weakest_kept - strongest_left) / np.float32(2)
    return middle if middle > strongest_left else weakest_kept


# ---- beside the store ------------------------------------------------------------------------------------------------


def threshold_path(store_path: str | Path) -> Path:
    """``<store>.threshold.json``."""
    return Path(f"{store_path}.threshold.json")


def calibration_guard(
    model_sha256: str, settings: ExtractionSettings, features_per_image: int, sample: list[str], **more
) -> dict:
    """Everything that a threshold depends on: another model, setting, number or sample needs another threshold.
    ``more``: JSON values of what else shapes the attention (grid, precision, crops)."""
    wanted = {name: value for name, value in settings.as_json().items() if name != "score_threshold"}
    return {
        "model_sha256": model_sha256,
        "settings": wanted,
        "features_per_image": features_per_image,
        "num_pictures": len(sample),
        "pictures_sha256": hashlib.sha256("\n".join(sample).encode()).hexdigest(),
        **more,
    }


def write_calibration(store_path: str | Path, calibration: Calibration, guard: dict) -> None:
    """Keeps a calibration beside the store, whole or not at all, for ``read_calibration``."""
    path = threshold_path(store_path)
    write_json(path, {"calibration": asdict(calibration), "guard": canonical_settings(path, guard)})


def read_calibration(store_path: str | Path, guard: dict) -> Calibration | None:
    """The calibration kept beside the store, None when there is none yet.

    Raises InputError when it is damaged, or was made with another ``guard``, naming the first difference.
    """
    path = threshold_path(store_path)
    kept = read_json(path)
    if kept is None:
        return None
    remedy = f"delete {path.name} and the store's parts, or give --overwrite"
    try:
        calibration, made_with = Calibration(**kept["calibration"]), dict(kept["guard"])
        numbers = list(asdict(calibration).values())
        whole = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{path}: not a threshold that this program wrote; {remedy}")
    difference = first_difference(made_with, canonical_settings(path, guard))
    if difference:
        setting, before, now = difference
        raise InputError(
            f"{path}: the threshold was found with {setting} = {before!r}, this run has {now!r}; use the same, or "
            f"{remedy}"
        )
    return calibration
