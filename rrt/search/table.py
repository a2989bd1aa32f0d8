"""Where a neighbour table comes from: a small JSON file beside it says, and is compared with today's lists and store.

The table itself stays a plain integer array, as published programs read and write it. One without such a file beside
it, a published one say, is taken as it is.
"""

import hashlib
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import parse_json, sha256_of_file, write_json
from rrt.files.safe_pickle import safe_load_pickle
from rrt.formats.ground_truth import save_pickle

# Global descriptors looked at of each list, evenly spread: another model or extraction differs in every row, and
# 20,000 rows of 2,048 numbers take a fifth of a second where all of GLDv2 would take seconds at every start.
COMPARED_ROWS = 20_000
_ROWS_PER_BLOCK = 4096
_TOOLS = "tools/prepare_topk_revisited.py or tools/prepare_topk_gldv2.py"
_AGAIN = f"make it again with {_TOOLS}"


def origin_path(table_path) -> Path:
    """``nn_inds_<desc_name>.pkl.json`` beside the table."""
    table_path = Path(table_path)
    return table_path.with_name(table_path.name + ".json")


def describe_origin(store, queries, gallery, query_store=None) -> dict:
    """What a table of the ImageLists ``queries`` x ``gallery`` over this store depends on, as plain values.
    query_store: that of the queries, None = the same."""
    described = {"queries": _describe_list(query_store or store, queries)}
    if queries is not gallery:
        described["gallery"] = _describe_list(store, gallery)
    return {"gallery": described["queries"]} | described


def digest_rows(table, rows=None) -> str:
    """SHA-256 of the float32 rows of table [N, D], all or those named."""
    digest = hashlib.sha256(f"{table.shape[1]} ".encode())
    rows = np.arange(len(table)) if rows is None else rows
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        digest.update(np.ascontiguousarray(table[rows[start : start + _ROWS_PER_BLOCK]], np.float32).data)
    return digest.hexdigest()


def write_origin(table_path, origin: dict, search: dict | None = None) -> None:
    """Write the file beside a finished table. origin: of ``describe_origin``; search: how the neighbours were found
    (query expansion, whitening), a record that nothing is compared with."""
    content = origin | {"search": search or {}, "table_sha256": sha256_of_file(table_path)}
    write_json(origin_path(table_path), content)


def check_origin(table_path, store, queries, gallery, query_store=None) -> dict | None:
    """InputError when the file beside the table says that it was made for other lists or descriptors, or describes
    another table. Returns how the neighbours were found, None where no file says so."""
    path = origin_path(table_path)
    if not path.exists():
        return None
    recorded = _read(path)
    if recorded["table_sha256"] != sha256_of_file(table_path):
        raise InputError(
            f"{table_path}: not the table that {path.name} beside it describes; delete {path} if you put another table"
            f" there on purpose, else {_AGAIN}"
        )
    today = describe_origin(store, queries, gallery, query_store)
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
        raise InputError(f"{table_path}: made {reason}; {_AGAIN}")
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
        recorded = parse_json(path.read_bytes())
        for part in ("queries", "gallery"):
            _ = [recorded[part][name] for name in ("count", "names_sha256", "globals_sha256")]
        _ = recorded["table_sha256"], recorded["search"]
        return recorded
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: does not say where the neighbour table comes from ({type(error).__name__}: {str(error)[:80]});"
            f" make the table again with {_TOOLS}, or delete this file to use the table unchecked"
        ) from None


def load_neighbors(path, rows=None, columns_below=None):
    """Load a neighbour table: int64 [rows, k], gallery positions by falling similarity.

    rows: how many queries the table must have. columns_below: size of the gallery the positions must lie in.
    Raises InputError when the file is no such table, does not fit, or lists a position twice in a row.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such table of neighbours; make it with {_TOOLS}")
    table = safe_load_pickle(path)
    try:
        table = np.asarray(table)
    except ValueError:
        table = np.empty(0, dtype=object)
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.size == 0:
        raise InputError(f"{path}: not a neighbour table (an integer array [rows, neighbours]); {_AGAIN}")
    if rows is not None and len(table) != rows:
        raise InputError(f"{path}: {len(table)} rows of neighbours for {rows} queries; {_AGAIN}")
    outside = (table < 0) | (table >= (np.iinfo(np.int64).max if columns_below is None else columns_below))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        gallery = "" if columns_below is None else f", the gallery has {columns_below} images"
        raise InputError(f"{path}: row {row} names gallery position {table[row, column]}{gallery}; {_AGAIN}")
    _refuse_repeats(path, table)
    return table.astype(np.int64, copy=False)


def _refuse_repeats(path, table):
    # In blocks, because a table with distractors has millions of columns.
    step = max(1, 2**22 // table.shape[1])
    for start in range(0, len(table), step):
        rising = np.sort(table[start : start + step], axis=1)
        twice = np.argwhere(rising[:, 1:] == rising[:, :-1])
        if len(twice):
            row, column = twice[0]
            raise InputError(f"{path}: row {start + row} lists gallery position {rising[row, column]} twice; {_AGAIN}")


def save_neighbors(path, table, origin=None, search=None):
    """Write a neighbour table [rows, k] as int64, and beside it what it was made from.

    origin: of rrt.search.table.describe_origin, None when it is not known; search: how the neighbours were found.
    """
    # First, so that what is beside a table never describes another one, whenever the program is killed.
    origin_path(path).unlink(missing_ok=True)
    save_pickle(path, np.ascontiguousarray(table, dtype=np.int64))
    if origin is not None:
        write_origin(path, origin, search)
