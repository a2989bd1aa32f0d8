"""Small made-up inputs that several test files share."""

import shutil

import h5py
import numpy as np
from PIL import Image
from places import GOLDEN

from rrt.formats.lists import write_image_list
from rrt.store.records import ImageRecord
from rrt.store.store import Store
from rrt.store.writer import write_store


def unit_rows(generator, count, width):
    """[count, width] float32 rows of unit length."""
    rows = generator.standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_record(name, generator, num_local=5, global_dim=16, local_dim=8, size=(640, 480)):
    """An ImageRecord with random unit descriptors, falling attention and the seven DELG scales."""
    keypoints = generator.uniform(0, size, (num_local, 2)).astype(np.float32)
    scales = generator.choice(np.float32([4, 2.828427, 2, 1.4142135, 1, 0.70710677, 0.5]), num_local)
    attention = np.sort(generator.exponential(10, num_local).astype(np.float32))[::-1]
    return ImageRecord(
        name,
        size,
        unit_rows(generator, 1, global_dim)[0],
        unit_rows(generator, num_local, local_dim),
        keypoints,
        scales,
        attention,
    )


def make_records(names, seed=0, num_local=5, **sizes):
    """Records for `names`; num_local is one number for all or one per image."""
    generator = np.random.default_rng(seed)
    counts = np.broadcast_to(num_local, len(names)).tolist()
    return [make_record(name, generator, count, **sizes) for name, count in zip(names, counts)]


def write_pictures(folder):
    """Eight small images of two classes and their list train.txt in a folder, which it returns."""
    rng = np.random.default_rng(0)
    names = [f"p{i}.jpg" for i in range(8)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    write_image_list(folder / "train.txt", names, np.arange(8) // 4, np.full((8, 2), (50, 40)))
    return folder


def make_store(
    folder,
    n=6,
    names=None,
    seed=0,
    num_local=5,
    desc_name="test",
    settings=None,
    file_name=None,
    local_dtype="float16",
    **sizes,
):
    """Write a random store of n images `jpg/img_000.jpg`, ... to folder/delg_<desc_name>.h5 and open it.

    num_local: one number or one per image. sizes: global_dim, local_dim, size=(width, height).
    """
    names = [f"jpg/img_{i:03d}.jpg" for i in range(n)] if names is None else names
    path = folder / (file_name or f"delg_{desc_name}.h5")
    records = make_records(names, seed, num_local, **sizes)
    settings = {"seed": seed} if settings is None else settings
    return Store(write_store(path, records, desc_name, settings, local_dtype))


def copy_golden_set(folder):
    """Copy the small data set of published programs (lists, ground truth, feature files, figures) to an empty
    folder."""
    source = GOLDEN / "legacy_mini"
    shutil.copytree(source, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return folder


def records_in(store):
    """The ImageRecords of a store, as read."""
    return (image.record() for image in store)


def datasets_of(path):
    """Every dataset of an HDF5 file by name, read whole."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found
