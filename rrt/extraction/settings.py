"""What a description computes: sizes and scales of an image, where the cells of a map lie, how many are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class DescriberSettings(BaseModel):
    """Settings of a describer; an ONNX file may bring its own (`rrt` in its metadata, JSON).

    image_size: longest side of the image at scale 1, pixels. scales: of that. multiple, extra, fewest: both sides of a
    level are n * multiple + extra pixels with n of at least fewest, nearest to the image's shape. first, stride: the
    centre of a map's first cell and the distance of cells, pixels of the level; None: the cells divide the level
    evenly. crop_power: how a crop is enlarged: at 1 it keeps the scale it has in the whole image, at 0 it is as large
    as a whole image; between them it neither loses its details nor its likeness to the whole. max_features: local
    descriptors kept of an image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: Count = 384
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.70710677, 1.0, 1.4142135)
    multiple: Count = 32
    extra: Annotated[int, Field(ge=0)] = 0
    fewest: Count = 2
    first: float | None = None
    stride: Positive | None = None
    crop_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_features: Count = 500

    def level_size(self, size: Sequence[int], scale: float, resize_factor: float = 1.0) -> tuple[int, int]:
        """(width, height) of the level of an image of (width, height) pixels. resize_factor: longest side of a crop
        over that of its whole image."""
        factor = self.image_size * scale * resize_factor**self.crop_power / max(size)
        width, height = (
            max(self.fewest, round(side * factor / self.multiple)) * self.multiple + self.extra for side in size
        )
        return width, height

    def centres(self, cells: int, side: int, level_side: int) -> list[float]:
        """Pixels (of the image, `side` long) at which the cells of a map along one side of a level lie."""
        stride = level_side / cells if self.stride is None else self.stride
        first = stride / 2 - 0.5 if self.first is None else self.first
        ratio = side / level_side
        return [min(max((first + stride * cell + 0.5) * ratio - 0.5, 0.0), side - 1.0) for cell in range(cells)]
