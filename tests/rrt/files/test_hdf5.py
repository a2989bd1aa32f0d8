"""HDF5 files: no locks, nothing of other files, a file that is open elsewhere is not damaged, a full disk is told."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders import make_records, make_store
from hloc_files import KEYS, write_features

from rrt.errors import InputError
from rrt.files.hdf5 import find_item, open_hdf5, why_unopened
from rrt.store.file import create_file
from rrt.store.hloc import import_hloc
from rrt.store.store import Store


def linked(file, name, other):
    file[name] = h5py.ExternalLink(str(other), f"/{name}")


def soft(file, name, other):
    file[name] = h5py.SoftLink("/image_size")


def outside(file, name, other, values):
    (other.parent / "raw").write_bytes(values.tobytes())
    external = [(str(other.parent / "raw"), 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


def virtual(file, name, other, values):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(str(other), name, values.shape)
    file.create_virtual_dataset(name, layout)


def moved(path, name, how):
    """Makes the numbers of a dataset or group lie elsewhere than in the file."""
    other = path.with_name("other.h5")
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        values = file[name][()] if how in (outside, virtual) else ()
        del file[name]
        how(file, name, other, *([values] if how in (outside, virtual) else []))


PLACES = [
    *(
        (name, how)
        for name in ("names", "local/offsets", "local/descriptors")
        for how in (linked, soft, outside, virtual)
    ),
    ("local", linked),
]


@pytest.mark.parametrize("name, how", PLACES)
def test_a_store_holds_its_numbers_itself(tmp_path, name, how):
    path = make_store(tmp_path, n=3).path
    moved(path, name, how)
    with pytest.raises(InputError) as error:
        Store(path)
    assert str(path) in str(error.value) and f"/{name}" in str(error.value) and "write it again" in str(error.value)
    assert ("link to elsewhere" if how in (linked, soft) else "numbers in other files") in str(error.value)


@pytest.mark.parametrize(
    "name, how",
    [("db/1.jpg", linked), ("db", linked), ("db/1.jpg/scores", outside), ("db/1.jpg/global_descriptor", virtual)],
)
def test_nothing_of_another_file_is_imported(tmp_path, name, how):
    path = write_features(tmp_path / "feats.h5", make_records(["db/1.jpg", "2.jpg"]))
    moved(path, name, how)
    if how is linked:  # groups that are only linked are no images of the file
        (tmp_path / "list.txt").write_text("db/1.jpg,0,640,480\n")
    with pytest.raises(InputError, match=r"link to elsewhere|numbers in other files"):
        import_hloc(path, tmp_path / "o.h5", list_path=tmp_path / "list.txt" if how is linked else None)
    assert not (tmp_path / "o.h5").exists()


def test_what_is_written_and_read_asks_for_no_lock(tmp_path):
    """Some network file systems have none."""
    with create_file(tmp_path / "new.h5") as file:
        assert not file.id.get_access_plist().get_file_locking()[0]
    with open_hdf5(tmp_path / "new.h5") as file:
        assert not file.id.get_access_plist().get_file_locking()[0]


def test_a_store_that_is_open_elsewhere_is_not_called_damaged(tmp_path):
    path, copy = make_store(tmp_path, n=3).path, tmp_path / "copy.h5"
    for mode in ("r", "r+"):
        with h5py.File(path, mode, libver=("v110", "v110")):
            assert len(Store(path)) == 3  # in this process HDF5 knows of it
            copy.write_bytes(path.read_bytes())  # what another process finds
    with pytest.raises(InputError, match=r"is open for writing, here or in another program; close it there"):
        Store(copy)


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError("Unable to open file (unable to lock file, errno = 37)"), "HDF5_USE_FILE_LOCKING=FALSE"),
        (
            OSError("Unable to open file (file is already open for write (may use <h5clear file>))"),
            "is open for writing",
        ),
        (PermissionError(13, "Permission denied"), "may not be read"),
        (IsADirectoryError(21, "Is a directory"), "is a folder"),
        (OSError("Unable to open file (truncated file)"), None),
    ],
)
def test_a_file_that_could_not_be_opened_is_told_from_a_damaged_one(error, said):
    message = why_unopened("x.h5", error)
    assert message is None if said is None else said in message and message.startswith("x.h5: ")


def test_items_are_found_by_their_whole_name(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b/c"] = np.arange(3)
        assert find_item(file, "a/b/c")[()].tolist() == [0, 1, 2] and isinstance(find_item(file, "a/b"), h5py.Group)
        assert find_item(file, "a/x/c") is find_item(file, "a/b/c/d") is find_item(file, "z") is None


def test_global_descriptors_alone_are_imported(tmp_path):
    records = make_records(["db/1.jpg", "2.jpg"])
    path = write_features(tmp_path / "netvlad.h5", records, KEYS[3:])
    with import_hloc(path, tmp_path / "o.h5") as store:
        assert (store.names, store.local_counts().tolist()) == (["2.jpg", "db/1.jpg"], [0, 0])
        np.testing.assert_allclose(store.global_descriptors[1], records[0].global_, atol=1e-6)


@pytest.mark.parametrize("keys, what", [(KEYS, "is an empty group"), (KEYS[3:], "is an empty group")])
def test_an_empty_group_is_named_or_listed(tmp_path, keys, what):
    path = write_features(tmp_path / "feats.h5", make_records(["db/1.jpg", "2.jpg"]), keys)
    with h5py.File(path, "r+") as file:
        file.create_group("db/3.jpg")
    with pytest.raises(InputError, match=rf"feats.h5: 'db/3.jpg' {what}; extract the image again"):
        import_hloc(path, tmp_path / "o.h5")
    with import_hloc(path, tmp_path / "o.h5", allow_missing=True) as store:
        assert store.names == ["2.jpg", "db/1.jpg"]


def test_local_descriptors_alone_need_the_file_of_the_global_ones(tmp_path):
    path = write_features(tmp_path / "feats.h5", make_records(["1.jpg"]), KEYS[:4])
    with pytest.raises(InputError, match="'1.jpg' has no global_descriptor; give the file that does as --global_feat"):
        import_hloc(path, tmp_path / "o.h5")


# Every file size at which the disk could be full, for a store of each kind; HDF5 has a last say when the process ends.
FULL = """
import os, resource, sys
from pathlib import Path
from builders import make_records
from rrt.errors import InputError
from rrt.store.writer import write_store
path = Path(sys.argv[1]) / "data" / "a.h5"
records = make_records([f"{i}.jpg" for i in range(40)], num_local=20, global_dim=32, local_dim=16)
for compression in (None, "gzip", "lzf"):
    write_store(path, records, "x", compression=compression)
    whole = path.read_bytes()
    path.unlink()
    for limit in range(100, len(whole), len(whole) // 8):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write_store(path, records, "x", compression=compression)
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "make room or write elsewhere, and run again" in str(error)
        else:
            raise AssertionError(f"{limit} bytes hold {len(whole)}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert os.listdir(path.parent) == []
"""


def test_a_store_that_the_disk_does_not_take_is_one_error_and_no_crash(tmp_path):
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2] / "helpers")])
    command = [sys.executable, "-c", FULL, tmp_path]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
