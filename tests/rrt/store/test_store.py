"""Reading the descriptor store: what was written comes back, in the order asked, from any process."""

import multiprocessing
import pickle
import shutil

import builders
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.formats.lists import read_image_list, write_image_list
from rrt.store.records import Skipped
from rrt.store.schema import COMPRESSIONS
from rrt.store.store import Store
from rrt.store.values import LOCAL_DTYPES, to_float32, to_stored
from rrt.store.writer import write_store

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
UNUSUAL = [
    "a b/c d.jpg",
    "東京/タワー 1.jpg",
    "Ünïcödé.jpeg",
    "no_suffix",
    ".hidden",
    "a/../b.jpg",
    "x,y;z'.jpg",
    "😀.png",
]


@st.composite
def image_sets(draw):
    names = draw(st.lists(st.one_of(NAMES, st.sampled_from(UNUSUAL)), min_size=1, max_size=12, unique=True))
    counts = draw(st.lists(st.integers(0, 6), min_size=len(names), max_size=len(names)))
    seed = draw(st.integers(0, 9))
    return names, builders.make_records(names, seed=seed, num_local=counts, global_dim=4, local_dim=3)


def assert_same_image(store, place, record, max_local=None):
    local = store.read(place)
    assert store.image_size[place].tolist() == list(record.size)
    np.testing.assert_array_equal(store.global_descriptors[place], record.global_)
    expected = to_float32(to_stored(record.descriptors[:max_local], store.local_dtype))
    np.testing.assert_array_equal(local.descriptors, expected)
    for name in ("keypoints", "scales", "attention"):
        np.testing.assert_array_equal(getattr(local, name), getattr(record, name)[:max_local])


def compressed_copy(store, path):
    """The same store with gzip instead of contiguous columns, as another program might repack it."""
    with h5py.File(store.path) as source, h5py.File(path, "w") as target:
        target.attrs.update(source.attrs)
        for name in ("names", "image_size", "local/offsets"):
            target[name] = source[name][:]
        for name in ("global", "local/descriptors", "local/keypoints", "local/scales", "local/attention"):
            target.create_dataset(name, data=source[name][:], chunks=True, compression="gzip")
    return Store(path)


LAYOUTS = st.fixed_dictionaries(
    {
        "local_dtype": st.sampled_from(LOCAL_DTYPES),
        "compression": st.sampled_from([None, *COMPRESSIONS]),
        "max_local": st.none() | st.integers(0, 7),
    }
)


@settings(max_examples=40)
@given(image_sets(), LAYOUTS)
def test_every_image_comes_back_as_it_was_written(tmp_path_factory, case, layout):
    names, records = case
    path = tmp_path_factory.getbasetemp() / "delg_any.h5"
    with Store(write_store(path, records, "any", {"a": 1}, **layout)) as store:
        assert store.names == names and len(store) == store.num_images == len(names)
        assert store.indices(names).tolist() == list(range(len(names)))
        assert store.local_dtype == layout["local_dtype"]
        assert store.compression == (layout["compression"] if len(store.local_descriptors) else None)
        for place, record in enumerate(records):
            assert_same_image(store, place, record, layout["max_local"])


@settings(max_examples=10)
@given(image_sets(), st.sampled_from(LOCAL_DTYPES), st.sampled_from(COMPRESSIONS))
def test_a_compressed_store_gives_what_the_mapped_one_gives(tmp_path_factory, case, dtype, compression):
    names, records = case
    folder = tmp_path_factory.getbasetemp()
    mapped = Store(write_store(folder / "delg_mapped.h5", records, local_dtype=dtype))
    packed = Store(write_store(folder / "delg_packed.h5", records, local_dtype=dtype, compression=compression))
    for first, second in [
        (mapped.read_packed(range(len(names))[::-1]), packed.read_packed(range(len(names))[::-1])),
        (mapped.read(len(names) - 1, 2), packed.read(len(names) - 1, 2)),
    ]:
        for name, column in vars(first).items():
            np.testing.assert_array_equal(column, getattr(second, name))
            assert column.dtype == getattr(second, name).dtype
    np.testing.assert_array_equal(mapped.global_descriptors, packed.global_descriptors)
    packed.close()


