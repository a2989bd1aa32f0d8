"""What an extraction computes: scales, limits, threshold, and the projection of the descriptors, if any."""
from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from delg_extract.pyramid import GLOBAL_SCALES, SCALES


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of DELG_SPEC 5.2; the defaults are those of the four published DELG configurations, their thresholds apart.

    global_scales: positions among ``scales`` whose global descriptors are summed, none: all. max_features: local descriptors a
    picture. score_threshold: smallest attention of a local descriptor. max_image_size, min_image_size: pixels of the longest
    side, negative: off. iou_threshold: weaker features whose receptive fields overlap more are left out (1: none; an export flag
    of the reference). square_images, resized_coordinates: as in DelfConfig.
    """

    scales: tuple[float, ...] = SCALES
    global_scales: tuple[int, ...] = GLOBAL_SCALES
    max_features: int = 1000
    score_threshold: float = 0.0
    iou_threshold: float = 1.0
    max_image_size: int = 1024
    min_image_size: int = -1
    square_images: bool = False
    resized_coordinates: bool = False
    use_local: bool = True
    use_global: bool = True

    @property
    def global_positions(self) -> tuple[int, ...]:
        """The positions of the scales that feed the global descriptor, in the order of the scales."""
        if not self.use_global:
            return ()
        return tuple(i for i in range(len(self.scales)) if not self.global_scales or i in self.global_scales)
