"""Types, limits and compression of a store: in parts or in one go, and refused where they do not fit together."""

import json
from dataclasses import replace

import builders
import h5py
import numpy as np
import pytest

from rrt.errors import InputError
from rrt.store.finished import is_complete
from rrt.store.store import Store
from rrt.store.writer import PartWriter, write_store

NAMES = [f"jpg/{i}.jpg" for i in range(7)]
COUNTS = [3, 0, 250, 1, 0, 90, 400]
LAYOUTS = [
    {"local_dtype": "int8"},
    {"local_dtype": "float32", "max_local": 100},
    {"max_local": 0},
    {"compression": "gzip"},
    {"compression": "lzf", "local_dtype": "int8", "max_local": 300},
]


def records_of(counts=COUNTS, **sizes):
    return builders.make_records(NAMES, num_local=counts, local_dim=96, **sizes)


def in_parts(path, block, **layout):
    writer = PartWriter(path, NAMES, {"a": 1}, block, **layout)
    for part in writer.missing_parts():
        writer.write_part(part, records_of()[part * block : (part + 1) * block])
    return writer.merge("abc", "x")


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_parts_of_any_size_and_one_go_give_equal_bytes(tmp_path, layout):
    path = tmp_path / "delg_x.h5"
    expected = write_store(path, records_of(), "x", {"a": 1}, model_sha256="abc", **layout).read_bytes()
    for block in (1, 3, 7):
        path.unlink()
        assert in_parts(path, block, **layout).read_bytes() == expected


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compressed_columns_are_chunks_without_gaps(tmp_path, compression):
    path = in_parts(tmp_path / "delg_x.h5", 2, compression=compression)
    with h5py.File(path) as file:
        for name in ("names", "image_size", "global", "local/offsets"):
            assert file[name].chunks is None and file[name].id.get_offset()
        stored = 0
        for name in ("descriptors", "keypoints", "scales", "attention"):
            column = file["local"][name]
            assert column.compression == compression and column.shuffle
            assert np.prod(column.chunks) * column.dtype.itemsize <= 65536
            stored += column.id.get_storage_size()
        rest = sum(file[name].nbytes for name in ("names", "image_size", "global", "local/offsets"))
    assert path.stat().st_size - stored - rest < 12_000


def test_repeating_scales_and_zeros_compress(tmp_path):
    records = [replace(record, descriptors=np.eye(len(record.scales), 96)) for record in records_of()]
    sizes = {
        c: write_store(tmp_path / "delg_x.h5", records, compression=c).stat().st_size for c in (None, "gzip", "lzf")
    }
    assert sizes["gzip"] < sizes["lzf"] < sizes[None] / 3


def test_the_limit_keeps_the_descriptors_of_highest_attention_and_is_recorded(tmp_path):
    shuffled = [replace(record, attention=record.attention[::-1].copy()) for record in records_of()]
    store = Store(write_store(tmp_path / "delg_x.h5", shuffled, settings={"a": 1}, local_dtype="float32", max_local=90))
    assert store.local_counts().tolist() == [min(count, 90) for count in COUNTS]
    assert store.config == {"a": 1, "max_local": 90}
    np.testing.assert_array_equal(store.read(6).descriptors, shuffled[6].descriptors[::-1][:90])
    np.testing.assert_array_equal(store.read(6).attention, np.sort(shuffled[6].attention)[::-1][:90])


def test_halves_are_stored_as_they_are_given(tmp_path):
    halves = [replace(r, descriptors=r.descriptors.astype(np.float16)) for r in records_of()]
    whole = write_store(tmp_path / "delg_x.h5", records_of()).read_bytes()
    assert write_store(tmp_path / "delg_x.h5", halves).read_bytes() == whole


