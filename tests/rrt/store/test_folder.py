"""rrt/store/folder.py: a folder of store files, or of an extraction's parts, is read like the one file they make."""

import json
import os
import resource
import shutil
from dataclasses import replace

import builders
import h5py
import numpy as np
import pytest

from rrt.errors import InputError
from rrt.store import columns, folder
from rrt.store.binary_codes import random_codes
from rrt.store.check import check_store
from rrt.store.compress import compress_store
from rrt.store.finished import is_complete, remove_store
from rrt.store.records import Skipped
from rrt.store.schema import LOCAL_COLUMNS
from rrt.store.store import Store
from rrt.store.writer import PartWriter, write_store

COUNTS = [3, 0, 5, 2, 0, 4, 1, 6, 2, 7]
NAMES = [f"jpg/é{i}.jpg" for i in range(len(COUNTS))]
RECORDS = builders.make_records(NAMES, num_local=COUNTS)
# Images of each file; the third part holds no local descriptor.
PARTS = {"part_1.h5": (0, 4), "part_2.h5": (4, 5), "part_10.h5": (5, 10)}
LAYOUTS = {
    "halves": {},
    "int8": {"local_dtype": "int8"},
    "gzip": {"compression": "gzip"},
    "global halves": {"global_dtype": "float16"},
    "bits": {"local_dtype": "bits", "codes": random_codes(8, 8)},
}


def write(path, records, compression=None, model_sha256="abc", settings=None, **layout):
    write_store(path, records, "x", settings or {"a": 1}, compression=compression, model_sha256=model_sha256)
    if layout:
        with Store(path) as store:
            other = compress_store(store, path.with_name(f"other_{path.name}"), **layout)
        other.replace(path)
    return path


def write_folder(path, **layout):
    path.mkdir()
    for name, (start, end) in PARTS.items():
        write(path / name, RECORDS[start:end], **layout)
    return path


def in_parts(path, records=RECORDS, settings=None, block=3):
    writer = PartWriter(path, NAMES, settings or {"a": 1}, block)
    for part in writer.missing_parts():
        writer.write_part(part, records[part * block : (part + 1) * block])
    return writer


@pytest.fixture
def parts(tmp_path):
    return write_folder(tmp_path / "delg_x.h5")


def assert_equal_stores(one, other):
    assert one.names == other.names and len(one) == len(other) and one.attributes == other.attributes
    for name in ("global_dim", "local_dim", "local_dtype", "global_dtype", "compression", "config"):
        if name != "config" or "compressed" not in other.config:
            assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.image_size, other.image_size)
    np.testing.assert_array_equal(one.offsets, other.offsets)
    for key in (7, -1, slice(2, 9), slice(9, 1, -2), slice(4, 4), np.array([8, 0, 0, 4]), [], [[1], [9]]):
        key = np.array(key, int) if isinstance(key, list) else key
        ours, theirs = one.global_descriptors[key], other.global_descriptors[key]
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(np.asarray(one.global_descriptors), np.asarray(other.global_descriptors))
    np.testing.assert_array_equal(one.local_descriptors, other.local_descriptors)
    for ours, theirs in zip(one, other):
        for a, b in zip(vars(ours.record()).values(), vars(theirs.record()).values()):
            np.testing.assert_array_equal(a, b)
    for indices in (range(10), [8, 0, 4, 8, 5, 1], [4, 5], []):
        for limit in (None, 2):
            ours, theirs = (store.read_packed(indices, limit) for store in (one, other))
            for column in (*LOCAL_COLUMNS, "offsets"):
                np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))
    for name in LOCAL_COLUMNS:
        np.testing.assert_array_equal(one.local_rows(name, 1, 29), other.local_rows(name, 1, 29))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_read_like_one_file_record_for_record(tmp_path, layout):
    path = write_folder(tmp_path / "delg_x.h5", **LAYOUTS[layout])
    with Store(write(tmp_path / "one.h5", RECORDS, **LAYOUTS[layout])) as one:
        for _ in ("looked at", "by its index"):
            with Store(path) as store:
                assert_equal_stores(store, one)
        assert not check_store(path, shown=5).problems


