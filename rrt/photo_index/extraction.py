"""How the images of an index are described: the options, what a manifest keeps of them, and who does the work.

Models of rrt/extraction (lite0, the default, and those named KIND:...) run in this program, DELG models in other
processes, which load TensorFlow (rrt/photo_index/delg.py).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from delg_extract.extraction.options import add_pca_options, add_settings_options
from rrt.errors import InputError, first_line
from rrt.extraction.describer import Describer as Model
from rrt.extraction.describer import open_describer as open_model
from rrt.extraction.extract import Plan
from rrt.extraction.extract import extract as extract_plan
from rrt.extraction.levels import TooSmall
from rrt.extraction.options import MODELS, SETTINGS, add_describer_options, given_settings
from rrt.files.images import Box
from rrt.formats.image_jobs import collect_jobs, read_image, read_query, read_table
from rrt.photo_index import delg
from rrt.photo_index.delg import Flags
from rrt.progress import bar
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from rrt.store.schema import canonical_settings, first_difference
from rrt.store.store import Store

LITE0 = "lite0"
KINDS = ("onnx", "transformers")  # of models of rrt/extraction: the part of a name before the colon
BLOCK = 32  # images a part; a process that is killed loses one part
QUERY = "query"  # name of the image of a query
_SHARED = ("model", "scales", "max_features")  # options of every model
_OWN = tuple(name for name in SETTINGS if name not in _SHARED)  # options of models that are not DELG
_VALUES = (
    *_SHARED,
    *_OWN,
    *("preset", "config", "score_threshold", "max_image_size", "min_image_size", "global_scales", "precision"),
    *("pca_dir", "pca_dim"),
)
_NAMING = ("--model", "--preset", "--config")  # each names a model
_SWITCHES = ("block3_strides", "normalize_scales")


class Describer(Protocol):
    """Describes single images."""

    def start(self) -> None:
        """Loads the model now."""
        ...

    def describe(self, image: str | Path, box: Box | None = None) -> ImageRecord:
        """The descriptors of an image, upright and cropped to ``box`` (None: whole). Raises InputError when it cannot
        be described; the message is the reason, without the file's name."""
        ...

    def close(self) -> None:
        """Ends, even while an image is described."""
        ...


# ---- options ---------------------------------------------------------------------------------------------------------