@settings(max_examples=30)
@given(image_sets(), st.sampled_from(LOCAL_DTYPES), st.data())
def test_packed_reading_equals_reading_one_by_one(tmp_path_factory, case, dtype, data):
    names, records = case
    folder = tmp_path_factory.getbasetemp()
    store = Store(write_store(folder / "delg_packed.h5", records, local_dtype=dtype))
    asked = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=20))
    max_local = data.draw(st.one_of(st.none(), st.integers(0, 7)))
    for opened in (store, compressed_copy(store, folder / "delg_gzip.h5")):
        packed = opened.read_packed(asked, max_local)
        assert packed.descriptors.dtype == (np.float32 if dtype == "int8" else dtype)
        assert packed.descriptors.shape == (packed.offsets[-1], store.local_dim)
        assert np.diff(packed.offsets).tolist() == opened.local_counts(max_local)[asked].tolist()
        some = opened.read_packed(asked, max_local, ("scales",))
        np.testing.assert_array_equal(some.scales, packed.scales)
        assert some.descriptors is some.keypoints is some.attention is None
        for slot, place in enumerate(asked):
            rows = slice(packed.offsets[slot], packed.offsets[slot + 1])
            local = opened.read(place, max_local)
            np.testing.assert_array_equal(packed.descriptors[rows].astype(np.float32), local.descriptors)
            for name in ("keypoints", "scales", "attention"):
                np.testing.assert_array_equal(getattr(packed, name)[rows], getattr(local, name))
        opened.close()


def test_a_store_tells_its_sizes_and_settings(tmp_path, make_store):
    store = make_store(
        tmp_path,
        3,
        num_local=[2, 0, 7],
        global_dim=12,
        local_dim=6,
        desc_name="r50_gldv2",
        settings={"scales": (1, 2), "model": {"name": "r50"}},
    )
    assert (store.num_images, store.global_dim, store.local_dim) == (3, 12, 6)
    assert store.config == {"scales": [1, 2], "model": {"name": "r50"}}
    assert store.attributes["desc_name"] == "r50_gldv2" and store.attributes["software"].startswith("rrt ")
    assert store.local_counts().tolist() == [2, 0, 7] and store.local_counts(5).tolist() == [2, 0, 5]
    assert store.global_descriptors.shape == (3, 12) and store.global_descriptors.dtype == np.float32
    assert store.local_descriptors.shape == (9, 6) and store.local_descriptors.dtype == np.float16
    assert store.path == tmp_path / "delg_r50_gldv2.h5" and store.image_size.tolist() == [[640, 480]] * 3


def test_the_file_follows_schema_1(tmp_path, make_store):
    with h5py.File(make_store(tmp_path, 4, num_local=3).path) as file:
        assert {"schema", "version", "desc_name", "config", "model_sha256", "software", "complete"} == set(file.attrs)
        assert file.attrs["schema"] == b"delg-store" and file.attrs["version"] == 1 and file.attrs["complete"]
        assert h5py.check_string_dtype(file["names"].dtype).encoding == "utf-8"
        types = {
            name: (file[name].dtype.name, file[name].shape)
            for name in ("image_size", "global", *(f"local/{name}" for name in file["local"]))
        }
        assert types == {
            "image_size": ("int32", (4, 2)),
            "global": ("float32", (4, 16)),
            "local/offsets": ("int64", (5,)),
            "local/descriptors": ("float16", (12, 8)),
            "local/keypoints": ("float32", (12, 2)),
            "local/scales": ("float32", (12,)),
            "local/attention": ("float32", (12,)),
        }
        assert all(file[name].chunks is None and file[name].id.get_offset() for name in types)


def test_columns_are_mapped_from_the_file_and_cannot_be_changed(tmp_path, make_store):
    store = make_store(tmp_path, 4)
    assert not store.global_descriptors.flags.writeable and not store.local_descriptors.flags.writeable
    assert store._source._file is None
    assert store.read_packed([1, 2]).descriptors.flags.writeable


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", LOCAL_DTYPES)
def test_what_is_read_belongs_to_the_reader(tmp_path, dtype, compressed):
    store = Store(write_store(tmp_path / "delg_x.h5", builders.make_records(["a", "b"]), local_dtype=dtype))
    if compressed:
        store = compressed_copy(store, tmp_path / "delg_gzip.h5")
    for column in vars(store.read(1)).values():
        column[:] = 0
    assert store.read(1).descriptors.any() and store.read(1).attention.all()


