"""Feature files of hloc (HDF5, a group per image) turned into a store."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from rrt.errors import InputError
from rrt.files.hdf5 import damage_named, find_item, fits_file, open_hdf5
from rrt.formats.lists import read_image_list
from rrt.progress import bar
from rrt.store.importing import image_sizes, import_records, refuse_not_finite, refuse_zero_global, size_of
from rrt.store.records import ImageRecord

# Axes of the datasets of an image.
_AXES = {"keypoints": 2, "descriptors": 2, "scores": 1, "image_size": 1, "global_descriptor": 1}
_LOCAL = ("keypoints", "descriptors", "scores")
_NO_LOCAL = np.empty((0, 2)), np.empty((0, 0)), np.empty(0)


def import_hloc(features, output, global_features=None, list_path=None, image_size=None, **options):
    """Write the store `output` of the images of the feature file `features` -> the opened Store.

    global_features: the file of the global descriptors, None when `features` holds them, alone or with the local ones.
    list_path: the images to import (default: all, by name). image_size: (width, height), used where a group has none
    and there is no list.
    options: those of rrt.store.importing.import_records. Raises InputError naming file and image.
    """
    paths = [Path(features), Path(global_features or features)]
    with ExitStack() as stack:
        local_file, global_file = (stack.enter_context(_open(path)) for path in paths)
        names = read_image_list(list_path).names if list_path else image_names(local_file)
        sizes = image_sizes(names, list_path, image_size)
        kinds = {} if _has_local(local_file, names) else {"has_local": False}

        def read(name):
            return read_image(local_file, global_file, name, sizes.get(name), **kinds)

        return import_records(output, names, read, "hloc", dict.fromkeys(paths), image_size, **options)


def image_names(file):
    """The images of a feature file, by name: every group that holds a dataset of _AXES, or nothing at all, as hloc
    leaves one when it is stopped."""
    names, leaves, parents = set(), set(), set()
    shown = bar(what="looking for images", unit="dataset", passing=True)

    def visit(path):
        shown.update()
        group, _, dataset = path.rpartition("/")
        parents.add(group)
        if group and dataset in _AXES:
            names.add(group)
        else:
            leaves.add(path)

    with _readable(file.filename), shown:
        file.visit(visit)
        if names:
            names.update(path for path in leaves - parents if isinstance(find_item(file, path), h5py.Group))
    if not names:
        raise InputError(f"{file.filename}: no group holds {', '.join(_AXES)}; give a feature file of hloc")
    return sorted(names)


def _has_local(file, names):
    """Whether any image has local descriptors; a file of global ones alone is imported as such."""
    with _readable(file.filename):
        return any(f"{name}/{key}" in file for name in names for key in _LOCAL)


def read_image(local_file, global_file, name, size=None, has_local=True):
    """The ImageRecord of an image; size: (width, height) where the file does not tell it; has_local: False for a file
    of global descriptors alone. Raises InputError."""
    where = f"{local_file.filename}: '{name}'"
    local = _NO_LOCAL
    if has_local:
        local = keypoints, descriptors, scores = [_read(local_file, name, key) for key in _LOCAL]
        count = len(scores)
        if keypoints.shape != (count, 2) or descriptors.shape[1] != count:
            raise InputError(
                f"{where} has keypoints {keypoints.shape}, descriptors {descriptors.shape} and scores "
                f"{scores.shape}; expected [n, 2], [D, n] and [n]"
            )
    keypoints, descriptors, scores = local
    global_ = _read(global_file, name, "global_descriptor")
    refuse_zero_global(f"{global_file.filename}: '{name}'", global_)
    refuse_not_finite(f"{global_file.filename}: '{name}'", global_=global_)
    refuse_not_finite(where, keypoints=keypoints, descriptors=descriptors, attention=scores)
    with _readable(local_file.filename):
        has_size = find_item(local_file, f"{name}/image_size") is not None
    size = size_of(where, _read(local_file, name, "image_size") if has_size else None, size)
    return ImageRecord(name, size, global_, descriptors.T, keypoints, np.ones(len(scores), np.float32), scores)


def _read(file, name, key) -> np.ndarray:
    with _readable(file.filename):
        group = find_item(file, name)
        dataset = find_item(group, key) if isinstance(group, h5py.Group) else None
        if not isinstance(dataset, h5py.Dataset):
            if not isinstance(group, h5py.Group):
                raise InputError(f"{file.filename}: no image '{name}'; extract its features or take it out of the list")
            if not len(group):
                raise InputError(f"{file.filename}: '{name}' is an empty group; extract the image again")
            remedy = (
                "give the file that does as --global_features" if key == "global_descriptor" else "extract it again"
            )
            raise InputError(f"{file.filename}: '{name}' has no {key}; {remedy}")
        if dataset.dtype.kind not in "fiu" or dataset.ndim != _AXES[key] or not fits_file(dataset):
            raise InputError(
                f"{file.filename}: '{name}' has {key} of type {dataset.dtype} and shape {dataset.shape}; "
                "extract it again"
            )
        return dataset[()]


@contextmanager
def _open(path):
    with _readable(path):
        file = open_hdf5(path)
    with file:
        yield file


def _readable(path):
    return damage_named(path, "cannot be read as a feature file of hloc", "copy it again")