def test_parts_of_an_extraction_are_a_store_without_being_merged(tmp_path):
    records = [*RECORDS[:4], Skipped(NAMES[4], "no such file"), *RECORDS[5:]]
    one = Store(in_parts(tmp_path / "one.h5", records).merge("abc", "x"))
    path = in_parts(tmp_path / "delg_x.h5", records).keep_parts("abc", "x")
    assert not (tmp_path / "delg_x.h5.parts").exists()
    assert (tmp_path / "delg_x.h5.skipped.csv").read_text() == (tmp_path / "one.h5.skipped.csv").read_text()
    for forget in (False, True):
        if forget:
            (path / "parts.json").unlink()
        store = Store(path)
        assert store.attributes == one.attributes and store.config == one.config and store.names == one.names
        for ours, theirs in zip(builders.records_in(store), builders.records_in(one)):
            np.testing.assert_array_equal(ours.descriptors, theirs.descriptors)
    assert is_complete(path, NAMES, {"a": 1}, "float16")
    with pytest.raises(InputError, match="made with a = 1, this run has 2"):
        is_complete(path, NAMES, {"a": 2})
    with pytest.raises(InputError, match="is a folder; give another name"):
        write_store(path, RECORDS)
    remove_store(path)
    assert not path.exists() and not (tmp_path / "delg_x.h5.skipped.csv").exists()


def test_parts_that_lie_there_unmerged_can_be_read_when_all_are_there(tmp_path):
    whole = in_parts(tmp_path / "delg_x.h5").folder
    assert Store(whole).names == NAMES and Store(whole).config == {"a": 1}
    (whole / "part-00003.h5").unlink()
    with pytest.raises(InputError, match=r"1 of 4 parts are missing \(first: part-00003.h5\); run the extraction"):
        Store(whole)
    in_parts(tmp_path / "delg_x.h5").merge()
    assert not whole.exists() and len(Store(tmp_path / "delg_x.h5")) == 10


def test_an_extraction_killed_as_its_parts_became_the_store_goes_on(tmp_path, monkeypatch):
    writer = in_parts(tmp_path / "delg_x.h5")
    monkeypatch.setattr(type(writer.folder), "rename", lambda *_: os._exit(1))
    if not (child := os.fork()):
        writer.keep_parts("abc", "x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    monkeypatch.undo()
    assert Store(in_parts(tmp_path / "delg_x.h5").keep_parts("abc", "x")).attributes["model_sha256"] == "abc"


def test_what_opening_found_is_kept_so_that_no_part_is_opened_again(parts, monkeypatch):
    expected = Store(parts).global_descriptors[:]
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("opened by HDF5"))
    again = Store(parts)
    assert again.names == NAMES and again.read_packed(range(10)).offsets[-1] == sum(COUNTS)
    np.testing.assert_array_equal(again.global_descriptors[:], expected)


@pytest.mark.parametrize("change", ["another", "fewer", "newer", "damaged", "older", "odd"])
def test_what_is_kept_is_made_anew_when_it_is_not_of_these_parts(parts, change):
    assert len(Store(parts)) == 10
    index, count = parts / "parts.json", 10
    if change == "another":
        count = len(write(parts / "part_11.h5", builders.make_records(["new"])).read_bytes()) and 11
    elif change == "fewer":
        count = (parts / "part_10.h5").unlink() or 5
    elif change == "newer":
        write(parts / "part_2.h5", builders.make_records(["a", "b", "c"], num_local=9))
        count = 12
    elif change == "damaged":
        index.write_text(index.read_text().replace("[4, 16]", "[3, 16]"))
    else:
        index.write_text(json.dumps([] if change == "odd" else json.loads(index.read_text()) | {"version": 0}))
    assert len(Store(parts)) == count == len(Store(parts).global_descriptors) == len(Store(parts).names)


def test_a_folder_that_may_not_be_written_is_read_all_the_same(parts, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder, "write_json", refuse)
    assert Store(parts).names == NAMES and not (parts / "parts.json").exists()


