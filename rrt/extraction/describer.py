"""One image to its global descriptor and its strongest local ones, by a network on ONNX Runtime, in this process."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image
from pydantic import ValidationError

from rrt.errors import InputError
from rrt.extraction.onnx_file import open_onnx
from rrt.extraction.settings import DescriberSettings
from rrt.files.atomic import sha256_of_file
from rrt.files.machine import usable_cores
from rrt.store.linear import l2_normalize
from rrt.store.records import ImageRecord

LITE0 = "lite0.onnx"
# Below this no scale shows anything but the border's padding.
MIN_SIDE = 10
# Of the pixels of networks that say nothing else of themselves: ImageNet's, of values 0..1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class TooSmall(ValueError):
    """An image that cannot be described; its text is the reason."""


class Describer(Protocol):
    """Whatever turns images into descriptors. identity: every setting that shapes the numbers, as plain JSON values."""

    global_dim: int
    local_dim: int
    identity: dict
    sha256: str

    def describe(self, image: np.ndarray, name: str = "", resize_factor: float = 1.0) -> ImageRecord:
        """uint8 RGB [H, W, 3] -> global [Dg] and local [n, Dl] of unit length, local ones by falling attention,
        keypoints in pixels of the image, scales = 1 / image scale. resize_factor: longest side of a crop over that of
        its whole image. Raises TooSmall."""
        ...


class Level(NamedTuple):
    """What a network gives at one scale: global_ [Dg] (the mean over scales counts), local [h, w, Dl] unit length,
    attention [h, w], not negative."""

    global_: np.ndarray
    local: np.ndarray
    attention: np.ndarray


def open_describer(model: str, threads: int | None = None, **settings) -> OnnxDescriber:
    """The describer that a command line names: `lite0` or `onnx:FILE`.

    threads: of one description (None: all usable cores). settings: fields of DescriberSettings that replace the
    model's. Raises InputError with the file and the remedy.
    """
    if model == "lite0":
        return OnnxDescriber(lite0_path(), threads, "install the package again", **settings)
    kind, _, path = model.partition(":")
    if kind != "onnx" or not path:
        raise InputError(f"--model {model}: expected lite0 or onnx:FILE")
    return OnnxDescriber(path, threads, **settings)


def lite0_path() -> Path:
    """The shipped model: in rrt_gld_ckpts/ of the repository, or where a wheel puts its data."""
    repository = Path(__file__).parents[2] / "rrt_gld_ckpts" / LITE0
    return repository if repository.exists() else Path(sysconfig.get_path("data")) / "share" / "rrt" / LITE0


class OnnxDescriber:
    """A describer from an ONNX file.

    A file with `rrt` in its metadata (`rrt_scripts/make_lite0.sh`) takes uint8 [1, H, W, 3] and gives `global`,
    `local`, `attention` as Level has them. Any other takes float32 [1, 3, H, W] with ImageNet's mean and standard
    deviation; its local descriptors are the cells of its map [1, D, h, w] (the finest, or the one that `layer` names),
    their attention is the norm, and the global one is its output [1, D] or the mean of the map by GeM (p = 3).
    """

    def __init__(self, path, threads: int | None = None, remedy: str = "export the model again", layer=None, **changed):
        self.path = Path(path)
        self._session = open_onnx(self.path, threads or usable_cores(), remedy)
        recorded = self._session.get_modelmeta().custom_metadata_map.get("rrt")
        self.settings = _settings(self.path, recorded, changed, remedy)
        (self._input,) = (item.name for item in self._session.get_inputs()[:1])
        self._names = [item.name for item in self._session.get_outputs()]
        self._ours = recorded is not None
        self._layer = layer
        if not self._ours:
            self._fixed = _fixed_size(self.path, self._session.get_inputs())
        probe = self.level(np.zeros((*reversed(self.settings.level_size((1, 1), 1.0)), 3), np.uint8))
        self.global_dim, self.local_dim = len(probe.global_), probe.local.shape[2]
        self.sha256 = sha256_of_file(self.path)
        self.identity = {"model": self.path.name, "model_sha256": self.sha256, **self.settings.model_dump(mode="json")}
        if layer:
            self.identity["layer"] = layer

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
            locals_.append(level.local.reshape(-1, self.local_dim))
            attentions.append(level.attention.reshape(-1))
            scales.append(np.full(rows * columns, 1 / scale, np.float32))
        attention = np.concatenate(attentions)
        best = np.argsort(-attention, kind="stable")[: settings.max_features]
        return ImageRecord(
            name,
            (width, height),
            l2_normalize(np.mean(globals_, 0)),
            np.concatenate(locals_)[best],
            np.concatenate(keypoints)[best],
            np.concatenate(scales)[best],
            attention[best],
        )

    def level(self, pixels: np.ndarray) -> Level:
        """The network on one level, uint8 RGB [h, w, 3] of a size that DescriberSettings.level_size gives."""
        if self._ours:
            found = self._session.run(["global", "local", "attention"], {self._input: pixels[None]})
            return Level(*(np.asarray(output)[0] for output in found))
        if self._fixed and pixels.shape[:2] != self._fixed:
            height, width = self._fixed
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        normalized = ((pixels / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)[None]
        try:
            outputs = self._session.run(None, {self._input: normalized})
        except Exception as error:  # ONNX Runtime raises kinds of its own that share no base
            reason = str(error).strip().splitlines()[0][:200]
            raise InputError(f"{self.path}: it cannot take an image of {pixels.shape[:2]} pixels ({reason})") from None
        return self._of_any(dict(zip(self._names, map(np.asarray, outputs))))

    def _of_any(self, outputs: dict[str, np.ndarray]) -> Level:
        maps = {name: output[0] for name, output in outputs.items() if output.ndim == 4 and output.shape[2] > 1}
        if self._layer and self._layer not in maps:
            raise InputError(f"{self.path}: no map {self._layer!r}; its maps are: {', '.join(maps) or 'none'}")
        if not maps:
            shapes = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
            raise InputError(f"{self.path}: no output is a map [1, channels, height, width] ({shapes}); export one")
        local = maps[self._layer] if self._layer else max(maps.values(), key=lambda map_: map_[0].size)
        vectors = [output[0] for output in outputs.values() if output.ndim == 2]
        pooled = np.cbrt(np.mean(np.maximum(local, 1e-6) ** 3, (1, 2)))
        attention = np.linalg.norm(local, axis=0)
        cells = np.moveaxis(local / np.maximum(attention, 1e-12), 0, -1)
        return Level(l2_normalize(vectors[0] if vectors else pooled), cells, attention)


def _settings(path, recorded, changed, remedy) -> DescriberSettings:
    try:
        found = json.loads(recorded) if recorded else {}
        base = DescriberSettings(**found)
    except (ValueError, TypeError):
        raise InputError(f"{path}: the settings in its metadata are damaged; {remedy}") from None
    try:
        return DescriberSettings(**{**base.model_dump(), **changed})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"setting {name}={first['input']!r}: {first['msg'].lower()}") from None


def _fixed_size(path, inputs) -> tuple[int, int] | None:
    """(height, width) where the file takes images of one size alone."""
    shape = inputs[0].shape
    if (
        len(inputs) != 1
        or len(shape) != 4
        or inputs[0].type != "tensor(float)"
        or shape[1] not in (3, None)
        or (isinstance(shape[0], int) and shape[0] != 1)
    ):
        raise InputError(
            f"{path}: it takes {', '.join(f'{item.name} {item.shape} {item.type}' for item in inputs)}; "
            "export a model that takes float32 [1, 3, height, width]"
        )
    return (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None
