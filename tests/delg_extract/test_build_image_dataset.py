"""Building the TFRecord data set: the reference's records, a split that only the CSV file decides, restarts, faults in
one line."""

import csv
import json
import os
import sys

import numpy as np
import pytest
from commands import error_of, files_below, kill_tool_when, usage_error_of
from delg_golden import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from delg_extract.build_image_dataset import main
from delg_extract.data.dataset_plan import deal_shards, find_images, stratified_split
from delg_extract.data.shards import Unreadable, read_example
from delg_extract.network.tensorflow import tf
from rrt.errors import InputError

SET = GOLDEN / "seed1/tfrecord"
IMAGES = SET / "images/train"
CLEAN = ("--train_clean_csv_path", SET / "csv/train_clean.csv")


def value_of(feature):
    kind = feature.WhichOneof("kind")
    (value,) = getattr(feature, kind).value
    return value


def records_of(path):
    """The parsed records of a shard: [{key: value}]."""
    examples = (tf.train.Example.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(str(path)))
    return [{key: value_of(feature) for key, feature in example.features.feature.items()} for example in examples]


def shards_below(folder):
    return {path.name: records_of(path) for path in sorted(folder.glob("*-of-*"))}


def ids_of(folder, part):
    """Ids of a part's records in the order of its shards."""
    return [
        record["image/id"].decode() for path in sorted(folder.glob(f"{part}-*-of-*")) for record in records_of(path)
    ]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["build_image_dataset.py", *map(str, arguments)])
    assert main() == 0


def flags(folder, *extra, images=IMAGES, num_shards=2):
    return ("--train_directory", images, "--output_directory", folder, "--num_shards", num_shards, *extra)


def missing_in(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "reason"]
    return dict(rows)


