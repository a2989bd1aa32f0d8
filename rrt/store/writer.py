"""Writing the descriptor store in parts that are whole or not there, and merging them (layout: rrt/store/schema.py).

A part holds the images of one block of the list. Any number of processes may write different parts; one that is killed
loses at most the part it was writing. The merge copies part after part, so that memory is bounded by one part.
"""

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import atomic_path, check_room, flush_to_disk, parse_json, write_json
from rrt.files.hdf5 import open_hdf5
from rrt.progress import bar
from rrt.store.file import Sizes, create_file, refuse_nothing, write_finished
from rrt.store.folder import MANIFEST, PART_NAME, StoreFolder
from rrt.store.records import (
    ImageRecord,
    Skipped,
    StoredImage,
    check_equal_sizes,
    limited,
    packed_columns,
    refuse_useless,
    shaped_record,
)
from rrt.store.schema import (
    COLUMNS,
    COMPRESSIONS,
    PART_SCHEMA,
    VERSION,
    canonical_settings,
    dataset,
    first_difference,
    open_checked,
    parts_path,
    read_names,
    read_text,
    refuse_repeated_names,
    write_attributes,
)
from rrt.store.skipped import write_skipped
from rrt.store.values import LOCAL_DTYPES
from rrt.version import __version__

# Images that write_store packs at a time.
_BLOCK = 32