@pytest.mark.parametrize("compressed", [False, True])
def test_global_descriptors_are_read_only_however_they_are_kept(tmp_path, make_store, compressed):
    store = make_store(tmp_path, 4)
    if compressed:
        store = compressed_copy(store, tmp_path / "delg_gzip.h5")
    assert store.global_descriptors.shape == (4, 16) and store.global_descriptors is store.global_descriptors
    assert not store.global_descriptors.flags.writeable


def test_a_store_without_any_local_descriptor_is_legal(tmp_path, make_store):
    store = make_store(tmp_path, 3, num_local=0, local_dim=8)
    packed = store.read_packed([2, 0])
    assert packed.descriptors.shape == (0, 8) and packed.offsets.tolist() == [0, 0, 0]
    assert store.read(1).keypoints.shape == (0, 2)


def test_an_image_is_found_by_path_or_by_a_stem_of_its_own(tmp_path, make_store):
    store = make_store(tmp_path, names=["jpg/a.jpg", "jpg/b.jpg", "other/b.jpg", "c.tar.gz", ".hidden", "b"])
    assert store.index("jpg/a.jpg") == 0 and store.index("a") == 0
    assert store.index("c.tar") == 3 and store.index(".hidden") == 4
    assert store.index("b") == 5, "a path goes before a stem"
    with pytest.raises(InputError, match="no descriptors for 'a.jpg'"):
        store.index("a.jpg")


def test_an_ambiguous_stem_is_refused_with_both_paths(tmp_path, make_store):
    store = make_store(tmp_path, names=["jpg/b.jpg", "other/b.jpg"])
    with pytest.raises(InputError, match="'b' may be 'jpg/b.jpg' or 'other/b.jpg'; use the path"):
        store.index("b")


def test_a_lacking_image_is_named_with_its_line_and_reason(tmp_path):
    records = [*builders.make_records(["a.jpg"]), Skipped("b.jpg", "cannot be decoded")]
    store = Store(write_store(tmp_path / "delg_x.h5", records))
    write_image_list(tmp_path / "test_query.txt", ["a.jpg", "b.jpg", "c.jpg"], [0] * 3, [(9, 9)] * 3)
    images = read_image_list(tmp_path / "test_query.txt")
    with pytest.raises(InputError) as skipped:
        store.indices(images.names, images)
    assert str(skipped.value).startswith(
        f"{store.path}: no descriptors for 'b.jpg' (line 2 of test_query.txt), it was skipped: cannot be decoded; "
    )
    with pytest.raises(InputError, match=r"'c.jpg' \(line 3 of test_query.txt\); extract it \(tools/extract.py, "):
        store.index("c.jpg", images)


@pytest.mark.parametrize("place", [-1, 3, 10**12])
def test_a_place_outside_the_store_is_refused(tmp_path, make_store, place):
    with pytest.raises(InputError, match=f"there is no image {place}, the store holds 3"):
        make_store(tmp_path, 3).read_packed([0, place])


def test_a_negative_limit_is_refused(tmp_path, make_store):
    with pytest.raises(ValueError, match="max_local is -1"):
        make_store(tmp_path, 3).read_packed([0], max_local=-1)


def _read_in_child(store, place, answers):
    answers.put(store.read(place).attention.tolist())


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("compressed", [False, True])
def test_another_process_reads_a_store_opened_here(tmp_path, make_store, start, compressed):
    store = make_store(tmp_path, 5, num_local=4)
    if compressed:
        store = compressed_copy(store, tmp_path / "delg_gzip.h5")
    expected = store.read(3).attention.tolist()
    context = multiprocessing.get_context(start)
    answers = context.Queue()
    child = context.Process(target=_read_in_child, args=(store, 3, answers))
    child.start()
    assert answers.get(timeout=60) == expected
    child.join()
    assert store.read(3).attention.tolist() == expected


def test_a_store_can_be_pickled_and_used_after_closing(tmp_path, make_store):
    store = make_store(tmp_path, 5)
    again = pickle.loads(pickle.dumps(store))
    assert again.names == store.names
    with store:
        before = store.read(1).descriptors
    np.testing.assert_array_equal(store.read(1).descriptors, before)


