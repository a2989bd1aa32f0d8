"""Making the HDF5 file of a store: equal content gives equal bytes, columns are mapped or compressed by whole
chunks."""

import shutil
from dataclasses import dataclass, field

import h5py
import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import atomic_path, check_room
from rrt.files.hdf5 import create_hdf5
from rrt.store.records import offsets_of
from rrt.store.schema import SCHEMA, VERSION, open_checked, parts_path, read_names, text_array, write_attributes
from rrt.store.skipped import write_skipped
from rrt.version import __version__

# Of a compressed column: small enough to read one image for little, large enough to compress.
CHUNK_BYTES = 65536


@dataclass
class Sizes:
    """What a store will hold: names [N], local descriptors in all, dimensions (0 where no image has any)."""

    names: list = field(default_factory=list)
    num_local: int = 0
    global_dim: int = 0
    local_dim: int = 0


def create_file(path):
    """A new file for the columns of a store (``create_hdf5``)."""
    file = create_hdf5(path)
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    h5py.h5g.create(file.id, b"local", gcpl=properties)
    return file


def write_columns(file, sizes, blocks, local_dtype, compression=None, global_dtype: str | type = np.float32):
    """Write all columns of a store, block after block, so that memory is bounded by one block.

    blocks: iterable of {dataset: rows} of all datasets but the names, with `local/offsets` counted from the block's
    first row, descriptors in the types given (bits: np.uint8, and of the width of their codes in ``sizes``).
    compression: None, "gzip" or "lzf" for the local columns.
    """
    num_images = len(sizes.names)
    file["names"] = text_array(sizes.names)
    columns = {
        "image_size": _Column(file, "image_size", (num_images, 2), np.int32),
        "global": _Column(file, "global", (num_images, sizes.global_dim), global_dtype),
        "local/descriptors": _Column(
            file, "local/descriptors", (sizes.num_local, sizes.local_dim), local_dtype, compression
        ),
        "local/keypoints": _Column(file, "local/keypoints", (sizes.num_local, 2), np.float32, compression),
        "local/scales": _Column(file, "local/scales", (sizes.num_local,), np.float32, compression),
        "local/attention": _Column(file, "local/attention", (sizes.num_local,), np.float32, compression),
    }
    counts = [np.empty(0, np.int64)]
    for block in blocks:
        counts.append(np.diff(block["local/offsets"]))
        for name, column in columns.items():
            column.append(block[name])
    for column in columns.values():
        column.finish()
    file["local/offsets"] = offsets_of(np.concatenate(counts))


class _Column:
    """A dataset that is filled from its first row to its last."""

    def __init__(self, file, name, shape, dtype, compression=None):
        options = {}
        if compression and 0 not in shape:
            row_bytes = np.dtype(dtype).itemsize * int(np.prod(shape[1:]))
            self.step = min(shape[0], max(1, CHUNK_BYTES // row_bytes))
            options = {"chunks": (self.step, *shape[1:]), "compression": compression, "shuffle": True}
        else:
            self.step = 1
        # Every row is written: filling with zeros first would write the file twice.
        self.dataset = file.create_dataset(name, shape, dtype, fill_time="never", **options)
        self.filled = 0
        self.rest = np.empty((0, *shape[1:]), dtype)

    def append(self, rows):
        """Add rows at the end; what does not fill a chunk waits, because a chunk written twice leaves a gap."""
        if len(rows) == 0:
            return
        if len(self.rest):
            rows = np.concatenate([self.rest, rows])
        whole = len(rows) // self.step * self.step
        self._write(rows[:whole])
        self.rest = rows[whole:]

    def finish(self):
        self._write(self.rest)

    def _write(self, rows):
        if rows.size:
            self.dataset[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)


def write_finished(
    path, sizes, skipped, blocks, local_dtype, compression, attributes, global_dtype="float32", codes=None
):
    """Write the whole store under a temporary name, check it, move it to `path`, and remove what earlier runs left.

    sizes, blocks, the types and compression: as write_columns takes them. skipped: list of Skipped.
    attributes: desc_name, model_sha256, config. codes: BinaryCodes of local descriptors that are bits.
    """
    if not sizes.names:
        refuse_nothing(path, skipped)
    with atomic_path(path) as temporary:
        check_room(path, 0 if compression else _size_of(sizes, local_dtype, global_dtype))
        with create_file(temporary) as file:
            write_columns(file, sizes, blocks, local_dtype, compression, global_dtype)
            if codes:
                file["local/code_mean"], file["local/code_axes"] = codes.mean, codes.axes
            write_attributes(
                file, schema=SCHEMA, version=VERSION, **attributes, software=f"rrt {__version__}", complete=True
            )
        with open_checked(temporary) as file:
            read_names(path, file)
        write_skipped(path, skipped)
    remove_parts(path)


def refuse_nothing(path, skipped):
    """The InputError of a store that would hold no image; the list of Skipped is kept."""
    write_skipped(path, skipped)
    raise InputError(
        f"{path}: none of the {len(skipped)} images gave descriptors (first: "
        f"'{skipped[0].name}', {skipped[0].reason}); check the folder the list is read against"
    )


def _size_of(sizes, local_dtype, global_dtype):
    """Bytes of the numbers of an uncompressed store."""
    local = sizes.num_local * (sizes.local_dim * np.dtype(local_dtype).itemsize + 16)
    return local + len(sizes.names) * (sizes.global_dim * np.dtype(global_dtype).itemsize + 16)


def remove_parts(store_path):
    """Remove the parts of a store, as far as they are there."""
    folder = parts_path(store_path)
    # The parts go before their manifest: a run killed between the two leaves a folder that can still be understood.
    for part in folder.glob("part-*"):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
