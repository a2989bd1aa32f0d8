"""SavedModels as networks for extraction: the published TF1-style models and TF2 exports (docs/delg.md 4).

Which of the two a folder holds, and what it can give, is told from the names of its tensors:

- TF1-style: the graph is pruned to the published names (``input_image:0`` ... ``boxes:0`` ...), anew for local and
  global descriptors together and for either alone, so that what nobody asks for is not computed;
- TF2 exports are called through ``serving_default``: local, local and global, global a row for each scale or pooled,
  and the Kaggle form that knows its own scales.

Both are concrete functions: images of any size run without tracing again. Freezing the variables into the graph was
tried: it takes gigabytes and spares a TF1-style ResNet-50 a seventh of its time, a TF2 export none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from delg_extract.extraction.extractor import LocalAndGlobal
from delg_extract.extraction.pyramid import MIN_LEVEL_SIDE, usable_scales
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.tensorflow import tf, without_warnings
from rrt.errors import InputError

SIGNATURE = "serving_default"
IMAGE, SCALES, THRESHOLD, COUNT, POSITIONS = INPUTS = (
    "input_image",
    "input_scales",
    "input_abs_thres",
    "input_max_feature_num",
    "input_global_scales_ind",
)
LOCAL_OUTPUTS = ("boxes", "features", "scales", "scores")
ROWS, POOLED = GLOBAL_OUTPUTS = ("global_descriptors", "global_descriptor")
# Inputs besides the image, and outputs; the first that fits is taken.
_FORMS = (
    ({SCALES, THRESHOLD, COUNT, POSITIONS}, (*LOCAL_OUTPUTS, ROWS)),
    ({SCALES, THRESHOLD, COUNT}, LOCAL_OUTPUTS),
    ({SCALES, POSITIONS}, (ROWS,)),
    ({SCALES, POSITIONS}, (POOLED,)),
    (set(), (ROWS,)),
    (set(), (POOLED,)),
)
_NAMES_SHOWN, _LOADERS_OWN = 12, ("save/", "dummy_fetch")
# Lines of a TensorFlow error that say where it happened.
_WHERE = re.compile(
    r'\[\[|Graph execution error|Detected at node|File "|<stack traces|\d+ (root error|successful|derived)'
)


class SavedModelNetwork:
    """A SavedModel that describes images (``Network`` of extractor.py); made by ``open_saved_model``.

    ``outputs``: names of what it can give. A model with scales of its own (no ``input_scales``: the Kaggle form) heeds
    neither ``scales`` nor ``global_scales`` of the settings. Descriptors pooled over the scales inside the model are
    one row [1, E].
    """

    def __init__(self, folder: Path, loaded, inputs: dict[str, tf.DType], outputs: tuple[str, ...]):
        self.folder = folder
        self.kind = "saved_model_tf1" if _is_tf1(loaded) else "saved_model_tf2"
        self.outputs = outputs
        # Its functions alone would not keep the variables.
        self._loaded = loaded
        self._inputs = inputs
        self._pruned = {}
        self._global_output = next((name for name in GLOBAL_OUTPUTS if name in outputs), None)

    @property
    def has_local(self) -> bool:
        """Whether it gives local descriptors."""
        return "features" in self.outputs

    @property
    def has_global(self) -> bool:
        """Whether it gives global descriptors."""
        return self._global_output is not None

    @property
    def settings(self) -> dict:
        """What the store should say of the model besides its SHA-256; JSON values."""
        return {"kind": self.kind, "outputs": list(self.outputs), "own_scales": SCALES not in self._inputs}

    def check(self, settings: ExtractionSettings) -> None:
        """InputError when the model cannot give what the settings ask for, or they ask for nothing."""
        if not settings.use_local and not settings.use_global:
            raise InputError(
                f"{self.folder}: neither local nor global descriptors are asked for; switch one of them on"
            )
        for asked, there, kind, other in (
            (settings.use_local, self.has_local, "local", "global"),
            (settings.use_global, self.has_global, "global", "local"),
        ):
            if asked and not there:
                raise InputError(
                    f"{self.folder}: gives no {kind} descriptors, only {', '.join(self.outputs)}; "
                    f"ask for {other} descriptors alone or give a model with both"
                )
        if settings.iou_threshold != 1:
            raise InputError(
                f"{self.folder}: iou_threshold {settings.iou_threshold} has no effect on a SavedModel, it is fixed at "
                "its export; leave it at 1, export again with another, or extract with a weight file"
            )

    def local_and_global(self, images: np.ndarray, settings: ExtractionSettings) -> list[LocalAndGlobal]:
        """Features of uint8 RGB [B, H, W, 3], one image after the other: these models have no batch axis.

        What the settings leave out comes back empty; so do the scales at which an image is under MIN_LEVEL_SIDE.
        Raises InputError as ``check`` does, and when the model fails on an image.
        """
        self.check(settings)
        return [self._describe(image, settings) for image in images]

    def _describe(self, image: np.ndarray, settings: ExtractionSettings) -> LocalAndGlobal:
        scales, positions = self._levels(image, settings)
        global_output = self._global_output if settings.use_global else None
        wanted = (LOCAL_OUTPUTS if settings.use_local else ()) + ((global_output,) if global_output else ())
        values = {
            IMAGE: image,
            SCALES: scales,
            THRESHOLD: settings.score_threshold,
            COUNT: settings.max_features,
            POSITIONS: positions,
        }
        try:
            found = self._run(wanted, {name: tf.cast(values[name], dtype) for name, dtype in self._inputs.items()})
        except tf.errors.OpError as error:
            raise InputError(
                f"{self.folder}: the model fails on an image of {image.shape[1]}x{image.shape[0]} pixels "
                f"({_gist(error)}); leave the image out or change its size; if it fails on each, export the model again"
            ) from error
        out = {name: found[name].numpy() for name in wanted}
        if global_output == ROWS and SCALES in self._inputs and len(out[ROWS]) != len(positions):
            raise InputError(
                f"{self.folder}: gives {len(out[ROWS])} global descriptors for {len(positions)} scales; "
                "export it again, with a row for each scale asked for"
            )
        nothing = np.empty((0, 0), np.float32)
        return LocalAndGlobal(
            boxes=out.get("boxes", nothing).reshape(-1, 4),
            features=out.get("features", nothing),
            scales=out.get("scales", nothing).reshape(-1),
            scores=out.get("scores", nothing).reshape(-1),
            global_descriptors=np.atleast_2d(out[global_output]) if global_output else nothing,
        )

    def _run(self, wanted: tuple[str, ...], values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The wanted outputs by name; a TF2 export gives the others, too. ``values``: in the order of the inputs."""
        if self.kind == "saved_model_tf2":
            return self._loaded.signatures[SIGNATURE](**values)
        if wanted not in self._pruned:
            with without_warnings():
                self._pruned[wanted] = self._loaded.prune(
                    [f"{name}:0" for name in values], {name: f"{name}:0" for name in wanted}
                )
        return self._pruned[wanted](*values.values())

    def _levels(self, image: np.ndarray, settings: ExtractionSettings) -> tuple[list[float], list[int]]:
        """The scales to run, and the positions among them that feed the global descriptor."""
        asked, (height, width) = settings.global_positions, image.shape[:2]
        # Given only the scales that matter for it, a model does not describe the others and drop them.
        kept = [i for i in usable_scales(height, width, settings.scales) if settings.use_local or i in asked]
        positions = [n for n, i in enumerate(kept) if i in asked]
        if SCALES in self._inputs and (not kept or (settings.use_global and not positions)):
            raise InputError(
                f"{self.folder}: an image of {width}x{height} pixels is under {MIN_LEVEL_SIDE} pixels at each scale "
                "asked for; leave it out or add larger scales"
            )
        # Exports fail without a position: the first stands in where no global descriptor is wanted.
        return [settings.scales[i] for i in kept], positions or [0]


