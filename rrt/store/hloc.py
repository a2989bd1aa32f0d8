"""Feature files of hloc (HDF5, a group per image) turned into a store."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.formats.lists import read_image_list
from rrt.progress import bar
from rrt.store.importing import image_sizes, import_records, size_of
from rrt.store.records import ImageRecord
from rrt.store.schema import fits_file

# Axes of the datasets of an image.
_AXES = {"keypoints": 2, "descriptors": 2, "scores": 1, "image_size": 1, "global_descriptor": 1}


def import_hloc(features, output, global_features=None, list_path=None, image_size=None, **options):
    """Write the store `output` of the images of the feature file `features` -> the opened Store.

    global_features: the file of the global descriptors, None when `features` holds them. list_path: the images to
    import (default: all, by name). image_size: (width, height), used where a group has none and there is no list.
    options: those of rrt.store.importing.import_records. Raises InputError naming file and image.
    """
    paths = [Path(features), Path(global_features or features)]
    with ExitStack() as stack:
        local_file, global_file = (stack.enter_context(_open(path)) for path in paths)
        names = read_image_list(list_path).names if list_path else image_names(local_file)
        sizes = image_sizes(names, list_path, image_size)
        settings = {
            "imported": "hloc",
            "image_size": image_size and list(image_size),
            "files": [{"name": path.name, "sha256": sha256_of_file(path)} for path in dict.fromkeys(paths)],
        }
        return import_records(
            output, names, lambda name: read_image(local_file, global_file, name, sizes.get(name)), settings, **options
        )


def image_names(file):
    """The images of a feature file: every group that holds a dataset of _AXES, by name."""
    names = set()
    shown = bar(what="looking for images", unit="dataset", passing=True)

    def visit(path):
        shown.update()
        group, _, dataset = path.rpartition("/")
        if group and dataset in _AXES:
            names.add(group)

    with _readable(file.filename), shown:
        file.visit(visit)
    if not names:
        raise InputError(f"{file.filename}: no group holds {', '.join(_AXES)}; give a feature file of hloc")
    return sorted(names)


def read_image(local_file, global_file, name, size=None):
    """The ImageRecord of an image; size: (width, height) where the file does not tell it. Raises InputError."""
    where = f"{local_file.filename}: '{name}'"
    keypoints, descriptors, scores = (_read(local_file, name, key) for key in ("keypoints", "descriptors", "scores"))
    count = len(scores)
    if keypoints.shape != (count, 2) or descriptors.shape[1] != count:
        raise InputError(
            f"{where} has keypoints {keypoints.shape}, descriptors {descriptors.shape} and scores "
            f"{scores.shape}; expected [n, 2], [D, n] and [n]"
        )
    with _readable(local_file.filename):
        has_size = local_file.get(f"{name}/image_size") is not None
    size = size_of(where, _read(local_file, name, "image_size") if has_size else None, size)
    return ImageRecord(
        name,
        size,
        _read(global_file, name, "global_descriptor"),
        descriptors.T,
        keypoints,
        np.ones(count, np.float32),
        scores,
    )


def _read(file, name, key) -> np.ndarray:
    with _readable(file.filename):
        dataset = file.get(f"{name}/{key}")
        if not isinstance(dataset, h5py.Dataset):
            if not isinstance(file.get(name), h5py.Group):
                raise InputError(f"{file.filename}: no image '{name}'; extract its features or take it out of the list")
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
        file = h5py.File(path, "r", locking=False)
    with file:
        yield file


@contextmanager
def _readable(path):
    """Turn what h5py raises for a damaged file, nearly every kind of exception, into InputError."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a feature file of hloc") from None
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a feature file of hloc ({text[:120]}); copy it again") from None
