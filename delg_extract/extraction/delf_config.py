"""DelfConfig files (.pbtxt, proto2 text; docs/delg.md 7.2) as of the published programs: read with the PCA files they
name, and written."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from delg_extract.extraction.pca import MEAN_FILE, Pca, read_pca, read_pca_folder
from delg_extract.extraction.settings import PRESETS, ExtractionSettings
from rrt.errors import InputError
from rrt.formats.protobuf import message_classes

# As message_classes() takes them.
_MESSAGES = {
    "DelfPcaParameters": {
        "mean_path": (1, "string"),
        "projection_matrix_path": (2, "string"),
        "pca_dim": (3, "int32"),
        "use_whitening": (4, "bool", "false"),
        "pca_variances_path": (5, "string"),
    },
    "DelfLocalFeatureConfig": {
        "use_pca": (1, "bool", "true"),
        "layer_name": (2, "string", ""),
        "iou_threshold": (3, "float", "1"),
        "max_feature_num": (4, "int32", "1000"),
        "score_threshold": (5, "float", "100"),
        "pca_parameters": (6, "DelfPcaParameters"),
        "use_resized_coordinates": (7, "bool", "false"),
    },
    "DelfGlobalFeatureConfig": {
        "use_pca": (1, "bool", "true"),
        "pca_parameters": (2, "DelfPcaParameters"),
        "image_scales_ind": (3, ["int32"]),
    },
    "DelfConfig": {
        "model_path": (1, "string"),
        "image_scales": (2, ["float"]),
        "delf_local_config": (3, "DelfLocalFeatureConfig"),
        "max_image_size": (4, "int32", "-1"),
        "min_image_size": (5, "int32", "-1"),
        "use_square_images": (6, "bool", "false"),
        "use_local_features": (7, "bool", "true"),
        "use_global_features": (8, "bool", "false"),
        "delf_global_config": (9, "DelfGlobalFeatureConfig"),
        "is_tf2_exported": (10, "bool", "false"),
    },
}
_CLASSES = message_classes("delf.protos", _MESSAGES)
_UNKNOWN = re.compile(r'Message type "([^"]*)" has no field named "([^"]*)"')


@dataclass(frozen=True)
class DelfConfig:
    """A DelfConfig file. layer_name and is_tf2_exported changed nothing in the published extractor and change nothing
    here; they are kept for the record. iou_threshold did not, either, but means what its name says: it is applied, and
    refused for a SavedModel, whose own is fixed."""

    path: Path
    model_path: Path
    settings: ExtractionSettings
    layer_name: str
    is_tf2_exported: bool


def read_delf_config(path: str | Path) -> DelfConfig:
    """The settings of a DelfConfig file, the PCA read with them.

    Fields left out take the defaults of the format (among them use_pca: true). Paths in the file are relative to the
    working directory, as they were, or else to the file's own folder; the model itself is not looked at. Raises
    InputError naming the line or the field for anything that cannot be read, is contradictory, or would extract
    nothing.
    """
    path = Path(path)
    message = _parse(path)
    local, global_ = message.delf_local_config, message.delf_global_config
    if not message.model_path:
        raise InputError(f'{path}: no model_path; add a line model_path: "FOLDER OF THE SAVEDMODEL"')
    if not message.use_local_features and not message.use_global_features:
        raise InputError(
            f"{path}: use_local_features is false and use_global_features is not true; set one of them to true"
        )
    _check_sizes(path, message)
    settings = ExtractionSettings(
        scales=_scales(path, message),
        global_scales=_global_scales(path, message),
        max_features=local.max_feature_num,
        score_threshold=_shortest(local.score_threshold),
        iou_threshold=_shortest(local.iou_threshold) if message.use_local_features else 1.0,
        max_image_size=message.max_image_size,
        min_image_size=message.min_image_size,
        square_images=message.use_square_images,
        resized_coordinates=local.use_resized_coordinates,
        use_local=message.use_local_features,
        use_global=message.use_global_features,
        local_pca=_pca(path, "delf_local_config", local) if message.use_local_features else None,
        global_pca=_pca(path, "delf_global_config", global_) if message.use_global_features else None,
    )
    return DelfConfig(path, _located(path, message.model_path), settings, local.layer_name, message.is_tf2_exported)


def delf_config_text(settings: ExtractionSettings, model_path: str) -> str:
    """The DelfConfig file that ``read_delf_config`` gives these settings and this model for. It says nothing of a
    PCA, whose files it would have to name, or of normalize_scales."""
    message: Any = _CLASSES["DelfConfig"](
        model_path=model_path,
        image_scales=settings.scales,
        max_image_size=settings.max_image_size,
        min_image_size=settings.min_image_size,
        use_square_images=settings.square_images,
        use_local_features=settings.use_local,
        use_global_features=settings.use_global,
        is_tf2_exported=True,
    )
    local = message.delf_local_config
    local.use_pca, local.max_feature_num, local.score_threshold = False, settings.max_features, settings.score_threshold
    local.use_resized_coordinates, local.iou_threshold = settings.resized_coordinates, settings.iou_threshold
    message.delf_global_config.use_pca = False
    message.delf_global_config.image_scales_ind.extend(settings.global_scales)
    return text_format.MessageToString(message)


def preset_settings(name: str, model_dir: str | Path) -> ExtractionSettings:
    """The settings of a preset, with the PCA published beside the model in ``model_dir`` where the preset has one.

    Raises InputError when the PCA files (mean.datum, pca_proj_mat.datum) are neither in ``model_dir``, nor beside it,
    nor in a folder ``pca`` there.
    """
    preset = PRESETS[name]
    if not preset.local_pca_dim:
        return preset.settings
    model_dir = Path(model_dir)
    for folder in (model_dir, model_dir / "pca", model_dir.parent, model_dir.parent / "pca"):
        if (folder / MEAN_FILE).exists():
            return replace(preset.settings, local_pca=read_pca_folder(folder, preset.local_pca_dim))
    raise InputError(
        f"{model_dir}: no mean.datum in it, beside it or in a folder pca there; unpack the whole archive of "
        f"{preset.model}"
    )


def _parse(path: Path) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8-sig"), _CLASSES["DelfConfig"]())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a DelfConfig file (.pbtxt)") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; give a DelfConfig file (.pbtxt)") from None
    except text_format.ParseError as error:
        raise InputError(f"{path}:{error.GetLine()}: {_explained(error)}") from None


def _explained(error: text_format.ParseError) -> str:
    unknown = _UNKNOWN.search(str(error))
    if unknown:
        message_name = unknown[1].rpartition(".")[2]
        return f"{message_name} has no field {unknown[2][:80]!r}; its fields are {', '.join(_MESSAGES[message_name])}"
    problem = str(error).partition(" : ")[2].replace("delf.protos.", "")
    return f"{problem[:200]}; mend the line"


def _check_sizes(path, message):
    for name in ("max_image_size", "min_image_size"):
        if getattr(message, name) == 0:
            raise InputError(f"{path}: {name} is 0; give pixels of the longest side, or -1 for no limit")
    if 0 < message.max_image_size < message.min_image_size:
        raise InputError(
            f"{path}: min_image_size {message.min_image_size} is above max_image_size {message.max_image_size}; "
            "raise the one or lower the other"
        )
    local = message.delf_local_config
    if message.use_local_features and local.max_feature_num < 1:
        raise InputError(f"{path}: delf_local_config.max_feature_num is {local.max_feature_num}; give at least 1")
    if not math.isfinite(local.score_threshold):
        raise InputError(f"{path}: delf_local_config.score_threshold is {local.score_threshold}; give a number")
    if message.use_local_features and not 0 <= local.iou_threshold <= 1:
        raise InputError(
            f"{path}: delf_local_config.iou_threshold is {_shortest(local.iou_threshold)}; give a part of the area,"
            " 0 to 1"
        )


def _scales(path, message):
    if not message.image_scales:
        raise InputError(f"{path}: no image_scales; add a line image_scales: 1.0 for every scale to extract at")
    for position, scale in enumerate(message.image_scales):
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(
                f"{path}: image_scales at position {position} (from 0) is {_shortest(scale)}; give a scale above 0"
            )
    return tuple(_shortest(scale) for scale in message.image_scales)


def _global_scales(path, message):
    indices = tuple(message.delf_global_config.image_scales_ind)
    for index in indices if message.use_global_features else ():
        if not 0 <= index < len(message.image_scales):
            raise InputError(
                f"{path}: delf_global_config.image_scales_ind {index} is no position among the "
                f"{len(message.image_scales)} image_scales; they count from 0"
            )
    return indices


def _pca(path: Path, name: str, config) -> Pca | None:
    """The PCA of the local or the global features; ``name``: the field that configures them."""
    if not config.use_pca:
        return None
    parameters = config.pca_parameters
    # What is left out is switched on, and then asked for here.
    switched = f"{name}.use_pca is true" + ("" if config.HasField("use_pca") else " when left out")
    for field in ("mean_path", "projection_matrix_path", "pca_dim"):
        if not getattr(parameters, field):
            raise InputError(
                f"{path}: {switched}, but {name}.pca_parameters.{field} is not given; give it or set {name}.use_pca "
                "to false"
            )
    if parameters.use_whitening and not parameters.pca_variances_path:
        raise InputError(
            f"{path}: {name}.pca_parameters.use_whitening is true, but pca_variances_path is not given; "
            "give it or set use_whitening to false"
        )
    files = ["mean_path", "projection_matrix_path", *(["pca_variances_path"] if parameters.use_whitening else [])]
    mean, matrix, *variances = (_located(path, getattr(parameters, field)) for field in files)
    for field, file in zip(files, (mean, matrix, *variances)):
        if not os.path.exists(file):
            raise InputError(
                f"{path}: {name}.pca_parameters.{field} {str(file)!r} is neither below the working directory nor below "
                f"{path.parent}; copy the file there or mend the path"
            )
    return read_pca(mean, matrix, parameters.pca_dim, *variances)


def _located(path: Path, name: str) -> Path:
    """A path written in the file ``path``: as it is, or below that file's folder when it is only there."""
    beside = path.parent / name
    return beside if not os.path.exists(name) and os.path.exists(beside) else Path(name)


def _shortest(value: float) -> float:
    # The file's floats have single precision; the fewest digits that give one back are those that were written.
    return float(str(np.float32(value)))
