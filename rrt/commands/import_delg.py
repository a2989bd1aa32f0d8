"""Turn a folder of DELG feature files and the image lists into a descriptor store.

Reads data_dir/delg_<feature_name>/<image>.delg_global and .delg_local for every image of the lists (`<picture>` is
its file name without folder and suffix) and writes data_dir/delg_<feature_name>.h5. A run that was stopped goes on
where it was. Rows that are not of unit length, which DELG's own are, are scaled to it.

    python tools/import_delg.py with data_dir=data/oxford5k feature_name=r50_gldv2
    python tools/import_delg.py with data_dir=data/gldv2 feature_name=r50_gldv2 lists=train.txt local_dtype=float32
    python tools/import_delg.py with data_dir=data/oxford5k feature_name=delf local_suffix=.delf global_suffix=
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.command_line.sacred import add_settings, make_experiment
from rrt.errors import InputError, check_count
from rrt.formats.delf import LocalFeatures, read_datum, read_features
from rrt.formats.lists import read_image_list
from rrt.store.importing import write_missing_parts
from rrt.store.records import ImageRecord, Skipped
from rrt.store.skipped import read_skipped
from rrt.store.writer import PartWriter, is_complete, remove_store

LISTS = ("train.txt", "test_query.txt", "test_gallery.txt")
BLOCK = 256  # images a part
LEAVE_OUT = "or leave such images out with allow_missing=True"


@dataclass(frozen=True)
class Picture:
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
    data_dir = Path(data_dir)
    features_dir = Path(features_dir or data_dir / f"delg_{feature_name}")
    output = Path(output or data_dir / f"delg_{feature_name}.h5")
    if not local_suffix and not global_suffix:
        raise InputError("nothing to import: give local_suffix, global_suffix or both")
    if max_local is not None:
        check_count("max_local", max_local)
    pictures = list_pictures(_list_paths(data_dir, lists), features_dir, local_suffix, global_suffix)
    missing = _missing_files(features_dir, pictures)
    if missing and not allow_missing:
        picture, file = next(iter(missing.items()))
        raise InputError(
            f"{file}: no such file, needed for '{picture.name}' ({picture.where}); {len(missing)} of "
            f"{len(pictures)} images lack a file; add them, {LEAVE_OUT}"
        )
    if overwrite:
        remove_store(output)
    names = [picture.name for picture in pictures]
    settings = {
        "imported": [suffix for suffix in (global_suffix, local_suffix) if suffix],
        "local_dtype": local_dtype,
        "max_local": max_local,
    }
    was_there = is_complete(output, names, settings)
    if not was_there:
        _write_store(output, pictures, missing, settings, allow_missing, feature_name)
    skipped = read_skipped(output)
    if skipped and not allow_missing:
        raise InputError(
            f"{output}: an earlier run left out {len(skipped)} of {len(names)} images, first '{skipped[0].name}' "
            f"({skipped[0].reason}); import again with overwrite=True, or accept it with allow_missing=True"
        )
    return Imported(output, len(names) - len(skipped), skipped, was_there)


def list_pictures(list_paths, features_dir, local_suffix, global_suffix):
    """The images of all lists in order, each once -> list of Image.

    Raises InputError for two images that would share a file, and for one that has two sizes.
    """
    pictures, owners = {}, {}
    for path in list_paths:
        images = read_image_list(path)
        for line, (name, size) in enumerate(zip(images.names, images.sizes.tolist()), start=1):
            stem = Path(name).stem
            files = [suffix and features_dir / f"{stem}{suffix}" for suffix in (global_suffix, local_suffix)]
            picture = Picture(name, f"line {line} of {path.name}", tuple(size), *files)
            known = pictures.setdefault(name, picture)
            if known.size != picture.size:
                raise InputError(
                    f"{path}:{line}: '{name}' is {size[0]} x {size[1]} pixels here and {known.size[0]} x "
                    f"{known.size[1]} on {known.where}; a cropped query and the whole image need two stores"
                )
            owner = owners.setdefault(stem, picture)
            if owner.name != name:
                raise InputError(
                    f"{path}:{line}: '{name}' and '{owner.name}' ({owner.where}) would both be read from "
                    f"{picture.files[0]}; import them into two stores"
                )
    return list(pictures.values())


def _list_paths(data_dir, lists):
    if lists is not None:
        return [data_dir / name for name in ([lists] if isinstance(lists, str) else lists)]
    found = [data_dir / name for name in LISTS if (data_dir / name).exists()]
    if not found:
        raise InputError(f"{data_dir}: none of {', '.join(LISTS)} is there; name the image lists with lists=...")
    return found


def _missing_files(features_dir, pictures):
    """{image: its first file that is not there}"""
    try:
        # One listing: a look at every file would take minutes on a network file system.
        present = set(os.listdir(features_dir))
    except OSError as error:
        raise InputError(
            f"{features_dir}: cannot be listed ({error.strerror}); give the folder of the feature files as "
            "features_dir=..."
        ) from None
    absent = {picture: [file for file in picture.files if file.name not in present] for picture in pictures}
    return {picture: files[0] for picture, files in absent.items() if files}


def _write_store(output, pictures, missing, settings, allow_missing, feature_name):
    by_name = {picture.name: picture for picture in pictures}
    writer = PartWriter(output, list(by_name), settings, BLOCK, settings["local_dtype"])
    write_missing_parts(
        writer, list(by_name), lambda name: _record(by_name[name], missing, settings["max_local"], allow_missing)
    )
    writer.merge(desc_name=feature_name)


def _record(picture, missing, max_local, allow_missing):
    """The ImageRecord of an image, or Skipped with the reason."""
    if picture in missing:
        return Skipped(picture.name, f"no {missing[picture].name}")
    try:
        return read_picture(picture, max_local)
    except InputError as error:
        if not allow_missing:
            raise InputError(f"{error}, {LEAVE_OUT}") from None
        return Skipped(picture.name, str(error))


def read_picture(picture, max_local=None):
    """ImageRecord of an image from its files. Raises InputError naming the file that is damaged or of no use."""
    global_ = np.empty(0, np.float32)
    if picture.global_file:
        global_ = read_datum(picture.global_file).astype(np.float32).ravel()
        if not len(global_):
            # DELG writes one for an image that is too small.
            raise InputError(f"{picture.global_file}: holds no global descriptor; extract a larger image")
    features = read_features(picture.local_file) if picture.local_file else _NO_FEATURES
    for file, arrays in (
        (picture.global_file, [global_]),
        (picture.local_file, [features.descriptors, features.keypoints, features.scales, features.attention]),
    ):
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError(f"{file}: has values that are not finite; extract the image again")
    # DELG's files are sorted already; others are sorted as the store would do it.
    kept = np.argsort(-features.attention, kind="stable")[:max_local]
    return ImageRecord(
        picture.name,
        picture.size,
        global_,
        features.descriptors[kept],
        features.keypoints[kept],
        features.scales[kept],
        features.attention[kept],
    )


_NO_FEATURES = LocalFeatures(*(np.empty(shape, np.float32) for shape in ((0, 0), (0, 2), 0, 0, 0)))


ex = make_experiment("import_delg")


add_settings(
    ex,
    {
        "data_dir": ("data/oxford5k", ""),
        "feature_name": ("r50_gldv1", "names the descriptor store: delg_<feature_name>.h5"),
        "features_dir": (
            lambda given: f"{given['data_dir']}/delg_{given['feature_name']}",
            "folder of the feature files",
        ),
        "output": (lambda given: f"{given['data_dir']}/delg_{given['feature_name']}.h5", ""),
        "lists": (
            None,
            "image list or lists in data_dir; None: those of train.txt, test_query.txt, test_gallery.txt there are",
        ),
        "local_suffix": (".delg_local", ".delf for DELF; empty: no local descriptors"),
        "global_suffix": (".delg_global", "empty: no global descriptors, so no search"),
        "local_dtype": ("float16", "or float32, which keeps every bit"),
        "max_local": (None, "local descriptors an image at most; None: all"),
        "allow_missing": (False, "list images without usable files in <output>.skipped.csv instead of stopping"),
        "overwrite": (False, "delete an existing store and its parts first"),
    },
)


@ex.main
def main(
    data_dir,
    feature_name,
    features_dir,
    output,
    lists,
    local_suffix,
    global_suffix,
    local_dtype,
    max_local,
    allow_missing,
    overwrite,
):
    """Turn DELG feature files and image lists into a descriptor store."""
    imported = import_delg(
        data_dir,
        feature_name,
        features_dir,
        output,
        lists,
        local_suffix,
        global_suffix,
        local_dtype,
        max_local,
        allow_missing,
        overwrite,
    )
    print(
        f"{imported.path}: complete, nothing to do"
        if imported.was_there
        else f"wrote {imported.path}: {imported.num_images} images"
    )
    for picture in imported.skipped:
        print(f"skipped {picture.name}: {picture.reason}")
