"""Which landmarks a training sees, on which ones its best epoch is chosen, and what is measured for its log alone.

The published program chose its epoch on the test set (docs/protocol.md 5). Here a part of the training landmarks is
held out by tools/train_val_split.py: beside the folder of a training set lie <folder>_train, the list without them,
and <folder>_val, their queries and gallery. ``dataset.val_data_dir=auto`` takes the two where they are there.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from rrt.datasets.sets import TestSet, TrainSet, open_test_set
from rrt.datasets.settings import AUTO, DatasetSettings
from rrt.errors import InputError
from rrt.formats.ground_truth import PROTOCOLS, grades_of, protocols_of
from rrt.store.checked import read_globals

_TRAIN_TXT = "train.txt"


def split_folders(train_data_dir) -> tuple[Path, Path]:
    """Folders of the training part and of the held-out landmarks of a training set."""
    whole = Path(train_data_dir)
    return whole.with_name(f"{whole.name}_train"), whole.with_name(f"{whole.name}_val")


def split_command(dataset: DatasetSettings) -> str:
    """The command that holds out landmarks of the training set of a ``dataset`` configuration."""
    assert dataset.train_data_dir is not None
    train, val = split_folders(dataset.train_data_dir)
    whole = Path(dataset.train_data_dir) / dataset.train_txt
    return f"python tools/train_val_split.py {whole} {train} {val} --name {val.name} --landmarks 200 --link_stores"


def resolve_split(dataset: DatasetSettings, select_on: str = "val") -> DatasetSettings:
    """The ``dataset`` configuration with ``val_data_dir=auto`` replaced by folders.

    With the held-out landmarks in place: the training part and the validation set. Without them, or with
    select_on=test (the published way): all training landmarks and no validation set.
    """
    if dataset.val_data_dir != AUTO:
        return dataset
    if not dataset.train_data_dir:
        return replace(dataset, val_data_dir=None)
    train, val = split_folders(dataset.train_data_dir)
    truth = dataset.val_gnd_file or f"gnd_{val.name}.pkl"
    if select_on == "test" or not (val / truth).exists():
        return replace(dataset, val_data_dir=None)
    return replace(dataset, train_data_dir=str(train), train_txt=_TRAIN_TXT, val_data_dir=str(val), val_gnd_file=truth)


def selection_note(configured: DatasetSettings, resolved: DatasetSettings, select_on: str, watched=()) -> str:
    """One line for the log: the training list, how the epoch is chosen, and what is measured without choosing by it.

    configured, resolved: the ``dataset`` configuration before and after ``resolve_split``; watched: names of sets.
    """
    how = {
        "val": f"the best epoch is chosen on the held-out landmarks of {resolved.val_data_dir}",
        "test": f"the best epoch is chosen on the TEST SET {resolved.test_data_dir}, as published: its figures are"
        " too good",
        "last": "the last epoch is kept; nothing is chosen",
    }[select_on]
    if select_on == "val" and not resolved.val_data_dir:
        how = "NO VALIDATION LANDMARKS: the last epoch is kept, nothing is chosen"
        if configured.val_data_dir == AUTO:
            how += f"; hold some out with: {split_command(configured)}"
    assert resolved.train_data_dir is not None
    note = f"training on {Path(resolved.train_data_dir) / resolved.train_txt}; {how}"
    return note + (f"; for the log alone: {', '.join(watched)}" if watched else "")


def open_watched(dataset: DatasetSettings, watch) -> dict[str, TestSet]:
    """{name: set} of what is measured after every epoch for the log alone.

    watch: None or a bool (the configuration's own test set, which the caller opens): nothing here; else paths of
    ground truth files, a list or a text with commas between them. Lists, store and neighbours lie beside each. The
    name is the file's: roxford5k for gnd_roxford5k.pkl. Raises InputError.
    """
    if watch is None or isinstance(watch, bool):
        return {}
    paths = [part.strip() for part in watch.split(",")] if isinstance(watch, str) else watch
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) and path for path in paths):
        raise InputError(f"watch_test={watch!r}: expected True, None or ground truth files with commas between them")
    assert dataset.desc_name is not None
    found: dict[str, TestSet] = {}
    for path in map(Path, paths):
        name = path.stem.removeprefix("gnd_")
        if name in found or name in ("val", "test"):
            raise InputError(f"watch_test: {path} would be logged as '{name}' like another set; rename one file")
        found[name] = open_test_set(path.parent, dataset.desc_name, path.name, dataset.test_txt, dataset.max_local)
    return found


def check_apart(train: TrainSet, validation: TestSet) -> None:
    """InputError when a query of the validation set, or an image graded for one, is a training image as well.

    The same image: the same name and the same global descriptor. Distractors of the gallery may be training images.
    """
    graded = np.unique(np.concatenate([entry[grade] for entry in validation.gnd for grade in grades_of(entry)]))
    query, gallery = validation.images.query.names, validation.images.gallery.names
    index_of = dict(zip(query, validation.query_index)) | {
        gallery[position]: validation.gallery_index[position] for position in graded.astype(np.int64)
    }
    rows = [row for row, name in enumerate(train.images.names) if name in index_of]
    if not rows:
        return
    names = [train.images.names[row] for row in rows]
    here = read_globals(train.store, train.index[rows])
    there = read_globals(validation.store, np.array([index_of[name] for name in names]))
    same = (here == there).all(axis=1) if here.shape == there.shape else np.zeros(len(rows), bool)
    if same.any():
        raise InputError(
            f"{train.images.path}:{rows[np.argmax(same)] + 1}: '{names[np.argmax(same)]}' is a held-out image of"
            f" {validation.folder}, too ({np.count_nonzero(same)} of them are); train on the list that"
            " tools/train_val_split.py wrote for this validation set"
        )


def open_test(dataset: DatasetSettings, part: str = "test", selects: bool = False) -> TestSet:
    """The ``test`` or ``val`` set of a ``dataset`` configuration. selects: settings or epochs will be chosen by it."""
    if part == "val":
        configured, dataset = dataset, resolve_split(dataset)
        if not dataset.val_data_dir and configured.val_data_dir and configured.train_data_dir:
            raise InputError(f"no validation landmarks; hold some out with: {split_command(configured)}")
    named = {name: getattr(dataset, name) for name in (f"{part}_data_dir", f"{part}_gnd_file", "desc_name")}
    for name, value in named.items():
        if not value:
            raise InputError(f"dataset.{name} is not set; set it, or name a dataset that has it, as dataset.scenes")
    folder, truth, desc_name = named.values()
    test = open_test_set(folder, desc_name, truth, dataset.test_txt, dataset.max_local)
    if selects and protocols_of(test.gnd) != PROTOCOLS:
        raise InputError(
            f"{test.images.truth.path}: graded good and ok, but the choice is made by the Medium mAP; choose on a set"
            " graded easy and hard"
        )
    return test
