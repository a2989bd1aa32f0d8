"""DELG feature files and image lists as a descriptor store."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError, check_count, check_path
from rrt.files.names import stem_of
from rrt.formats.delf import LocalFeatures, read_datum, read_features
from rrt.formats.lists import read_image_list
from rrt.store.importing import refuse_zero_global, write_store
from rrt.store.records import ImageRecord, Skipped
from rrt.store.skipped import read_skipped

LISTS = ("train.txt", "test_query.txt", "test_gallery.txt")


@dataclass(frozen=True)
class ListedImage:
    """A line of a list: `where` says which. size: width, height. global_file, local_file: Path, or None where not asked
    for."""

    name: str
    where: str
    size: tuple
    global_file: Path | None
    local_file: Path | None

    @property
    def files(self):
        """Those that were asked for."""
        return [file for file in (self.global_file, self.local_file) if file]


@dataclass(frozen=True)
class Imported:
    """path: the store. num_images: images in it. skipped: list of Skipped. was_there: it was complete before."""

    path: Path
    num_images: int
    skipped: list
    was_there: bool


def import_delg(
    data_dir,
    feature_name,
    features_dir=None,
    output=None,
    lists=None,
    local_suffix=".delg_local",
    global_suffix=".delg_global",
    local_dtype="float16",
    max_local=None,
    allow_missing=False,
    overwrite=False,
):
    """Write the store of the images of `lists` (files in data_dir; None: those of LISTS that are there) -> Imported.

    features_dir, output: None takes data_dir/delg_<feature_name> and the same with .h5. local_suffix, global_suffix: of
    the files read; an empty one leaves these descriptors out (no global descriptors: dimension 0). max_local: local
    descriptors kept of an image, those of highest attention. allow_missing: images whose files are missing or
    damaged are listed in <output>.skipped.csv instead of stopping. Raises InputError; a missing file is found before
    anything is written.
    """
    check_path("features_dir", features_dir)
    check_path("output", output)
    data_dir = Path(data_dir)
    features_dir = Path(features_dir or data_dir / f"delg_{feature_name}")
    output = Path(output or data_dir / f"delg_{feature_name}.h5")
    if not local_suffix and not global_suffix:
        raise InputError("nothing to import: give local_suffix, global_suffix or both")
    if max_local is not None:
        check_count("max_local", max_local)
    listed = list_images(_list_paths(data_dir, lists), features_dir, local_suffix, global_suffix)
    missing = _missing_files(features_dir, listed)
    if missing and not allow_missing:
        image, file = next(iter(missing.items()))
        raise InputError(
            f"{file}: no such file, needed for '{image.name}' ({image.where}); {len(missing)} of "
            f"{len(listed)} images lack a file; add them, or leave such images out with allow_missing=True"
        )
    by_name = {image.name: image for image in listed}

    def read(name):
        image = by_name[name]
        return Skipped(name, f"no {missing[image].name}") if image in missing else read_image(image, max_local)

    settings = {
        "imported": [suffix for suffix in (global_suffix, local_suffix) if suffix],
        "local_dtype": local_dtype,
        "max_local": max_local,
    }
    was_there = write_store(
        output, [*by_name], read, settings, feature_name, overwrite, allow_missing, "{}=True", local_dtype=local_dtype
    )
    skipped = read_skipped(output)
    return Imported(output, len(by_name) - len(skipped), skipped, was_there)


def list_images(list_paths, features_dir, local_suffix, global_suffix):
    """The images of all lists in order, each once -> list of ListedImage.

    The files of `a/x.jpg` are a/x.delg_global where these are there, as of images of one file name in two folders, else
    x.delg_global. Raises InputError for two images that would share a file, and for one that has two sizes.
    """
    listed, owners, below = {}, {}, {}
    for path in list_paths:
        read = read_image_list(path)
        for line, (name, size) in enumerate(zip(read.names, read.sizes.tolist()), start=1):
            folder, stem = name.rpartition("/")[0], stem_of(name)
            if folder not in below:
                below[folder] = set(_listing(features_dir / folder)) if folder else set()
            suffixes = [suffix for suffix in (global_suffix, local_suffix) if suffix]
            whole = all(f"{stem}{suffix}" in below[folder] for suffix in suffixes)
            inside = features_dir / folder if whole else features_dir
            files = [suffix and inside / f"{stem}{suffix}" for suffix in (global_suffix, local_suffix)]
            image = ListedImage(name, f"line {line} of {path.name}", tuple(size), *files)
            known = listed.setdefault(name, image)
            if known.size != image.size:
                raise InputError(
                    f"{path}:{line}: '{name}' is {size[0]} x {size[1]} pixels here and {known.size[0]} x "
                    f"{known.size[1]} on {known.where}; a cropped query and the whole image need two stores"
                )
            owner = owners.setdefault(inside / stem, image)
            if owner.name != name:
                raise InputError(
                    f"{path}:{line}: '{name}' and '{owner.name}' ({owner.where}) would both be read from "
                    f"{image.files[0]}; import them into two stores, or keep the files in folders as the images"
                )
    return list(listed.values())


def _listing(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _list_paths(data_dir, lists):
    if lists is not None:
        names = [lists] if isinstance(lists, str) else lists
        if (
            not isinstance(names, list | tuple)
            or not names
            or not all(isinstance(name, str) and name for name in names)
        ):
            raise InputError(
                f"setting lists={lists!r}: expected an image list in data_dir, or several, as [a.txt, b.txt]"
            )
        return [data_dir / name for name in names]
    found = [data_dir / name for name in LISTS if (data_dir / name).exists()]
    if not found:
        raise InputError(f"{data_dir}: none of {', '.join(LISTS)} is there; name the image lists with lists=...")
    return found


def _missing_files(features_dir, listed):
    """{image: its first file that is not there}"""
    try:
        # One listing: a look at every file would take minutes on a network file system.
        present = set(os.listdir(features_dir))
    except OSError as error:
        raise InputError(
            f"{features_dir}: cannot be listed ({error.strerror}); give the folder of the feature files as "
            "features_dir=..."
        ) from None
    absent = {
        image: [file for file in image.files if file.parent == features_dir and file.name not in present]
        for image in listed
    }
    return {image: files[0] for image, files in absent.items() if files}


def read_image(image, max_local=None):
    """ImageRecord of an image from its files. Raises InputError naming the file that is damaged or of no use."""
    global_ = np.empty(0, np.float32)
    if image.global_file:
        global_ = read_datum(image.global_file).astype(np.float32).ravel()
        if not len(global_):
            # DELG writes one for an image that is too small.
            raise InputError(f"{image.global_file}: holds no global descriptor; extract a larger image")
        refuse_zero_global(f"{image.global_file}:", global_)
    features = read_features(image.local_file) if image.local_file else _NO_FEATURES
    for file, arrays in (
        (image.global_file, [global_]),
        (image.local_file, [features.descriptors, features.keypoints, features.scales, features.attention]),
    ):
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError(f"{file}: has values that are not finite; extract the image again")
    # DELG's files are sorted already; others are sorted as the store would do it.
    kept = np.argsort(-features.attention, kind="stable")[:max_local]
    return ImageRecord(
        image.name,
        image.size,
        global_,
        features.descriptors[kept],
        features.keypoints[kept],
        features.scales[kept],
        features.attention[kept],
    )


_NO_FEATURES = LocalFeatures(*(np.empty(shape, np.float32) for shape in ((0, 0), (0, 2), 0, 0, 0)))
