"""Plain NumPy arrays of descriptors (one .npy, an .npz, or a folder of .npy files) turned into a store."""

from pathlib import Path
from typing import Literal

import numpy as np
from h5py import is_hdf5

from rrt.errors import InputError
from rrt.files.arrays import is_npz, load_npy, load_npz
from rrt.formats.lists import read_image_list
from rrt.store.importing import image_sizes, import_records, refuse_not_finite, refuse_zero_global, size_of
from rrt.store.records import ImageRecord
from rrt.store.schema import refuse_repeated_names

LOCAL = ("descriptors", "keypoints", "attention", "scales")
KEYS = ("global", "names", "image_size", "offsets", *LOCAL)


def import_arrays(arrays, output, names_path=None, list_path=None, image_size=None, **options):
    """Write the store `output` of the arrays at the path `arrays` -> the opened Store.

    names_path: a text file with the name of each row's image a line. list_path: an image list, which tells sizes and
    which images to import, and without names their order. image_size: (width, height) of every image, used where
    nothing else tells it. options: those of rrt.store.importing.import_records. Raises InputError naming file and
    array.
    """
    path = Path(arrays)
    arrays, files = open_arrays(path)
    row_of, wanted = _names(path, arrays, names_path, list_path)
    sizes = image_sizes(wanted, list_path, image_size)

    def read(name):
        return _record(path, arrays, name, row_of[name], sizes.get(name))

    return import_records(output, wanted, read, "arrays", files, image_size, **options)


def open_arrays(path):
    """({key of KEYS: array}, the files read) of a .npy, an .npz or a folder of .npy files, local arrays [M, ...].

    Raises InputError for a missing or damaged file and for arrays that do not fit together.
    """
    files = [file for key in KEYS if (file := path / f"{key}.npy").exists()] if path.is_dir() else [path]
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        loaded = _load(file, mmap_mode="r" if path.is_dir() else None)
        if isinstance(loaded, np.ndarray):
            arrays[file.stem if path.is_dir() else "global"] = loaded
        elif path.is_dir():
            raise InputError(f"{file}: holds several arrays; save each as a .npy file of its own")
        else:
            arrays = loaded
    if "global" not in arrays:
        raise InputError(f"{path}: no array named global; global descriptors [N, Dg] are needed")
    for key, array in arrays.items():
        kinds, what = {"names": ("US", "text"), "offsets": ("iu", "integers")}.get(key, ("fiu", "numbers"))
        if array.dtype.kind not in kinds:
            raise InputError(f"{path}: array {key} is of type {array.dtype}; expected {what}")
    arrays = _end_to_end(arrays)
    _check_shapes(path, arrays)
    return arrays, files


def _load(path: Path, mmap_mode: Literal["r"] | None) -> np.ndarray | dict[str, np.ndarray]:
    """An array, or the arrays of KEYS in an .npz."""
    try:
        return load_npz(path, KEYS) if is_npz(path) else load_npy(path, mmap_mode)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a .npy, an .npz or a folder of .npy files") from None
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged file
        if is_hdf5(path):
            raise InputError(
                f"{path}: an HDF5 file; save its arrays with NumPy, np.savez(FILE, **{{'global': ..., 'names': ...}});"
                " tools/import_hloc.py takes one of hloc"
            ) from None
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as .npy or .npz ({text[:120]}); save it again with NumPy") from None


def _end_to_end(arrays):
    """Local arrays [N, n, ...] as [N n, ...] with offsets; others as they are."""
    shape = arrays["descriptors"].shape if "descriptors" in arrays else ()
    if len(shape) != 3 or "offsets" in arrays:
        return arrays
    flat = {
        key: array.reshape(-1, *array.shape[2:])
        for key, array in arrays.items()
        if key in LOCAL and array.shape[:2] == shape[:2]
    }
    return arrays | flat | {"offsets": np.arange(shape[0] + 1) * shape[1]}


