"""TFRecord shards as a source of images: every record is found and read; what is wrong with a shard is said in one
line."""

import hashlib
import json
import os

import numpy as np
import pytest
from mutations import mutations
from shards import example, picture, write_image_shards, write_shard

from delg_extract.data.batches import training_batches, unreadable_image_named, validation_batches
from delg_extract.data.records import read_record_images
from delg_extract.network.tensorflow import tf
from rrt.errors import InputError


def read_one(source, index):
    encoded, label = source.read(*(column[0] for column in source.addresses(np.array([index]))))
    return encoded.numpy(), int(label)


def error_of_batches(source, batches):
    with pytest.raises(InputError) as caught, unreadable_image_named(source):
        for _ in batches:
            pass
    return str(caught.value)


def test_every_record_is_read_as_tensorflow_reads_the_files_in_order(tmp_path):
    source = read_record_images(write_image_shards(tmp_path, [3, 0, 1, 5]), num_classes=3)
    assert len(source) == 9
    expected = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(source.shards)]
    for i, one in enumerate(expected):
        feature = one.features.feature
        encoded = feature["image/encoded"].bytes_list.value[0]
        assert read_one(source, i) == (encoded, feature["image/class/label"].int64_list.value[0])
        assert source.read_checked(i) == encoded
    assert source.name(4) == f"{tmp_path}/train-00003-of-00004: record 0 (id id004)"


def test_the_shards_of_the_reference_are_read(shared_golden):
    folder = shared_golden / "delg/seed1/tfrecord"
    expected = json.loads((folder / "expected.json").read_text())["clean_split_seed0_0.2"]
    for part in ("train", "validation"):
        source = read_record_images(f"{folder}/clean_split/{part}*", num_classes=4)
        records = [record for name in sorted(expected) if name.startswith(part) for record in expected[name]]
        assert len(source) == len(records) > 0
        for i, record in enumerate(records):
            encoded, label = read_one(source, i)
            assert record["image/encoded"] == f"{hashlib.sha256(encoded).hexdigest()} (sha256)"
            assert label == record["image/class/label"] and f"(id {record['image/id']})" in source.name(i)


def test_a_record_without_a_label_has_label_0(tmp_path):
    source = read_record_images(write_shard(tmp_path / "test", [example(picture())]), num_classes=5)
    assert read_one(source, 0) == (picture(), 0)


def test_a_cut_shard_is_refused_wherever_it_is_cut(tmp_path):
    whole = tmp_path / "train"
    write_shard(whole, [example(b"x" * 3, 0), example(b"y" * 2, 1), example(b"z", 2)])
    source = read_record_images(str(whole), 3)
    data, ends = whole.read_bytes(), {0, *source.offsets.tolist()}
    for size in range(1, len(data)):
        whole.write_bytes(data[:size])
        if size in ends:
            assert len(read_record_images(str(whole), 3)) == sorted(ends).index(size)
            continue
        with pytest.raises(InputError, match="cut") as caught:
            read_record_images(str(whole), 3)
        assert str(whole) in str(caught.value)


def test_a_damaged_shard_gives_one_line_or_only_images_that_were_in_it(tmp_path):
    path = tmp_path / "train"
    records = [example(bytes([65 + i]) * (3 + i), i) for i in range(4)]
    write_shard(path, records)
    contents = {read_one(read_record_images(str(path), 4), i) for i in range(4)}
    refused = 0
    for damaged in mutations(path.read_bytes(), 150, seed=0):
        path.write_bytes(damaged)
        try:
            source = read_record_images(str(path), 4)
            for i in range(len(source)):
                source.read_checked(i)
                assert read_one(source, i) in contents
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "names, words",
    [
        ([], ["--validation_file_pattern", "no such file"]),
        (["validation-00000-of-00002", "validation-00000-of-00003"], ["of-00002", "of-00003", "different sets"]),
    ],
)
def test_a_pattern_that_names_no_set_of_shards_is_refused(tmp_path, names, words):
    for name in names:
        write_shard(tmp_path / name, [example(picture())])
    with pytest.raises(InputError) as caught:
        read_record_images(f"{tmp_path}/validation*", 3, "--validation_file_pattern")
    assert all(word in str(caught.value) for word in words)