def add_extraction_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how images are described."""
    parser.add_argument(
        "--model",
        "--weights",
        dest="model",
        help=f"{MODELS}; or a DELG model: weight file of delg_extract/train.py, or a SavedModel",
    )
    own = parser.add_argument_group("models that are no DELG", "the defaults are the model's own")
    add_describer_options(own, without=_SHARED)
    add_pca_options(add_settings_options(parser))


def flags_of(args: argparse.Namespace) -> Flags:
    """The options that were given, each with its values, and with absolute paths, as another process takes them. Raises
    InputError when they switch off descriptors that search needs."""
    flags = []
    for name in _VALUES:
        value = getattr(args, name)
        if value is None or (name == "precision" and value == "float32"):
            continue
        if name in ("model", "config", "pca_dir", "projection"):
            value = _absolute(value)
        flags.append([f"--{name}", *map(str, value if isinstance(value, list) else [value])])
    switches = {name: getattr(args, name) for name in _SWITCHES}
    flags += [[f"--{name}" if on else f"--no-{name}"] for name, on in switches.items() if on is not None]
    if args.pca_whitening:
        flags.append(["--pca_whitening"])
    for name in ("use_local", "use_global"):
        if getattr(args, name) is False:
            raise InputError(f"--no-{name}: search needs global and local descriptors; leave the flag out")
    return flags


def _absolute(model: str) -> str:
    kind, colon, path = model.partition(":")
    if model == LITE0 or (kind in KINDS and not os.path.exists(path)):
        return model
    return f"{kind}:{os.path.abspath(path)}" if kind in KINDS and colon else os.path.abspath(model)


def merged_flags(known: Flags, given: Flags) -> Flags:
    """The ``known`` options, replaced by the ``given`` ones where both are there; only the given ones where they name a
    model of the other kind (DELG or not)."""
    if any(flag[0] in _NAMING for flag in given) and bool(_model(given)) != bool(_model(known)):
        return given
    names = {flag[0].replace("--no-", "--") for flag in given}
    return [flag for flag in known if flag[0].replace("--no-", "--") not in names] + given


def _model(flags: Flags) -> str | None:
    """The model of rrt/extraction that the options name, None for a DELG model."""
    named = dict(flag[:2] for flag in flags if flag[0] in _NAMING)
    model = named.get("--model", LITE0 if not named else "")
    return model if model == LITE0 or model.partition(":")[0] in KINDS else None


def is_shipped(flags: Flags) -> bool:
    """Whether the options choose the shipped model."""
    return _model(flags) == LITE0


def _open(flags: Flags) -> partial[Model]:
    """A function that opens the describer of these options; it takes ``threads``. Raises InputError for options of DELG
    models."""
    model, own = _model(flags), [f"--{name}" for name in (*_SHARED, *_OWN)]
    for flag in flags:
        if flag[0] not in own:
            raise InputError(f"{flag[0]}: an option of DELG models, not of {model}; leave it out")
    parser = argparse.ArgumentParser()
    add_extraction_options(parser)
    args = parser.parse_args([word for flag in flags for word in flag])
    return partial(open_model, model, **given_settings(args))


# ---- what a manifest keeps -------------------------------------------------------------------------------------------


def describe_extraction(flags: Flags) -> dict:
    """What a manifest keeps of how images are described: {"flags", "model_sha256", "settings"}. Raises InputError for
    invalid flags and for a model that does not exist."""
    if _model(flags):
        return _kept(flags, _open(flags)())
    for flag in flags:
        if flag[0] in [f"--{name}" for name in _OWN]:
            raise InputError(f"{flag[0]}: not an option of DELG models; leave it out")
    identity, sha256 = delg.identity(flags)
    return {"flags": flags, "model_sha256": sha256, "settings": _settings(identity)}


def _kept(flags: Flags, model: Model) -> dict:
    return {"flags": flags, "model_sha256": model.sha256, "settings": _settings(model.identity)}


def _settings(identity: dict) -> dict:
    return canonical_settings("index", {**identity, "exif_rotation": True})


def check_same_extraction(folder: Path, known: dict, asked: dict) -> None:
    """Raises InputError, naming the first difference, unless the extraction ``asked`` for equals ``known``, that of the
    index."""
    if known["model_sha256"] != asked["model_sha256"]:
        raise InputError(
            f"{folder}: its photographs are described by the model of SHA-256 {known['model_sha256'][:12]}..., this "
            f"one has {asked['model_sha256'][:12]}...; give the same model, or build another index"
        )
    difference = first_difference(known["settings"], asked["settings"])
    if difference:
        setting, old, new = difference
        raise InputError(
            f"{folder}: its photographs are described with {setting} = {json.dumps(old)}, now it is {json.dumps(new)}; "
            "leave the options of the extraction out, or build another index"
        )


# ---- the work --------------------------------------------------------------------------------------------------------


def extract(flags: Flags, table: Path, output: Path, count: int, num_workers: int, lock: tuple[int, ...]) -> None:
    """Describes the ``count`` images of a table ({name: path} in JSON) into a store. Parts that an earlier run finished
    are kept. num_workers: processes, 0 = chosen automatically. lock: file descriptors of the index's lock, which a DELG
    process keeps open as long as it lives. Raises InputError when it fails."""
    if not _model(flags):
        return delg.extract(flags, table, output, count, BLOCK, num_workers, lock)
    opener = _open(flags)
    model = opener(threads=1)
    jobs = tuple(replace(job, upright=True) for job in read_table(table))
    plan = Plan(opener, jobs, str(output), _settings(model.identity), BLOCK)
    # Several workers on one GPU would only compete for its memory.
    extract_plan(plan, model.sha256, output.stem, num_workers or (0 if model.device == "cpu" else 1))


def describe_queries(known: dict, query_list: str, ground_truth: str, image_dir: str, folder: Path) -> Store:
    """A store of the queries of a list, described like an index's photographs, upright and cropped to their boxes.
    known: the extraction of the index's manifest; folder: where the store of a DELG model is written. Raises
    InputError."""
    flags = known["flags"]
    if not _model(flags):
        delg.extract_queries(flags, query_list, ground_truth, image_dir, folder / "queries.h5")
        return Store(folder / "queries.h5")
    model = _open(flags)()
    jobs = collect_jobs([], [query_list], ground_truth, image_dir)
    return MemoryStore.of(list(_described(model, bar(jobs, "describing queries", "query"))))


def _described(model: Model, jobs) -> Iterator[ImageRecord]:
    for job in jobs:
        image = read_image(replace(job, upright=True))
        if image.pixels is None:
            raise InputError(f"{job.file}: {image.reason}; mend the query, or take it out of the list")
        try:
            yield model.describe(image.pixels, job.name, image.resize_factor)
        except TooSmall as too_small:
            raise InputError(f"{job.file}: {too_small}; take the query out of the list") from None


def open_describer(folder: Path, known: dict) -> Describer:
    """What describes single images in the same way as the index ``folder``. known: the extraction of its manifest."""
    if not _model(known["flags"]):
        return delg.DelgDescriber(known["flags"])
    return LocalDescriber(folder, known)


class LocalDescriber:
    """A Describer in this process. Its model is opened when it is first needed; raises InputError when it is not the
    model that the index was made with."""

    def __init__(self, folder: Path, known: dict):
        self.folder, self.known = folder, known

    @cached_property
    def _opened(self) -> Model:
        model = _open(self.known["flags"])()
        check_same_extraction(self.folder, self.known, _kept(self.known["flags"], model))
        return model

    def start(self) -> None:
        """See Describer."""
        _ = self._opened

    def describe(self, image: str | Path, box: Box | None = None) -> ImageRecord:
        """See Describer."""
        pixels, model = read_query(image, box), self._opened
        try:
            return model.describe(pixels, QUERY)
        except (TooSmall, InputError) as reason:
            raise InputError(str(reason)) from None
        except Exception as error:  # raised by the model's library for this image
            raise InputError(f"cannot be described: {type(error).__name__}: {first_line(error)}") from None

    def close(self) -> None:
        """See Describer."""
