"""From one image to its global and local descriptors, whatever network makes them (docs/delg.md 4 and 5; DELG paper,
section 4)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from delg_extract.extraction.pca import SHORTEST
from delg_extract.extraction.pyramid import MIN_LEVEL_SIDE, MIN_SIDE, resize_for_extraction, usable_scales
from delg_extract.extraction.settings import ExtractionSettings
from rrt.store.linear import l2_normalize


class LocalAndGlobal(NamedTuple):
    """What a network gives for one image: boxes [N, 4] (ymin, xmin, ymax, xmax) in its pixels, features [N, D] not
    normalised, scales [N] = 1 / image scale, scores [N] by falling attention, global_descriptors [G, E] not normalised,
    a row for each scale of ``settings.global_positions``."""

    boxes: np.ndarray
    features: np.ndarray
    scales: np.ndarray
    scores: np.ndarray
    global_descriptors: np.ndarray


class Descriptors(NamedTuple):
    """Post-processed: global_descriptor [E] unit length; locations [N, 2] (y, x) in pixels of the image given;
    descriptors [N, D] unit length; scales [N] = 1 / image scale; attention [N]."""

    global_descriptor: np.ndarray
    locations: np.ndarray
    descriptors: np.ndarray
    scales: np.ndarray
    attention: np.ndarray


class Network(Protocol):
    """Anything that describes images: this project's own networks (delg.py) and SavedModels (saved_models.py)."""

    def local_and_global(self, images: np.ndarray, settings: ExtractionSettings) -> list[LocalAndGlobal]:
        """Features of uint8 RGB images of one size [B, H, W, 3] with attention >= the threshold, the strongest
        first."""
        ...


class Resized(NamedTuple):
    """An image at the size it is described at, and the factors (height, width) that made it so."""

    pixels: np.ndarray
    factors: np.ndarray


class Extractor:
    """Runs a network over images by the rules of ``settings``."""

    TOO_SMALL = f"a side is shorter than {MIN_SIDE} pixels after resizing, or than {MIN_LEVEL_SIDE} at every scale"

    def __init__(self, network: Network, settings: ExtractionSettings | None = None):
        self.network = network
        self.settings = settings or ExtractionSettings()

    def resize(self, image: np.ndarray, resize_factor: float = 1.0) -> Resized:
        """uint8 [H, W, 3] at the size it is described at; ``resize_factor``: longest side of a crop over that of the
        original."""
        s = self.settings
        return Resized(
            *resize_for_extraction(image, s.max_image_size, s.min_image_size, resize_factor, s.square_images)
        )

    def describe(self, images: list[Resized]) -> list[Descriptors | None]:
        """Descriptors of images of one resized size, locations in the pixels they had before; None when they
        are TOO_SMALL, whole or at the scales asked for."""
        height, width = images[0].pixels.shape[:2]
        usable = set(usable_scales(height, width, self.settings.scales))
        if self.settings.use_global:
            usable &= set(self.settings.global_positions)
        if min(height, width) < MIN_SIDE or not usable:
            return [None] * len(images)
        found = self.network.local_and_global(np.stack([image.pixels for image in images]), self.settings)
        return [self._finished(out, image.factors) for out, image in zip(found, images)]

    def __call__(self, image: np.ndarray, resize_factor: float = 1.0) -> Descriptors | None:
        """Descriptors of uint8 [H, W, 3], locations in its own pixels; None when a side is under 10 pixels after
        resizing."""
        return self.describe([self.resize(image, resize_factor)])[0]

    def _finished(self, out: LocalAndGlobal, factors: np.ndarray) -> Descriptors:
        centres = (out.boxes[:, :2] + out.boxes[:, 2:]) / 2
        if not self.settings.resized_coordinates:
            centres = centres / factors
        local_pca, global_pca = self.settings.local_pca, self.settings.global_pca if self.settings.use_global else None
        by_scale = out.global_descriptors
        if global_pca:
            by_scale = global_pca.project(by_scale)
        elif self.settings.normalize_scales:
            by_scale = l2_normalize(by_scale, SHORTEST)
        return Descriptors(
            global_descriptor=l2_normalize(by_scale.sum(0), SHORTEST),
            locations=centres.astype(np.float32),
            descriptors=local_pca.project(out.features) if local_pca else l2_normalize(out.features, SHORTEST),
            scales=out.scales,
            attention=out.scores,
        )
