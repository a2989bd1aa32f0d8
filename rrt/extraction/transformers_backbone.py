"""Vision models of Hugging Face transformers as describers: patch tokens or feature maps as local descriptors."""

from __future__ import annotations

import inspect
import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from rrt.devices import choose_device
from rrt.errors import InputError, check_choice, first_line
from rrt.extraction.levels import Level, LevelDescriber, changed_settings, gem, level_of
from rrt.extraction.options import ATTENTIONS, GLOBAL_POOLS
from rrt.extraction.projections import load_projections
from rrt.extraction.settings import DescriberSettings
from rrt.extraction.transformers_files import Checkpoint, find_checkpoint, open_model

# Longest side, pixels: a multiple of patches of 14, of 16 and of the 32 that feature maps are reduced by.
IMAGE_SIZE = 448
MAP_STRIDE = 32
# Of the tokens in front of the patches: CLS and registers.
MOST_IN_FRONT = 16


class _Parts(NamedTuple):
    """Cells [h, w, D] of a state and the token in front of them, if any."""

    cells: np.ndarray
    first: np.ndarray | None


class TransformersDescriber(LevelDescriber):
    """A describer from a folder or hub name of a vision model.

    name: a folder with config.json, preprocessor_config.json and safetensors, or OWNER/NAME[@REVISION] of the hub.
    layer: of the local descriptors, as transformers counts its hidden states (0: the embeddings, -1: the last block
    before a final norm); None: the last state as the model gives it, which the global descriptor is always of.
    global_pool: one of GLOBAL_POOLS, `pooled` being the model's own head; None: `gem` of a feature map; of tokens `cls`
    where there is a CLS token, else `pooled` where there is a head, else `mean`. attention: one of ATTENTIONS: what the
    CLS token pays in the last block (or the query of SigLIP's head), the norm, or what the file of `projection`
    learned; None: `cls` where there is one, else `norm`.
    threads: of PyTorch (None: as it is). Raises InputError with file and remedy.
    """

    def __init__(
        self,
        name: str,
        threads: int | None = None,
        layer=None,
        global_pool: str | None = None,
        attention: str | None = None,
        projection=None,
        device: str | None = None,
        **changed,
    ):
        if threads:
            torch.set_num_threads(threads)
        if global_pool is not None:
            check_choice("--global_pool", global_pool, GLOBAL_POOLS)
        if attention is not None:
            check_choice("--attention", attention, ATTENTIONS)
        learned = load_projections(projection) if projection else None
        if attention == "learned" and not (learned and learned.attention):
            raise InputError(
                f"{projection or '--attention learned'}: holds no learned attention; learn it with"
                " tools/learn_projection.py --learn_attention and give the file as --projection"
            )
        self.device = choose_device(device)
        self._checkpoint: Checkpoint = find_checkpoint(name)
        self._where = self._checkpoint.folder
        self._model, self._no_head = open_model(self._checkpoint, self.device)
        # A head that pools by a query of its own (SigLIP) stands for the CLS token that its model has not.
        self._head = threading.local()
        for module in () if self._no_head else self._model.modules():
            if isinstance(module, torch.nn.MultiheadAttention):
                module.register_forward_hook(lambda _module, _given, result: vars(self._head).update(row=result[1]))
        config = self._model.config
        # `depths` of stages is what those have whose later stages are coarser than the patches of the first.
        maps = hasattr(config, "depths") or not isinstance(getattr(config, "patch_size", None), int)
        self._multiple = MAP_STRIDE if maps else config.patch_size
        self._layer, self._fixed = _whole_number(layer), None
        base = DescriberSettings(image_size=IMAGE_SIZE, scales=(1.0,), multiple=self._multiple)
        settings = changed_settings(base, changed)
        if settings.multiple % self._multiple or settings.extra:
            raise InputError(
                f"setting multiple={settings.multiple}, extra={settings.extra}: the sides of {name} are multiples of"
                f" {self._multiple} pixels"
            )
        self._choose(settings, global_pool, attention)
        self._weigh = learned.attention if learned and self._attention == "learned" else None
        checkpoint = self._checkpoint
        self._settle(
            settings,
            checkpoint.sha256,
            learned,
            model=f"transformers:{checkpoint.name}",
            config_sha256=checkpoint.config_sha256,
            layer=self._layer,
            global_pool=self._pool,
            attention=self._attention,
            mean=self._checkpoint.mean.tolist(),
            std=self._checkpoint.std.tolist(),
        )

    def _choose(self, settings: DescriberSettings, pool: str | None, attention: str | None) -> None:
        """Runs a black image, to see what the model has, and takes or checks the choices."""
        width, height = settings.level_size((4, 3), 1.0)
        black = np.zeros((height, width, 3), np.uint8)
        side = getattr(self._model.config, "image_size", None)
        try:
            output = self._run(black)
        except (RuntimeError, ValueError) as error:
            if not isinstance(side, int):
                raise InputError(f"{self._where}: the model cannot run ({first_line(error)}); give another") from None
            # Models that cannot interpolate their positions take images of one size alone.
            self._fixed = (side, side)
            try:
                output = self._run(black)
            except (RuntimeError, ValueError):
                raise InputError(f"{self._where}: the model cannot run ({first_line(error)}); give another") from None
        state = output.last_hidden_state
        if not torch.isfinite(state).all():
            raise InputError(
                f"{self._where}: gives values that are not finite; the weights are damaged, fetch them again"
            )
        self._has_cls = self._parts(state, black).first is not None
        has_attention = self._cls_row(output) is not None
        has_head = output.get("pooler_output") is not None and not self._no_head
        of_tokens = "cls" if self._has_cls else "pooled" if has_head else "mean"
        self._pool = pool or ("gem" if state.ndim == 4 else of_tokens)
        self._attention = attention or ("cls" if has_attention else "norm")
        if self._pool == "cls" and not self._has_cls:
            raise InputError(f"{self._where}: the model has no CLS token; give another --global_pool than cls")
        if self._pool == "pooled" and not has_head:
            raise InputError(f"{self._where}: the model has no trained head; give another --global_pool than pooled")
        if self._attention == "cls" and not has_attention:
            raise InputError(f"{self._where}: the model has no attention of a CLS token; give --attention norm")

    def _run(self, pixels: np.ndarray) -> Any:
        """What the model gives for pixels [H, W, 3]."""
        checkpoint = self._checkpoint
        if self._fixed:
            pixels = np.asarray(Image.fromarray(pixels).resize(self._fixed, Image.Resampling.BILINEAR))
        normalized = (pixels * checkpoint.factor - checkpoint.mean) / checkpoint.std
        batch = torch.from_numpy(normalized.astype(np.float32).transpose(2, 0, 1)[None].copy()).to(self.device)
        takes = inspect.signature(self._model.forward).parameters
        more: dict[str, Any] = {}
        if "interpolate_pos_encoding" in takes and not self._fixed:
            more["interpolate_pos_encoding"] = True
        if "spatial_shapes" in takes:  # SigLIP 2 of any aspect ratio takes the patches themselves
            batch, more["spatial_shapes"] = _patches(batch, self._multiple)
            more["pixel_attention_mask"] = torch.ones(batch.shape[:2], dtype=torch.int64, device=batch.device)
        self._head.row = None
        with torch.inference_mode():
            return self._model(
                batch, output_hidden_states=self._layer is not None, output_attentions=True, return_dict=True, **more
            )

    def _parts(self, state: torch.Tensor, pixels: np.ndarray) -> _Parts:
        if state.ndim == 4:
            return _Parts(state[0].permute(1, 2, 0).float().cpu().numpy(), None)
        height, width = self._fixed or pixels.shape[:2]
        rows, columns = height // self._multiple, width // self._multiple
        in_front = state.shape[1] - rows * columns if state.ndim == 3 else -1
        if not 0 <= in_front <= MOST_IN_FRONT:
            raise InputError(
                f"{self._where}: a model without spatial tokens (its state is {list(state.shape)} for an image of"
                f" {width}x{height} pixels); give one whose last state is a map or has a token a patch"
            )
        tokens = state[0].float().cpu().numpy()
        return _Parts(tokens[in_front:].reshape(rows, columns, -1), tokens[0] if in_front else None)

    def level(self, pixels: np.ndarray) -> Level:
        """See LevelDescriber.level."""
        output = self._run(pixels)
        last = self._parts(output.last_hidden_state, pixels)
        cells = last.cells if self._layer is None else self._parts(self._state(output, self._layer), pixels).cells
        if self._pool == "cls" and last.first is not None:
            global_ = last.first
        elif self._pool == "pooled":
            global_ = output.pooler_output[0].float().cpu().numpy().reshape(-1)
        else:
            global_ = gem(last.cells) if self._pool == "gem" else last.cells.mean((0, 1))
        rows, columns = cells.shape[:2]
        attention, row = None, self._cls_row(output) if self._attention == "cls" else None
        if row is not None:
            # Relative to attention that is the same everywhere, so that scales of few and many tokens compare.
            attention = row[-rows * columns :].reshape(rows, columns).float().cpu().numpy() * (rows * columns)
        elif self._weigh:
            attention = self._weigh(cells.reshape(rows * columns, -1)).reshape(rows, columns)
        return level_of(global_, cells, attention)

    def _cls_row(self, output: Any) -> torch.Tensor | None:
        """What the CLS token pays to each token [T] in the last block, or the query of a pooling head."""
        tokens, blocks = output.last_hidden_state.shape[1], list(output.get("attentions") or [])
        if output.last_hidden_state.ndim != 3:
            return None
        if self._head.row is not None:
            return self._head.row[0, 0]
        # Attention within windows is not to all tokens.
        whole = self._has_cls and blocks and blocks[-1].shape[-1] == tokens
        return blocks[-1][0, :, 0].mean(0) if whole else None

    def _state(self, output: Any, layer: int) -> torch.Tensor:
        states = list(output.get("hidden_states") or [])
        if not -len(states) <= layer < len(states):
            known = f"--layer takes {-len(states)}..{len(states) - 1}" if states else "leave --layer out"
            raise InputError(f"{self._where}: no layer {layer}; {known}")
        return states[layer]


def _patches(batch: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [1, 3, H, W] -> (patches [1, h w, side side 3] row by row, [[h, w]])."""
    rows, columns = batch.shape[2] // side, batch.shape[3] // side
    cut = batch.reshape(1, 3, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(1, rows * columns, -1), torch.tensor([[rows, columns]], device=batch.device)


def _whole_number(layer) -> int | None:
    try:
        return None if layer is None else int(layer)
    except ValueError:
        raise InputError(f"--layer {layer}: the layers of a transformers model are whole numbers") from None
