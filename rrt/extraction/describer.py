"""One image to its global descriptor and its strongest local ones, by a network on ONNX Runtime, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from rrt.errors import InputError, first_line
from rrt.extraction.levels import Level, LevelDescriber, changed_settings, gem, level_of
from rrt.extraction.onnx_file import open_onnx
from rrt.extraction.options import TRANSFORMERS_ONLY
from rrt.extraction.projections import load_projections
from rrt.extraction.settings import DescriberSettings
from rrt.files.atomic import parse_json, sha256_of_file
from rrt.files.machine import usable_cores
from rrt.files.shipped import shipped
from rrt.store.records import ImageRecord

LITE0 = "lite0.onnx"
# Of the pixels of networks that say nothing else of themselves: ImageNet's, of values 0..1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class Describer(Protocol):
    """Whatever turns images into descriptors. identity: every setting that shapes the numbers, as plain JSON values.
    device: where it computes, `cpu` or a GPU."""

    device: str
    global_dim: int
    local_dim: int
    identity: dict
    sha256: str

    def describe(self, image: np.ndarray, name: str = "", resize_factor: float = 1.0) -> ImageRecord:
        """uint8 RGB [H, W, 3] -> global [Dg] and local [n, Dl] of unit length, local ones by falling attention,
        keypoints in pixels of the image, scales = 1 / image scale. resize_factor: longest side of a crop over that of
        its whole image. Raises TooSmall."""
        ...


def open_describer(model: str, threads: int | None = None, **settings) -> Describer:
    """The describer that a command line names: `lite0`, `onnx:FILE` or `transformers:FOLDER_OR_NAME`.

    threads: of one description (None: all usable cores). settings: fields of DescriberSettings that replace the
    model's, and what the constructor of the describer takes besides. Raises InputError with the file and the remedy.
    """
    kind, _, path = model.partition(":")
    if kind == "transformers" and path:
        # PyTorch takes seconds to load, and the other models do without.
        from rrt.extraction.transformers_backbone import TransformersDescriber

        return TransformersDescriber(path, threads, **settings)
    for name in TRANSFORMERS_ONLY:
        if name in settings:
            raise InputError(f"--{name} is for --model transformers:FOLDER_OR_NAME, not for {model}; leave it out")
    if model == "lite0":
        return OnnxDescriber(shipped(LITE0), threads, "install the package again", **settings)
    if kind != "onnx" or not path:
        raise InputError(f"--model {model}: expected lite0, onnx:FILE or transformers:FOLDER_OR_NAME")
    return OnnxDescriber(path, threads, **settings)


class OnnxDescriber(LevelDescriber):
    """A describer from an ONNX file.

    A file with `rrt` in its metadata (`rrt_scripts/make_lite0.sh`) takes uint8 [1, H, W, 3] and gives `global`,
    `local`, `attention` as Level has them. Any other takes float32 [1, 3, H, W] with ImageNet's mean and standard
    deviation; its local descriptors are the cells of its map [1, D, h, w] (the finest, or the one that `layer` names),
    their attention is the norm, and the global one is its output [1, D] or the mean of the map by GeM (p = 3).
    """

    def __init__(
        self,
        path,
        threads: int | None = None,
        remedy: str = "export the model again",
        layer=None,
        projection=None,
        **changed,
    ):
        self.path = Path(path)
        self._session = open_onnx(self.path, threads or usable_cores(), remedy)
        recorded = self._session.get_modelmeta().custom_metadata_map.get("rrt")
        settings = _settings(self.path, recorded, changed, remedy)
        (self._input,) = (item.name for item in self._session.get_inputs()[:1])
        self._names = [item.name for item in self._session.get_outputs()]
        self._ours = recorded is not None
        self._layer = layer
        if not self._ours:
            self._fixed = _fixed_size(self.path, self._session.get_inputs())
        projections = load_projections(projection) if projection else None
        more = {"layer": layer} if layer else {}
        self._settle(settings, sha256_of_file(self.path), projections, model=self.path.name, **more)

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
            shape = pixels.shape[:2]
            raise InputError(f"{self.path}: it cannot take an image of {shape} pixels ({first_line(error)})") from None
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
        cells = np.moveaxis(local, 0, -1)
        return level_of(vectors[0] if vectors else gem(cells), cells)


def _settings(path, recorded, changed, remedy) -> DescriberSettings:
    try:
        found = parse_json(recorded) if recorded else {}
        base = DescriberSettings(**found)
    except (ValueError, TypeError):
        raise InputError(f"{path}: the settings in its metadata are damaged; {remedy}") from None
    return changed_settings(base, changed)


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
