"""tools/import_arrays.py: arrays in any of their forms give the same store; one clear line for those that do not
fit."""

import h5py
import numpy as np
import pytest
from builders import make_records
from commands import assert_one_line_error, run_tool

from rrt.errors import InputError
from rrt.formats.lists import read_image_list, write_image_list
from rrt.store.arrays import import_arrays
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.writer import write_store

TOOL = "tools/import_arrays.py"
NAMES = ["a b/1.jpg", "東京/2.jpg", "3.jpg"]
RECORDS = make_records(NAMES, num_local=[4, 0, 2], local_dim=6, global_dim=10, size=(50, 40))


def arrays_of(records=RECORDS, **changes):
    """The records as the arrays of an .npz; None leaves one out."""
    arrays = {
        "global": np.stack([record.global_ for record in records]),
        "names": np.array([r.name for r in records]),
        "image_size": np.array([record.size for record in records]),
        "offsets": np.cumsum([0, *(len(record.attention) for record in records)]),
    }
    for name in ("descriptors", "keypoints", "attention", "scales"):
        arrays[name] = np.concatenate([getattr(record, name) for record in records])
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def save(path, arrays):
    """As an .npz, or as a folder of .npy files."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.mkdir()
        for key, array in arrays.items():
            np.save(path / f"{key}.npy", array)
    return path


def imported(tmp_path, arrays, **options):
    return import_arrays(save(tmp_path / "arrays.npz", arrays), tmp_path / "delg_x.h5", **options)


@pytest.mark.parametrize("form", ["arrays.npz", "folder"])
def test_arrays_come_with_all_their_numbers(tmp_path, form):
    store = import_arrays(save(tmp_path / form, arrays_of()), tmp_path / "delg_clip.h5", local_dtype="float32")
    assert store.names == NAMES and store.image_size.tolist() == [[50, 40]] * 3
    assert store.attributes["desc_name"] == "clip"
    for place, record in enumerate(RECORDS):
        np.testing.assert_array_equal(store.global_descriptors[place], record.global_)
        for name, values in vars(store.read(place)).items():
            np.testing.assert_array_equal(values, getattr(record, name))


def test_the_same_number_for_every_image_needs_no_offsets(tmp_path):
    records = make_records(NAMES, num_local=5, local_dim=6)
    dense = {
        name: np.stack([getattr(record, name) for record in records])
        for name in ("descriptors", "keypoints", "attention", "scales")
    }
    with imported(tmp_path, arrays_of(records, **dense, offsets=None), local_dtype="float32") as store:
        assert store.local_counts().tolist() == [5, 5, 5]
        np.testing.assert_array_equal(store.read(2).descriptors, records[2].descriptors)
        np.testing.assert_array_equal(store.read(1).keypoints, records[1].keypoints)


def test_without_attention_and_scales_descriptors_keep_their_order(tmp_path):
    with imported(tmp_path, arrays_of(attention=None, scales=None), local_dtype="float32") as store:
        local = store.read(0)
        np.testing.assert_array_equal(local.descriptors, RECORDS[0].descriptors)
        assert local.attention.tolist() == local.scales.tolist() == [1] * 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_attention_of_any_type_sorts_the_descriptors(tmp_path, dtype):
    order = np.array([0, 5, 200, 10, 1, 2], dtype)
    with imported(tmp_path, arrays_of(attention=order), local_dtype="float32") as store:
        assert store.read(0).attention.tolist() == [200, 10, 5, 0]
        np.testing.assert_array_equal(store.read(0).descriptors, RECORDS[0].descriptors[[2, 3, 1, 0]])


def test_global_descriptors_alone_make_a_store(tmp_path):
    np.save(tmp_path / "globals.npy", 5 * arrays_of()["global"].astype(np.float16))
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    finished = run_tool(
        TOOL,
        "globals.npy",
        "delg_x.h5",
        "--names",
        "names.txt",
        "--image_size",
        9,
        8,
        "--write_list",
        "list.txt",
        cwd=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "delg_x.h5: 3 images, 0 local descriptors\n"
    store = Store(tmp_path / "delg_x.h5")
    np.testing.assert_allclose(store.global_descriptors, arrays_of()["global"], atol=1e-3)
    assert (store.names, store.local_dim) == (NAMES, 0) and len(store.read(1).attention) == 0
    images = read_image_list(tmp_path / "list.txt")
    assert images.names == NAMES and images.sizes.tolist() == [[9, 8]] * 3


def test_a_list_names_the_rows_where_nothing_else_does_and_tells_their_sizes(tmp_path):
    write_image_list(tmp_path / "list.txt", NAMES[::-1], [0] * 3, [(1, 2), (3, 4), (5, 6)])
    with imported(tmp_path, arrays_of(names=None, image_size=None), list_path=tmp_path / "list.txt") as store:
        assert store.names == NAMES[::-1] and store.image_size.tolist() == [[1, 2], [3, 4], [5, 6]]
        np.testing.assert_array_equal(store.global_descriptors[0], RECORDS[0].global_)


def test_a_list_chooses_among_named_rows(tmp_path):
    write_image_list(tmp_path / "list.txt", NAMES[::-2], [0] * 2, [(1, 2)] * 2)
    with imported(tmp_path, arrays_of(), list_path=tmp_path / "list.txt") as store:
        assert store.names == NAMES[::-2]
        np.testing.assert_array_equal(store.global_descriptors[0], RECORDS[2].global_)
        assert store.local_counts().tolist() == [2, 4]


def test_names_may_be_bytes(tmp_path):
    with imported(tmp_path, arrays_of(names=np.char.encode(np.array(NAMES), "utf-8"))) as store:
        assert store.names == NAMES


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"global": None}, "no array named global"),
        ({"global": np.zeros(3)}, "array global is (3,); expected [N, Dg], a row for each image"),
        ({"global": np.array(["a"])}, "array global is of type <U1; expected numbers"),
        ({"names": None}, "the images have no names; give --names, --list or an array names"),
        ({"names": np.arange(3)}, "array names is of type int64; expected text"),
        ({"names": np.array(NAMES[:2])}, "array names is (2,) where (3,) fits"),
        ({"names": np.array(["a", "b", "a"])}, "'a' is named twice"),
        ({"names": np.array([b"\xff", b"a", b"b"])}, "array names is not UTF-8"),
        ({"image_size": None}, "'a b/1.jpg' has no image size; give --list"),
        ({"image_size": np.zeros((3, 2))}, "'a b/1.jpg' has the image size [0.0, 0.0]"),
        ({"image_size": np.ones((2, 2))}, "array image_size is (2, 2) where (3, 2) fits"),
        ({"offsets": None}, "array descriptors (6, 6) without an array offsets"),
        ({"offsets": np.array([0, 4, 3, 6])}, "array offsets does not divide the 6 local descriptors"),
        ({"offsets": np.array([0, 4, 4, 7])}, "array offsets does not divide the 6 local descriptors"),
        ({"offsets": np.array([0, 6])}, "array offsets is (2,) where (4,) fits"),
        ({"keypoints": None}, "array descriptors (6, 6) without an array keypoints"),
        ({"keypoints": np.zeros((5, 2))}, "array keypoints is (5, 2) where (6, 2) fits"),
        ({"descriptors": None}, "without an array descriptors"),
        ({"descriptors": np.zeros(6)}, "array descriptors is (6,) where (6, Dl) fits"),
        ({"descriptors": np.full((6, 6), np.nan)}, "'a b/1.jpg' has descriptors values that are not finite"),
        ({"scales": np.array([1, 1, 1, 1, 1, np.inf])}, "'3.jpg' has scales values that are not finite"),
        ({"scales": np.array([1, 1, 1, 1, 0, 1])}, "'3.jpg' has scales that are not above 0"),
        ({"keypoints": np.full((6, 2), 1e39)}, "arrays.npz: 'a b/1.jpg' has keypoints values that are not finite"),
        ({"names": np.array(["a", "b\nc", "d"])}, "arrays.npz: array names holds 'b\\nc' in row 1; give the image"),
        ({"names": np.array(["a", "", "d"])}, "arrays.npz: array names holds '' in row 1"),
        ({"attention": np.zeros((6, 1))}, "array attention is (6, 1) where (6,) fits"),
        ({"names": np.array([None, 1, 2], dtype=object)}, "array names is of Python objects"),
    ],
)
def test_what_is_wrong_with_an_array_is_named_and_nothing_is_written(tmp_path, changes, what):
    with pytest.raises(InputError) as error:
        imported(tmp_path, arrays_of(**changes))
    assert what in str(error.value)
    assert not (tmp_path / "delg_x.h5").exists()


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["absent.npz", "delg_x.h5"], ["absent.npz", "no such file"]),
        (["plain.h5", "delg_x.h5"], ["plain.h5: an HDF5 file; save its arrays with NumPy, np.savez(FILE, **{'global'"]),
        (["arrays.npz", "mine"], ["mine: is a folder; give the file to write, as mine/delg_NAME.h5"]),
        (["names.txt", "delg_x.h5"], ["names.txt", "cannot be read as .npy or .npz"]),
        ([".", "delg_x.h5"], ["no array named global"]),
        (["arrays.npz", "delg_x.h5", "--names", "absent.txt"], ["absent.txt", "no such file"]),
        (["arrays.npz", "delg_x.h5", "--names", "names.txt"], ["names.txt", "2 names for the 3 rows", "arrays.npz"]),
        (
            ["arrays.npz", "delg_x.h5", "--list", "list.txt"],
            ["arrays.npz", "no row for 'new.jpg'", "line 1 of list.txt"],
        ),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, arguments, parts):
    save(tmp_path / "arrays.npz", arrays_of())
    (tmp_path / "mine").mkdir()
    write_store(tmp_path / "mine" / "delg_y.h5", RECORDS)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["global"] = arrays_of()["global"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    write_image_list(tmp_path / "list.txt", ["new.jpg"], [0], [(1, 1)])
    assert_one_line_error(run_tool(TOOL, *arguments, cwd=tmp_path), *parts)
    assert not (tmp_path / "delg_x.h5").exists()


def test_what_a_refused_import_left_is_not_in_the_way_of_the_right_one(tmp_path):
    with pytest.raises(InputError, match="has no image size"):
        imported(tmp_path, arrays_of(image_size=None))
    with imported(tmp_path, arrays_of(image_size=None), image_size=(50, 40)) as store:
        assert store.names == NAMES and not (tmp_path / "delg_x.h5.parts").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_an_image_without_usable_numbers_is_named_by_its_file_or_left_out(tmp_path, value):
    spoilt = arrays_of()["global"]
    spoilt[1] = value
    with pytest.raises(InputError) as error:
        imported(tmp_path, arrays_of(**{"global": spoilt}))
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'arrays.npz'}: '{NAMES[1]}' has ")
    assert message.endswith("take it out of the list, or leave such images out with --allow_missing")
    assert not (tmp_path / "delg_x.h5.parts").exists()
    with imported(tmp_path, arrays_of(**{"global": spoilt}), allow_missing=True) as store:
        assert store.names == NAMES[::2]
    assert [image.name for image in read_skipped(tmp_path / "delg_x.h5")] == NAMES[1:2]
