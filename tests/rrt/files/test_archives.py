"""Unpacking tar archives that are whole, damaged or hostile."""

import gzip
import os
import tarfile

import pytest
from commands import files_below
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import special, tar_bytes

from rrt.errors import InputError
from rrt.files.archives import ArchiveError, unpack_tar


@pytest.fixture(autouse=True, scope="module")
def without_flushing():
    """Hundreds of small files need not survive a power cut, and a busy disk takes long over each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None)
        yield


GOOD = {"top/a.txt": b"a" * 2000, "top/sub/b.jpg": b"b", "top/sub/c.jpg": b"c" * 700}


@pytest.fixture
def pack(tmp_path):
    """Writes an archive -> its path."""

    def pack(members, name="x.tar.gz"):
        (tmp_path / name).write_bytes(tar_bytes(members, compress=name.endswith("gz")))
        return tmp_path / name

    return pack


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestUnpack:
    @pytest.mark.parametrize("name", ["x.tar", "x.tgz"])
    def test_all_files_are_unpacked_and_nothing_else_is_left(self, pack, tmp_path, name):
        assert unpack_tar(pack(GOOD, name), tmp_path / "new" / "out") == 3
        assert contents(tmp_path / "new") == {f"out/{path}": content for path, content in GOOD.items()}

    @pytest.mark.parametrize(
        "strip, names",
        [(1, ["a.txt", "sub/b.jpg", "sub/c.jpg"]), (2, ["b.jpg", "c.jpg"]), (None, ["a.txt", "b.jpg", "c.jpg"])],
    )
    def test_leading_folders_are_stripped(self, pack, tmp_path, strip, names):
        members = {"./top": special("./top", tarfile.DIRTYPE)} | {
            f"./{name}": content for name, content in GOOD.items()
        }
        assert unpack_tar(pack(members), tmp_path / "out", strip=strip) == len(names)
        assert sorted(contents(tmp_path / "out")) == names

    def test_only_what_is_wanted_is_unpacked(self, pack, tmp_path):
        assert unpack_tar(pack(GOOD), tmp_path / "out", strip=1, wanted=lambda name: name == "sub/b.jpg") == 1
        assert files_below(tmp_path / "out") == ["sub", "sub/b.jpg"]

    def test_a_folder_that_is_there_is_left_alone(self, pack, tmp_path):
        archive = pack(GOOD)
        unpack_tar(archive, tmp_path / "out")
        archive.unlink()
        assert unpack_tar(archive, tmp_path / "out") == 0

    def test_several_archives_are_merged_into_a_folder(self, pack, tmp_path):
        for name, members in (("1.tgz", GOOD), ("2.tgz", {"top/sub/b.jpg": b"new", "other/d": b"d"})):
            unpack_tar(pack(members, name), tmp_path / "out", merge=True)
        assert contents(tmp_path / "out") == GOOD | {"top/sub/b.jpg": b"new", "other/d": b"d"}
        assert sorted(os.listdir(tmp_path)) == ["1.tgz", "2.tgz", "out"]

    def test_a_linked_folder_is_filled_where_it_is(self, pack, tmp_path):
        (tmp_path / "disk" / "real").mkdir(parents=True)
        (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
        unpack_tar(pack(GOOD), tmp_path / "out", merge=True)
        assert contents(tmp_path / "disk") == {f"real/{name}": content for name, content in GOOD.items()}

    @pytest.mark.parametrize(
        "member",
        [
            ("../evil", b"x"),
            ("/tmp/evil", b"x"),
            ("a/../../evil", b"x"),
            ("a/../b", b"x"),
            ("l", special("l", tarfile.SYMTYPE, "/etc/passwd")),
            ("l", special("l", tarfile.SYMTYPE, "../x")),
            ("a/l", special("a/l", tarfile.SYMTYPE, "..")),
            ("l", special("l", tarfile.LNKTYPE, "../x")),
            ("l", special("l", tarfile.LNKTYPE, "/etc/passwd")),
            ("d", special("d", tarfile.CHRTYPE)),
            ("d", special("d", tarfile.BLKTYPE)),
            ("p", special("p", tarfile.FIFOTYPE)),
        ],
        ids=lambda member: f"{member[0]}",
    )
    @pytest.mark.parametrize("wanted", [None, lambda name: name == "first"])
    def test_hostile_members_are_refused_and_nothing_is_left(self, pack, tmp_path, member, wanted):
        archive = pack([("first", b"1"), member])
        with pytest.raises(ArchiveError, match=r"x.tar.gz: .*do not use this archive") as error:
            unpack_tar(archive, tmp_path / "in" / "out", wanted=wanted)
        assert "\n" not in str(error.value)
        assert files_below(tmp_path) == ["in", "x.tar.gz"]

    def test_links_inside_are_unpacked(self, pack, tmp_path):
        links = [
            ("", special("top/soft", tarfile.SYMTYPE, "sub/b.jpg")),
            ("", special("top/hard", tarfile.LNKTYPE, "top/a.txt")),
        ]
        unpack_tar(pack([*GOOD.items(), *links]), tmp_path / "out", strip=1)
        assert (tmp_path / "out/soft").read_bytes() == b"b" and os.readlink(tmp_path / "out/soft") == "sub/b.jpg"
        assert (tmp_path / "out/hard").read_bytes() == b"a" * 2000

    @pytest.mark.parametrize("kind, target", [(tarfile.SYMTYPE, "sub/b.jpg"), (tarfile.LNKTYPE, "top/a.txt")])
    def test_links_inside_are_refused_where_none_are_expected(self, pack, tmp_path, kind, target):
        with pytest.raises(ArchiveError, match="'top/link' is a link"):
            unpack_tar(pack([*GOOD.items(), ("", special("top/link", kind, target))]), tmp_path / "out", links=False)
        assert files_below(tmp_path) == ["x.tar.gz"]

    def test_a_file_behind_a_link_stays_inside(self, pack, tmp_path):
        unpack_tar(
            pack([("", special("d", tarfile.DIRTYPE)), ("", special("l", tarfile.SYMTYPE, "d")), ("l/x", b"x")]),
            tmp_path / "out",
        )
        assert (tmp_path / "out/d/x").read_bytes() == b"x"

    def test_without_folders_links_and_files_of_one_name_are_refused(self, pack, tmp_path):
        with pytest.raises(InputError, match="is a link"):
            unpack_tar(pack([("", special("l", tarfile.SYMTYPE, "x"))]), tmp_path / "out", strip=None)
        with pytest.raises(InputError, match="'a/x' and 'b/x' have one name"):
            unpack_tar(pack({"a/x": b"1", "b/x": b"2"}), tmp_path / "out", strip=None)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("content", [b"", b"no archive", b"<html>" * 2000])
    def test_what_is_no_archive_is_one_line(self, tmp_path, content):
        (tmp_path / "x.tgz").write_bytes(content)
        with pytest.raises(ArchiveError, match="x.tgz: not a tar archive.*download it again"):
            unpack_tar(tmp_path / "x.tgz", tmp_path / "out")
        assert files_below(tmp_path) == ["x.tgz"]

    def test_a_missing_archive_is_one_line(self, tmp_path):
        with pytest.raises(InputError, match="x.tgz: cannot be read .No such file"):
            unpack_tar(tmp_path / "x.tgz", tmp_path / "out")

    @pytest.mark.parametrize("wanted", [None, lambda name: False])
    def test_an_archive_without_the_files_is_one_line(self, pack, tmp_path, wanted):
        with pytest.raises(InputError, match="none of the files looked for"):
            unpack_tar(pack({} if wanted is None else GOOD), tmp_path / "out", wanted=wanted)

    def test_a_fault_of_the_disk_is_not_one_of_the_archive(self, pack, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "top").write_text("a file")
        with pytest.raises(InputError, match="out: x.tar.gz cannot be unpacked .File exists") as error:
            unpack_tar(pack(GOOD), tmp_path / "out", merge=True)
        assert error.type is InputError and files_below(tmp_path) == ["out", "out/top", "x.tar.gz"]

    @settings(max_examples=60)
    @given(st.booleans(), st.floats(0, 1, exclude_max=True))
    def test_an_archive_that_is_cut_anywhere_is_refused(self, tmp_path_factory, compress, place):
        folder = tmp_path_factory.mktemp("cut")
        # tarfile pads to 10,240 bytes with zeros, of which one block is the mark of the end.
        whole = tar_bytes(GOOD, compress)
        end = len(whole) if compress else len(whole.rstrip(b"\0")) + 1
        (folder / "x").write_bytes(whole[: int(place * end)])
        with pytest.raises(ArchiveError) as error:
            unpack_tar(folder / "x", folder / "out")
        assert "\n" not in str(error.value) and files_below(folder) == ["x"]

    def test_a_whole_gzip_of_half_an_archive_is_refused(self, tmp_path):
        half = tar_bytes(GOOD, compress=False)[: 512 + 2048]  # header and content of the first file
        (tmp_path / "x.tgz").write_bytes(gzip.compress(half))
        with pytest.raises(ArchiveError, match="damaged archive"):
            unpack_tar(tmp_path / "x.tgz", tmp_path / "out")

    @settings(max_examples=40)
    @given(st.integers(0, 10**6), st.integers(1, 255))
    def test_a_changed_byte_of_a_compressed_archive_never_passes_as_other_files(self, tmp_path_factory, place, change):
        folder = tmp_path_factory.mktemp("changed")
        data = bytearray(tar_bytes(GOOD))
        data[place % len(data)] ^= change
        (folder / "x").write_bytes(data)
        try:
            unpack_tar(folder / "x", folder / "out")
        except InputError as error:
            assert "\n" not in str(error) and files_below(folder) == ["x"]
        else:
            assert contents(folder / "out") == GOOD  # the byte was one of gzip's header that means nothing here

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))
    def test_a_garbled_archive_is_refused_or_stays_inside(self, tmp_path_factory, changes):
        folder = tmp_path_factory.mktemp("garbled")
        data = bytearray(
            tar_bytes([*GOOD.items(), ("", special("top/soft", tarfile.SYMTYPE, "a.txt"))], compress=False)
        )
        for place, garbage in changes:
            # Headers are at the multiples of 512 below 6 blocks or so; contents are of no interest.
            place %= 512 * 12
            data[place : place + len(garbage)] = garbage
        (folder / "x").write_bytes(data)
        try:
            unpack_tar(folder / "x", folder / "out")
        except InputError as error:
            assert "\n" not in str(error)
        assert {path.name for path in folder.iterdir()} <= {"x", "out"}