def test_a_file_that_is_being_written_is_no_part(parts):
    (parts / "part_3.0a1b-77-0c2d.tmp.h5").write_bytes(b"half")
    assert Store(parts).names == NAMES


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_more_parts_than_files_may_be_open_are_read(tmp_path, compression):
    path, held = tmp_path / "delg_x.h5", len(os.listdir("/proc/self/fd"))
    path.mkdir()
    for i, record in enumerate(RECORDS):
        write(path / f"{i}.h5", [record], compression)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # Of which a quarter may be parts.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(20, held + 8), hard))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder, "_MAPPED", 2)
            patch.setattr(folder, "_open_files", lambda whole=folder._open_files: min(3, whole()))
            store = Store(path)
            for _ in range(2):
                packed = store.read_packed(range(9, -1, -1))
                assert len(store._source._open) <= 3 and len(os.listdir("/proc/self/fd")) <= held + 5
        assert np.diff(packed.offsets).tolist() == COUNTS[::-1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 1 <= folder._open_files() <= max(1, soft // 4)


def test_rows_stay_when_their_part_was_let_go(parts, monkeypatch):
    monkeypatch.setattr(folder, "_MAPPED", 1)
    store = Store(parts)
    first = store.global_descriptors[:4]
    kept = first.copy()
    _ = store.global_descriptors[:]
    store.close()
    np.testing.assert_array_equal(first, kept)
    assert store.names == NAMES


def other(**changes):
    return [replace(record, name=f"new {record.name}", **changes) for record in RECORDS[5:]]


def narrower(name):
    return [replace(record, **{name: getattr(record, name)[..., :4]}) for record in other()]


@pytest.mark.parametrize(
    "records, layout, words",
    [
        (RECORDS[3:6], {}, f"'{NAMES[3]}' is in part_1.h5, too"),
        (narrower("global_"), {}, "global descriptors of 4 dimensions, the parts before have 16"),
        (narrower("descriptors"), {}, "local descriptors of 4 dimensions, the parts before have 8"),
        (other(), {"local_dtype": "int8"}, "/local/descriptors is of type int8, that of the parts before of float16"),
        (other(), {"global_dtype": "float16"}, "/global is of type float16"),
        (other(), {"model_sha256": "def"}, "made by another network than the parts before"),
        (other(), LAYOUTS["bits"], "its bits are of other codes"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_together_are_refused_in_one_line(parts, records, layout, words):
    write(parts / "part_12.h5", records, **layout)
    with pytest.raises(InputError) as refusal:
        Store(parts)
    message = str(refusal.value)
    assert message.startswith(f"{parts / 'part_12.h5'}: ") and words in message and "\n" not in message
    assert not (parts / "parts.json").exists()


def test_a_damaged_part_is_named_when_it_is_looked_at_and_when_it_is_read(parts):
    store = Store(parts)
    (parts / "part_2.h5").unlink()
    with pytest.raises(InputError, match="part_2.h5: no such descriptor store"):
        store.read(4), store.global_descriptors[4]
    (parts / "part_2.h5").write_bytes((parts / "part_1.h5").read_bytes()[:3000])
    with pytest.raises(InputError, match="part_2.h5: the file is cut short"):
        Store(parts)


def test_what_a_folder_holds_beside_parts_is_one_line(tmp_path, parts):
    (parts / "part_3.h5").symlink_to("gone.h5")
    with pytest.raises(InputError, match="part_3.h5: no such descriptor store"):
        Store(parts)
    whole = in_parts(tmp_path / "y.h5").folder
    for text in ("[]", "{", '{"parts": "two"}', '{"attributes": 3}'):
        (whole / "settings.json").write_text(text)
        with pytest.raises(InputError, match="settings.json: "):
            Store(whole)
    (parts / "part_3.h5").unlink()
    (parts / "part_3.h5").mkdir()
    with pytest.raises(InputError, match="part_3.h5: is a folder"):
        Store(parts)


def test_what_cannot_stay_in_parts_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match="parts are not compressed"):
        PartWriter(tmp_path / "delg_x.h5", NAMES, {}, compression="gzip").check_keeping()


def test_parts_of_another_run_are_refused(tmp_path):
    mine = in_parts(tmp_path / "a.h5").folder
    shutil.copy(in_parts(tmp_path / "b.h5", settings={"a": 2}).folder / "part-00002.h5", mine)
    with pytest.raises(InputError, match="part-00002.h5: made with other settings or for another list than part-00000"):
        Store(mine)


def test_what_parts_do_not_share_is_not_said_of_the_store(parts):
    write(parts / "part_2.h5", RECORDS[4:5], settings={"a": 1, "b": 2}, model_sha256="")
    store = Store(parts)
    assert store.config == {"a": 1} and store.attributes["model_sha256"] == "abc"


def test_folders_that_no_extraction_wrote_are_not_removed(parts):
    with pytest.raises(InputError, match="is a folder that no extraction wrote"):
        remove_store(parts)
    assert len(Store(parts)) == 10


def test_a_store_of_parts_goes_to_other_processes_and_lists_what_its_parts_left_out(parts):
    import pickle

    (parts / "part_1.h5.skipped.csv").write_text("name,reason\nz.jpg,too small\n")
    store = pickle.loads(pickle.dumps(Store(parts)))
    assert store.names == NAMES
    with pytest.raises(InputError, match="it was skipped: too small"):
        store.index("z.jpg")


def test_layouts_are_those_of_the_files(parts):
    store = Store(parts)
    with h5py.File(parts / "part_1.h5") as file:
        assert columns.Layout.of(file["global"]) == store._source.layouts("global")[0]
