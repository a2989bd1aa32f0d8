"""Writing the store: parts are whole or not there, settings are compared, merging gives the same numbers every time."""

import csv
import json
import multiprocessing
import os
import random
import signal
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.files.atomic import temporary_name
from rrt.store.finished import is_complete, remove_store
from rrt.store.records import Skipped
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.writer import PartWriter, write_store

SETTINGS = {"image_size": 1024, "scales": [0.5, 1.0], "model": {"backbone": "small", "gem_power": 3.0}}
NAMES = [f"jpg/{i}.jpg" for i in range(10)]
COUNTS = [3, 0, 5, 1, 0, 0, 7, 2, 4, 6]


def records_of(names=NAMES, counts=COUNTS):
    return builders.make_records(names, num_local=counts)


def write_parts(writer, records, parts):
    by_name = {record.name: record for record in records}
    for part in parts:
        writer.write_part(part, [by_name[name] for name in writer.block_names(part)])


def undisturbed(folder, block=3, records=None, **arguments):
    path = folder / "undisturbed" / "delg_x.h5"
    writer = PartWriter(path, NAMES, SETTINGS, block, **arguments)
    write_parts(writer, records or records_of(), writer.missing_parts())
    return writer.merge("abc", "x")


def test_parts_make_the_same_store_as_writing_in_one_go(tmp_path):
    parts = undisturbed(tmp_path)
    whole = write_store(tmp_path / "delg_x.h5", records_of(), "x", SETTINGS, model_sha256="abc")
    assert parts.read_bytes() == whole.read_bytes()
    assert [path.name for path in parts.parent.iterdir()] == ["delg_x.h5"], "parts and temporary files are gone"


@settings(max_examples=12)
@given(st.integers(1, 11), st.randoms(use_true_random=False))
def test_any_order_of_parts_over_any_number_of_runs_gives_equal_bytes(tmp_path_factory, block, order):
    folder = tmp_path_factory.mktemp("runs")
    expected = undisturbed(folder, block)
    path = folder / "delg_x.h5"
    while True:
        writer = PartWriter(path, NAMES, SETTINGS, block)
        missing = writer.missing_parts()
        if not missing:
            break
        write_parts(writer, records_of(), order.sample(missing, order.randint(1, len(missing))))
    assert writer.merge("abc", "x").read_bytes() == expected.read_bytes()


def test_blocks_divide_the_list_in_order(tmp_path):
    writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, block=4)
    assert [writer.block_names(part) for part in range(writer.num_parts)] == [NAMES[:4], NAMES[4:8], NAMES[8:]]
    assert writer.missing_parts() == [0, 1, 2]
    write_parts(writer, records_of(), [1])
    assert writer.missing_parts() == PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 4).missing_parts() == [0, 2]
    assert (tmp_path / "delg_x.h5.parts" / "part-00001.h5").exists()


MANY_NAMES = [f"jpg/{i}.jpg" for i in range(120)]


def test_a_run_killed_again_and_again_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    records = {record.name: record for record in builders.make_records(MANY_NAMES, num_local=40, local_dim=64)}

    def run(path):
        writer = PartWriter(path, MANY_NAMES, SETTINGS, 2)
        for part in writer.missing_parts():
            writer.write_part(part, [records[name] for name in writer.block_names(part)])
        writer.merge("abc", "x")

    def forked(path, seconds=None):
        """The run in a process of its own, killed after so many seconds -> its exit status."""
        worker = multiprocessing.get_context("fork").Process(target=run, args=(path,))
        worker.start()
        worker.join(seconds)
        worker.kill()
        worker.join()
        return worker.exitcode

    expected, path = tmp_path / "one" / "delg_x.h5", tmp_path / "two" / "delg_x.h5"
    began = time.monotonic()
    assert forked(expected) == 0
    duration = time.monotonic() - began
    moments, killed_amid_parts = random.Random(5), 0
    for _ in range(4):
        status = forked(path, moments.uniform(0.1, 0.5) * duration)
        assert status in (0, -signal.SIGKILL)
        some = len(list(path.parent.glob("delg_x.h5.parts/part-*.h5"))) > 0
        killed_amid_parts += status != 0 and not path.exists() and some
    assert forked(path) == 0
    assert killed_amid_parts
    assert is_complete(path, MANY_NAMES, SETTINGS)
    assert path.read_bytes() == expected.read_bytes()
    # What a kill within the merge itself may have left goes with the next merge or overwrite.
    assert {file.name for file in path.parent.iterdir() if ".tmp." not in file.name} == {"delg_x.h5"}