def _check_shapes(path, arrays):
    """InputError naming the first array whose shape does not fit the others."""
    num_images = len(arrays["global"]) if arrays["global"].ndim else 0
    wanted = {"global": (num_images, "Dg"), "names": (num_images,), "image_size": (num_images, 2)}
    if "descriptors" in arrays:
        num_local = len(arrays["descriptors"]) if arrays["descriptors"].ndim else 0
        wanted |= {
            "descriptors": (num_local, "Dl"),
            "offsets": (num_images + 1,),
            "keypoints": (num_local, 2),
            "attention": (num_local,),
            "scales": (num_local,),
        }
        for key in ("offsets", "keypoints"):
            if key not in arrays:
                raise InputError(
                    f"{path}: array descriptors {arrays['descriptors'].shape} without an array {key}; add it"
                )
    for key, array in arrays.items():
        if key not in wanted:
            raise InputError(f"{path}: array {key} without an array descriptors; add that or leave {key} out")
        if array.ndim != len(wanted[key]) or any(b not in (a, "Dg", "Dl") for a, b in zip(array.shape, wanted[key])):
            if key == "global":
                raise InputError(f"{path}: array global is {array.shape}; expected [N, Dg], a row for each image")
            expected = str(wanted[key]).replace("'", "")
            raise InputError(f"{path}: array {key} is {array.shape} where {expected} fits the others")
    offsets = arrays.get("offsets")
    if offsets is not None and (offsets[0] != 0 or offsets[-1] != num_local or (offsets[1:] < offsets[:-1]).any()):
        raise InputError(f"{path}: array offsets does not divide the {num_local} local descriptors")


def _names(path, arrays, names_path, list_path):
    """({image name: its row}, the names to import)"""
    listed = read_image_list(list_path) if list_path else None
    if names_path:
        source, names = names_path, _lines(names_path)
    elif "names" in arrays:
        source, names = path, _texts(path, arrays["names"])
    elif listed:
        source, names = list_path, listed.names
    else:
        raise InputError(f"{path}: the images have no names; give --names, --list or an array names")
    if len(names) != len(arrays["global"]):
        raise InputError(f"{source}: {len(names)} names for the {len(arrays['global'])} rows of array global of {path}")
    refuse_repeated_names(source, names)
    row_of = {name: row for row, name in enumerate(names)}
    if not listed:
        return row_of, names
    lacking = next((name for name in listed.names if name not in row_of), None)
    if lacking is not None:
        raise InputError(
            f"{source}: no row for '{lacking}' ({listed.where(lacking)}); take it out of the list or add it"
        )
    return row_of, listed.names


def _lines(path):
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a text file with an image name a line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start}); save it as UTF-8") from None
    # Only \n ends a line: a name may hold the other characters that str.splitlines knows.
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _texts(path, names):
    try:
        texts = (names if names.dtype.kind == "U" else np.char.decode(names, "utf-8")).tolist()
    except UnicodeDecodeError:
        raise InputError(f"{path}: array names is not UTF-8; save it as text") from None
    for row, name in enumerate(texts):
        # No line of an image list could name it.
        if not name or "\n" in name:
            raise InputError(f"{path}: array names holds {name!r} in row {row}; give the image a name of one line")
    return texts


def _record(path, arrays, name, row, size):
    """The ImageRecord of a row; size: (width, height) where the arrays do not tell it."""
    where = f"{path}: '{name}'"
    stored_size = arrays["image_size"][row] if "image_size" in arrays else None
    offsets = arrays.get("offsets", np.zeros(row + 2, np.int64))
    start, end = int(offsets[row]), int(offsets[row + 1])
    defaults = {
        "descriptors": np.empty((0, 0)),
        "keypoints": np.empty((0, 2)),
        "scales": np.ones(end - start),
        "attention": np.ones(end - start),
    }
    local = {key: np.asarray(arrays[key][start:end]) if key in arrays else default for key, default in defaults.items()}
    global_ = np.asarray(arrays["global"][row])
    refuse_zero_global(where, global_)
    refuse_not_finite(where, global_=global_, **local)
    return ImageRecord(name, size_of(where, stored_size, size), global_, **local)
