"""The default reranking of images described by the shipped model lite0, and the shipped calibrations."""

from __future__ import annotations

from typing import Any

from rrt.calibration import Calibration, descriptors_of, fitting, read_calibration
from rrt.files.shipped import shipped
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.build import identity_of, make_method
from rrt.store.records import ImageRecord, StoredImage

# Chosen on held-out landmarks (docs/models.md 5).
METHOD = "late"
SETTINGS: dict[str, dict[str, Any]] = {
    "late": {"local": 200},
    "maxsim": {"weight": 0.2, "symmetric": True, "query_local": 100, "gallery_local": 100},
}


def shipped_calibration(method: str = METHOD) -> Calibration:
    """Of a method of SETTINGS, or of global search, none. Raises InputError where the file is missing or damaged."""
    return read_calibration(shipped(f"lite0_{method}.calibration.json"))


def shipped_calibrations() -> list[Calibration]:
    """Of all methods of SETTINGS and of global search."""
    return [shipped_calibration(method) for method in (*SETTINGS, "none")]


def calibration_of_descriptors(method: RerankMethod, identity: dict[str, Any]) -> Calibration | None:
    """The shipped calibration where it is of this method's scores of such descriptors. identity: ``Store.config`` or
    ``Describer.identity``."""
    return fitting(shipped_calibrations(), identity_of(method), descriptors_of(identity))


def probability_of_pair(
    query: ImageRecord | StoredImage, candidate: ImageRecord | StoredImage, identity: dict[str, Any]
) -> float | None:
    """That two images show the same, were one among the first that a search finds for the other; None for descriptors
    that the shipped calibration is not of, and for images without local ones."""
    method = make_method(METHOD, SETTINGS[METHOD])
    calibration = calibration_of_descriptors(method, identity)
    records = [image.record() if isinstance(image, StoredImage) else image for image in (query, candidate)]
    if calibration is None or not all(len(record.descriptors) for record in records):
        return None
    return float(calibration(method.score(*records)))