def test_leftovers_of_killed_runs_are_no_parts_and_go_with_the_merge(tmp_path):
    path = tmp_path / "delg_x.h5"
    writer = PartWriter(path, NAMES, SETTINGS, 5)
    (writer.folder / "part-00001.0123abcd.tmp.h5").write_text("half")
    left = temporary_name(path)
    # No process has such a number.
    left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")).write_text("half")
    (tmp_path / "delg_x.backup.h5").write_text("of the user")
    assert writer.missing_parts() == [0, 1]
    write_parts(writer, records_of(), [0, 1])
    writer.merge()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["delg_x.backup.h5", "delg_x.h5"]


def test_merging_needs_memory_for_one_part_only(tmp_path):
    names = [f"{i}.jpg" for i in range(40)]
    writer = PartWriter(tmp_path / "delg_x.h5", names, {}, 1)
    for part, name in enumerate(names):
        writer.write_part(part, builders.make_records([name], num_local=2000, local_dim=128))
    tracemalloc.start()
    writer.merge()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_part = 2000 * 128 * 2
    assert peak < 3 * one_part < 40 * one_part == Store(writer.path).local_descriptors.nbytes


class TestSettings:
    def refused(self, tmp_path, names=NAMES, settings=SETTINGS, block=4, **arguments):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, block=4)
        write_parts(writer, records_of(), [0])
        before = sorted(path.read_bytes() for path in writer.folder.iterdir())
        with pytest.raises(InputError) as error:
            PartWriter(tmp_path / "delg_x.h5", names, settings, block, **arguments)
        message = str(error.value)
        assert message.startswith(f"{writer.folder}: ") and "\n" not in message
        assert f"delete the folder {writer.folder} or give --overwrite" in message
        assert sorted(path.read_bytes() for path in writer.folder.iterdir()) == before
        return message

    def test_another_setting_is_named_with_both_values(self, tmp_path):
        assert "image_size = 1024, this run has 768" in self.refused(tmp_path, settings=SETTINGS | {"image_size": 768})

    def test_a_setting_within_a_setting_is_named_by_its_path(self, tmp_path):
        changed = SETTINGS | {"model": {"backbone": "resnet50", "gem_power": 3.0}}
        assert 'model.backbone = "small", this run has "resnet50"' in self.refused(tmp_path, settings=changed)

    def test_a_new_setting_differs_from_none(self, tmp_path):
        assert 'whiten = "(absent)", this run has true' in self.refused(tmp_path, settings=SETTINGS | {"whiten": True})

    def test_a_setting_that_is_gone_differs_too(self, tmp_path):
        fewer = {key: value for key, value in SETTINGS.items() if key != "scales"}
        assert 'scales = [0.5, 1.0], this run has "(absent)"' in self.refused(tmp_path, settings=fewer)

    @pytest.mark.parametrize("names", [NAMES[:-1], NAMES[::-1], ["other.jpg"] + NAMES[1:]])
    def test_another_list_is_refused(self, tmp_path, names):
        assert "made for another list of images" in self.refused(tmp_path, names=names)

    def test_another_block_or_type_is_refused(self, tmp_path):
        assert "block = 4, this run has 5" in self.refused(tmp_path, block=5)
        assert 'local_dtype = "float16", this run has "float32"' in self.refused(tmp_path, local_dtype="float32")

    def test_tuples_and_lists_are_the_same_settings(self, tmp_path):
        write_parts(PartWriter(tmp_path / "delg_x.h5", NAMES, {"scales": (1, 2)}, 4), records_of(), [0])
        PartWriter(tmp_path / "delg_x.h5", NAMES, {"scales": [1, 2]}, 4)

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), np.float32(1), Path("x")], ids=repr)
    def test_settings_that_json_cannot_keep_are_refused(self, tmp_path, value):
        with pytest.raises(InputError, match="settings cannot be kept as JSON"):
            PartWriter(tmp_path / "delg_x.h5", NAMES, {"a": value})

    def test_parts_without_their_note_are_refused(self, tmp_path):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 4)
        write_parts(writer, records_of(), [0])
        (writer.folder / "settings.json").unlink()
        with pytest.raises(InputError, match="parts without their settings.json; delete the folder"):
            PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 4)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"x"'])
    def test_a_damaged_note_is_named(self, tmp_path, content):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 4)
        write_parts(writer, records_of(), [0])
        (writer.folder / "settings.json").write_text(content)
        with pytest.raises(InputError, match="settings.json: damaged; delete the folder"):
            PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 4)

    def test_a_part_slipped_in_from_another_run_is_found_at_the_merge(self, tmp_path):
        other = PartWriter(tmp_path / "delg_y.h5", NAMES, {"image_size": 1}, 10)
        write_parts(other, records_of(), [0])
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 10)
        (other.folder / "part-00000.h5").rename(writer.folder / "part-00000.h5")
        with pytest.raises(InputError, match="part-00000.h5: this part was made with other settings"):
            writer.merge()
        assert not (tmp_path / "delg_x.h5").exists()


