"""What is at the path of a store before a run writes it: looked at, held, removed."""

import argparse
import json
from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import remove_leftovers
from rrt.files.locks import owned
from rrt.store.file import remove_parts
from rrt.store.folder import INDEX, MANIFEST, PART_NAME
from rrt.store.records import Skipped
from rrt.store.schema import COMPRESSIONS, canonical_settings, first_difference
from rrt.store.skipped import read_skipped, skipped_path
from rrt.store.store import Store
from rrt.store.writer import with_limit

COMPRESSION_HELP = "compress the local descriptors: smaller, slower to read (default: not)"


def add_part_options(how: argparse._ActionsContainer) -> None:
    """The options of commands that write a store in parts."""
    how.add_argument(
        "--ray_address", help="work on a Ray cluster: its address, auto for the one of this machine, local to start one"
    )
    how.add_argument("--block", type=int, default=64, help="images a part: what a kill can cost (default %(default)s)")
    how.add_argument("--compression", choices=COMPRESSIONS, help=COMPRESSION_HELP)
    how.add_argument(
        "--keep_parts",
        action="store_true",
        help="leave the store a folder of its parts, which every command reads: nothing is copied to one file",
    )
    how.add_argument("--allow_missing", action="store_true", help="exit status 0 although images could not be read")
    how.add_argument("--overwrite", action="store_true", help="delete an existing store and its parts first")


def refuse_skipped(store_path, skipped: list[Skipped], count: int) -> None:
    """InputError naming the first of the images, of ``count`` asked for, that were left out of a store."""
    if skipped:
        raise InputError(
            f"{store_path}.skipped.csv: {len(skipped)} of {count} images have no descriptors, first "
            f"{skipped[0].name!r} ({skipped[0].reason}); mend them and use --overwrite, or accept with --allow_missing"
        )


def is_complete(store_path, names, settings, local_dtype=None, max_local=None, compression=None):
    """True when a finished store with these settings holds (or skipped) all these images; False when there is none.

    local_dtype, compression: None takes what is there. Raises InputError when the store that is there was made with
    other settings (naming the first) or lacks images. Parts left by a run that was killed just after its merge are
    removed.
    """
    store_path = Path(store_path)
    if not store_path.exists():
        return False
    if store_path.is_dir() and store_path.suffix != ".h5":
        raise InputError(f"{store_path}: is a folder; give the file to write, as {store_path / 'delg_NAME.h5'}")
    with Store(store_path) as store:
        known, present = store.config, set(store.names)
        layout = {"local_dtype": store.local_dtype, "compression": store.compression}
        # What holds nothing cannot be compressed.
        asked = {"local_dtype": local_dtype, "compression": compression if store.offsets[-1] else None}
    asked = {name: value for name, value in asked.items() if value is not None}
    difference = first_difference(
        known, canonical_settings(store_path, with_limit(settings, max_local))
    ) or first_difference({name: layout[name] for name in asked}, asked)
    if difference:
        setting, old, new = difference
        raise InputError(
            f"{store_path}: made with {setting} = {json.dumps(old)}, this run has {json.dumps(new)}; "
            "delete the file or give --overwrite"
        )
    present.update(skipped.name for skipped in read_skipped(store_path))
    lacking = [name for name in names if name not in present]
    if lacking:
        raise InputError(
            f"{store_path}: finished, but lacks {len(lacking)} of {len(names)} images (first: "
            f"'{lacking[0]}'); delete the file or give --overwrite"
        )
    remove_parts(store_path)
    return True


def writing(store_path):
    """Hold a store for one run that writes it, parts and all; see rrt.files.locks.owned()."""
    store_path = Path(store_path)
    return owned(store_path.parent, "writing this store", store_path.name + ".lock", store_path)


def remove_store(store_path):
    """Remove a store, its list of skipped images and its parts, as far as they are there (`--overwrite`)."""
    store_path = Path(store_path)
    if store_path.is_dir():
        _remove_folder(store_path)
    store_path.unlink(missing_ok=True)
    skipped_path(store_path).unlink(missing_ok=True)
    if store_path.parent.is_dir():
        remove_leftovers(store_path.parent)
    remove_parts(store_path)


def _remove_folder(folder):
    """Remove a store that is a folder of an extraction's parts; InputError for any other folder."""
    others = [each for each in folder.iterdir() if each.name not in (INDEX, MANIFEST) and not _is_part(each)]
    if others or not (folder / MANIFEST).exists():
        raise InputError(f"{folder}: is a folder that no extraction wrote; remove it, or write to another name")
    # The parts go before their manifest: a run killed between the two leaves a folder that can still be understood.
    for part in sorted(folder.iterdir(), key=lambda each: each.name == MANIFEST):
        part.unlink()
    folder.rmdir()


def _is_part(path):
    return PART_NAME.fullmatch(path.name) is not None
