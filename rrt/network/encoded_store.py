"""A gallery encoded once by ``LATE``: a descriptor store whose local descriptors are the network's vectors.

An image's vectors take the place of its descriptors, by falling weight, and the weights in that of the attention;
everything else is as in the store it was made of. So it is written in parts and resumed, checked and mapped like any
store, and tools/compress_store.py makes 128-bit codes of it. Its settings say of which network and which store it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rrt.errors import InputError
from rrt.network.late import LATE
from rrt.store.checked import not_finite
from rrt.store.finished import is_complete, remove_store
from rrt.store.joined import JoinedStore
from rrt.store.memory import MemoryStore
from rrt.store.records import ImageRecord
from rrt.store.schema import first_difference
from rrt.store.store import Store
from rrt.store.writer import PartWriter

if TYPE_CHECKING:
    from rrt.network.late_scorer import LateScorer

# Images of a part, which is written, or done again, as a whole.
_BLOCK = 64


@dataclass(frozen=True)
class EncodedGallery:
    """A store that ``encode_store`` wrote, opened for the network that encoded it; see ``open_encoded``."""

    store: Store

    @property
    def keep(self) -> int | None:
        """Vectors of an image at most; None: as many as it has descriptors."""
        return self.store.config["encoded"].get("keep")

    def rows(self, store) -> np.ndarray:
        """int64 [N]: where each image of a store is in here, -1 for those of other stores. InputError for a store file
        that this was not made of."""
        stores = (store.first, store.second) if isinstance(store, JoinedStore) else (store,)
        found = [self._rows(each) for each in stores]
        known = any(rows is not None for rows in found)
        if not known and not isinstance(store, MemoryStore):
            raise InputError(
                f"{self.store.path}: was not encoded from {store.path}; encode that with tools/encode_store.py"
            )
        return np.concatenate([np.full(len(each), -1) if rows is None else rows for each, rows in zip(stores, found)])

    def _rows(self, store) -> np.ndarray | None:
        if isinstance(store, MemoryStore) or _identity(store) != self.store.config["encoded"]["of"]:
            return None
        return self.store.indices(store.names)


def open_encoded(path, network: Any, max_local: int | None, binning: str) -> EncodedGallery:
    """The encoded store at a path. InputError when it is none, or of another network or number of descriptors."""
    if not isinstance(network, LATE):
        raise InputError(f"{path}: an encoded gallery is for checkpoints of model.LATE; leave it out with this one")
    store = Store(path)
    if not _is_encoded(store):
        raise InputError(f"{path}: holds no encoded images; make it with tools/encode_store.py")
    made, wanted = store.config["encoded"], _settings(network, max_local, binning)
    difference = first_difference({name: made.get(name) for name in wanted}, wanted)
    if difference:
        name, old, new = difference
        raise InputError(
            f"{path}: was encoded with {name}={old}, now it is {new}; encode it again with this checkpoint"
        )
    return EncodedGallery(store)


def encode_store(scorer: LateScorer, out, overwrite: bool = False, keep: int | None = None) -> Path:
    """Encode all images of the scorer's store, in parts, so that a run that was stopped goes on -> ``out``.

    keep: vectors of an image at most, those that weigh most; None: all. A finished file of the same is left as it is.
    Raises InputError.
    """
    out, store = Path(out), scorer.store
    if out.resolve() == Path(store.path).resolve():
        raise InputError(f"{out}: is the store to encode; give another name")
    if _is_encoded(store):
        raise InputError(f"{store.path}: is encoded already; encode the store that it was made of")
    made = _settings(scorer.model, scorer.gallery_local, scorer.binning) | {"of": _identity(store)}
    made["precision"] = scorer.precision
    if keep is not None:
        made["keep"] = keep
    settings = {**store.config, "encoded": made}
    if overwrite:
        remove_store(out)
    if is_complete(out, store.names, settings, "float16"):
        return out
    writer = PartWriter(out, store.names, settings, _BLOCK, "float16")
    with writer.progress("encode") as (missing, shown):
        for part in missing:
            images = np.arange(part * _BLOCK, min((part + 1) * _BLOCK, len(store)))
            writer.write_part(part, _records(scorer, images, keep))
            shown.update(len(images))
    return writer.merge(scorer.store.attributes["model_sha256"], scorer.store.attributes["desc_name"])


def _records(scorer, images, keep) -> list[ImageRecord]:
    records = []
    for image, (vectors, weights) in zip(images.tolist(), scorer.encoded(images)):
        record = scorer.store[image].record()
        for column in ("keypoints", "scales"):
            if not np.isfinite(getattr(record, column)).all():
                raise not_finite(scorer.store, image, column)
        weights = weights.cpu().numpy()
        order = np.argsort(-weights, kind="stable")[:keep]
        keypoints, scales = (values[: len(weights)][order] for values in (record.keypoints, record.scales))
        rows = vectors.float().cpu().numpy()[order]
        if len(order) < len(weights):
            weights = weights / weights[order].sum()
        records.append(ImageRecord(record.name, record.size, record.global_, rows, keypoints, scales, weights[order]))
    return records


def _is_encoded(store: Store) -> bool:
    made = store.config.get("encoded")
    return isinstance(made, dict) and "of" in made


def _settings(network: LATE, max_local, binning) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(network.settings, sort_keys=True).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return {"network": digest.hexdigest(), "max_local": max_local, "scale_binning": binning}


def _identity(store: Store) -> dict[str, Any]:
    """What tells a store from others without reading its descriptors."""
    rest = {"config": store.config, "model_sha256": store.attributes["model_sha256"], "names": store.names}
    counts = [len(store), int(store.offsets[-1])]
    return {"sha256": hashlib.sha256(json.dumps([rest, counts], sort_keys=True).encode()).hexdigest()}
