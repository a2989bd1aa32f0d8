"""The rankings of an evaluation in one file, `rankings.npz`, from which reports are made without the data set.

It holds names, boxes and grades of the test set, the first LISTED gallery positions of every query, method and protocol
(junk where the method left it), average precisions and precisions at k, and where all of it came from. Nothing in it is
pickled: `about` is JSON in UTF-8 bytes, all else numbers.
"""

import hashlib
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from rrt.command_line.parser import called_as
from rrt.datasets.sets import TestSet
from rrt.errors import InputError
from rrt.evaluation.metrics import ProtocolResult
from rrt.files.arrays import load_npz
from rrt.files.atomic import atomic_path, parse_json
from rrt.formats.ground_truth import grades_of, protocols_of
from rrt.version import __version__

FILE_NAME = "rankings.npz"
LISTED = 1000
_FORMAT = {"schema": "rrt-rankings", "version": 1}
_SOFTWARE = ("numpy", "torch", "faiss-cpu", "scipy", "opencv-python-headless", "h5py")
_REMEDY = "measure again with evaluate_revisited.py or tools/compare.py"


@dataclass(frozen=True)
class RankedMethod:
    """What is saved of a method. results {protocol: ProtocolResult}; rankings {protocol: integers [Q, R]}, gallery
    positions, -1 filling rows up; details: plain values a reader of the results needs (settings, times, checkpoint)."""

    label: str
    results: dict[str, ProtocolResult]
    rankings: dict[str, np.ndarray]
    details: dict = field(default_factory=dict)


@dataclass(frozen=True)
class SavedMethod:
    """aps {protocol: [Q]}, NaN without positives; ps {protocol: [Q, K]}: precision at the cut-offs; rankings {protocol:
    int32 [Q, at most LISTED]}."""

    label: str
    aps: dict[str, np.ndarray]
    ps: dict[str, np.ndarray]
    rankings: dict[str, np.ndarray]
    details: dict


