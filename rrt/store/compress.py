"""A store made of another with fewer bytes an image: the first descriptors alone, smaller types, binary codes."""

import json
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.progress import bar
from rrt.store.binary_codes import BinaryCodes
from rrt.store.file import Sizes
from rrt.store.ranges import concatenated_ranges
from rrt.store.records import offsets_of
from rrt.store.schema import LOCAL_COLUMNS, canonical_settings
from rrt.store.store import Store
from rrt.store.values import GLOBAL_DTYPES, LOCAL_DTYPES, to_stored
from rrt.store.writer import read_skipped, write_finished

_IMAGES_PER_BLOCK = 64


def compress_store(
    store: Store,
    out_path,
    local_dtype: str | None = None,
    max_local: int | None = None,
    global_dtype: str | None = None,
    codes: BinaryCodes | None = None,
    note: dict | None = None,
) -> Path:
    """Write a store of the same images in the same order -> its path; memory: a block of images.

    local_dtype: one of LOCAL_DTYPES, or "bits" with ``codes`` (rrt.store.binary_codes), None as it is; what keeps its
    type keeps its bits. max_local: the first local descriptors of an image, those of highest attention (None: all).
    global_dtype: "float32" or "float16", None as it is. note: what else the store shall say of how it was made.
    InputError for types that do not fit.
    """
    out_path = Path(out_path)
    local_dtype, global_dtype = local_dtype or store.local_dtype, global_dtype or store.global_dtype
    if local_dtype not in (*LOCAL_DTYPES, "bits") or global_dtype not in GLOBAL_DTYPES:
        raise InputError(
            f"{out_path}: local descriptors as {local_dtype} and global ones as {global_dtype}; choose of "
            f"{', '.join(LOCAL_DTYPES)}, bits and of {', '.join(GLOBAL_DTYPES)}"
        )
    if store.codes and (codes or local_dtype != "bits"):
        raise InputError(f"{store.path}: its local descriptors are bits already; take the store it was made of")
    if local_dtype == "bits" and not (codes or store.codes):
        raise InputError(f"{out_path}: bits need the codes that they are of (rrt.store.binary_codes)")
    if codes and codes.dim != store.local_dim:
        raise InputError(
            f"{store.path}: local descriptors of {store.local_dim} dimensions, the codes are of {codes.dim}; "
            "learn them on descriptors of the same model"
        )
    if out_path.resolve() == Path(store.path).resolve():
        raise InputError(f"{out_path}: is the store that shall be compressed; give another name")
    counts = store.local_counts(max_local)
    encode = _encoder(store, local_dtype, codes)
    stored_as = "uint8" if local_dtype == "bits" else local_dtype
    width = encode(store.local_rows("descriptors", 0, 0)).shape[1]
    sizes = Sizes(list(store.names), int(counts.sum()), store.global_dim, width)
    config = canonical_settings(out_path, _settings(store, local_dtype, max_local, global_dtype, note))
    attributes = {name: store.attributes[name] for name in ("desc_name", "model_sha256")} | {
        "config": json.dumps(config)
    }
    blocks = _blocks(store, counts, encode, global_dtype)
    write_finished(
        out_path,
        sizes,
        read_skipped(store.path),
        blocks,
        stored_as,
        store.compression,
        attributes,
        global_dtype,
        codes or store.codes,
    )
    return out_path


def _encoder(store, local_dtype, codes):
    """What turns rows as stored into rows as they shall be."""
    if local_dtype == store.local_dtype:
        return lambda rows: rows
    if codes:
        return lambda rows: codes.encode(store.to_float32(rows))
    return lambda rows: to_stored(store.to_float32(rows), local_dtype)


def _settings(store, local_dtype, max_local, global_dtype, note):
    made = {
        "from": str(store.path),
        "from_local_dtype": store.local_dtype,
        "local_dtype": local_dtype,
        "global_dtype": global_dtype,
        **(note or {}),
    }
    limit = {} if max_local is None else {"max_local": max_local}
    return {**store.config, **limit, "compressed": made}


def _blocks(store, counts, encode, global_dtype):
    for start in bar(range(0, len(store), _IMAGES_PER_BLOCK), "compress", "block", leave=False):
        images = slice(start, min(start + _IMAGES_PER_BLOCK, len(store)))
        heads = store.offsets[images]
        first, last = store.offsets[images.start], store.offsets[images.stop]
        rows = concatenated_ranges(heads - first, counts[images])
        block = {f"local/{name}": store.local_rows(name, first, last)[rows] for name in LOCAL_COLUMNS}
        block["local/descriptors"] = encode(block["local/descriptors"])
        block["image_size"] = store.image_size[images]
        block["global"] = to_stored(np.asarray(store.global_descriptors[images]), global_dtype)
        block["local/offsets"] = offsets_of(counts[images])
        yield block
