"""rrt/store/memory.py: descriptors in memory are read like those of a file, and wrong ones refused."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_records, make_store, unit_rows

from rrt import ImageRecord, InputError, MemoryStore, StoredImage
from rrt.network.pairs import read_images
from rrt.store.checked import check_finite
from rrt.store.records import Skipped
from rrt.store.store import Store
from rrt.store.writer import PartWriter, write_store

COUNTS = [4, 0, 7, 1, 3]


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, n=len(COUNTS), num_local=COUNTS)


def assert_same_batch(a, b):
    for column in ("global_", "descriptors", "scales", "offsets"):
        np.testing.assert_array_equal(getattr(a, column), getattr(b, column))


@pytest.mark.parametrize("max_local", [None, 3, 0])
@pytest.mark.parametrize("local_dtype", ["float16", "float32", "int8"])
def test_images_of_a_store_are_read_from_memory_as_from_the_file(tmp_path, max_local, local_dtype):
    store = make_store(tmp_path, n=len(COUNTS), num_local=COUNTS, local_dtype=local_dtype)
    places = np.array([3, 0, 2, 2, 1])
    memory = MemoryStore.of(store[places])
    assert_same_batch(read_images(memory, np.arange(5), max_local), read_images(store, places, max_local))
    assert (memory.names, len(memory)) == ([store.names[place] for place in places], 5)
    np.testing.assert_array_equal(memory.local_counts(max_local), store.local_counts(max_local)[places])
    check_finite(memory, np.arange(5))


def test_records_that_were_never_written_are_ordered_by_attention_as_a_store_orders_them(tmp_path):
    record = make_records(["a.jpg"])[0]
    mixed = replace(
        record,
        **{
            name: getattr(record, name)[[2, 0, 4, 1, 3]] for name in ("descriptors", "keypoints", "scales", "attention")
        },
    )
    assert_same_batch(*(read_images(MemoryStore.of([each]), np.array([0]), 3) for each in (mixed, record)))


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, lambda x: torch.tensor(x, requires_grad=True)])
def test_arrays_and_tensors_keep_the_order_given(convert):
    generator = np.random.default_rng(0)
    global_, local = unit_rows(generator, 2, 6), [unit_rows(generator, 3, 4), np.zeros((0, 4), np.float32)]
    memory = MemoryStore(convert(global_), [convert(table) for table in local], [convert(np.float32([1, 2, 4])), []])
    np.testing.assert_array_equal(memory.read(0).descriptors, local[0])
    np.testing.assert_array_equal(memory.read(0).scales, [1, 2, 4])
    np.testing.assert_array_equal(memory.global_descriptors, global_)
    assert memory.local_counts().tolist() == [3, 0] and memory.names == ["image 0", "image 1"]


def test_rows_are_scaled_to_unit_length():
    memory = MemoryStore([[3.0, 4.0]], [[[0.0, 2.0]]])
    np.testing.assert_allclose(memory.global_descriptors, [[0.6, 0.8]])
    np.testing.assert_allclose(memory.read(0).descriptors, [[0, 1]])


def test_images_without_any_local_descriptor_take_the_width_that_is_named():
    memory = MemoryStore(np.eye(2), [np.zeros((0, 0))] * 2, local_dim=128)
    assert memory.local_dim == 128 and memory.read_packed([0, 1]).descriptors.shape == (0, 128)


def test_global_descriptors_alone_are_enough():
    rows = unit_rows(np.random.default_rng(0), 3, 8)
    store = MemoryStore(rows, names=["a", "b", "c"])
    assert store.local_counts().tolist() == [0, 0, 0] and store.names == ["a", "b", "c"]
    np.testing.assert_allclose(store.global_descriptors, rows, atol=1e-6)
    with pytest.raises(InputError, match="memory: None: expected global descriptors"):
        MemoryStore(None)


def test_it_can_be_sent_to_another_process_and_closed(store):
    memory = pickle.loads(pickle.dumps(MemoryStore.of(store)))
    memory.close()
    assert_same_batch(read_images(memory, np.arange(5), None), read_images(store, np.arange(5), None))


@pytest.mark.parametrize(
    "arguments, what",
    [
        (([[1.0, 0]], []), "0 tables of local descriptors for 1 global"),
        (([[1.0, 0]], [[[1.0]]], []), "0 rows of scales"),
        (([[1.0, 0]], [[[1.0]]], [[1.0]], ["a", "b"]), "2 names"),
        (([[1.0, np.nan]], [[[1.0]]]), "'image 0' has global values that are not finite"),
        (([[1.0, 0]], [[[np.inf]]]), "'image 0' has descriptors values that are not finite"),
        (([[1.0, 0]], [[[1.0]]], [[np.nan]]), "'image 0' has scales values"),
        (([[1.0, 0]], [[[1.0]]], [[1.0, 2.0]]), "arrays that do not fit together"),
        (([[1.0, 0]] * 2, [[[1.0]], [[1.0, 0.0]]]), "'image 1' has local descriptors of 2 dimensions, 'image 0' of 1"),
    ],
)
def test_wrong_arrays_are_refused_naming_the_image(arguments, what):
    with pytest.raises(InputError, match=what):
        MemoryStore(*arguments)


def test_a_place_that_is_not_there_is_refused(store):
    with pytest.raises(InputError, match="memory: there is no image 5, the store holds 5"):
        MemoryStore.of(store).read_packed([5])


class TestImagesOfAStore:
    def test_a_name_a_stem_and_a_place_are_the_same_image(self, store):
        image = StoredImage(store, 2)
        assert store["jpg/img_002.jpg"] == store["img_002"] == store[2] == store[np.int64(2)] == image
        assert image.name == "jpg/img_002.jpg" and "img_002" in store and "img_009" not in store

    def test_several_and_slices_are_lists(self, store):
        assert store[["img_003", 0]] == store[np.array([3, 0])] == [store[3], store[0]]
        assert store[3:] == [store[3], store[4]] and list(store) == store[:]

    def test_a_record_holds_what_the_store_keeps(self, store):
        record, local = store[2].record(), store.read(2)
        assert isinstance(record, ImageRecord) and (record.name, record.size) == (store.names[2], (640, 480))
        np.testing.assert_array_equal(record.global_, store.global_descriptors[2])
        for column in ("descriptors", "keypoints", "scales", "attention"):
            np.testing.assert_array_equal(getattr(record, column), getattr(local, column))

    @pytest.mark.parametrize(
        "key, what",
        [
            (5, "there is no image 5"),
            (-1, "there is no image -1"),
            ("x.jpg", "no descriptors for 'x.jpg'"),
            (1.5, "1.5 is neither a name"),
            ([0, 7], "there is no image 7"),
            (None, "None is neither"),
        ],
    )
    def test_what_is_not_there_is_refused(self, store, key, what):
        with pytest.raises(InputError, match=what):
            store[key]


def test_images_of_stores_are_written_like_records_and_anything_else_is_refused(tmp_path):
    store = make_store(tmp_path, n=5, num_local=[3, 0, 5, 2, 4])
    for images, names in (
        (store[:3], store.names[:3]),
        ((store[4], store[1].record(), Skipped("x", "cut off")), ["jpg/img_004.jpg", "jpg/img_001.jpg"]),
        (store, store.names),
    ):
        written = Store(write_store(tmp_path / "some.h5", images))
        assert written.names == names
        for image in written:
            for column, values in vars(store[image.name].record()).items():
                np.testing.assert_array_equal(getattr(image.record(), column), values)
    writer = PartWriter(tmp_path / "parts.h5", store.names[:2], {}, block=2)
    writer.write_part(0, store[:2])
    assert Store(writer.merge()).names == store.names[:2]
    for wrong in (store.names[:2], [None], [store]):
        with pytest.raises(InputError, match="is no image to write"):
            write_store(tmp_path / "wrong.h5", wrong)
    assert not (tmp_path / "wrong.h5").exists()
