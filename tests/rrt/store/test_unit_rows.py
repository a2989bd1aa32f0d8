"""Global and local descriptors of any type and length become unit rows, whoever gives them; a row of zeros has no
direction: an import refuses or lists it."""

import numpy as np
import pytest
from builders import make_records
from hloc_files import write_features

from rrt.commands import import_arrays as import_command
from rrt.errors import InputError
from rrt.formats.delf import serialize_datum
from rrt.formats.lists import write_image_list
from rrt.store.arrays import import_arrays
from rrt.store.check import check_store
from rrt.store.hloc import import_hloc
from rrt.store.importing_delg import import_delg
from rrt.store.memory import MemoryStore
from rrt.store.skipped import read_skipped
from rrt.store.store import Store

NAMES = ["a.jpg", "b.jpg", "c.jpg"]
SIZE = (640, 480)
DIRECTIONS = np.array([[3, 4, 0, 12], [-8, 0, 6, 0], [1, 0, 0, 0]])
KINDS = {
    **{kind: DIRECTIONS.astype(kind) for kind in ("int8", "int16", "int64", "float16", "float32", "float64")},
    "uint8": np.abs(DIRECTIONS).astype(np.uint8),
    "huge": DIRECTIONS * 1e200,
    "large": (DIRECTIONS * 1e25).astype(np.float32),
    "tiny": DIRECTIONS * 1e-200,
    "small": (DIRECTIONS * 1e-25).astype(np.float32),
    "mixed": DIRECTIONS * [[1e-200], [1e200], [1]],
}


def unit(rows):
    """The same directions, computed with Python's numbers of any size."""
    rows = np.asarray(rows, np.longdouble)
    return (rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))).astype(np.float64)


def hloc_store(folder, rows, **options):
    records = make_records(NAMES, num_local=3, local_dim=4)
    records = [
        type(r)(r.name, r.size, row, rows, *(getattr(r, n) for n in ("keypoints", "scales", "attention")))
        for r, row in zip(records, rows)
    ]
    path = folder / "feats.h5"
    if not path.exists():  # its bytes depend on the clock
        write_features(path, records, dtype=rows.dtype)
    return import_hloc(path, folder / "o.h5", local_dtype="float32", **options)


def arrays_store(folder, rows, **options):
    np.savez(folder / "a.npz", names=NAMES, **{"global": rows})
    return import_arrays(folder / "a.npz", folder / "o.h5", image_size=SIZE, **options)


def memory_store(folder, rows):
    return MemoryStore(rows, [rows] * 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [arrays_store, hloc_store, memory_store])
def test_rows_of_any_type_and_length_become_unit_rows(tmp_path, make, kind):
    store = make(tmp_path, KINDS[kind])
    np.testing.assert_allclose(store.global_descriptors, unit(KINDS[kind]), atol=1e-6)
    if make is not arrays_store:
        np.testing.assert_allclose(
            np.sort(store.read(1).descriptors, axis=0), np.sort(unit(KINDS[kind]), axis=0), atol=1e-6
        )
    if make is not memory_store:
        assert check_store(store.path).problems == []


def delg_store(folder, rows, **options):
    (folder / "delg_x").mkdir(exist_ok=True)
    for name, row in zip(NAMES, rows):
        (folder / f"delg_x/{name[0]}.delg_global").write_bytes(serialize_datum(row.astype(np.float32)))
    write_image_list(folder / "train.txt", NAMES, [0] * 3, [SIZE] * 3)
    return Store(import_delg(folder, "x", output=folder / "o.h5", local_suffix="", **options).path)


@pytest.mark.parametrize("make", [arrays_store, hloc_store, delg_store])
def test_a_global_descriptor_of_zeros_is_refused_or_listed(tmp_path, make):
    rows = np.float32(DIRECTIONS) * [[1], [0], [1]]
    with pytest.raises(InputError, match=r"b(\.jpg'|\.delg_global:) has a global descriptor of zeros.*allow_missing"):
        make(tmp_path, rows)
    assert not (tmp_path / "o.h5").exists()
    assert make(tmp_path, rows, allow_missing=True).names == ["a.jpg", "c.jpg"]
    assert [image.name for image in read_skipped(tmp_path / "o.h5")] == ["b.jpg"]
    assert check_store(tmp_path / "o.h5").problems == []
    with pytest.raises(InputError, match=r"left out 1 .*first 'b.jpg'.*overwrite.*allow_missing"):
        make(tmp_path, rows)


def test_the_command_tells_what_it_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", names=NAMES, **{"global": np.float32([[1, 0], [0, 0], [0, 1]])})
    command = ["import_arrays", "a.npz", "o.h5", "--image_size", *map(str, SIZE), "--allow_missing"]
    monkeypatch.setattr("sys.argv", command)
    import_command.main()
    assert capsys.readouterr().out.splitlines() == [
        "o.h5: 2 images, 0 local descriptors",
        "skipped b.jpg: a.npz: 'b.jpg' has a global descriptor of zeros; describe the image again or take it out of the"
        " list",
    ]


@pytest.mark.parametrize("lists", [{}, [], "", 3, [3], [""], True])
def test_lists_that_name_none_are_refused(tmp_path, lists):
    with pytest.raises(InputError, match="setting lists="):
        delg_store(tmp_path, np.eye(3), lists=lists)


@pytest.mark.parametrize("max_local", [True, -1, 1.5, "3", {}])
@pytest.mark.parametrize("make", [arrays_store, hloc_store, delg_store])
def test_a_limit_that_is_no_count_is_refused(tmp_path, make, max_local):
    with pytest.raises(InputError, match=r"max_local=|local descriptors an image; give 0 or more"):
        make(tmp_path, np.float32(DIRECTIONS), max_local=max_local)
    with pytest.raises(InputError, match="max_local is"):
        memory_store(tmp_path, np.eye(3)).read(0, max_local)
