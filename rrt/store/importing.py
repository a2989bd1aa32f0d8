"""What the importers of other programs' descriptors share: options of the command line, the store, the image list."""

from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.formats.lists import read_image_list, write_image_list
from rrt.store.file import remove_parts
from rrt.store.finished import COMPRESSION_HELP, is_complete, remove_store, writing
from rrt.store.records import Skipped
from rrt.store.schema import COMPRESSIONS
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.values import LOCAL_DTYPES
from rrt.store.writer import PartWriter

# Images a part.
BLOCK = 256
UNKNOWN_LABEL = -1


def add_arguments(parser):
    """The options that import_records and image_sizes take."""
    parser.add_argument(
        "--list", dest="list_path", help="image list: the images to import, in its order, and their sizes"
    )
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="size of every image, where neither the descriptors nor --list tell it",
    )
    parser.add_argument("--write_list", help=f"write an image list of what was imported, every label {UNKNOWN_LABEL}")
    parser.add_argument(
        "--local_dtype",
        choices=LOCAL_DTYPES,
        default="float16",
        help="type of the stored local descriptors (default %(default)s)",
    )
    parser.add_argument("--max_local", type=int, help="local descriptors of an image at most (default: all)")
    parser.add_argument("--compression", choices=COMPRESSIONS, help=COMPRESSION_HELP)
    parser.add_argument(
        "--allow_missing",
        action="store_true",
        help="list images without usable descriptors in <output>.skipped.csv instead of stopping",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete an existing store and its parts first")


def image_sizes(names, list_path, image_size):
    """{name: (width, height)} from the image list where one is given, else image_size for each; empty without both."""
    if list_path:
        images = read_image_list(list_path)
        return dict(zip(images.names, map(tuple, images.sizes.tolist())))
    return dict.fromkeys(names, tuple(image_size)) if image_size else {}


def import_records(
    output, names, read_record, kind, files, image_size, write_list=None, overwrite=False, allow_missing=False, **layout
):
    """Write the store `output` of the images `names`, read_record(name) -> ImageRecord -> the opened Store.

    kind, files, image_size: what shaped the numbers, the files by their content, so that a run that was stopped goes on
    only with the same. layout: local_dtype, max_local, compression of PartWriter. allow_missing: images whose record
    cannot be read are listed in <output>.skipped.csv instead of stopping. A finished store is left as it is. The image
    list is written last.
    """
    output = Path(output)
    name = output.stem.removeprefix("delg_")
    settings = {
        "imported": kind,
        "image_size": image_size and list(image_size),
        "files": [{"name": path.name, "sha256": sha256_of_file(path)} for path in files],
    }
    write_store(output, names, read_record, settings, name, overwrite, allow_missing, "--{}", **layout)
    store = Store(output)
    if write_list:
        write_image_list(Path(write_list), store.names, np.full(len(store), UNKNOWN_LABEL), store.image_size)
    return store


def write_store(
    output: Path, names, read_record, settings, desc_name, overwrite: bool, allow_missing: bool, given: str, **layout
) -> bool:
    """What import_records does for the store alone -> whether it was there, finished.

    read_record may return Skipped, too. given: how the user gives a setting ``{}`` that is to be on.
    """
    left_out = given.format("allow_missing")

    def read(name):
        try:
            return read_record(name)
        except InputError as error:
            if not allow_missing:
                raise InputError(f"{error}, or leave such images out with {left_out}") from None
            return Skipped(name, str(error))

    with writing(output):
        if overwrite:
            remove_store(output)
        was_there = is_complete(output, names, settings, **layout)
        if not was_there:
            writer = PartWriter(output, names, settings, BLOCK, **layout)
            try:
                with writer.progress("import") as (missing, shown):
                    for part in missing:
                        records = []
                        for name in writer.block_names(part):
                            records.append(read(name))
                            shown.update()
                        writer.write_part(part, records)
                writer.merge(desc_name=desc_name)
            except InputError:
                if len(writer.missing_parts()) == writer.num_parts:
                    remove_parts(output)
                raise
    skipped = read_skipped(output)
    if skipped and not allow_missing:
        raise InputError(
            f"{output}: an earlier run left out {len(skipped)} of {len(names)} images, first '{skipped[0].name}' "
            f"({skipped[0].reason}); import again with {given.format('overwrite')}, or accept it with {left_out}"
        )
    return was_there


def refuse_zero_global(where, global_):
    """InputError for a global descriptor of zeros, which has no direction: programs leave one where they failed."""
    if global_.size and not global_.any():
        raise InputError(
            f"{where} has a global descriptor of zeros; describe the image again or take it out of the list"
        )


def refuse_not_finite(where, **columns):
    """InputError for numbers of an image, {column of a record: array}, that a store cannot keep: not finite, in
    float32 where they are kept as they are; scales of 0 and below."""
    for name, values in columns.items():
        with np.errstate(over="ignore"):
            # Descriptors are scaled before they are rounded.
            kept = values if name in ("global_", "descriptors") else values.astype(np.float32)
        what = "values that are not finite" if not np.isfinite(kept).all() else ""
        if not what and name == "scales" and not (kept > 0).all():
            what = "that are not above 0"
        if what:
            raise InputError(
                f"{where} has {name.rstrip('_')} {what}; describe the image again or take it out of the list"
            )


def size_of(where, stored, known):
    """(width, height) of an image: `stored` [2] by the descriptors' program, else `known`; InputError without both."""
    if stored is None:
        if known is None:
            raise InputError(f"{where} has no image size; give --list with the sizes, or --image_size WIDTH HEIGHT")
        return known
    if stored.shape != (2,) or not (np.isfinite(stored) & (stored >= 1)).all():
        raise InputError(f"{where} has the image size {stored.tolist()}; expected width and height")
    return tuple(stored.astype(int).tolist())


def describe(store):
    """What the commands print of the store they wrote, or found finished."""
    lines = [f"{store.path}: {len(store)} images, {store.offsets[-1]} local descriptors"]
    return "\n".join(lines + [f"skipped {image.name}: {image.reason}" for image in read_skipped(store.path)])