class TestRecords:
    def write(self, tmp_path, record, **arguments):
        with Store(write_store(tmp_path / "delg_x.h5", [record], **arguments)) as store:
            return store.read(0), store.global_descriptors[0]

    def record(self, **changes):
        return replace(builders.make_records(["a.jpg"], num_local=4)[0], **changes)

    def test_descriptors_are_sorted_by_falling_attention(self, tmp_path):
        local, _ = self.write(tmp_path, self.record(attention=np.array([1.0, 3.0, 2.0, 3.0])))
        order = [1, 3, 2, 0]
        assert local.attention.tolist() == [3, 3, 2, 1]
        np.testing.assert_array_equal(local.keypoints, self.record().keypoints[order])
        np.testing.assert_array_equal(local.scales, self.record().scales[order])
        np.testing.assert_allclose(local.descriptors, self.record().descriptors[order], atol=1e-3)

    def test_rows_of_other_lengths_are_made_unit_rows(self, tmp_path):
        local, whole = self.write(
            tmp_path,
            self.record(
                descriptors=self.record().descriptors * [[2], [0.1], [1], [7]], global_=self.record().global_ * 5
            ),
            local_dtype="float32",
        )
        np.testing.assert_allclose(np.linalg.norm(local.descriptors, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(local.descriptors, self.record().descriptors, atol=1e-6)
        np.testing.assert_allclose(whole, self.record().global_, atol=1e-6)

    def test_unit_rows_are_kept_to_the_last_bit(self, tmp_path):
        local, whole = self.write(tmp_path, self.record(), local_dtype="float32")
        np.testing.assert_array_equal(local.descriptors, self.record().descriptors)
        np.testing.assert_array_equal(whole, self.record().global_)

    def test_a_zero_row_stays_zero(self, tmp_path):
        local, _ = self.write(tmp_path, self.record(descriptors=np.zeros((4, 8))))
        assert (local.descriptors == 0).all()

    @pytest.mark.parametrize("shape", [(0,), (0, 0), (0, 8)])
    def test_an_image_without_descriptors_may_give_them_in_any_empty_shape(self, tmp_path, shape):
        nothing = {name: np.zeros(0) for name in ("keypoints", "scales", "attention")}
        empty = replace(self.record(descriptors=np.zeros(shape), **nothing), name="b.jpg")
        with Store(write_store(tmp_path / "delg_x.h5", [self.record(), empty])) as store:
            assert store.local_counts().tolist() == [4, 0] and store.local_dim == 8

    @pytest.mark.parametrize(
        "changes, what",
        [
            ({"global_": np.full(16, np.nan)}, "global values that are not finite"),
            ({"descriptors": np.full((4, 8), np.inf)}, "descriptors values that are not finite"),
            ({"attention": np.array([4, 3, np.nan, 1])}, "attention values that are not finite"),
            ({"keypoints": np.zeros((3, 2))}, "arrays that do not fit together"),
            ({"scales": np.zeros((4, 1))}, "arrays that do not fit together"),
            ({"descriptors": np.zeros((5, 8))}, "arrays that do not fit together"),
            ({"global_": np.ones((1, 16))}, "arrays that do not fit together"),
            ({"size": (0, 480)}, "the size 0 x 480"),
        ],
    )
    def test_a_bad_record_is_named_and_writes_nothing(self, tmp_path, changes, what):
        writer = PartWriter(tmp_path / "delg_x.h5", ["a.jpg"], SETTINGS)
        with pytest.raises(InputError, match=f"'a.jpg' has .*{what}"):
            writer.write_part(0, [self.record(**changes)])
        assert writer.missing_parts() == [0] and len(list(writer.folder.iterdir())) == 1

    @pytest.mark.parametrize("field, kind", [("global_dim", "global"), ("local_dim", "local")])
    def test_other_dimensions_are_refused_within_a_part_and_between_parts(self, tmp_path, field, kind):
        records = builders.make_records(["a.jpg"]) + builders.make_records(["b.jpg"], **{field: 5})
        with pytest.raises(InputError, match=f"'b.jpg' has {kind} descriptors of 5 dimensions, 'a.jpg' of"):
            PartWriter(tmp_path / "delg_x.h5", ["a.jpg", "b.jpg"], SETTINGS).write_part(0, records)
        writer = PartWriter(tmp_path / "delg_y.h5", ["a.jpg", "b.jpg"], SETTINGS, block=1)
        write_parts(writer, records, [0, 1])
        with pytest.raises(InputError, match=f"part-00001.h5: {kind} descriptors of 5 dimensions, the parts before"):
            writer.merge()
        assert not (tmp_path / "delg_y.h5").exists() and writer.missing_parts() == []

    @pytest.mark.parametrize("given", [["a.jpg"], ["a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "c.jpg"], ["a.jpg", "a.jpg"]])
    def test_records_of_other_images_than_the_blocks_are_refused(self, tmp_path, given):
        writer = PartWriter(tmp_path / "delg_x.h5", ["a.jpg", "b.jpg"], SETTINGS)
        with pytest.raises(InputError, match="the records are not those of the block"):
            writer.write_part(0, builders.make_records(given))

    @pytest.mark.parametrize(
        "names, what",
        [
            ([], "no images to write"),
            (["a", "a"], "'a' is named twice"),
            (["a\0"], "cannot be kept as an image name"),
            (["a", "\udcff"], "cannot be kept as an image name"),
        ],
    )
    def test_names_a_store_cannot_keep_are_refused_before_any_work(self, tmp_path, names, what):
        with pytest.raises(InputError, match=what):
            PartWriter(tmp_path / "delg_x.h5", names, SETTINGS)
        assert list(tmp_path.iterdir()) == []


class TestMerge:
    def test_a_missing_part_is_named(self, tmp_path):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 3)
        write_parts(writer, records_of(), [0, 3])
        with pytest.raises(InputError, match=r"2 of 4 parts are missing \(first: part-00001.h5\)"):
            writer.merge()

    def test_a_damaged_part_is_named_and_can_be_done_again(self, tmp_path):
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 3)
        write_parts(writer, records_of(), range(4))
        part = writer.folder / "part-00002.h5"
        part.write_bytes(part.read_bytes()[:1000])
        with pytest.raises(InputError, match="part-00002.h5: this part is damaged; delete it and run"):
            writer.merge()
        part.unlink()
        write_parts(writer, records_of(), writer.missing_parts())
        assert writer.merge("abc", "x").read_bytes() == undisturbed(tmp_path).read_bytes()

    def test_skipped_pictures_are_left_out_and_listed(self, tmp_path):
        records = [
            Skipped(record.name, f"too small, {record.name!r}") if i in (0, 4) else record
            for i, record in enumerate(records_of())
        ]
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 3)
        write_parts(writer, records, range(4))
        store = Store(writer.merge())
        assert store.names == [name for i, name in enumerate(NAMES) if i not in (0, 4)]
        assert store.local_counts().tolist() == [count for i, count in enumerate(COUNTS) if i not in (0, 4)]
        expected = [Skipped(NAMES[0], "too small, 'jpg/0.jpg'"), Skipped(NAMES[4], "too small, 'jpg/4.jpg'")]
        assert writer.skipped == read_skipped(writer.path) == expected
        with open(tmp_path / "delg_x.h5.skipped.csv", newline="") as file:
            assert next(csv.reader(file)) == ["name", "reason"]

    def test_a_part_of_skipped_pictures_only_merges(self, tmp_path):
        records = [Skipped(record.name, "gone") if i < 5 else record for i, record in enumerate(records_of())]
        writer = PartWriter(tmp_path / "delg_x.h5", NAMES, SETTINGS, 3)
        write_parts(writer, records, range(4))
        assert Store(writer.merge()).names == NAMES[5:]

    def test_a_list_of_skipped_pictures_only_is_an_error_with_the_first_reason(self, tmp_path):
        with pytest.raises(InputError, match=r"none of the 2 images gave descriptors \(first: 'a', no such file\)"):
            write_store(tmp_path / "delg_x.h5", [Skipped("a", "no such file"), Skipped("b", "gone")])
        assert not (tmp_path / "delg_x.h5").exists()

    def test_a_new_store_without_skipped_pictures_has_no_old_list_of_them(self, tmp_path):
        write_store(tmp_path / "delg_x.h5", [*builders.make_records(["a"]), Skipped("b", "gone")])
        write_store(tmp_path / "delg_x.h5", builders.make_records(["a", "b"]))
        assert [path.name for path in tmp_path.iterdir()] == ["delg_x.h5"]


class TestIsComplete:
    def make(self, tmp_path):
        records = [*records_of()[:9], Skipped(NAMES[9], "gone")]
        return write_store(tmp_path / "delg_x.h5", records, "x", SETTINGS)

    def test_a_store_with_the_same_images_and_settings_needs_nothing(self, tmp_path):
        assert is_complete(self.make(tmp_path), NAMES, json.loads(json.dumps(SETTINGS)))

    def test_no_store_is_not_complete(self, tmp_path):
        assert not is_complete(tmp_path / "delg_x.h5", NAMES, SETTINGS)

    def test_other_settings_are_refused_by_name(self, tmp_path):
        with pytest.raises(InputError, match="delg_x.h5: made with image_size = 1024, this run has 512; delete"):
            is_complete(self.make(tmp_path), NAMES, SETTINGS | {"image_size": 512})

    def test_lacking_images_are_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"lacks 1 of 11 images \(first: 'new.jpg'\).*--overwrite"):
            is_complete(self.make(tmp_path), [*NAMES, "new.jpg"], SETTINGS)

    def test_parts_left_by_a_run_killed_after_its_merge_are_removed(self, tmp_path):
        path = self.make(tmp_path)
        write_parts(PartWriter(path, NAMES, SETTINGS, 5), records_of(), [1])
        assert is_complete(path, NAMES, SETTINGS) and not (tmp_path / "delg_x.h5.parts").exists()

    def test_overwriting_starts_from_nothing(self, tmp_path):
        path = self.make(tmp_path)
        write_parts(PartWriter(path, NAMES, SETTINGS, 5), records_of(), [1])
        (tmp_path / "kept.h5").touch()
        remove_store(path)
        assert [file.name for file in tmp_path.iterdir()] == ["kept.h5"]
        remove_store(path)