@pytest.mark.parametrize(
    "layout, what",
    [
        ({"local_dtype": "float64"}, "cannot be kept as float64; use float16 or float32 or int8"),
        ({"compression": "zip"}, "unknown compression 'zip'; use gzip or lzf"),
        ({"max_local": -1}, "at most -1 local descriptors"),
        ({"block": 0}, "parts of 0 images"),
    ],
)
def test_an_impossible_layout_is_refused_before_any_work(tmp_path, layout, what):
    with pytest.raises(InputError, match=what):
        PartWriter(tmp_path / "delg_x.h5", NAMES, {}, **layout)
    if "block" not in layout:
        with pytest.raises(InputError, match=what):
            write_store(tmp_path / "delg_x.h5", records_of(), **layout)
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_found_though_the_limit_would_cut_it_off(tmp_path):
    attention = records_of()[6].attention.copy()
    attention[300] = np.nan
    spoilt = [*records_of()[:6], replace(records_of()[6], attention=attention)]
    with pytest.raises(InputError, match="'jpg/6.jpg' has attention values that are not finite"):
        write_store(tmp_path / "delg_x.h5", spoilt, max_local=5)


def test_a_store_that_cannot_be_written_leaves_the_one_that_stands_there(tmp_path):
    path = write_store(tmp_path / "delg_x.h5", records_of())
    before = path.read_bytes()
    spoilt = [*records_of()[:6], replace(records_of()[6], global_=np.full(16, np.inf))]
    with pytest.raises(InputError, match="'jpg/6.jpg' has global values"):
        write_store(path, spoilt)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class TestAnotherRun:
    """What a later run asks for is compared with what is there."""

    @pytest.mark.parametrize(
        "asked, difference",
        [
            ({"local_dtype": "float16"}, 'local_dtype = "int8", this run has "float16"'),
            ({"compression": "gzip"}, 'compression = null, this run has "gzip"'),
            ({"max_local": 7}, "max_local = 8, this run has 7"),
            ({"max_local": None}, 'max_local = 8, this run has "(absent)"'),
        ],
    )
    def test_a_finished_store_of_another_layout_is_refused(self, tmp_path, asked, difference):
        path = write_store(tmp_path / "delg_x.h5", records_of(), settings={"a": 1}, local_dtype="int8", max_local=8)
        with pytest.raises(InputError) as error:
            is_complete(path, NAMES, {"a": 1}, **({"max_local": 8} | asked))
        assert difference in str(error.value) and "--overwrite" in str(error.value)

    def test_a_finished_store_of_the_asked_or_of_an_unasked_layout_is_complete(self, tmp_path):
        layout = {"local_dtype": "int8", "max_local": 8, "compression": "lzf"}
        path = write_store(tmp_path / "delg_x.h5", records_of(), settings={"a": 1}, **layout)
        assert is_complete(path, NAMES, {"a": 1}, **layout) and is_complete(path, NAMES, {"a": 1}, max_local=8)

    def test_a_store_without_local_descriptors_has_nothing_to_compress(self, tmp_path):
        path = write_store(tmp_path / "delg_x.h5", records_of([0] * 7), compression="gzip")
        assert Store(path).compression is None and is_complete(path, NAMES, {}, compression="gzip")

    def test_parts_of_another_limit_are_refused_but_compression_may_change(self, tmp_path):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, {"a": 1}, 7, max_local=8)
        writer.write_part(0, records_of())
        with pytest.raises(InputError, match="max_local = 8, this run has 9"):
            PartWriter(tmp_path / "delg_x.h5", NAMES, {"a": 1}, 7, max_local=9)
        again = PartWriter(tmp_path / "delg_x.h5", NAMES, {"a": 1}, 7, max_local=8, compression="gzip")
        assert again.missing_parts() == [] and Store(again.merge()).compression == "gzip"

    def test_parts_written_before_there_was_a_limit_are_kept(self, tmp_path):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, {"a": 1}, 7)
        manifest = writer.folder / "settings.json"
        note = json.loads(manifest.read_text())
        assert note.pop("parts") == 1 and note["settings"] == {"a": 1}
        assert note.keys() == {"settings", "names_sha256", "block", "local_dtype"}
        writer.write_part(0, records_of())
        manifest.write_text(json.dumps(note))
        assert PartWriter(tmp_path / "delg_x.h5", NAMES, {"a": 1}, 7).missing_parts() == []
        assert len(Store(writer.folder)) == 7