class PartWriter:
    """Writes the store `store_path` for the images `names` (in order, unique) part by part.

    settings: dict of every setting that shapes the numbers (JSON-able). block: images per part. local_dtype: type of
    the stored local descriptors, one of rrt.store.values.LOCAL_DTYPES. max_local: local descriptors kept of an image,
    those of highest attention (None: all); it becomes a setting. compression: of the local columns in the finished
    store, None (they can be mapped), "gzip" or "lzf" (which only h5py reads). Parts of an earlier run are kept;
    InputError when they were made with other settings, for another list or with another block, naming the first
    difference and the remedy. After merge(), `skipped` lists the images left out.
    """

    def __init__(self, store_path, names, settings, block=64, local_dtype="float16", max_local=None, compression=None):
        self.path = Path(store_path)
        self.names = list(names)
        self.settings = canonical_settings(self.path, with_limit(settings, max_local))
        self.block = block
        self.local_dtype = local_dtype
        self.max_local = max_local
        self.compression = compression
        self.folder = parts_path(self.path)
        self.skipped = []
        if block < 1:
            raise InputError(f"{self.path}: cannot write parts of {block} images; use a block of at least 1")
        _check_request(self.path, self.names, local_dtype, max_local, compression)
        self._identity = {"names_sha256": _hash_names(self.names), "block": block, "local_dtype": self.local_dtype}
        self._claim_folder()

    @property
    def num_parts(self) -> int:
        """How many parts the images make."""
        return -(-len(self.names) // self.block)

    def block_names(self, part):
        """The images of part number `part`."""
        return self.names[part * self.block : (part + 1) * self.block]

    def missing_parts(self):
        """Numbers of the parts that are not on disk yet."""
        present = {
            int(match[1])
            for match in map(PART_NAME.fullmatch, (path.name for path in self.folder.glob("*.h5")))
            if match
        }
        return [part for part in range(self.num_parts) if part not in present]

    @contextmanager
    def progress(self, what):
        """(Numbers of the parts that are missing, a progress bar of all images that begins where they do)"""
        missing, count = self.missing_parts(), len(self.names)
        left = sum(len(self.block_names(part)) for part in missing)
        with bar(what=what, unit="image", total=count, initial=count - left) as shown:
            yield missing, shown

    def write_part(self, part, records):
        """Write one part: an ImageRecord, an image of a store, or Skipped for each image of the block, in any order.

        Raises InputError naming the image when numbers are not finite or shapes do not fit.
        """
        by_name = {record.name: record for record in records}
        expected = self.block_names(part)
        if len(by_name) != len(records) or by_name.keys() != set(expected):
            wrong = sorted(by_name.keys() ^ set(expected)) or [records[0].name]
            raise InputError(
                f"{self._part_path(part)}: the records are not those of the block (first difference '{wrong[0]}')"
            )
        ordered = [by_name[name] for name in expected]
        kept = [shaped_record(self.path, record) for record in ordered if not isinstance(record, Skipped)]
        columns = packed_columns(self.path, kept, self.local_dtype, self.max_local)
        left_out = [[record.name, record.reason] for record in ordered if isinstance(record, Skipped)]
        with atomic_path(self._part_path(part)) as temporary:
            check_room(self._part_path(part), sum(column.nbytes for column in columns.values()))
            with create_file(temporary) as file:
                for name, column in columns.items():
                    file[name] = column
                write_attributes(
                    file,
                    schema=PART_SCHEMA,
                    version=VERSION,
                    part=part,
                    skipped=json.dumps(left_out),
                    identity=self._identity_text(),
                    complete=True,
                )

    def merge(self, model_sha256="", desc_name=""):
        """Join all parts to the finished store, remove them, and return its path.

        Images that were skipped are left out, listed in `<store>.skipped.csv` and in `self.skipped`.
        """
        self._check_all_there()
        sizes = self._survey_parts()
        attributes = {"desc_name": desc_name, "model_sha256": model_sha256, "config": json.dumps(self.settings)}
        write_finished(
            self.path, sizes, self.skipped, self._part_columns(), self.local_dtype, self.compression, attributes
        )
        return self.path

    def keep_parts(self, model_sha256="", desc_name=""):
        """Make the folder of all parts the store itself (rrt.store.folder), and return its path: nothing is copied."""
        self.check_keeping()
        self._check_all_there()
        self.skipped = []
        for part in range(self.num_parts):
            with self._open_part(part) as file:
                self.skipped += _skipped_in(file)
        attributes = {"desc_name": desc_name, "model_sha256": model_sha256, "software": f"rrt {__version__}"}
        write_json(self.folder / MANIFEST, self._manifest() | {"attributes": attributes})
        if not len(StoreFolder(self.folder).column("names")):
            refuse_nothing(self.path, self.skipped)
        write_skipped(self.path, self.skipped)
        self.folder.rename(self.path)
        flush_to_disk(self.path.parent)
        return self.path

    def check_keeping(self):
        """InputError, before the work begins, for a store that its parts cannot be."""
        if self.compression:
            raise InputError(f"{self.path}: parts are not compressed; leave the compression out, or merge the parts")

    def _check_all_there(self):
        missing = self.missing_parts()
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing)} of {self.num_parts} parts are missing (first: "
                f"{self._part_path(missing[0]).name}); run the extraction again"
            )

    def _part_path(self, part):
        return self.folder / f"part-{part:05d}.h5"

    def _identity_text(self):
        return json.dumps({"settings": self.settings, **self._identity})

    def _manifest(self):
        """What the folder keeps of the run that makes its parts."""
        return {"settings": self.settings, **self._identity, "parts": self.num_parts}

    def _claim_folder(self):
        """Compare with the parts that are there, or leave a note of what this run's parts are made with."""
        manifest = self.folder / MANIFEST
        remedy = f"delete the folder {self.folder} or give --overwrite"
        # Looked at first, because another process that starts now writes its note before its first part. A note alone,
        # of a run that was refused or killed before it, binds nobody.
        if not any(PART_NAME.fullmatch(path.name) for path in self.folder.glob("*.h5")):
            write_json(manifest, self._manifest())
            return
        if not manifest.exists():
            raise InputError(f"{self.folder}: parts without their {MANIFEST}; {remedy}")
        try:
            known = parse_json(manifest.read_bytes())
            settings = known.pop("settings")
            known.pop("parts", None)  # follows from the rest
            known.pop("attributes", None)  # of a run that was killed when all parts were there
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{manifest}: damaged; {remedy}") from None
        difference = first_difference(settings, self.settings)
        if not difference and known.get("names_sha256") != self._identity["names_sha256"]:
            raise InputError(f"{self.folder}: its parts were made for another list of images; {remedy}")
        difference = difference or first_difference(known, self._identity)
        if difference:
            setting, old, new = difference
            raise InputError(
                f"{self.folder}: its parts were made with {setting} = {json.dumps(old)}, this run has "
                f"{json.dumps(new)}; {remedy}"
            )

    def _open_part(self, part):
        path = self._part_path(part)
        remedy = "delete it and run the extraction again"
        try:
            file = open_checked(path, PART_SCHEMA)
        except InputError:
            raise InputError(f"{path}: this part is damaged; {remedy}") from None
        if read_text(file, "identity") != self._identity_text():
            file.close()
            raise InputError(f"{path}: this part was made with other settings or for another list; {remedy}")
        return file

    def _survey_parts(self):
        """What the finished store will hold: names, counts and dimensions, without reading any descriptor."""
        sizes = Sizes()
        self.skipped = []
        for part in bar(range(self.num_parts), "looking at parts", "part", passing=True):
            path = self._part_path(part)
            with self._open_part(part) as file:
                sizes.names += read_names(path, file)
                self.skipped += _skipped_in(file)
                sizes.num_local += len(dataset(file, "local/descriptors"))
                sizes.global_dim = _agreed(path, "global", sizes.global_dim, dataset(file, "global").shape[1])
                sizes.local_dim = _agreed(path, "local", sizes.local_dim, dataset(file, "local/descriptors").shape[1])
        return sizes

    def _part_columns(self):
        for part in bar(range(self.num_parts), "merging", "part", leave=False):
            # Checked by the survey a moment ago.
            with open_hdf5(self._part_path(part)) as file:
                yield {name: dataset(file, name)[:] for name in COLUMNS if name != "names"}