# ---- opening ---------------------------------------------------------------------------------------------------------


def open_saved_model(folder: Path) -> SavedModelNetwork:
    """The network of a SavedModel in the folder of its saved_model.pb.

    Raises InputError when it cannot be read, and when its tensors are not those of docs/delg.md 4.
    """
    try:
        with without_warnings():
            loaded = tf.saved_model.load(str(folder))
    # The loader's complaint about a damaged folder may be of any type, from DecodeError to KeyError.
    except Exception as error:
        raise InputError(
            f"{folder}: not a SavedModel that can be read ({_gist(error)}); unpack, copy or export it again"
        ) from error
    signature = getattr(loaded, "signatures", {}).get(SIGNATURE)
    if _is_tf1(loaded):
        tensors = {
            operation.name: operation.outputs[0].dtype
            for operation in loaded.graph.get_operations()
            if operation.outputs
        }
        inputs = {name: tensors[name] for name in INPUTS if name in tensors}
        outputs = _recognise(inputs, tensors)
    elif signature is not None:
        inputs = {name: spec.dtype for name, spec in signature.structured_input_signature[1].items()}
        outputs = _recognise(inputs, signature.structured_outputs)
    else:
        outputs = ()
    if not outputs:
        raise InputError(
            f"{folder}: no DELF or DELG model, it has {_found(loaded)}; give one with {', '.join(INPUTS)} or some of "
            f"them, and {', '.join(LOCAL_OUTPUTS)} or {' or '.join(GLOBAL_OUTPUTS)}"
        )
    return SavedModelNetwork(folder, loaded, inputs, outputs)


def _is_tf1(loaded) -> bool:
    return isinstance(getattr(loaded, "graph", None), tf.Graph)


def _recognise(inputs: Iterable[str], outputs: Iterable[str]) -> tuple[str, ...]:
    """The outputs of the first form that has these inputs and outputs, () when none does."""
    inputs, outputs = set(inputs), set(outputs)
    for others, gives in _FORMS:
        if (
            {IMAGE, *others} <= inputs <= set(INPUTS)
            and (SCALES in others) == (SCALES in inputs)
            and outputs.issuperset(gives)
        ):
            return gives
    return ()


def _found(loaded) -> str:
    """The signatures and, TF1-style, the tensors of a model that is none of ours."""
    found = [
        f"signature {key} ({', '.join(function.structured_input_signature[1])} -> "
        f"{', '.join(function.structured_outputs)})"
        for key, function in getattr(loaded, "signatures", {}).items()
    ]
    if _is_tf1(loaded):
        operations = loaded.graph.get_operations()
        starts = [operation.name for operation in operations if operation.type == "Placeholder"]
        ends = [
            operation.name
            for operation in operations
            if operation.outputs
            and not any(out.consumers() for out in operation.outputs)
            and not operation.name.startswith(_LOADERS_OWN)
            and not operation.type.startswith("Assign")
        ]
        found += [
            f"{what} {', '.join(names[:_NAMES_SHOWN])}{' ...' if len(names) > _NAMES_SHOWN else ''}"
            for what, names in (("inputs", starts), ("last tensors", ends))
            if names
        ]
    return "; ".join(found) or "neither signatures nor a graph"


def _gist(error: Exception) -> str:
    """The line of an error that says what is wrong: TensorFlow wraps it in where and how."""
    lines = [re.sub(r"{{.*?}}|^\(\d+\) ", "", line.strip()).strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not _WHERE.match(line)]
    return (told[0] if told else type(error).__name__)[:200]
