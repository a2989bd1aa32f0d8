"""`late`: weighted matching by a ``model.LATE`` of descriptors (rrt/network/late.py), in numpy alone.

The same logits as ``rrt`` gives with the same network, for searches that must not wait for PyTorch to start: the
network is small, and a pair costs a matrix product.
"""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open

from rrt.command_line.settings import settings
from rrt.errors import InputError, first_line
from rrt.files.machine import usable_cores
from rrt.files.shipped import shipped
from rrt.network.pairs import LOGIT_GAIN, POSITION_PERIODS, ImageBatch, read_images
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist, check_local_space, local_bytes
from rrt.store.joined import JoinedStore
from rrt.store.linear import l2_normalize
from rrt.store.local_counts import check_locals

SHIPPED = "late_lite0.safetensors"
_KEPT = 1024  # encoded images of a store, of 100 kB each: queries that follow one another share candidates
_BLOCK = 256  # images read at a time


class Encoded(NamedTuple):
    """An image: vectors float32 [n, d] of unit length, weights [n], which sum to 1, and its global descriptor [Dg] of
    unit length."""

    vectors: np.ndarray
    weights: np.ndarray
    global_: np.ndarray


class LateEncoder:
    """The network of a file of safetensors. Raises InputError for a file that holds none."""

    def __init__(self, path):
        remedy = "give a model.LATE saved by tools/strip_checkpoint.py as .safetensors"
        try:
            with safe_open(path, framework="np") as file:
                self.state = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
                recorded = json.loads((file.metadata() or {}).get("rrt", "{}"))
            self.settings: dict[str, Any] = recorded["model"]
            if self.settings.get("kind") != "LATE" or self.settings["activation"] != "relu":
                raise ValueError("a network of another kind")
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise InputError(f"{path}: no model.LATE ({first_line(error)}); {remedy}") from None
        self.path = Path(path)
        self.binning = recorded.get("scale_binning", "published")

    def check_sizes(self, store) -> None:
        """InputError for a store whose descriptors have other sizes."""
        pairs = (("num_global_features", store.global_dim, "global"), ("num_local_features", store.local_dim, "local"))
        for name, size, what in pairs:
            if self.settings[name] != size:
                raise InputError(
                    f"{store.path}: {what} descriptors have {size} dimensions, {self.path} was trained on"
                    f" {self.settings[name]}; take the network that belongs to these descriptors"
                )

    def read(self, store, images: np.ndarray, max_local: int | None) -> ImageBatch:
        """What the network takes of images of a store."""
        return read_images(store, images, max_local, self.binning, self.settings["positions"])

    def encode(self, images: ImageBatch, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Vectors [n, d] of unit length and weights [n], which sum to 1, of image i of a batch."""
        rows = slice(int(images.offsets[i]), int(images.offsets[i + 1]))
        unit = l2_normalize(np.asarray(images.descriptors[rows], np.float32))
        if not len(unit):
            return unit, np.zeros(0, np.float32)
        locals_ = unit + self.state["scale_encoder.weight"][images.scales[rows]]
        if self.settings["positions"]:
            turns = images.positions[rows][:, :, None] * (2 * np.pi / np.array(POSITION_PERIODS, np.float32))
            features = np.concatenate([np.sin(turns), np.cos(turns)], axis=-1).reshape(
                len(unit), 4 * len(POSITION_PERIODS)
            )
            locals_ = locals_ + self._linear("position_encoder", features)
        x = np.concatenate([l2_normalize(self._linear("remap", images.global_[i : i + 1])), locals_]).astype(np.float32)
        for layer in range(self.settings["num_encoder_layers"]):
            name = f"encoder.layers.{layer}."
            x = x + self._attention(name + "self_attn.", self._norm(name + "norm1", x))
            inner = self._linear(name + "linear1", self._norm(name + "norm2", x))
            x = x + self._linear(name + "linear2", np.maximum(inner, 0))
        out = self._norm("encoder.norm", x)[1:]
        vectors = l2_normalize(unit + self._linear("change", out)) if self.settings["vectors"] else unit
        logits, most = self._linear("weigh", out)[:, 0], self.settings["weight_range"]
        powers = np.exp(most * np.tanh(logits / most) if most else 0 * logits)  # of at most e^most
        return vectors, powers / powers.sum()

    def logits(self, matched: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """Of the matching [n] and the cosines of the global descriptors [n]."""
        matched_mean, matched_spread, global_mean, global_spread = self.state["constants"]
        score = (matched - matched_mean) / matched_spread
        score = score + self.state["global_weight"] * (cosines - global_mean) / global_spread
        return np.exp(LOGIT_GAIN * self.state["log_temperature"]) * score + LOGIT_GAIN * self.state["bias"]

    def _linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def _norm(self, name, x):
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-5)
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def _attention(self, name, x):
        heads, dim = self.settings["nhead"], x.shape[1]
        projected = x @ self.state[f"{name}in_proj_weight"].T + self.state[f"{name}in_proj_bias"]
        query, key, value = projected.reshape(len(x), 3, heads, -1).transpose(1, 2, 0, 3)
        weights = (query * np.float32((dim // heads) ** -0.5)) @ key.transpose(0, 2, 1)
        weights -= weights.max(2, keepdims=True)
        np.exp(weights, out=weights)  # their softmax, divided by the sum where there are fewer numbers
        found = weights @ value / weights.sum(2, keepdims=True)
        return self._linear(f"{name}out_proj", found.transpose(1, 0, 2).reshape(len(x), dim))


class _Kept:
    """What was encoded of each store, for as long as somebody holds the store."""

    def __init__(self):
        self._stores: WeakKeyDictionary[Any, dict[int, Encoded]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __reduce__(self):
        return _Kept, ()  # another process encodes for itself

    def of(self, store, rows: np.ndarray, encode: Callable[[Any, np.ndarray], list[Encoded]]) -> dict[int, Encoded]:
        """{row: its image} of these rows of a store; ``encode`` makes those that are not kept."""
        if isinstance(store, JoinedStore):
            split, size = rows < len(store.first), len(store.first)
            second = self.of(store.second, rows[~split] - size, encode) if not split.all() else {}
            return self.of(store.first, rows[split], encode) | {row + size: image for row, image in second.items()}
        with self._lock:
            kept = self._stores.setdefault(store, {})
            found = {row: kept.pop(row) for row in rows.tolist() if row in kept}
        missing = np.unique([row for row in rows.tolist() if row not in found]).astype(np.int64)
        found |= zip(missing.tolist(), encode(store, missing) if len(missing) else [])
        with self._lock:
            kept |= found  # the last that were needed at the end
            for row in list(kept)[: max(0, len(kept) - _KEPT)]:
                del kept[row]
        return found


@settings("late.")
class Late(RerankMethod):
    """model: a file of tools/strip_checkpoint.py, None = the shipped one, of lite0 descriptors; local: descriptors of
    an image, the strongest, None = all."""

    of_locals: ClassVar[bool] = True
    depth: ClassVar[int | None] = 100
    pairwise: ClassVar[bool] = True

    model: str | None = None
    local: Annotated[int, Field(gt=0)] | None = 200

    @cached_property
    def encoder(self) -> LateEncoder:
        """The network, opened when it is first needed."""
        return LateEncoder(self.model or shipped(SHIPPED))

    def prepare(self, space):
        """Raises InputError for a store whose descriptors have other sizes, or that has no local ones."""
        check_local_space(space, "late")
        self.encoder.check_sizes(space.store)

    def scores(self, space: SearchSpace, shortlists: list[Shortlist]) -> list[np.ndarray]:
        """Logits."""
        check_locals(space.store, space.gallery_index, "the reranker 'late'")
        self.encoder.check_sizes(space.store)
        both = self.encoder.settings["symmetric"]
        found = []
        for each in shortlists:
            query_row, rows = int(space.query_index[each.query]), space.gallery_index[each.candidates]
            query, query_weights, query_global = self._encoded(space.store, np.array([query_row]))[query_row]
            matched = np.zeros(len(rows), np.float32)
            cosines = np.zeros(len(rows), np.float32)
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK]
                encoded = self._encoded(space.store, block)
                for i, row in enumerate(block.tolist(), start):
                    vectors, weights, global_ = encoded[row]
                    cosines[i] = global_ @ query_global
                    if len(query) and len(vectors):
                        table = vectors @ query.T
                        own = table.max(0) @ query_weights
                        matched[i] = (own + table.max(1) @ weights) / 2 if both else own
            found.append(self.encoder.logits(matched, cosines).astype(np.float32))
        return found

    @cached_property
    def _kept(self) -> _Kept:
        return _Kept()

    def _encoded(self, store, rows: np.ndarray) -> dict[int, Encoded]:
        return self._kept.of(store, rows, self._encode)

    def _encode(self, store, rows: np.ndarray) -> list[Encoded]:
        batch = self.encoder.read(store, rows, self.local)
        globals_ = l2_normalize(batch.global_)
        # Where NumPy multiplies by several threads itself, these would wait for each other.
        alone = (os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")) == "1"
        with ThreadPoolExecutor(usable_cores() if alone else 1) as pool:
            made = pool.map(lambda i: self.encoder.encode(batch, i), range(len(rows)))
            return [Encoded(*image, global_) for image, global_ in zip(made, globals_)]

    def bytes_per_image(self, space):
        """The global descriptor, and the local ones with scale and keypoint."""
        return super().bytes_per_image(space) + local_bytes(space, self.local, columns=12)