@pytest.fixture
def own_set(tmp_path):
    """Images of other people: two folders, ten images, three classes, a CSV file with a byte order mark and a
    column more."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(10):
        folder = tmp_path / "own" / ("left" if i % 2 else "right/below")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(folder / f"photo é {i}.jpg")
        rows.append(f"photo é {i},{i % 3 * 7},someone\r\n")
    (tmp_path / "own.csv").write_text("\ufeffid,landmark_id,author\r\n" + "".join(rows), encoding="utf-8")
    return tmp_path


def own_flags(folder, *extra):
    return flags(folder / "out", "--train_csv_path", folder / "own.csv", *extra, images=folder / "own")


@pytest.mark.parametrize(
    "name, expected, extra",
    [
        ("clean_nosplit", "clean_nosplit", ()),
        ("clean_split", "clean_split_seed0_0.2", ("--generate_train_validation_splits",)),
        (
            "clean_split_seed7",
            "clean_split_seed7_0.5",
            ("--generate_train_validation_splits", "--seed", 7, "--validation_split_size", 0.5),
        ),
    ],
)
@pytest.mark.parametrize("pattern", ["", "/*/*/*/"], ids=["folder", "pattern"])
def test_records_equal_the_reference(tmp_path, monkeypatch, name, expected, extra, pattern):
    run(monkeypatch, *flags(tmp_path, *CLEAN, *extra, images=f"{IMAGES}{pattern}"))
    assert shards_below(tmp_path) == shards_below(SET / name)
    assert (tmp_path / "relabeling.csv").read_bytes() == (SET / name / "relabeling.csv").read_bytes()
    told = json.loads((SET / "expected.json").read_text())[expected]
    assert {shard: len(records) for shard, records in shards_below(tmp_path).items()} == {
        shard: len(records) for shard, records in told.items() if shard != "relabeling.csv"
    }
    assert not (tmp_path / "missing.csv").exists()


def test_who_goes_to_validation_is_as_in_the_reference(tmp_path, monkeypatch):
    run(monkeypatch, *flags(tmp_path, *CLEAN, "--generate_train_validation_splits"))
    told = json.loads((SET / "expected.json").read_text())["assignment_seed0_0.2"]
    assert {part: ids_of(tmp_path, part) for part in told} == told


def test_without_a_clean_list_the_records_are_the_reference_ones_sorted_by_id(tmp_path, monkeypatch):
    # The reference takes them as TensorFlow's glob finds them, in another order at every call.
    run(monkeypatch, *flags(tmp_path, "--train_csv_path", SET / "csv/train.csv"))
    ours, theirs = shards_below(tmp_path), shards_below(SET / "all_nosplit")
    assert {name: len(records) for name, records in ours.items()} == {
        name: len(records) for name, records in theirs.items()
    }
    joined = [record for records in ours.values() for record in records]
    assert joined == sorted(
        (record for records in theirs.values() for record in records), key=lambda record: record["image/id"]
    )
    assert not (tmp_path / "relabeling.csv").exists()


def test_a_test_part_has_no_labels_and_the_order_of_its_csv_file(tmp_path, monkeypatch):
    chosen = ["f21b3bb4afa2179a", "10adb8e923a01b50", "4524a88fd0393bfd"]
    (tmp_path / "test.csv").write_text("id\n" + "\n".join(chosen) + "\n")
    test = ("--test_directory", f"{IMAGES}/*/*/")
    run(monkeypatch, *flags(tmp_path / "a", *test, "--test_csv_path", tmp_path / "test.csv", images=""))
    assert files_below(tmp_path / "a") == ["build", "build/test.json", "test-00000-of-00002", "test-00001-of-00002"]
    assert ids_of(tmp_path / "a", "test") == chosen
    assert all(
        "image/class/label" not in record for records in shards_below(tmp_path / "a").values() for record in records
    )
    run(monkeypatch, *flags(tmp_path / "b", *CLEAN, *test))
    run(monkeypatch, *flags(tmp_path / "b", *CLEAN))
    assert ids_of(tmp_path / "b", "test") == sorted(path.stem for path in IMAGES.rglob("*.jpg"))
    assert len(ids_of(tmp_path / "b", "train")) == 12


def test_any_ids_folders_and_columns_are_taken(own_set, monkeypatch):
    run(monkeypatch, *own_flags(own_set))
    assert ids_of(own_set / "out", "train") == [f"photo é {i}" for i in range(10)]
    labels = [record["image/class/label"] for records in shards_below(own_set / "out").values() for record in records]
    assert labels == [i % 3 * 7 for i in range(10)]
    run(
        monkeypatch,
        *flags(own_set / "relabelled", "--train_clean_csv_path", own_set / "own.csv", images=own_set / "own"),
    )
    labels = [
        record["image/class/label"] for records in shards_below(own_set / "relabelled").values() for record in records
    ]
    assert labels == [i % 3 for i in range(10)]


def test_a_directory_may_be_the_beginning_of_the_file_names(own_set):
    found = find_images(f"{own_set}/own/left/photo é")
    assert set(found) == {f"photo é {i}" for i in range(1, 10, 2)} and set(found.values()) == {f"{own_set}/own/left"}


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_the_split_parts_the_images_class_by_class(labels, fraction, seed):
    labels = np.array(labels)
    train, validation = stratified_split(labels, fraction, seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    for label in np.unique(labels):
        n = np.sum(labels == label)
        assert np.sum(labels[validation] == label) == max(1, int(fraction * n))
    again = stratified_split(labels, fraction, seed)
    assert np.array_equal(again[0], train) and np.array_equal(again[1], validation)


@given(count=st.integers(0, 300), num_shards=st.integers(1, 40))
def test_shards_hold_every_image_once_and_differ_by_one_at_most(count, num_shards):
    shards = deal_shards("train", np.arange(count), num_shards)
    assert np.concatenate([shard.rows for shard in shards]).tolist() == list(range(count))
    sizes = [len(shard.rows) for shard in shards]
    assert max(sizes) - min(sizes) <= 1 and shards[-1].name == f"train-{num_shards - 1:05d}-of-{num_shards:05d}"


def copied_golden(folder):
    for path in IMAGES.rglob("*.jpg"):
        target = folder / path.relative_to(IMAGES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return {path.stem: path for path in folder.rglob("*.jpg")}


SPLIT = (*CLEAN, "--generate_train_validation_splits")


def test_a_missing_image_stops_at_once_unless_allowed_and_moves_no_other_image(tmp_path, monkeypatch, capsys):
    pictures, out = copied_golden(tmp_path / "images"), tmp_path / "out"
    lost = ["7d0cc58c3042272c", "5c4eb5948934b101"]
    for image in lost:
        pictures[image].unlink()
    arguments = flags(out, *SPLIT, images=tmp_path / "images")
    line = error_of(main, arguments, monkeypatch, capsys)
    for part in (f"{out}/missing.csv: 2 of 12 images are missing", "'5c4eb5948934b101': not found", "--allow_missing"):
        assert part in line
    assert missing_in(out / "missing.csv") == dict.fromkeys(lost, "not found") and files_below(out) == ["missing.csv"]
    run(monkeypatch, *arguments, "--allow_missing")
    assert missing_in(out / "missing.csv") == dict.fromkeys(lost, "not found")
    for name, records in shards_below(SET / "clean_split").items():
        assert records_of(out / name) == [record for record in records if record["image/id"].decode() not in lost]
    assert (out / "relabeling.csv").read_bytes() == (SET / "clean_split/relabeling.csv").read_bytes()


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda whole: b"", "empty file"),
        (lambda whole: whole[:-2], "cut or damaged JPEG, 3130 bytes"),
        (lambda whole: whole[:1000], "cut or damaged JPEG, 1000 bytes"),
        (lambda whole: b"<html>404</html>", "not a JPEG, 16 bytes"),
        (lambda whole: b"\x89PNG\r\n\x1a\n" + whole, "not a JPEG, 3140 bytes"),
    ],
    ids=["empty", "no end", "half", "text", "png"],
)
def test_a_broken_image_is_no_record(tmp_path, damage, reason):
    whole = (IMAGES / "8/a/0/8a03d49c96c5d988.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(damage(whole))
    with pytest.raises(Unreadable) as caught:
        read_example(str(tmp_path / "x.jpg"), "x", 0)
    assert str(caught.value) == reason


def test_after_a_repair_only_the_shards_that_lacked_something_are_made_again(tmp_path, monkeypatch, capfd):
    pictures, out = copied_golden(tmp_path / "images"), tmp_path / "out"
    broken, lost = pictures["a6e231affe9c633c"], pictures["4524a88fd0393bfd"]  # both in the first shard of train
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1500])
    arguments = flags(out, *SPLIT, images=tmp_path / "images")
    line = error_of(main, arguments, monkeypatch, capfd)
    assert (
        "1 of 12 images are missing or broken ('a6e231affe9c633c': cut or damaged JPEG, 1500 bytes); the rest is made"
        in line
    )
    assert missing_in(out / "missing.csv") == {"a6e231affe9c633c": "cut or damaged JPEG, 1500 bytes"}
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("*-of-*")}
    assert len(made) == 4
    run(monkeypatch, *arguments, "--allow_missing")
    assert made == {path.name: path.stat().st_mtime_ns for path in out.glob("*-of-*")}
    broken.write_bytes(whole)
    run(monkeypatch, *arguments)
    changed = {name for name, time in made.items() if (out / name).stat().st_mtime_ns != time}
    assert changed == {"train-00000-of-00002"} and not (out / "missing.csv").exists()
    assert shards_below(out) == shards_below(SET / "clean_split")
    lost.unlink()
    (out / "train-00000-of-00002").unlink()
    run(monkeypatch, *arguments, "--allow_missing")
    assert missing_in(out / "missing.csv") == {"4524a88fd0393bfd": "not found"}


def test_a_file_without_a_label_is_listed(own_set, monkeypatch, capsys):
    (own_set / "own/left/stranger.jpg").write_bytes(b"")
    line = error_of(main, own_flags(own_set), monkeypatch, capsys)
    assert "1 of 11 images" in line and "'stranger': no label in the CSV file" in line
    run(monkeypatch, *own_flags(own_set, "--allow_missing"))
    assert missing_in(own_set / "out/missing.csv") == {"stranger": "no label in the CSV file"}
    assert len(ids_of(own_set / "out", "train")) == 10


@pytest.mark.slow
def test_a_killed_run_keeps_its_shards_and_ends_with_all_records(tmp_path, monkeypatch):
    whole = (IMAGES / "8/a/0/8a03d49c96c5d988.jpg").read_bytes()
    (tmp_path / "images").mkdir()
    for i in range(40):
        (tmp_path / f"images/{i:04d}.jpg").write_bytes(whole)
    (tmp_path / "x.csv").write_text("id,landmark_id\n" + "".join(f"{i:04d},{i % 9}\n" for i in range(40)))
    out, rest = tmp_path / "out", ("--train_csv_path", tmp_path / "x.csv", "--num_workers", 1)
    arguments = flags(out, *rest, images=tmp_path / "images", num_shards=10)
    run(monkeypatch, *flags(tmp_path / "undisturbed", *rest, images=tmp_path / "images", num_shards=10))

    def one_is_done_and_the_next_begun():
        names = [path.name for path in out.glob("train-*")]
        return len(names) > 1 and any(name.endswith(".tmp") for name in names)

    pipe = tmp_path / "images/0022.jpg"
    pipe.unlink()
    os.mkfifo(pipe)  # whoever reads it waits
    kill_tool_when(one_is_done_and_the_next_begun, "delg_extract/build_image_dataset.py", *arguments)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("train-?????-of-?????")}
    assert 0 < len(kept) < 10
    pipe.unlink()
    pipe.write_bytes(whole)
    run(monkeypatch, *arguments)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert files_below(out) == ["build", "build/train.json", *(f"train-{i:05d}-of-00010" for i in range(10))]
    assert {path.name: path.read_bytes() for path in out.glob("train-*")} == {
        path.name: path.read_bytes() for path in (tmp_path / "undisturbed").glob("train-*")
    }


def test_shards_of_other_settings_never_mix(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    run(monkeypatch, *flags(out, *SPLIT))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for other, named in (
        (flags(out, *SPLIT, num_shards=3), "num_shards = 2, now it is 3"),
        (flags(out, *SPLIT, "--seed", 1), "seed = 0"),
        (flags(out, *CLEAN), "generate_train_validation_splits = True"),
        (flags(out, "--train_csv_path", SET / "csv/train.csv"), "generate_train_validation_splits = True"),
    ):
        assert named in error_of(main, other, monkeypatch, capsys)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train-00000-of-00002").write_bytes(b"")
    line = error_of(main, flags(foreign, *SPLIT), monkeypatch, capsys)
    assert "train-00000-of-00002: a shard that this program did not make" in line


@pytest.mark.parametrize("note", ["{", "[]", '{"left_out": [1]}'])
def test_a_damaged_note_is_refused_lest_a_lacking_image_is_forgotten(tmp_path, monkeypatch, capsys, note):
    run(monkeypatch, *flags(tmp_path, *CLEAN))
    (tmp_path / "build/train-00001-of-00002.json").write_text(note)
    line = error_of(main, flags(tmp_path, *CLEAN), monkeypatch, capsys)
    assert f"delete it and {tmp_path}/train-00001-of-00002, then run again" in line


def test_a_write_that_fails_ends_in_one_line_and_leaves_no_half_shard(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(tf.io.TFRecordWriter, "write", full)
        assert "cannot be written (No space left on device)" in error_of(main, flags(tmp_path, *CLEAN), context, capsys)
    assert not list(tmp_path.glob("train*"))
    run(monkeypatch, *flags(tmp_path, *CLEAN))
    assert len(ids_of(tmp_path, "train")) == 12


def test_wrong_input_is_named_in_one_line(own_set, monkeypatch, capsys):
    def fails(*extra, text=None, part=None):
        if text is not None:
            (own_set / "own.csv").write_text(text)
        line = error_of(main, own_flags(own_set, *extra), monkeypatch, capsys)
        assert part in line, line

    fails("--num_shards", 0, part="--num_shards 0: give a whole number from 1 to 99999")
    fails("--num_workers", 0, part="--num_workers 0")
    fails("--seed", -1, part="--seed -1")
    for size in (0, 1):
        fails("--validation_split_size", size, part="above 0 and below 1")
    not_a_number = own_flags(own_set, "--validation_split_size", "nan")
    assert "--validation_split_size: 'nan' is no finite" in usage_error_of(main, not_a_number, monkeypatch, capsys)
    fails("--train_directory", "", part="both empty")
    fails("--train_directory", own_set / "nowhere", part="nowhere: no .jpg files there; give --train_directory")
    fails("--test_directory", own_set / "nowhere/*", part="nowhere/*: no .jpg files there; give --test_directory")
    fails("--train_csv_path", own_set / "none.csv", part="none.csv: cannot be read")
    fails("--train_csv_path", SET / "csv/train.csv", part="names none of the 10 images of")
    fails(*CLEAN, part="none of the 12 images of")
    fails(text="", part="own.csv: has the columns ''")
    fails(text="id,landmark_id\n", part="own.csv: no images in it")
    fails(text="id,landmark_id\na,1\nb\n", part="own.csv:3: 1 fields")
    fails(text="id,landmark_id\na,1\nb,x\n", part="own.csv:3: 'x' is no landmark's number")
    fails(text="id,landmark_id\na,1\nb/c,2\n", part="own.csv:3: 'b/c' is no image's id")
    fails(text="id,landmark_id\na,1\na,1\n", part="own.csv:3: 'a' is on line 2 already")
    assert not (own_set / "out").exists()


def test_two_images_of_one_id_are_refused_with_both_places(own_set):
    (own_set / "own/left/photo é 0.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="photo é 0.jpg: .*own.* has an image of this name as well"):
        find_images(str(own_set / "own"))


def test_a_image_behind_a_link_is_found_and_its_permission_named(tmp_path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2/a.jpg").write_bytes(b"x")
    (tmp_path / "train").mkdir()
    os.symlink(tmp_path / "disk2", tmp_path / "train/a")
    assert find_images(str(tmp_path / "train")) == {"a": str(tmp_path / "train/a")}
    with pytest.raises(Unreadable, match="Is a directory"):
        read_example(str(tmp_path / "train/a"), "a")
