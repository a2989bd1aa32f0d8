"""Ground truth of test sets (.pkl, .json, .mat) and neighbour tables; no file that is read here can run code."""

import json
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import atomic_path, parse_json, write_bytes
from rrt.files.safe_pickle import safe_load_pickle
from rrt.formats.ground_truth_mat import load_mat, save_mat

GRADES = ("easy", "hard", "junk")
# Of Oxford5k and Paris6k before they were revisited.
CLASSIC_GRADES = ("good", "ok", "junk")


@dataclass
class GroundTruth:
    """Ground truth in the Revisited format (docs/protocol.md 3), or the classic one in the same form.

    imlist, qimlist: names of gallery and query images (file stems in the published files).
    gnd: a dict per query: `bbx` = [x1, y1, x2, y2] floats, pixels of the whole query image; `easy`, `hard`, `junk`
    (of all queries; or of all `good`, `ok`, `junk`) = int64 positions in imlist.
    """

    path: Path
    imlist: list[str]
    qimlist: list[str]
    gnd: list[dict]


def grades_of(entry):
    """The keys of a query's entry that hold positions: GRADES, or CLASSIC_GRADES where the entry has `good`."""
    return CLASSIC_GRADES if "good" in entry else GRADES


def pixel_box(entry: dict) -> tuple[int, int, int, int]:
    """A query's box (x1, y1, x2, y2) rounded to whole pixels, as an extraction crops it."""
    x1, y1, x2, y2 = (int(round(float(value))) for value in entry["bbx"])
    return x1, y1, x2, y2


def load_ground_truth(path):
    """Load and check ground truth; the suffix .pkl, .json or .mat says how it is kept. Positions in a .mat count from
    1.

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
    entries = [
        {"bbx": list(entry["bbx"])} | {grade: entry[grade].tolist() for grade in grades_of(entry)}
        for entry in truth.gnd
    ]
    save(path, {"imlist": truth.imlist, "qimlist": truth.qimlist, "gnd": entries})


def save_pickle(path, content):
    """Pickle `content` with protocol 4; the file appears whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file, protocol=4)


def _load_json(path):
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the ground truth's .pkl, .json or .mat file"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({str(error)[:100]}); make or fetch the file again") from None


def _save_json(path, content):
    write_bytes(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())


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
    entries = [
        _checked_entry(f"{path}: query {row} ('{qimlist[row]}')", entry, len(imlist)) for row, entry in enumerate(gnd)
    ]
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
    if len(box) != 4 or not np.isfinite(box).all():
        raise InputError(f"{where}: bbx is not a box of four numbers x1, y1, x2, y2")
    if box[2] < box[0] or box[3] < box[1]:
        corners = [*box[:2], box[0] + box[2], box[1] + box[3]]
        told, remedy = (", ".join(f"{value:.10g}" for value in numbers) for numbers in (box, corners))
        raise InputError(
            f"{where}: bbx {told} is not a box of four numbers x1, y1, x2, y2 (left, top, right, bottom), as x2 < x1 or"
            f" y2 < y1; if it is x, y, width, height, write {remedy}"
        )
    checked = {"bbx": box} | {grade: _checked_positions(where, grade, entry[grade], num_gallery) for grade in grades}
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


PROTOCOLS = ("easy", "medium", "hard")


# What a protocol counts as right, and what it leaves out of the ranking as if it were not in the gallery.
POSITIVE_GRADES = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",), "classic": ("good", "ok")}


IGNORED_GRADES = {"easy": ("junk", "hard"), "medium": ("junk",), "hard": ("junk", "easy"), "classic": ("junk",)}


def protocols_of(gnd):
    """The protocols of a ground truth: easy, medium and hard for the Revisited grades, classic for good, ok, junk."""
    grades = {grades_of(entry) for entry in gnd}
    if len(grades) > 1:
        raise InputError(
            "ground truth: some queries are graded easy and hard, others good and ok; keep to one of the two"
        )
    return ("classic",) if "good" in (grades.pop() if grades else ()) else PROTOCOLS


def chosen_protocol(protocols):
    """The name, of several protocols, of the one that choices are made by: medium where it is among them."""
    return "medium" if "medium" in protocols else next(iter(protocols))


def ignored_positions(entry, protocol):
    """Gallery positions that the protocol leaves out of a query's ranking."""
    return np.concatenate([entry[grade] for grade in IGNORED_GRADES[protocol]])


def convert(source, target):
    """Write the ground truth of `source` to `target` in the form its suffix names -> number of queries.

    Raises InputError for ground truth that does not fit together, and writes nothing then.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise InputError(f"{target}: is the source itself; name another file")
    truth = load_ground_truth(source)
    save_ground_truth(target, truth.imlist, truth.qimlist, truth.gnd)
    return len(truth.qimlist)