class TestBadFiles:
    """Each is refused when the store is opened, in one line with the file's name."""

    def refused(self, path):
        with pytest.raises(InputError) as error:
            Store(path)
        message = str(error.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        return message

    def changed(self, folder, change):
        path = builders.make_store(folder, 4, num_local=3).path
        with h5py.File(path, "r+") as file:
            change(file)
        return self.refused(path)

    def test_a_missing_file(self, tmp_path):
        assert "no such descriptor store; extract it (" in self.refused(tmp_path / "delg_x.h5")

    def test_a_folder(self, tmp_path):
        assert "is a folder" in self.refused(tmp_path)

    def test_a_text_file(self, tmp_path):
        (tmp_path / "delg_x.h5").write_text("jpg/a.jpg,1,2,3\n" * 100)
        assert "not an HDF5 file" in self.refused(tmp_path / "delg_x.h5")

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "delg_x.h5").touch()
        assert "not an HDF5 file" in self.refused(tmp_path / "delg_x.h5")

    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
    def test_a_truncated_file(self, tmp_path, make_store, kept):
        path = make_store(tmp_path, 20, num_local=30).path
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        assert "cut short" in self.refused(path)

    def test_any_other_hdf5_file(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["weights"] = np.zeros(3)
        assert "not a descriptor store" in self.refused(tmp_path / "x.h5")

    def test_another_version(self, tmp_path):
        assert "schema version 2, this program reads version 1" in self.changed(
            tmp_path, lambda file: file.attrs.update(version=2)
        )

    def test_an_unfinished_store(self, tmp_path):
        assert "was not finished" in self.changed(tmp_path, lambda file: file.attrs.update(complete=False))

    @pytest.mark.parametrize(
        "name",
        [
            "names",
            "image_size",
            "global",
            "local",
            "local/offsets",
            "local/descriptors",
            "local/keypoints",
            "local/scales",
            "local/attention",
        ],
    )
    def test_a_lacking_dataset(self, tmp_path, name):
        message = self.changed(tmp_path, lambda file: file.__delitem__(name))
        assert f"dataset /{name}" in message and "is missing" in message

    @pytest.mark.parametrize(
        "name, value, what",
        [
            ("image_size", np.zeros((3, 2), np.int32), r"/image_size is (3, 2) where (4, 2) fits"),
            ("global", np.zeros(4, np.float32), "/global is float32 with 1 axes"),
            ("global", np.zeros((4, 2), np.int32), "/global is int32"),
            ("names", np.arange(4), "/names is int64"),
            ("local/descriptors", np.zeros((12, 8), np.float64), "type float64"),
            ("local/descriptors", np.zeros((11, 8), np.float16), "where (11, 2) fits"),
            ("local/attention", np.zeros(11, np.float32), "/local/attention is (11,)"),
            ("local/offsets", np.array([0, 3, 2, 9, 12]), "/local/offsets does not divide the 12"),
            ("local/offsets", np.array([0, 3, 6, 9, 13]), "/local/offsets does not divide the 12"),
            ("names", ["a", "b", "a", "c"], "'a' is named twice"),
        ],
    )
    def test_a_dataset_that_does_not_fit(self, tmp_path, name, value, what):
        def replace(file):
            del file[name]
            file[name] = value

        assert what in self.changed(tmp_path, replace)

    @pytest.mark.parametrize("name, shape", [("global", (4, 10**9)), ("local/offsets", (10**11,)), ("names", (10**9,))])
    def test_a_dataset_that_claims_more_than_the_file_can_hold(self, tmp_path, name, shape):
        def claim(file):
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(name, shape, dtype, chunks=tuple(min(side, 1000) for side in shape))

        assert "far more than the file can hold" in self.changed(tmp_path, claim)

    def test_names_that_are_no_text(self, tmp_path):
        def spoil(file):
            del file["names"]
            file["names"] = np.array([b"\xff\xfe", b"a", b"b", b"c"], dtype=h5py.string_dtype("utf-8", 2))

        assert "damaged" in self.changed(tmp_path, spoil)

    def test_a_store_lost_while_it_is_open(self, tmp_path, make_store):
        store = make_store(tmp_path, 4)
        shutil.move(store.path, tmp_path / "gone.h5")
        with pytest.raises(InputError, match="no such descriptor store"):
            store.read(0)

    def test_a_damaged_compressed_column_is_named_when_read(self, tmp_path, make_store):
        store = compressed_copy(make_store(tmp_path, 9, num_local=50, local_dim=32), tmp_path / "delg_gzip.h5")
        content = bytearray(store.path.read_bytes())
        with h5py.File(store.path) as file:
            chunk = file["local/descriptors"].id.get_chunk_info(0)
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
        store.path.write_bytes(content)
        with pytest.raises(InputError, match="delg_gzip.h5: damaged"):
            Store(store.path).read_packed(range(9))
