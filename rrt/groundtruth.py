"""Ground truth of the Revisited benchmarks and neighbour tables, kept in pickles that cannot run code."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError, atomic_path
from rrt.safe_pickle import safe_load_pickle

__all__ = ["GRADES", "GroundTruth", "load_ground_truth", "load_neighbors", "safe_load_pickle", "save_ground_truth",
           "save_neighbors", "save_pickle"]

GRADES = ("easy", "hard", "junk")


@dataclass
class GroundTruth:
    """Ground truth in the Revisited format (RRT_SPEC section 3).

    imlist, qimlist: names of gallery and query images (file stems in the published files).
    gnd: a dict per query: `bbx` = [x1, y1, x2, y2] floats, pixels of the whole query picture; `easy`, `hard`, `junk` =
    int64 positions in imlist.
    """

    path: Path
    imlist: list[str]
    qimlist: list[str]
    gnd: list[dict]


def load_ground_truth(path):
    """Load and check a Revisited ground truth pickle. Raises InputError naming file, query and key."""
    path = Path(path)
    content = safe_load_pickle(path)
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= content.keys():
        raise InputError(f"{path}: not a Revisited ground truth; expected a dict with imlist, qimlist and gnd")
    return _checked(path, content["imlist"], content["qimlist"], content["gnd"])


def save_ground_truth(path, imlist, qimlist, gnd):
    """Write ground truth as the published files have it: plain Python values only. Checks it as the loader does."""
    truth = _checked(Path(path), imlist, qimlist, gnd)
    entries = [{"bbx": list(entry["bbx"])} | {grade: entry[grade].tolist() for grade in GRADES} for entry in truth.gnd]
    save_pickle(path, {"imlist": truth.imlist, "qimlist": truth.qimlist, "gnd": entries})


def load_neighbors(path, rows=None, columns_below=None):
    """Load a neighbour table: int64 [rows, k], gallery positions by falling similarity.

    rows: how many queries the table must have. columns_below: size of the gallery the positions must lie in.
    Raises InputError when the file is no such table or does not fit.
    """
    path = Path(path)
    table = safe_load_pickle(path)
    remedy = "make it again with tools/prepare_topk_revisited.py or tools/prepare_topk_gldv2.py"
    try:
        table = np.asarray(table)
    except ValueError:
        table = np.empty(0, dtype=object)
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.size == 0:
        raise InputError(f"{path}: not a neighbour table (an integer array [rows, neighbours]); {remedy}")
    if rows is not None and len(table) != rows:
        raise InputError(f"{path}: {len(table)} rows of neighbours for {rows} queries; {remedy}")
    outside = (table < 0) | (table >= (np.iinfo(np.int64).max if columns_below is None else columns_below))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        gallery = "" if columns_below is None else f", the gallery has {columns_below} images"
        raise InputError(f"{path}: row {row} names gallery position {table[row, column]}{gallery}; {remedy}")
    return table.astype(np.int64, copy=False)


def save_neighbors(path, table):
    """Write a neighbour table [rows, k] as int64."""
    save_pickle(path, np.ascontiguousarray(table, dtype=np.int64))


def save_pickle(path, content):
    """Pickle `content` with protocol 4; the file appears whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file, protocol=4)


def _checked(path, imlist, qimlist, gnd):
    imlist, qimlist = _checked_names(path, "imlist", imlist), _checked_names(path, "qimlist", qimlist)
    if not isinstance(gnd, (list, tuple)) or len(gnd) != len(qimlist):
        count = f"{len(gnd)} entries" if isinstance(gnd, (list, tuple)) else f"a {type(gnd).__name__}"
        raise InputError(f"{path}: gnd is {count} for the {len(qimlist)} queries of qimlist; expected one per query")
    entries = [_checked_entry(f"{path}: query {row} ('{qimlist[row]}')", entry, len(imlist))
               for row, entry in enumerate(gnd)]
    return GroundTruth(path, imlist, qimlist, entries)


def _checked_names(path, key, names):
    names = names.tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key} must be a list of image names, with at least one")
    if len(set(names)) != len(names):
        twice = next(name for row, name in enumerate(names) if name in names[:row])
        raise InputError(f"{path}: {key} names '{twice}' twice; remove one")
    return list(names)


def _checked_entry(where, entry, num_gallery):
    if not isinstance(entry, dict) or not {"bbx", *GRADES} <= entry.keys():
        raise InputError(f"{where}: expected a dict with bbx, easy, hard and junk")
    try:
        box = [float(value) for value in entry["bbx"]]
    except (TypeError, ValueError):
        box = []
    if len(box) != 4 or not np.isfinite(box).all() or box[2] < box[0] or box[3] < box[1]:
        raise InputError(f"{where}: bbx is not a box of four numbers x1, y1, x2, y2")
    checked = {"bbx": box} | {grade: _checked_positions(where, grade, entry[grade], num_gallery) for grade in GRADES}
    together = np.sort(np.concatenate([checked[grade] for grade in GRADES]))
    repeated = together[1:][together[1:] == together[:-1]]
    if len(repeated):
        raise InputError(f"{where}: gallery position {repeated[0]} is listed twice among easy, hard and junk")
    return checked


def _checked_positions(where, grade, positions, num_gallery):
    try:
        positions = np.asarray(positions)
    except ValueError:
        positions = np.empty((0, 0), dtype=object)
    if positions.size == 0 and positions.dtype != object:
        return np.empty(0, dtype=np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise InputError(f"{where}: {grade} is not a list of positions in imlist")
    outside = (positions < 0) | (positions >= num_gallery)
    if outside.any():
        raise InputError(f"{where}: {grade} names position {positions[outside][0]}, imlist has {num_gallery} images")
    return positions.astype(np.int64)
