"""What reader and writer of the descriptor store agree on: names, types, checks (schema version 1).

    /names              [N] UTF-8      path as in the image list, unique
    /image_size         [N, 2] int32   width, height of the image the coordinates belong to (for a query its crop)
    /global             [N, Dg] float32 or float16, unit length
    /local/offsets      [N+1] int64    image i owns rows offsets[i] to offsets[i+1] of the other four
    /local/descriptors  [M, Dl] float16 or float32, unit length, or int8, direction alone (rrt/store/values.py),
                        or [M, B / 8] uint8, "bits": B bits each (rrt/store/binary_codes.py); falling attention within
                        an image
    /local/code_mean    [Dl] float32   of bits alone: what the codes stand for
    /local/code_axes    [B, Dl] float32
    /local/keypoints    [M, 2] float32 x, y in pixels of that image
    /local/scales       [M] float32    1 / image scale
    /local/attention    [M] float32

Columns are contiguous; those below /local but the offsets may be compressed instead.
"""

import json
from contextlib import contextmanager

import h5py
import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import parse_json
from rrt.files.hdf5 import find_item, fits_file, open_hdf5, why_unopened
from rrt.store.binary_codes import BinaryCodes
from rrt.store.values import LOCAL_DTYPES

SCHEMA = "delg-store"
PART_SCHEMA = "delg-store-part"
VERSION = 1
LOCAL_COLUMNS = ("descriptors", "keypoints", "scales", "attention")
COMPRESSIONS = ("gzip", "lzf")
EXTRACT = "extract it (tools/extract.py, delg_extract/extract.py) or import it (rrt import)"
EXTRACT_AGAIN = "extract or import it again"
AGAIN = "make it again with tools/compress_store.py"
CODES = ("code_mean", "code_axes")

# name: kind of type, number of axes
COLUMNS = {
    "names": ("SO", 1),
    "image_size": ("i", 2),
    "global": ("f", 2),
    "local/offsets": ("i", 1),
    "local/descriptors": ("fiu", 2),
    "local/keypoints": ("f", 2),
    "local/scales": ("f", 1),
    "local/attention": ("f", 1),
}


def open_checked(path, schema=SCHEMA):
    """Open a store (or a part) for reading and check that every dataset of the schema is there and fits the others.

    Raises InputError naming the file and what is wrong; the caller closes the returned h5py.File.
    """
    with damage_named(path):
        file = open_hdf5(path)
        try:
            _check_attributes(path, file, schema)
            _check_datasets(path, file)
        except BaseException:
            file.close()
            raise
    return file


def open_either(path):
    """open_checked() of a store or of a part, whichever it is."""
    with damage_named(path), open_hdf5(path) as file:
        schema = read_text(file, "schema")
    return open_checked(path, PART_SCHEMA if schema == PART_SCHEMA else SCHEMA)