def test_files_that_are_no_shards_are_refused_and_what_a_killed_build_left_is_passed_over(tmp_path):
    pattern = write_image_shards(tmp_path, [2, 2])
    (tmp_path / "train-00001-of-00002.1a2b3c4d.tmp").write_bytes(b"half")
    (tmp_path / "train").mkdir()
    assert len(read_record_images(pattern, 3)) == 4
    (tmp_path / "train.csv").write_text("id,url,landmark_id\n0123456789abcdef,http://x,1\n")
    with pytest.raises(InputError, match=r"train\.csv: no TFRecord file"):
        read_record_images(pattern, 3)
    for path in tmp_path.glob("train*-*"):
        path.unlink()
    (tmp_path / "train.csv").write_bytes(b"")
    with pytest.raises(InputError, match="no record in 1 files"):
        read_record_images(pattern, 3)


@pytest.mark.parametrize(
    "record, in_training, words",
    [
        (example(picture(), 3, b"bad0"), True, ["record 2 (id bad0) has label 3", "0..2", "--num_classes"]),
        (example(picture(), -1), False, ["record 2 has label -1"]),
        (example(picture(), 1 << 40), False, ["label 1099511627776"]),
        (example(b"no image", 1, b"bad1"), True, ["record 2 (id bad1)", "cannot be decoded"]),
        (example(b"", 1, b"bad2"), False, ["record 2 (id bad2)", "cannot be decoded"]),
        (example(picture()[:-300], 1, b"bad3"), True, ["record 2 (id bad3)", "cannot be decoded"]),
        (example(None, 1), False, ["record 2 is no tf.Example", "image/encoded"]),
        (example(picture(), [1, 2]), False, ["record 2 is no tf.Example"]),
        (b"no example", True, ["record 2 is no tf.Example"]),
    ],
    ids=["label", "negative", "large", "junk", "empty", "cut", "nothing", "labels", "bytes"],
)
def test_a_bad_record_is_named_in_training_and_in_validation(tmp_path, record, in_training, words):
    good = [example(picture(i), i % 3) for i in range(6)]
    path = write_shard(tmp_path / "train", [*good[:2], record, *good[2:]])
    source = read_record_images(path, 3)
    asked = [validation_batches(source, 2, 32)]
    if in_training:  # each way to be bad, of which some records give others as examples
        asked.append(training_batches(source, 2, 32, seed=0).take(4))
    for batches in asked:
        message = error_of_batches(source, batches)
        assert message.startswith(f"{path}: ") and all(word in message for word in words), message


def test_a_record_changed_since_it_was_found_is_named(tmp_path):
    source = read_record_images(write_image_shards(tmp_path, [2, 4]), 3)
    path = tmp_path / "train-00001-of-00002"
    data = bytearray(path.read_bytes())
    data[source.offsets[4] + 200] ^= 1
    path.write_bytes(data)
    assert f"{path}: record 2 at byte {source.offsets[4]} cannot be read" in error_of_batches(
        source, validation_batches(source, 2, 32)
    )
    path.unlink()
    assert f"{path}: record 0" in error_of_batches(source, validation_batches(source, 2, 32))


def test_finding_records_reads_eight_bytes_of_each(tmp_path, monkeypatch):
    pattern, read, asked = write_image_shards(tmp_path, [30, 20]), os.pread, []
    monkeypatch.setattr(os, "pread", lambda file, size, offset: asked.append(size) or read(file, size, offset))
    assert len(read_record_images(pattern, 3)) == 50 and asked == [8] * 50
