"""What an extraction computes: scales, limits, threshold, and the projection of the descriptors, if any."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from delg_extract.extraction.pyramid import GLOBAL_SCALES, SCALES

if TYPE_CHECKING:
    from delg_extract.extraction.pca import Pca


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of docs/delg.md 5.2; the defaults are those of the four published DELG configurations, their thresholds
    apart.

    global_scales: positions among ``scales`` whose global descriptors are summed, none: all. max_features: local
    descriptors an image. score_threshold: smallest attention of a local descriptor. max_image_size, min_image_size:
    pixels of the longest side, negative: off. iou_threshold: weaker features whose receptive fields overlap more are
    left out (1: none; an export flag of the reference). square_images, resized_coordinates: as in DelfConfig.
    local_pca, global_pca: what the descriptors are projected with, the global one at each scale before the sum
    (docs/delg.md 5.3). normalize_scales: the global descriptor of each scale gets unit length before the sum, as in the
    reference's extractor; False is the form of its Kaggle 2020 export.
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
    normalize_scales: bool = True
    local_pca: Pca | None = None
    global_pca: Pca | None = None

    @property
    def global_positions(self) -> tuple[int, ...]:
        """The positions of the scales that feed the global descriptor, in the order of the scales."""
        if not self.use_global:
            return ()
        return tuple(i for i in range(len(self.scales)) if not self.global_scales or i in self.global_scales)

    def as_json(self) -> dict:
        """Every setting in plain JSON values, for the store's record of what shaped its numbers; a PCA by its
        SHA-256."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
            elif name.endswith("_pca") and value is not None:
                values[name] = value.as_json()
        return values


class Preset(NamedTuple):
    """A published configuration. model: the folder of its SavedModel, below the folder that the archives are unpacked
    in. local_pca_dim: components kept of the local descriptors by the PCA published with the model (0: none); the
    arrays themselves come from its files, see ``delf_config.preset_settings``."""

    settings: ExtractionSettings
    model: str
    local_pca_dim: int = 0


# docs/delg.md 5.2 and 7.2. The global-only model's scales are given there with four digits: taken as those of the
# others.
PRESETS = {
    "r50_gldv1": Preset(ExtractionSettings(score_threshold=175.0), "r50delg_gld_20200814"),
    "r101_gldv1": Preset(ExtractionSettings(score_threshold=166.1), "r101delg_gld_20200814"),
    "r50_gldv2": Preset(ExtractionSettings(score_threshold=454.6), "r50delg_gldv2clean_20200914"),
    "r101_gldv2": Preset(ExtractionSettings(score_threshold=357.48), "r101delg_gldv2clean_20200914"),
    "rn101_af_gldv2": Preset(ExtractionSettings(SCALES[3:6], (), use_local=False), "rn101_af_gldv2clean_20200814"),
    "delf_gld": Preset(
        ExtractionSettings(
            (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0),
            (),
            score_threshold=100.0,
            max_image_size=-1,
            use_global=False,
        ),
        "delf_gld_20190411/model",
        local_pca_dim=40,
    ),
}