def _skipped_in(file):
    return [Skipped(*entry) for entry in parse_json(read_text(file, "skipped"))]


def _agreed(path, kind, known, found):
    # Zero stands for "no image of the part has any", which fits every dimension.
    if known and found and known != found:
        raise InputError(
            f"{path}: {kind} descriptors of {found} dimensions, the parts before have {known}; delete the "
            "folder and extract all images with one model"
        )
    return known or found


def write_store(
    path, records, desc_name="", settings=None, local_dtype="float16", model_sha256="", max_local=None, compression=None
):
    """Write a store in one go from ImageRecords, images of stores (`store[:3]`) and Skipped, replacing what is at
    `path` -> path.

    The other arguments are those of PartWriter and its merge; the bytes are those that parts would give.
    """
    path, records = Path(path), list(records)
    for record in records:
        if not isinstance(record, ImageRecord | StoredImage | Skipped):
            raise InputError(f"{path}: {record!r} is no image to write; give an ImageRecord, or store[...] of a store")
    _check_request(path, [record.name for record in records], local_dtype, max_local, compression)
    settings = canonical_settings(path, with_limit(settings or {}, max_local))
    kept = [shaped_record(path, record) for record in records if not isinstance(record, Skipped)]
    for record in kept:
        refuse_useless(path, record)
    skipped = [record for record in records if isinstance(record, Skipped)]
    num_local = sum(int(limited(len(record.attention), max_local)) for record in kept)
    sizes = Sizes([record.name for record in kept], num_local, *check_equal_sizes(path, kept))
    blocks = (
        packed_columns(path, kept[start : start + _BLOCK], local_dtype, max_local)
        for start in range(0, len(kept), _BLOCK)
    )
    attributes = {"desc_name": desc_name, "model_sha256": model_sha256, "config": json.dumps(settings)}
    write_finished(path, sizes, skipped, blocks, local_dtype, compression, attributes)
    return path


def _check_request(path, names, local_dtype, max_local, compression):
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give another name, or remove it (--overwrite)")
    if not names:
        raise InputError(f"{path}: no images to write; is the image list empty?")
    if local_dtype not in LOCAL_DTYPES:
        raise InputError(f"{path}: local descriptors cannot be kept as {local_dtype}; use {' or '.join(LOCAL_DTYPES)}")
    if compression not in (None, *COMPRESSIONS):
        raise InputError(f"{path}: unknown compression '{compression}'; use {' or '.join(COMPRESSIONS)}, or none")
    if max_local is not None and (isinstance(max_local, bool) or not isinstance(max_local, int) or max_local < 0):
        raise InputError(f"{path}: at most {max_local!r} local descriptors an image; give 0 or more, or no limit")
    refuse_repeated_names(path, names)
    for name in names:
        if not name or "\0" in name or not _is_utf8(name):
            raise InputError(f"{path}: {name!r} cannot be kept as an image name; rename the image")


def with_limit(settings, max_local):
    """The settings of a store that keeps so many local descriptors of an image."""
    return settings if max_local is None else {**settings, "max_local": max_local}


def _hash_names(names):
    return hashlib.sha256(json.dumps(names).encode("ascii")).hexdigest()


def _is_utf8(name):
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
