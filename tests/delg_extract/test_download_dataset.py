"""Fetching the Google Landmarks Dataset v2 from a mirror on this machine: a few small images by the published names."""

import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections import namedtuple

import numpy as np
import pytest
from commands import error_of, files_below, kill_tool_when, run_tool
from gldv2_mirror import TAR, image_id, images_in, make_mirror, member_name, put, tree_of
from loopback import asked_for, serving, special, tar_bytes

from delg_extract.download_dataset import SPLITS, main, tar_name
from rrt.files.locks import locked

COUNTS = {"train": 3, "index": 2, "test": 1}
MD5 = "/gldv2/md5sum/train/md5.images_001.txt"


@pytest.fixture(autouse=True)
def direct_and_without_flushing(monkeypatch):
    """Many small files need not survive a power cut, and a busy disk takes long over each."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """{path: bytes} of a mirror: 9 training, 4 index and 2 test images of 4 landmarks."""

    def some(split, count):
        return [(image_id(split, i), 10 * (i % 4), np.full((8, 12, 3), 20 * i, np.uint8)) for i in range(count)]

    return make_mirror(tmp_path_factory.mktemp("mirror"), some("train", 9), some("index", 4), some("test", 2), COUNTS)


@pytest.fixture
def mirror(published):
    with serving() as site:
        site.files = {f"/gldv2/{name}": content for name, content in published.items()}
        yield site


@pytest.fixture
def arguments(mirror, tmp_path):
    """The arguments of a command that fetches all of the mirror to tmp_path / "out"."""
    return [*COUNTS.values(), "--output_dir", tmp_path / "out", "--base_url", f"{mirror.base_url}/gldv2/"]


@pytest.fixture
def fetch(arguments, monkeypatch, capsys):
    """Runs the command in this process, other arguments last -> what it printed."""

    def fetch(*further):
        monkeypatch.setattr(sys, "argv", ["download_dataset.py", *map(str, arguments), *map(str, further)])
        assert main() == 0
        return capsys.readouterr().out

    return fetch


@pytest.fixture
def failure(arguments, monkeypatch, capsys):
    """Runs the command in this process without long waits -> its one line of error."""

    def failure(*further):
        return error_of(main, [*arguments, "--retries", 0, *further], monkeypatch, capsys)

    return failure


def expected(published, without=()):
    """{path: bytes} of the files that are there in the end, without the records and the tar files left out."""
    tree = {}
    for split, facts in SPLITS.items():
        tree |= {f"{split}/{name}": published[f"{place}/{name}"] for name, (place, _) in facts.tables.items()}
        for number in range(COUNTS[split]):
            name = f"{split}/images_{number:03d}.tar"
            if name not in without:
                tree |= {f"{split}/{picture}": content for picture, content in images_in(published[name]).items()}
    return tree


class TestWhatComes:
    def test_tables_and_images_lie_where_the_next_commands_look(self, mirror, published, fetch, tmp_path):
        out = fetch()
        assert tree_of(tmp_path / "out") == expected(published)
        assert files_below(tmp_path / "out/test/") == sorted(
            {
                "images_000.tar.json",
                *SPLITS["test"].tables,
                *(
                    parent
                    for name in images_in(published["test/images_000.tar"])
                    for parent in (name, name[:5], name[:3], name[:1])
                ),
            }
        )
        assert f"{tmp_path / 'out/train'}: CSV files and 3 tar files with 9 images are there" in out.splitlines()
        assert len(asked_for(mirror)) == len(set(asked_for(mirror))) == len(published)

    def test_a_record_of_every_tar_file_stays(self, mirror, published, fetch, tmp_path):
        fetch()
        tar = published["train/images_001.tar"]
        assert json.loads((tmp_path / "out/train/images_001.tar.json").read_text()) == {
            "url": mirror.base_url + TAR,
            "size": len(tar),
            "md5": hashlib.md5(tar).hexdigest(),
            "pictures": 3,
        }

    def test_without_tar_files_the_tables_come_alone(self, mirror, published, arguments, fetch, tmp_path):
        arguments[:3] = 0, 0, 0
        fetch()
        tables = {name: content for name, content in expected(published).items() if name.endswith(".csv")}
        assert tree_of(tmp_path / "out") == tables

    def test_a_number_takes_the_first_tar_files_and_a_larger_one_adds_to_them(
        self, mirror, published, arguments, fetch, tmp_path
    ):
        arguments[:3] = 1, 0, 0
        fetch("--splits", "train")
        assert os.listdir(tmp_path / "out") == ["train"]
        assert {path for path in asked_for(mirror) if path.endswith(".tar")} == {"/gldv2/train/images_000.tar"}
        arguments[:3] = COUNTS.values()
        fetch("--parallel", "1")
        assert tree_of(tmp_path / "out") == expected(published)
        assert asked_for(mirror).count("/gldv2/train/images_000.tar") == 1

    def test_tar_files_are_kept_when_asked_for(self, published, fetch, tmp_path):
        fetch("--keep_tars")
        tars = {name: content for name, content in published.items() if name.endswith(".tar")}
        assert tree_of(tmp_path / "out") == expected(published) | tars
        fetch()
        assert tree_of(tmp_path / "out") == expected(published)

    @pytest.mark.parametrize("keep", ["--keep_tars", "--no-keep_tars"])
    def test_a_second_run_downloads_nothing(self, mirror, published, fetch, tmp_path, keep):
        fetch(keep)
        asked = len(mirror.requests)
        mirror.files.clear()
        out = fetch(keep)
        assert len(mirror.requests) == asked and "3 tar files with 9 images" in out
        assert tree_of(tmp_path / "out").items() >= expected(published).items()

    def test_what_was_put_there_by_hand_is_used(self, mirror, published, fetch, tmp_path):
        (tmp_path / "out/train").mkdir(parents=True)
        (tmp_path / "out/train/train.csv").write_bytes(b"id,url,landmark_id\nmine\n")
        (tmp_path / "out/train/images_001.tar").write_bytes(mirror.files.pop(TAR))
        fetch()
        assert tree_of(tmp_path / "out") == expected(published) | {"train/train.csv": b"id,url,landmark_id\nmine\n"}

    def test_only_images_in_their_folders_are_unpacked(self, mirror, published, fetch, tmp_path):
        others = {
            "0/1/2/README": b"x",
            "a/b/c/d/abcdabcdabcdabcd.jpg": b"x",
            "a/b/d/abcdabcdabcdabcd.jpg": b"x",
            "train.csv": b"x",
        }
        put(mirror, tar_bytes(images_in(mirror.files[TAR]) | others, compress=False))
        fetch()
        assert tree_of(tmp_path / "out") == expected(published)

    @pytest.mark.parametrize("text", ["{0}", "{0} *images_001.tar\r\n", "  {0}\timages_001.tar\nmore"])
    def test_the_md5_sum_is_the_first_field(self, mirror, published, fetch, tmp_path, text):
        mirror.files[MD5] = text.format(mirror.files[MD5][:32].decode().upper()).encode()
        fetch()
        assert tree_of(tmp_path / "out") == expected(published)

    def test_a_disk_that_will_be_full_is_told_beforehand(self, arguments, monkeypatch, fetch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(5e9))
        assert "5 GB free; the 6 tar files still to come need about 10 GB" in fetch()
        assert "warning" not in fetch()


class TestWhatIsMissing:
    def check(self, mirror, published, fetch, tmp_path, without):
        """All else is there, of the missing tar files nothing is; and a mended mirror is asked for these alone."""
        missing = set(without)
        tree = tree_of(tmp_path / "out")
        assert {name: content for name, content in tree.items() if not name.endswith(".part")} == {
            name: content for name, content in expected(published, without).items() if name not in missing
        }
        assert set(os.listdir(tmp_path)) == {"out"} and set(os.listdir(tmp_path / "out")) == set(SPLITS)
        mirror.files = {f"/gldv2/{name}": content for name, content in published.items()}
        mirror.requests.clear()
        fetch()
        assert tree_of(tmp_path / "out") == expected(published)
        assert {
            path.replace("md5sum/", "").replace("md5.", "").replace(".txt", ".tar") for path in asked_for(mirror)
        } == {
            f"/gldv2/{name}" if name.endswith(".tar") else f"/gldv2/metadata/{name.split('/')[1]}" for name in without
        }

    def test_a_corrupted_tar_file_is_not_unpacked_and_the_others_are(self, mirror, published, fetch, failure, tmp_path):
        mirror.files[TAR] = mirror.files[TAR][:-1] + b"x"
        line = failure()
        assert (
            "1 of 16 files are missing: train/images_001.tar; the first: " in line and "md5 is" in line and TAR in line
        )
        self.check(mirror, published, fetch, tmp_path, ["train/images_001.tar"])

    def test_all_that_is_missing_is_listed(self, mirror, published, fetch, failure, tmp_path):
        for name in (TAR, "/gldv2/test/images_000.tar", "/gldv2/metadata/train_clean.csv"):
            del mirror.files[name]
        line = failure()
        assert (
            "3 of 16 files are missing: train/train_clean.csv, train/images_001.tar, test/images_000.tar; the first: "
            in line
        )
        assert "train_clean.csv: HTTP status 404" in line and "--base_url" in line
        self.check(
            mirror, published, fetch, tmp_path, ["train/train_clean.csv", "train/images_001.tar", "test/images_000.tar"]
        )

    @pytest.mark.parametrize(
        "content, reason", [(None, "HTTP status 404"), (b"", "no MD5 sum"), (b"<html>no key", "no MD5 sum")]
    )
    def test_a_tar_file_without_md5_sum_is_not_taken(
        self, mirror, published, fetch, failure, tmp_path, content, reason
    ):
        mirror.files[MD5] = content
        if content is None:
            del mirror.files[MD5]
        line = failure()
        assert "1 of 16 files are missing: train/images_001.tar" in line and f"{MD5}: {reason}" in line
        assert TAR not in asked_for(mirror)
        self.check(mirror, published, fetch, tmp_path, ["train/images_001.tar"])

    def test_a_page_in_place_of_a_table_is_not_taken(self, mirror, published, fetch, failure, tmp_path):
        mirror.files["/gldv2/metadata/train.csv"] = b"<html>\n<body>Please log in, id, url, landmark_id</body></html>"
        assert "/gldv2/metadata/train.csv: no column 'id' in its first line '<html>'" in failure()
        self.check(mirror, published, fetch, tmp_path, ["train/train.csv"])

    def test_a_wrong_table_that_was_there_is_left_there_and_named(self, failure, tmp_path):
        (tmp_path / "out/train").mkdir(parents=True)
        (tmp_path / "out/train/train.csv").write_bytes(b"")
        line = failure()
        assert f"{tmp_path / 'out/train/train.csv'}: no column 'id'" in line and "delete it and run again" in line
        assert (tmp_path / "out/train/train.csv").exists()

    @pytest.mark.parametrize(
        "member, reason",
        [
            (("../../escaped.jpg", b"x"), "leads out"),
            (("../train/0/0/0/0000000000000000.jpg", b"x"), "leads out"),
            (("/tmp/escaped.jpg", b"x"), "leads out"),
            (("", special("0", tarfile.SYMTYPE, "../..")), "leads out"),
            (("", special("0", tarfile.SYMTYPE, "/etc")), "leads out"),
            (("", special("0/0/0/0000000000000000.jpg", tarfile.SYMTYPE, "other.jpg")), "is a link"),
            (("", special("0/0/0/0000000000000000.jpg", tarfile.LNKTYPE, "0/0/0/1")), "is a link"),
            (("", special("0/0/0/0000000000000000.jpg", tarfile.CHRTYPE)), "is a device"),
        ],
        ids=["up", "up_and_back", "absolute", "link_up", "link_absolute", "link_inside", "hard_link", "device"],
    )
    def test_a_hostile_tar_file_is_refused_whole(self, mirror, published, fetch, failure, tmp_path, member, reason):
        put(mirror, tar_bytes([*images_in(mirror.files[TAR]).items(), member], compress=False))
        line = failure()
        assert "1 of 16 files are missing: train/images_001.tar" in line and reason in line
        self.check(mirror, published, fetch, tmp_path, ["train/images_001.tar"])

    @pytest.mark.parametrize(
        "content, reason",
        [
            (b"<html>", "not a tar archive"),
            (tar_bytes({"train/0/1/2/0123456789abcdef.jpg": b"x"}, compress=False), "none of the files"),
            (tar_bytes({member_name("0123456789abcdef"): b"x" * 3000}, compress=False)[:1500], "damaged archive"),
        ],
        ids=["page", "elsewhere", "cut"],
    )
    def test_a_useless_tar_file_with_the_right_sum_is_refused(
        self, mirror, published, fetch, failure, tmp_path, content, reason
    ):
        put(mirror, content)
        assert reason in failure()
        self.check(mirror, published, fetch, tmp_path, ["train/images_001.tar"])

    def test_a_damaged_record_is_named(self, fetch, failure, tmp_path):
        fetch()
        (tmp_path / "out/train/images_001.tar.json").write_text("[]")
        assert (
            f"{tmp_path / 'out/train/images_001.tar.json'}: no record of an unpacked tar file; delete it" in failure()
        )


class TestGoingOn:
    def test_a_cut_connection_is_continued_by_the_run(self, mirror, published, fetch, monkeypatch, tmp_path):
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        mirror.faults[TAR] = [("cut", 2000), ("cut", 3000), ("status", 503)]
        fetch()
        assert [wanted for path, wanted in mirror.requests if path == TAR] == [
            None,
            "bytes=2000-",
            "bytes=5000-",
            "bytes=5000-",
        ]
        assert tree_of(tmp_path / "out") == expected(published)

    def test_a_cut_connection_is_continued_by_the_next_run(self, mirror, published, fetch, failure, tmp_path):
        mirror.faults[TAR] = [("cut", 2000)]
        assert "2000 bytes are kept" in failure()
        fetch()
        assert [wanted for path, wanted in mirror.requests if path == TAR] == [None, "bytes=2000-"]
        assert tree_of(tmp_path / "out") == expected(published)

    def test_a_killed_run_goes_on_and_asks_for_no_finished_tar_file(
        self, mirror, published, arguments, fetch, tmp_path
    ):
        mirror.faults[TAR] = [("stall", 3000)]
        part, out = tmp_path / "out/train/images_001.tar.part", tmp_path / "out"
        others = [
            out / split / f"{tar_name(n)}.json"
            for split, count in COUNTS.items()
            for n in range(count)
            if (split, n) != ("train", 1)
        ]

        def all_but_one_are_there():
            return part.exists() and part.stat().st_size == 3000 and all(note.exists() for note in others)

        kill_tool_when(all_but_one_are_there, "delg_extract/download_dataset.py", *arguments)
        mirror.requests.clear()
        fetch()
        assert mirror.requests == [(MD5, None), (TAR, "bytes=3000-")]
        assert tree_of(out) == expected(published)

    def test_a_run_killed_while_unpacking_unpacks_again_without_fetching(self, mirror, published, fetch, tmp_path):
        train = tmp_path / "out/train"
        fetch()
        (train / "images_001.tar").write_bytes(mirror.files.pop(TAR))
        (train / "images_001.tar.json").unlink()
        (train / next(iter(images_in(published["train/images_001.tar"])))).unlink()
        (tmp_path / "out/train.images_001.tar.unpacking/0").mkdir(parents=True)
        (train / ".lock").touch()
        mirror.requests.clear()
        fetch()
        assert asked_for(mirror) == [MD5]
        assert tree_of(tmp_path / "out") == expected(published)
        assert sorted(os.listdir(tmp_path / "out")) == sorted(SPLITS)

    def test_two_runs_do_not_get_in_each_others_way(self, mirror, failure, tmp_path):
        (tmp_path / "out/index").mkdir(parents=True)
        with locked(tmp_path / "out/index/.lock", "downloading"):
            assert f"{tmp_path / 'out/index/.lock'}: another process is downloading; wait" in failure()
        assert mirror.requests == []


class TestWrongArguments:
    @pytest.mark.parametrize(
        "counts, reason",
        [
            ((501, 0, 0), "TRAIN is '501'; give a whole number from 0 to 500"),
            ((0, 101, 0), "INDEX is '101'"),
            ((0, 0, 21), "TEST is '21'"),
            ((-1, 0, 0), "TRAIN is '-1'"),
            (("all", 0, 0), "TRAIN is 'all'"),
            (("1.5", 0, 0), "TRAIN is '1.5'"),
            (("", 0, 0), "TRAIN is ''"),
        ],
    )
    def test_a_wrong_number_of_tar_files_is_one_line(self, mirror, arguments, failure, tmp_path, counts, reason):
        arguments[:3] = counts
        assert reason in failure()
        assert mirror.requests == [] and not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "further, reason",
        [
            (("--splits", "train", "val"), "'val' is no split"),
            (("--splits", "test"), "TRAIN is 3, but --splits leaves train out"),
            (("--parallel", "0"), "--parallel is '0'"),
            (("--parallel", "six"), "--parallel is 'six'"),
            (("--retries", "-1"), "--retries is '-1'"),
            (("--base_url", "s3.amazonaws.com"), "s3.amazonaws.com: not an address"),
            (("--base_url", "file:///data"), "not an address"),
        ],
    )
    def test_a_wrong_option_is_one_line(self, mirror, failure, tmp_path, further, reason):
        assert reason in failure(*further)
        assert mirror.requests == [] and not (tmp_path / "out").exists()

    def test_a_file_in_place_of_the_folder_is_one_line(self, failure, tmp_path):
        (tmp_path / "out").touch()
        assert str(tmp_path / "out") in failure()

    def test_help_is_there_without_tensorflow(self, tmp_path):
        (tmp_path / "tensorflow.py").write_text("raise SystemExit('tensorflow was imported')")
        script = tmp_path / "help.py"
        script.write_text("from delg_extract.download_dataset import parser\nparser().print_help()\n")
        done = run_tool(script)
        assert done.returncode == 0 and "--keep_tars" in done.stdout, done.stderr