@dataclass(frozen=True)
class SavedRankings:
    """queries, gallery: names as in the lists; gnd: as ``GroundTruth.gnd``; others {gallery position: name} of ranked
    images behind the gallery (distractors); methods[0] is global search; about: date, command,
    directory it ran in, software, data_dir, lists, protocol."""

    path: Path
    queries: list[str]
    gallery: list[str]
    gnd: list[dict]
    others: dict[int, str]
    ks: tuple
    methods: list[SavedMethod]
    about: dict

    @property
    def protocols(self) -> tuple:
        """Protocols that the ground truth has grades for."""
        return protocols_of(self.gnd)

    def name(self, position: int) -> str:
        """Name of a gallery position, or of a distractor behind the gallery."""
        return self.gallery[position] if position < len(self.gallery) else self.others[position]

    def find(self, path) -> Path:
        """A file as the run named it, from where it ran if it is not found from here."""
        there = Path(self.about["directory"]) / path
        return there if not Path(path).exists() and there.exists() else Path(path)

    def test_set(self) -> str:
        """A digest of the names, boxes and grades; equal for two evaluations of one test set, distractors or not."""
        graded = [{key: np.asarray(value).tolist() for key, value in entry.items()} for entry in self.gnd]
        text = json.dumps([self.queries, self.gallery, graded], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def save_rankings(folder, test: TestSet, methods: list[RankedMethod], protocol: dict) -> Path:
    """Write `rankings.npz` into a folder, whole or not at all. methods: global search first; protocol: plain values."""
    names, gallery, gnd = test.store.names, test.images.gallery.names, test.gnd
    arrays, others, described, tables = {}, {}, [], {}
    for number, method in enumerate(methods):
        entry = {"label": method.label, "details": method.details, "rankings": {}}
        for name, result in method.results.items():
            ranks = method.rankings[name]
            # A method that sees no protocol has one ranking for all of them, which is saved once.
            if id(ranks) not in tables:
                tables[id(ranks)] = f"ranks_{len(tables)}"
                arrays[tables[id(ranks)]] = ranks[:, :LISTED].astype(np.int32)
            entry["rankings"][name] = tables[id(ranks)]
            arrays[f"aps_{number}_{name}"], arrays[f"ps_{number}_{name}"] = result.aps, result.ps
        described.append(entry)
    for ranks in (array for key, array in arrays.items() if key.startswith("ranks_")):
        others |= {int(p): names[test.gallery_index[p]] for p in np.unique(ranks[ranks >= len(gallery)])}
    about = _FORMAT | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "directory": os.getcwd(),
        "software": software(),
        "data_dir": str(test.folder.absolute()),
        "lists": [str(test.images.query.path), str(test.images.gallery.path)],
        "protocol": protocol,
        "ks": list(next(iter(methods[0].results.values())).ks),
        "queries": test.images.query.names,
        "gallery": gallery,
        "gnd": [
            {"bbx": list(map(float, e["bbx"]))} | {g: np.asarray(e[g]).tolist() for g in grades_of(e)} for e in gnd
        ],
        "others": others,
        "methods": described,
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path = Path(folder) / FILE_NAME
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def load_rankings(folder) -> SavedRankings:
    """Read what save_rankings() left in a folder. Raises InputError naming the file and what to do."""
    folder = Path(folder)
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the temp_dir of evaluate_revisited.py or tools/compare.py")
    if not path.exists():
        raise InputError(f"{path}: no such file; {_REMEDY} (temp_dir={folder})")
    try:
        arrays = load_npz(path)
        about = parse_json(arrays.pop("about").tobytes())
        version_ = {name: about.get(name) for name in _FORMAT}
    except Exception as error:  # zipfile, numpy and struct raise many kinds for a damaged file
        raise InputError(f"{path}: not the rankings of an evaluation ({error}); {_REMEDY}") from error
    if version_ != _FORMAT:
        raise InputError(f"{path}: its form is {version_}, this program reads {_FORMAT}; {_REMEDY}")
    try:
        return _checked(path, about, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: its parts do not fit together ({error!r}); {_REMEDY}") from error


def _checked(path, about, arrays):
    queries, gallery = about.pop("queries"), about.pop("gallery")
    others = {int(position): name for position, name in about.pop("others").items()}
    gnd = [
        {key: np.asarray(value, np.float64 if key == "bbx" else np.int64) for key, value in entry.items()}
        for entry in about.pop("gnd")
    ]
    methods, ks = [], tuple(about.pop("ks"))
    known = np.array([*range(len(gallery)), *others, -1])
    for number, entry in enumerate(about.pop("methods")):
        rankings = {name: arrays[key] for name, key in entry["rankings"].items()}
        aps = {name: arrays[f"aps_{number}_{name}"] for name in rankings}
        ps = {name: arrays[f"ps_{number}_{name}"] for name in rankings}
        for name in rankings:
            if not len(queries) == len(gnd) == len(rankings[name]) == len(aps[name]) == len(ps[name]):
                raise ValueError(f"{entry['label']}, {name}: not a row for each of {len(queries)} queries")
            if not np.isin(rankings[name], known).all():
                raise ValueError(f"{entry['label']}, {name}: ranks an image without a name")
        methods.append(SavedMethod(entry["label"], aps, ps, rankings, entry["details"]))
    if not methods or not queries:
        raise ValueError("no query or no method")
    return SavedRankings(path, queries, gallery, gnd, others, ks, methods, about)


def command_line() -> str:
    """The command of this process as a shell takes it."""
    # Of the two ways to quote a word, the one that can be read where it holds quotes itself, as lists of settings do.
    words = [
        f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word) for word in sys.argv[1:]
    ]
    return " ".join([called_as(sys.argv[0]), *words])


def software() -> dict[str, str]:
    """{package: version} of what shapes the numbers."""
    found = {"rrt": __version__, "python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found