@contextmanager
def damage_named(path):
    """Turn what h5py and numpy raise when they read a damaged file, nearly every kind of exception, into InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(_why_unreadable(path, error)) from None


def _why_unreadable(path, error):
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such descriptor store; {EXTRACT}"
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder, not a descriptor store; give the .h5 file"
    unopened = why_unopened(path, error)
    if unopened:
        return unopened
    text = " ".join(str(error).split()) or type(error).__name__
    if "signature not found" in text:
        return f"{path}: not an HDF5 file; give the .h5 file that an extraction or import wrote"
    if "truncated" in text:
        return f"{path}: the file is cut short; copy it again or {EXTRACT_AGAIN}"
    return f"{path}: damaged ({text[:120]}); copy it again or {EXTRACT_AGAIN}"


def _check_attributes(path, file, schema):
    found, version = read_text(file, "schema"), file.attrs.get("version")
    if found != schema:
        raise InputError(f"{path}: an HDF5 file, but not a descriptor store (schema '{found}'); {EXTRACT_AGAIN}")
    if version != VERSION:
        raise InputError(f"{path}: schema version {version}, this program reads version {VERSION}; {EXTRACT_AGAIN}")
    if not file.attrs.get("complete", False):
        raise InputError(f"{path}: the store was not finished; {EXTRACT_AGAIN}")


def _check_datasets(path, file):
    found = {name: find_item(file, name) for name in COLUMNS}
    for name, (kinds, axes) in COLUMNS.items():
        dataset = found[name]
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{path}: dataset /{name} is missing; {EXTRACT_AGAIN}")
        if dataset.dtype.kind not in kinds or dataset.ndim != axes:
            raise InputError(f"{path}: dataset /{name} is {dataset.dtype} with {dataset.ndim} axes; {EXTRACT_AGAIN}")
        if not fits_file(dataset):
            # Found before anything of that size is asked of the memory.
            raise InputError(
                f"{path}: dataset /{name} claims {dataset.nbytes:,} bytes, far more than the file can hold; "
                f"{EXTRACT_AGAIN}"
            )
    descriptors = found["local/descriptors"]
    if descriptors.dtype.name not in (*LOCAL_DTYPES, "uint8"):
        raise InputError(
            f"{path}: local descriptors of type {descriptors.dtype.name}, "
            f"this program reads {', '.join(LOCAL_DTYPES)} and bits; {EXTRACT_AGAIN}"
        )
    read_codes(path, file)
    num_images, num_local = len(found["names"]), len(descriptors)
    expected = {
        "image_size": (num_images, 2),
        "global": (num_images, found["global"].shape[1]),
        "local/offsets": (num_images + 1,),
        "local/keypoints": (num_local, 2),
        "local/scales": (num_local,),
        "local/attention": (num_local,),
    }
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise InputError(
                f"{path}: dataset /{name} is {found[name].shape} where {shape} fits the others; {EXTRACT_AGAIN}"
            )
    offsets = found["local/offsets"][:]
    if offsets[0] != 0 or offsets[-1] != num_local or (np.diff(offsets) < 0).any():
        raise InputError(f"{path}: /local/offsets does not divide the {num_local} local descriptors; {EXTRACT_AGAIN}")


def dataset(file, name: str) -> h5py.Dataset:
    """A dataset of a file that open_checked() opened."""
    found = file[name]
    assert isinstance(found, h5py.Dataset)
    return found


def read_codes(path, file):
    """BinaryCodes of an open store whose local descriptors are bits, None of another; InputError when they do not
    fit."""
    descriptors = file["local/descriptors"]
    if descriptors.dtype != np.uint8:
        return None
    found = [find_item(file, f"local/{name}") for name in CODES]
    if not all(isinstance(each, h5py.Dataset) and each.dtype.kind == "f" and fits_file(each) for each in found):
        raise InputError(
            f"{path}: local descriptors are bits, but /local/{' and /local/'.join(CODES)} do not say of what; {AGAIN}"
        )
    mean, axes = (np.asarray(each[()], np.float32) for each in found)
    if mean.ndim != 1 or axes.shape != (8 * descriptors.shape[1], len(mean)):
        raise InputError(
            f"{path}: codes of {descriptors.shape[1]} bytes do not fit a mean {mean.shape} and axes {axes.shape}; "
            f"{AGAIN}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(axes).all()):
        raise InputError(f"{path}: the mean or the axes of the codes are not finite; {AGAIN}")
    return BinaryCodes(mean, axes)


def text_array(texts):
    """Text as fixed-length UTF-8, which HDF5 reads in one piece and guards by checksums in the headers.

    Text of variable length lies in a heap of its own, read one by one, where a damaged byte can make HDF5 loop forever.
    """
    encoded = np.char.encode(np.array(texts, dtype=str), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))


def write_attributes(file, **attributes):
    """Set attributes of the root."""
    for key, value in attributes.items():
        file.attrs[key] = text_array(value) if isinstance(value, str) else value


def read_text(file, key):
    """A text attribute of the root, of fixed or variable length; empty when it is not there."""
    value = file.attrs.get(key, "")
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def read_config(file):
    """The settings a store was made with, a dict; empty when they cannot be read."""
    try:
        config = parse_json(read_text(file, "config"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def read_names(path, file):
    """The image names of an open store; InputError when they are not UTF-8 or not unique."""
    with damage_named(path):
        names = file["names"].asstr()[:].tolist()
    refuse_repeated_names(path, names)
    return names


def refuse_repeated_names(path, names):
    """InputError naming the first name that is given twice."""
    if len(set(names)) != len(names):
        seen = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise InputError(f"{path}: '{twice}' is named twice; a store holds an image once")


def canonical_settings(path, settings):
    """Settings as they come back from JSON (tuples become lists), so that what is compared is what was written."""
    try:
        return json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the settings cannot be kept as JSON ({error})") from None


def first_difference(old, new, prefix=""):
    """(setting, old value, new value) of the first setting that differs, in the order of `new`; None when equal."""
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(before, dict) and isinstance(after, dict):
            difference = first_difference(before, after, f"{prefix}{key}.")
            if difference:
                return difference
        elif before != after:
            return f"{prefix}{key}", before, after
    return None


def parts_path(store_path):
    """`<store>.parts`, the folder of parts not yet merged."""
    return store_path.with_name(store_path.name + ".parts")
