"""Ground truth of test sets (.pkl, .json, .mat) and neighbour tables; no file that is read here can run code."""

import json
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError, atomic_path
from rrt.formats.ground_truth_mat import load_mat, save_mat
from rrt.search.table import origin_path, write_origin
from rrt.files.safe_pickle import safe_load_pickle

__all__ = ["CLASSIC_GRADES", "GRADES", "GroundTruth", "grades_of", "load_ground_truth", "load_neighbors", "query_boxes",
           "safe_load_pickle", "save_ground_truth", "save_neighbors", "save_pickle"]

GRADES = ("easy", "hard", "junk")
# Of Oxford5k and Paris6k before they were revisited.
CLASSIC_GRADES = ("good", "ok", "junk")


@dataclass
class GroundTruth:
    """Ground truth in the Revisited format (RRT_SPEC section 3), or the classic one in the same form.

    imlist, qimlist: names of gallery and query images (file stems in the published files).
    gnd: a dict per query: `bbx` = [x1, y1, x2, y2] floats, pixels of the whole query picture; `easy`, `hard`, `junk`
    (of all queries; or of all `good`, `ok`, `junk`) = int64 positions in imlist.
    """

    path: Path
    imlist: list[str]
    qimlist: list[str]
    gnd: list[dict]


def grades_of(entry):
    """The keys of a query's entry that hold positions: GRADES, or CLASSIC_GRADES where the entry has `good`."""
    return CLASSIC_GRADES if "good" in entry else GRADES


def query_boxes(truth):
    """{file stem of a query: its box (x1, y1, x2, y2)}, rounded to whole pixels as an extraction crops."""
    return {Path(name).stem: tuple(int(round(value)) for value in entry["bbx"])
            for name, entry in zip(truth.qimlist, truth.gnd)}


def load_ground_truth(path):
    """Load and check ground truth; the suffix .pkl, .json or .mat says how it is kept. Positions in a .mat count from 1.

    Raises InputError naming file, query and key.
    """
    path = Path(path)
    content = _format_of(path)[0](path)
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= content.keys():
        raise InputError(f"{path}: not a Revisited ground truth; expected a dict with imlist, qimlist and gnd")
    return _checked(path, content["imlist"], content["qimlist"], content["gnd"])


def save_ground_truth(path, imlist, qimlist, gnd):
    """Write ground truth in the form that the suffix names (.pkl, .json, .mat): plain Python values only, as the
    published pickles have it, and positions from 1 in a .mat. Checks it as the loader does."""
    path = Path(path)
    save = _format_of(path)[1]
    truth = _checked(path, imlist, qimlist, gnd)
    entries = [{"bbx": list(entry["bbx"])} | {grade: entry[grade].tolist() for grade in grades_of(entry)}
               for entry in truth.gnd]
    save(path, {"imlist": truth.imlist, "qimlist": truth.qimlist, "gnd": entries})


def load_neighbors(path, rows=None, columns_below=None):
    """Load a neighbour table: int64 [rows, k], gallery positions by falling similarity.

    rows: how many queries the table must have. columns_below: size of the gallery the positions must lie in.
    Raises InputError when the file is no such table, does not fit, or lists a position twice in a row.
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
    _refuse_repeats(path, table, remedy)
    return table.astype(np.int64, copy=False)


def _refuse_repeats(path, table, remedy):
    # In blocks, because a table with distractors has millions of columns.
    step = max(1, 2**22 // table.shape[1])
    for start in range(0, len(table), step):
        rising = np.sort(table[start:start + step], axis=1)
        twice = np.argwhere(rising[:, 1:] == rising[:, :-1])
        if len(twice):
            row, column = twice[0]
            raise InputError(f"{path}: row {start + row} lists gallery position {rising[row, column]} twice; {remedy}")


def save_neighbors(path, table, origin=None, search=None):
    """Write a neighbour table [rows, k] as int64, and beside it what it was made from.

    origin: of rrt.search.table.describe_origin, None when it is not known; search: how the neighbours were found.
    """
    # First, so that what stands beside a table never describes another one, whenever the program is killed.
    origin_path(path).unlink(missing_ok=True)
    save_pickle(path, np.ascontiguousarray(table, dtype=np.int64))
    if origin is not None:
        write_origin(path, origin, search)


def save_pickle(path, content):
    """Pickle `content` with protocol 4; the file appears whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file, protocol=4)


def _load_json(path):
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give the ground truth's .pkl, .json or .mat file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({str(error)[:100]}); make or fetch the file again") from None


def _save_json(path, content):
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _format_of(path):
    """(load, save) of ground truth files with this suffix."""
    formats = {".pkl": (safe_load_pickle, save_pickle), ".json": (_load_json, _save_json), ".mat": (load_mat, save_mat)}
    if path.suffix in formats:
        return formats[path.suffix]
    raise InputError(f"{path}: ground truth is kept in .pkl, .json or .mat files; name one of these")


def _checked(path, imlist, qimlist, gnd):
    imlist, qimlist = _checked_names(path, "imlist", imlist), _checked_names(path, "qimlist", qimlist)
    if not isinstance(gnd, (list, tuple)) or len(gnd) != len(qimlist):
        count = f"{len(gnd)} entries" if isinstance(gnd, (list, tuple)) else f"a {type(gnd).__name__}"
        raise InputError(f"{path}: gnd is {count} for the {len(qimlist)} queries of qimlist; expected one per query")
    entries = [_checked_entry(f"{path}: query {row} ('{qimlist[row]}')", entry, len(imlist))
               for row, entry in enumerate(gnd)]
    if len({grades_of(entry) for entry in entries}) > 1:
        raise InputError(f"{path}: some queries are graded easy and hard, others good and ok; keep to one of the two")
    return GroundTruth(path, imlist, qimlist, entries)


def _checked_names(path, key, names):
    names = names.tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key} must be a list of image names, with at least one")
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path}: {key} names '{twice}' twice; remove one")
    return list(names)


def _checked_entry(where, entry, num_gallery):
    if not isinstance(entry, dict) or not {"bbx", *grades_of(entry)} <= entry.keys():
        raise InputError(f"{where}: expected a dict with bbx, easy, hard and junk (or bbx, good, ok and junk)")
    grades = grades_of(entry)
    try:
        box = [float(value) for value in entry["bbx"]]
    except (TypeError, ValueError):
        box = []
    if len(box) != 4 or not np.isfinite(box).all() or box[2] < box[0] or box[3] < box[1]:
        raise InputError(f"{where}: bbx is not a box of four numbers x1, y1, x2, y2")
    checked = {"bbx": box} | {
        grade: _checked_positions(where, grade, entry[grade], num_gallery) for grade in grades}
    together = np.sort(np.concatenate([checked[grade] for grade in grades]))
    repeated = together[1:][together[1:] == together[:-1]]
    if len(repeated):
        raise InputError(f"{where}: gallery position {repeated[0]} is listed twice among {', '.join(grades)}")
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
