"""A store made of another with fewer bytes an image: the first descriptors alone, smaller types, binary codes."""

import json
from pathlib import Path

import numpy as np

from rrt.errors import InputError, check_least
from rrt.formats.lists import read_image_list
from rrt.progress import bar
from rrt.store.binary_codes import BinaryCodes, check_bits, learn_codes, random_codes
from rrt.store.checked import sample_descriptors
from rrt.store.file import Sizes, write_finished
from rrt.store.ranges import concatenated_ranges
from rrt.store.records import offsets_of
from rrt.store.schema import LOCAL_COLUMNS, canonical_settings
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.values import GLOBAL_DTYPES, LOCAL_DTYPES, to_stored

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


def make_codes(local_dim, train=None, train_list=None, kind="itq", bits=128, sample=50_000, seed=0, iterations=50):
    """Codes for descriptors of ``local_dim`` dimensions -> (BinaryCodes, what a store shall say of them)."""
    note = {"codes": kind if train else "random, not learned", "bits": bits, "seed": seed}
    if not train:
        return random_codes(local_dim, bits, seed), note
    if sample < 1:
        raise InputError(f"--sample {sample}: give at least 1")
    with Store(train) as store:
        if store.local_dim != local_dim:
            raise InputError(
                f"{train}: local descriptors of {store.local_dim} dimensions, those to be coded have {local_dim}; "
                "learn the codes on descriptors of the same model"
            )
        images = read_image_list(train_list) if train_list else None
        rows = sample_descriptors(store, sample, store.indices(images.names, images) if images else None, seed)
    note |= {
        "learned_on": str(train),
        "learned_list": train_list and str(train_list),
        "descriptors": len(rows),
        "iterations": iterations if kind == "itq" else 0,
    }
    return learn_codes(rows, bits, kind, seed, iterations), note


def _check_bits_option(store, bits=128, seed=0, **_):
    check_least("--seed", seed, 0)
    try:
        check_bits(store.local_dim, bits)
    except InputError as error:
        raise InputError(f"{store.path}: --bits {bits}: {error}") from None


def make_store(source, out, local_dtype=None, max_local=None, global_dtype=None, overwrite=False, **coding):
    """rrt.store.compress.compress_store of the store at ``source`` -> (path, bytes of an image before, after). coding:
    what make_codes takes, for local_dtype "bits"."""
    out = Path(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; give another name or --overwrite")
    check_least("--max_local", max_local, 0)
    if local_dtype != "bits" and (coding.get("train") or coding.get("train_list")):
        raise InputError("--train is for --local_dtype bits alone; leave it out, or give that, too")
    if coding.get("train_list") and not coding.get("train"):
        raise InputError("--train_list names images of the store of --train; give that, too")
    with Store(source) as store:
        codes, note = (None, None)
        if local_dtype == "bits" and not store.codes:
            _check_bits_option(store, **coding)
            codes, note = make_codes(store.local_dim, **coding)
        compress_store(store, out, local_dtype, max_local, global_dtype, codes, note)
        return out, store.size_on_disk / len(store), out.stat().st_size / len(store)
