"""Where a neighbour table comes from: a small JSON file beside it says, and is compared with today's lists and store.

The table itself stays a plain integer array, as published programs read and write it. One without such a file beside
it, a published one say, is taken as it is.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from rrt.errors import InputError, atomic_path, sha256_of_file

# Global descriptors looked at of each list, evenly spread: another model or extraction differs in every row, and
# 20,000 rows of 2,048 numbers take a fifth of a second where all of GLDv2 would take seconds at every start.
COMPARED_ROWS = 20_000
_ROWS_PER_BLOCK = 4096


def origin_path(table_path) -> Path:
    """``nn_inds_<desc_name>.pkl.json`` beside the table."""
    table_path = Path(table_path)
    return table_path.with_name(table_path.name + ".json")


def describe_origin(store, queries, gallery) -> dict:
    """What a table of the ImageLists ``queries`` x ``gallery`` over this store depends on, as plain values."""
    lists = {"queries": queries} if queries is gallery else {"queries": queries, "gallery": gallery}
    described = {name: _describe_list(store, images) for name, images in lists.items()}
    return {"gallery": described["queries"]} | described


def digest_rows(table, rows=None) -> str:
    """SHA-256 of the float32 rows of table [N, D], all or those named."""
    digest = hashlib.sha256(f"{table.shape[1]} ".encode())
    rows = np.arange(len(table)) if rows is None else rows
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        digest.update(np.ascontiguousarray(table[rows[start : start + _ROWS_PER_BLOCK]], np.float32))
    return digest.hexdigest()


def write_origin(table_path, origin: dict, search: dict | None = None) -> None:
    """Write the file beside a finished table. origin: of ``describe_origin``; search: how the neighbours were found
    (query expansion, whitening), a record that nothing is compared with."""
    content = origin | {"search": search or {}, "table_sha256": sha256_of_file(table_path)}
    with atomic_path(origin_path(table_path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def check_origin(table_path, store, queries, gallery) -> dict | None:
    """InputError when the file beside the table says that it was made for other lists or descriptors, or describes
    another table. Returns how the neighbours were found, None where no file says so."""
    path = origin_path(table_path)
    if not path.exists():
        return None
    recorded = _read(path)
    again = "make it again with tools/prepare_topk_revisited.py or tools/prepare_topk_gldv2.py"
    if recorded["table_sha256"] != sha256_of_file(table_path):
        raise InputError(
            f"{table_path}: not the table that {path.name} beside it describes; delete {path} if you put another table"
            f" there on purpose, else {again}"
        )
    today = describe_origin(store, queries, gallery)
    for part, images in (("queries", queries), ("gallery", gallery)):
        was, now = recorded[part], today[part]
        if was["count"] != now["count"]:
            reason = f"for {was['count']} images as {part}, {images.path} has {now['count']}"
        elif was["names_sha256"] != now["names_sha256"]:
            reason = f"for other {part}: {images.path} has other names, or another order"
        elif was["globals_sha256"] != now["globals_sha256"]:
            reason = f"from other global descriptors of the {part} than {store.path} holds"
        else:
            continue
        raise InputError(f"{table_path}: made {reason}; {again}")
    return recorded["search"]


def _describe_list(store, images) -> dict:
    index = store.indices(images.names, images)
    sample = index[:: max(1, -(-len(index) // COMPARED_ROWS))]
    return {
        "count": len(images),
        # No name holds a line break.
        "names_sha256": hashlib.sha256("\n".join(images.names).encode("utf-8")).hexdigest(),
        "globals_sha256": digest_rows(store.global_descriptors, sample),
    }


def _read(path: Path) -> dict:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        for part in ("queries", "gallery"):
            _ = [recorded[part][name] for name in ("count", "names_sha256", "globals_sha256")]
        _ = recorded["table_sha256"], recorded["search"]
        return recorded
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: does not say where the neighbour table comes from ({type(error).__name__}: {str(error)[:80]});"
            " make the table again with tools/prepare_topk_revisited.py or tools/prepare_topk_gldv2.py, or delete this"
            " file to use the table unchecked"
        ) from None
