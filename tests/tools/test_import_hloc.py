"""tools/import_hloc.py: what hloc wrote is what the store holds; one clear line for files that are not as they should
be."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from builders import make_records
from commands import assert_one_line_error, files_below, run_tool
from hloc_files import KEYS, write_features

from rrt.errors import InputError
from rrt.formats.lists import read_image_list, write_image_list
from rrt.store import hloc as importer
from rrt.store import importing as store_import
from rrt.store.hloc import import_hloc

TOOL = "tools/import_hloc.py"
# In the order of an HDF5 group.
NAMES = ["db/1.jpg", "db/2.jpg", "db/東京 x/3.jpg", "query.jpg"]


def records_of(names=NAMES, num_local=(3, 0, 9, 5)):
    return make_records(names, num_local=num_local, local_dim=6, global_dim=10)


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path / "feats.h5", records_of())


def assert_holds(store, records, dtype=np.float32):
    assert store.names == [record.name for record in records]
    assert store.image_size.tolist() == [list(record.size) for record in records]
    for place, record in enumerate(records):
        local = store.read(place)
        np.testing.assert_allclose(store.global_descriptors[place], record.global_, atol=1e-3)
        np.testing.assert_allclose(local.descriptors, record.descriptors, atol=1e-3)
        np.testing.assert_array_equal(local.keypoints, record.keypoints.astype(dtype))
        np.testing.assert_array_equal(local.attention, record.attention.astype(dtype))
        np.testing.assert_array_equal(local.scales, np.ones(len(record.attention)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_images_in_nested_groups_come_with_all_their_numbers(tmp_path, dtype):
    features = write_features(tmp_path / "feats.h5", records_of(), dtype=dtype)
    with import_hloc(features, tmp_path / "delg_superpoint.h5", local_dtype="float32") as store:
        assert_holds(store, records_of(), dtype)
        assert store.attributes["desc_name"] == "superpoint" and (store.local_dim, store.global_dim) == (6, 10)


def test_local_and_global_descriptors_may_lie_in_two_files(tmp_path):
    features = write_features(tmp_path / "local.h5", records_of(), KEYS[:4])
    other = write_features(tmp_path / "global.h5", records_of(), ["global_descriptor"])
    with import_hloc(features, tmp_path / "delg_x.h5", other) as store:
        assert_holds(store, records_of())


def test_descriptors_are_sorted_by_score_cut_and_scaled(tmp_path):
    changed = [
        replace(
            record,
            descriptors=3 * record.descriptors[::-1],
            attention=record.attention[::-1],
            keypoints=record.keypoints[::-1],
            global_=7 * record.global_,
        )
        for record in records_of()
    ]
    features = write_features(tmp_path / "feats.h5", changed)
    expected = [
        replace(record, **{name: getattr(record, name)[:4] for name in ("descriptors", "keypoints", "attention")})
        for record in records_of()
    ]
    with import_hloc(features, tmp_path / "delg_x.h5", max_local=4, local_dtype="int8", compression="gzip") as store:
        assert (store.local_dtype, store.compression, store.config["max_local"]) == ("int8", "gzip", 4)
        for place, record in enumerate(expected):
            local = store.read(place)
            np.testing.assert_allclose(local.descriptors, record.descriptors, atol=0.01)
            np.testing.assert_array_equal(local.attention, record.attention)
        np.testing.assert_allclose(np.linalg.norm(store.global_descriptors, axis=1), 1, atol=1e-6)


def test_a_list_chooses_the_images_and_their_order(tmp_path, features):
    listed = [NAMES[3], NAMES[0]]
    write_image_list(tmp_path / "list.txt", listed, [0, 0], [(1, 2)] * 2)
    with import_hloc(features, tmp_path / "delg_x.h5", list_path=tmp_path / "list.txt") as store:
        assert store.names == listed
        assert store.image_size.tolist() == [[640, 480]] * 2, "the file's own sizes go before those of the list"


def test_sizes_come_from_the_list_or_the_option_where_the_file_has_none(tmp_path):
    features = write_features(tmp_path / "feats.h5", records_of(), [key for key in KEYS if key != "image_size"])
    write_image_list(tmp_path / "list.txt", NAMES, [0] * 4, [(i, 9) for i in range(1, 5)])
    with import_hloc(features, tmp_path / "delg_x.h5", list_path=tmp_path / "list.txt") as store:
        assert store.image_size.tolist() == [[i, 9] for i in range(1, 5)]
    with import_hloc(features, tmp_path / "delg_y.h5", image_size=(30, 20)) as store:
        assert store.image_size.tolist() == [[30, 20]] * 4
    with pytest.raises(InputError, match="'db/1.jpg' has no image size; give --list with the sizes, or --image_size"):
        import_hloc(features, tmp_path / "delg_z.h5")


def test_the_command_writes_store_and_list_and_a_second_one_leaves_them(tmp_path, features):
    arguments = [TOOL, features, tmp_path / "delg_x.h5", "--write_list", tmp_path / "new" / "list.txt"]
    finished = run_tool(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{tmp_path / 'delg_x.h5'}: 4 images, 17 local descriptors\n"
    images = read_image_list(tmp_path / "new" / "list.txt")
    assert images.names == NAMES and images.labels.tolist() == [-1] * 4 and images.sizes.tolist() == [[640, 480]] * 4
    before = (tmp_path / "delg_x.h5").stat()
    assert run_tool(*arguments).stdout == finished.stdout
    assert (tmp_path / "delg_x.h5").stat().st_ino == before.st_ino


def test_other_features_or_settings_need_overwriting(tmp_path, features):
    import_hloc(features, tmp_path / "delg_x.h5").close()
    write_features(features, records_of(num_local=(1, 1, 1, 1)))
    for options in ({}, {"max_local": 3}):
        with pytest.raises(InputError, match="delg_x.h5: made with .*--overwrite"):
            import_hloc(features, tmp_path / "delg_x.h5", **options)
    with import_hloc(features, tmp_path / "delg_x.h5", overwrite=True) as store:
        assert store.local_counts().tolist() == [1] * 4


def test_a_stopped_import_goes_on_to_the_same_bytes(tmp_path, features, monkeypatch):
    monkeypatch.setattr(store_import, "BLOCK", 1)
    import_hloc(features, tmp_path / "delg_x.h5").close()
    whole = (tmp_path / "delg_x.h5").read_bytes()
    (tmp_path / "delg_x.h5").unlink()
    read, asked = importer.read_image, []

    def stop(local_file, global_file, name, size=None):
        asked.append(name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return read(local_file, global_file, name, size)

    monkeypatch.setattr(importer, "read_image", stop)
    with pytest.raises(KeyboardInterrupt):
        import_hloc(features, tmp_path / "delg_x.h5")
    assert not (tmp_path / "delg_x.h5").exists()
    import_hloc(features, tmp_path / "delg_x.h5").close()
    assert asked == [*NAMES[:3], *NAMES[2:]] and (tmp_path / "delg_x.h5").read_bytes() == whole


def test_an_hdf5_file_without_images_is_refused(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer/kernel"], file["scores"] = np.zeros(3), np.zeros(3)
    with pytest.raises(InputError, match="weights.h5: no group holds keypoints"):
        import_hloc(tmp_path / "weights.h5", tmp_path / "delg_x.h5")


def replaced(key, change):
    def apply(file):
        value = file[f"db/1.jpg/{key}"][()]
        del file[f"db/1.jpg/{key}"]
        file[f"db/1.jpg/{key}"] = change(value)

    return apply


@pytest.mark.parametrize(
    "change, what",
    [
        (replaced("descriptors", np.transpose), "expected [n, 2], [D, n] and [n]"),
        (replaced("keypoints", lambda x: x[:2]), "keypoints (2, 2), descriptors (6, 3) and scores (3,)"),
        (replaced("scores", lambda x: x[:, None]), "has scores of type float32 and shape (3, 1)"),
        (replaced("scores", lambda x: ["a"]), "has scores of type object"),
        (replaced("scores", lambda x: x * np.nan), "'db/1.jpg' has attention values that are not finite"),
        (replaced("descriptors", lambda x: x + np.inf), "'db/1.jpg' has descriptors values that are not finite"),
        (replaced("global_descriptor", lambda x: x * np.nan), "'db/1.jpg' has global values that are not finite"),
        (replaced("image_size", lambda x: x * 0), "the image size [0, 0]"),
        (replaced("image_size", lambda x: np.array([1, np.nan])), "the image size [1.0, nan]"),
        (replaced("image_size", lambda x: np.ones(3)), "the image size [1.0, 1.0, 1.0]"),
        (replaced("global_descriptor", lambda x: x[:5]), "global descriptors of"),
        (lambda file: file.__delitem__("db/1.jpg/scores"), "'db/1.jpg' has no scores; extract it again"),
        (
            lambda file: file.__delitem__("query.jpg/global_descriptor"),
            "'query.jpg' has no global_descriptor; give the file",
        ),
    ],
)
def test_what_is_wrong_with_an_image_is_named_and_nothing_is_written(tmp_path, features, change, what):
    with h5py.File(features, "r+") as file:
        change(file)
    with pytest.raises(InputError) as error:
        import_hloc(features, tmp_path / "delg_x.h5")
    assert what in str(error.value)
    assert not (tmp_path / "delg_x.h5").exists()


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["absent.h5", "delg_x.h5"], ["absent.h5", "no such file"]),
        (["list.txt", "delg_x.h5"], ["list.txt", "cannot be read as a feature file of hloc"]),
        (["feats.h5", "delg_x.h5", "--global_features", "absent.h5"], ["absent.h5", "no such file"]),
        (["feats.h5", "delg_x.h5", "--list", "list.txt"], ["feats.h5", "no image 'new.jpg'"]),
        (["feats.h5", "delg_x.h5", "--max_local", "-1"], ["at most -1"]),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, features, arguments, parts):
    write_image_list(tmp_path / "list.txt", ["new.jpg"], [0], [(1, 1)])
    assert_one_line_error(run_tool(TOOL, *arguments, cwd=tmp_path), *parts)
    assert not [
        name
        for name in files_below(tmp_path)
        if name.startswith("delg_x.h5") and not name.startswith("delg_x.h5.parts")
    ]


def test_a_cut_feature_file_is_named(tmp_path, features):
    features.write_bytes(features.read_bytes()[:-100])
    with pytest.raises(InputError, match="feats.h5: cannot be read as a feature file of hloc"):
        import_hloc(features, tmp_path / "delg_x.h5")
