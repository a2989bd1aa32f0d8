"""From what a network says of the scales of an image to the image's record, the same for every network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import ValidationError

from rrt.errors import InputError
from rrt.extraction.projections import Projections
from rrt.extraction.settings import DescriberSettings
from rrt.store.linear import l2_normalize
from rrt.store.records import ImageRecord

# Below this no scale shows anything but the border's padding.
MIN_SIDE = 10


class TooSmall(ValueError):
    """An image that cannot be described; its text is the reason."""


class Level(NamedTuple):
    """What a network gives at one scale: global_ [Dg] (the mean over scales counts), local [h, w, Dl] unit length,
    attention [h, w], not negative."""

    global_: np.ndarray
    local: np.ndarray
    attention: np.ndarray


def gem(cells: np.ndarray, power: float = 3) -> np.ndarray:
    """Generalised mean of the cells of a map [h, w, D] -> [D]; values below 0 count as 0."""
    return np.mean(np.maximum(cells, 1e-6) ** power, (0, 1)) ** (1 / power)


def level_of(global_: np.ndarray, cells: np.ndarray, attention: np.ndarray | None = None) -> Level:
    """A Level from cells [h, w, D] of any length; attention [h, w]: None for their length."""
    length = np.linalg.norm(cells, axis=2)
    local = cells / np.maximum(length, 1e-12)[..., None]
    return Level(l2_normalize(global_), local, length if attention is None else attention)


class LevelDescriber(ABC):
    """A describer whose network is asked for one scale after the other. A kind of network says how in ``level``, and
    its constructor ends with ``_settle``. device: where the network computes."""

    device: str = "cpu"

    @abstractmethod
    def level(self, pixels: np.ndarray) -> Level:
        """uint8 RGB [H, W, 3], a size that the settings allow -> Level."""

    def _settle(self, settings: DescriberSettings, sha256: str, learned: Projections | None = None, **identity) -> None:
        """Describes a black image, and takes the dimensions from that. learned: what is applied to all descriptors.
        identity: what shapes the numbers besides the settings."""
        self.settings, self.sha256, self._learned = settings, sha256, learned
        width, height = settings.level_size((4, 3), 1.0)
        probe = self.level(np.zeros((height, width, 3), np.uint8))
        self.global_dim, self.local_dim = len(probe.global_), probe.local.shape[2]
        self.identity = {**identity, "model_sha256": sha256, **settings.model_dump(mode="json")}
        if learned:
            self.global_dim, self.local_dim = learned.dimensions(self.global_dim, self.local_dim)
            self.identity["projection_sha256"] = learned.sha256

    def describe(self, image: np.ndarray, name: str = "", resize_factor: float = 1.0) -> ImageRecord:
        """See Describer.describe."""
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise TooSmall(f"a side is shorter than {MIN_SIDE} pixels")
        settings, whole = self.settings, Image.fromarray(image)
        globals_, locals_, keypoints, scales, attentions = [], [], [], [], []
        for scale in settings.scales:
            size = settings.level_size((width, height), scale, resize_factor)
            level = self.level(np.asarray(whole.resize(size, Image.Resampling.BILINEAR)))
            rows, columns = level.attention.shape
            grid = np.meshgrid(settings.centres(columns, width, size[0]), settings.centres(rows, height, size[1]))
            keypoints.append(np.stack(grid, -1).reshape(-1, 2).astype(np.float32))
            globals_.append(level.global_)
            locals_.append(level.local.reshape(rows * columns, -1))
            attentions.append(level.attention.reshape(-1))
            scales.append(np.full(rows * columns, 1 / scale, np.float32))
        attention = np.concatenate(attentions)
        best = np.argsort(-attention, kind="stable")[: settings.max_features]
        global_, local = l2_normalize(np.mean(globals_, 0)), np.concatenate(locals_)[best]
        if self._learned:
            global_, local = self._learned.apply(global_, local)
        return ImageRecord(
            name,
            (width, height),
            global_,
            local,
            np.concatenate(keypoints)[best],
            np.concatenate(scales)[best],
            attention[best],
        )


def changed_settings(base: DescriberSettings, changed: dict) -> DescriberSettings:
    """The settings with some fields replaced. Raises InputError naming the first that cannot be."""
    try:
        return DescriberSettings(**{**base.model_dump(), **changed})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"setting {name}={first['input']!r}: {first['msg'].lower()}") from None
